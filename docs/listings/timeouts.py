# SPDX-License-Identifier: MIT
"""How long a call waits: a timeout of the socket, no time at all, one call only; and a signal in the middle."""

import signal
import socket
import time

from lowsock import recvmsg, send1msg
from lowsock.constants import MSG_DONTWAIT


def receive_within(sock, seconds):
    """A message, or None if none comes in time."""
    sock.settimeout(seconds)
    try:
        return recvmsg(sock, 100)[0]
    except socket.timeout:  # the same class as TimeoutError from Python 3.10 on
        return None


def receive_now(sock):
    """A message that is already there, or None; the socket itself stays as it is."""
    try:
        return recvmsg(sock, 100, 0, MSG_DONTWAIT)[0]
    except BlockingIOError:
        return None


def main():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        start = time.monotonic()
        print("within 50 ms:", receive_within(ours, 0.05), "- waited:", time.monotonic() - start >= 0.05)

        ours.settimeout(None)
        print("now, though the socket blocks:", receive_now(ours))

        signal.signal(signal.SIGALRM, lambda number, frame: send1msg(theirs, b"from the handler"))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        data, ancdata, flags, address = recvmsg(ours, 100)
        print("a signal's handler runs, and the call goes on:", data)


if __name__ == "__main__":
    main()
