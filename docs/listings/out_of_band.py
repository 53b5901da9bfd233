# SPDX-License-Identifier: MIT
"""The one urgent byte of a stream: where it was sent, when it has come, how it is read past or in place."""

import select
import socket

from lowsock import recv1msg, send1msg, sockatmark
from lowsock.constants import MSG_OOB


def wait_for_urgent(sock, seconds):
    """Whether out-of-band data comes in time."""
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    return bool(poll.poll(seconds * 1000))


def read_to_the_mark(sock):
    """Everything that was sent before the urgent byte: a receive never crosses the mark."""
    before = b""
    while not sockatmark(sock):
        data, flags, ancillary = recv1msg(sock, 1024, cmsg_size=0)
        if not data:
            raise EOFError("the peer closed before the mark")
        before += data
    return before


def converse(name, sender, receiver):
    send1msg(sender, b"before")
    send1msg(sender, b"!", MSG_OOB)
    send1msg(sender, b"after")
    if not wait_for_urgent(receiver, 1):
        raise SystemExit(f"{name}: no urgent byte came")
    print(f"{name}: {read_to_the_mark(receiver)!r} stands before the mark")
    urgent, flags, ancillary = recv1msg(receiver, 1, flags=MSG_OOB)
    print(f"{name}: {urgent!r} is the urgent byte")
    rest, flags, ancillary = recv1msg(receiver, 1024)
    print(f"{name}: {rest!r} comes after, at the mark: {sockatmark(receiver)}")


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def tcp():
    sender, receiver = tcp_pair()
    with sender, receiver:
        converse("TCP", sender, receiver)


def unix():
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with sender, receiver:
        try:
            converse("AF_UNIX", sender, receiver)
        except OSError as error:  # Linux has had it since 5.15, if built so; others may not
            print(f"AF_UNIX: not here ({error.strerror})")


if __name__ == "__main__":
    tcp()
    unix()
