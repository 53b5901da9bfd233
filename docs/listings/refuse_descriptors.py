# SPDX-License-Identifier: MIT
"""Descriptors that nobody asked for are dropped where there is no room for them; peeking copies those asked for."""

import os
import socket

from lowsock import recv_fds, recvmsg, send_fds
from lowsock.constants import MSG_CTRUNC, MSG_PEEK


def open_descriptors():
    return len(os.listdir("/dev/fd"))


def main():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        before = open_descriptors()
        send_fds(theirs, [b"gift"], [0, 1, 2])
        data, ancdata, flags, address = recvmsg(ours, 100, 0)
        print(f"no room: {data!r} with {len(ancdata)} control messages, dropped: {bool(flags & MSG_CTRUNC)}")
        print(f"descriptors gained: {open_descriptors() - before}")

        send_fds(theirs, [b"asked for"], [0])
        data, peeked, flags, address = recv_fds(ours, 100, 1, MSG_PEEK)
        data, taken, flags, address = recv_fds(ours, 100, 1)
        print(f"a peek made a copy of its own: {peeked != taken}")
        for fd in peeked + taken:
            os.close(fd)


if __name__ == "__main__":
    main()
