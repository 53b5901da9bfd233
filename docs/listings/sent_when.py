# SPDX-License-Identifier: MIT
"""When datagrams really left: transmit timestamps from the error queue (Linux)."""

import socket
import sys
import time

from lowsock import cmsg, errqueue, sendmsg

FLAGS = cmsg.TimestampingFlags


def events(sock, count):
    """So many events of the error queue, waited for."""
    found = []
    while len(found) < count:
        found += errqueue.wait(sock, timeout=1) or sys.exit("the kernel did not say")
    return found


def main():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        asked = FLAGS.SOFTWARE | FLAGS.TX_SOFTWARE | FLAGS.OPT_ID | FLAGS.OPT_TSONLY
        cmsg.enable(sender, cmsg.Timestamping, timestamping=asked)
        began = time.time_ns()
        for data in (b"one", b"two"):
            sendmsg(sender, [data])
        for event in events(sender, 2):
            later = (event.software_ns - began) // 1000
            print(f"message {event.key}: {event.stage.name.lower()} {later} us after we began")


if __name__ == "__main__":
    main()
