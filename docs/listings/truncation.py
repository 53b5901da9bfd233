# SPDX-License-Identifier: MIT
"""Data and control messages that do not fit, and the flags that tell."""

import os
import socket
from array import array

from lowsock import CMSG_SPACE, recvmsg, send_fds, sendmsg
from lowsock.constants import MSG_CTRUNC, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET


def names(flags):
    known = {"MSG_TRUNC": MSG_TRUNC, "MSG_CTRUNC": MSG_CTRUNC}
    return [name for name, flag in known.items() if flags & flag]


def receive_whole(sock, size=512):
    """The next datagram whole, whatever its size: peek with more and more room until nothing is cut."""
    while recvmsg(sock, size, 0, MSG_PEEK)[2] & MSG_TRUNC:
        size *= 4
    return recvmsg(sock, size)[0]


def data(sender, receiver):
    sendmsg(sender, [b"0123456789"])
    received, ancdata, flags, address = recvmsg(receiver, 4)
    print(f"data: {received!r} {names(flags)}")
    try:
        recvmsg(receiver, 4, 0, MSG_DONTWAIT)
    except BlockingIOError:
        print("data: the rest of a datagram is gone")

    sendmsg(sender, [b"0123456789"])
    received, ancdata, flags, address = recvmsg(receiver, 4, 0, MSG_TRUNC)
    print(f"data: asked for the real length, still {received!r} {names(flags)}")

    sendmsg(sender, [bytes(3000)])
    print(f"data: {len(receive_whole(receiver))} bytes, found by peeking")


def control(sender, receiver):
    send_fds(sender, [b"x"], [0] * 10)
    received, ancdata, flags, address = recvmsg(receiver, 1, CMSG_SPACE(4 * array("i").itemsize))
    for level, kind, payload in ancdata:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            fds = array("i", payload)
            print(f"control: {len(fds)} of 10 descriptors {names(flags)}")
            for fd in fds:
                os.close(fd)


def main():
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        data(sender, receiver)
        control(sender, receiver)


if __name__ == "__main__":
    main()
