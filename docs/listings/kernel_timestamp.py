# SPDX-License-Identifier: MIT
"""When the kernel got a datagram, in nanoseconds, however late the program comes to read it (Linux)."""

import socket
import struct
import time

from lowsock import CMSG_SPACE, recvmsg
from lowsock.constants import SCM_TIMESTAMPNS, SO_TIMESTAMPNS, SOL_SOCKET

TIMESPECS = {struct.calcsize(form): struct.Struct(form) for form in ("=qq", "=ii")}  # by size: 64-bit time, 32-bit time


def receive_stamped(sock, size):
    """Data and the nanoseconds since 1970 at which it came, or None where the kernel did not say."""
    room = 2 * CMSG_SPACE(16)  # twice: the libc of a 32-bit system may add a second one
    data, ancdata, flags, address = recvmsg(sock, size, room)
    for level, kind, payload in ancdata:
        if (level, kind) == (SOL_SOCKET, SCM_TIMESTAMPNS) and len(payload) in TIMESPECS:
            seconds, nanoseconds = TIMESPECS[len(payload)].unpack(payload)
            return data, seconds * 10**9 + nanoseconds
    return data, None


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.settimeout(1)
        receiver.bind(("127.0.0.1", 0))
        sent = time.time_ns()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"tick", receiver.getsockname())
        time.sleep(0.02)  # the program has something else to do
        data, stamp = receive_stamped(receiver, 100)
        if stamp is None:
            raise SystemExit("the kernel gave no timestamp")
        read = time.time_ns()
        print(f"{data!r} was read {(read - sent) / 10**6:.1f} ms after it had been sent")
        print(f"it came {(stamp - sent) / 10**6:.1f} ms after it had been sent")
        print("between the two, as it should be:", sent <= stamp <= read)


if __name__ == "__main__":
    main()
