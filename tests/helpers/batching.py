# SPDX-License-Identifier: MIT
"""What tests of batches share: sockets, messages to send, and what has arrived."""

import socket
import struct
from collections.abc import Iterator

import pytest

from lowsock import constants

TTL = (socket.IPPROTO_IP, socket.IP_TTL)


def ttl(hops: int) -> list[tuple[int, int, bytes]]:
    return [(*TTL, struct.pack("i", hops))]


def received(sock: socket.socket) -> list[bytes]:
    """All that has arrived."""
    found = []
    while True:
        try:
            found.append(sock.recv(2**17, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return found


def force_room(sock: socket.socket, size: int = 2**26) -> None:
    """A receive buffer for thousands of datagrams, also above the system's limit."""
    option = getattr(constants, "SO_RCVBUFFORCE", socket.SO_RCVBUF)
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    except PermissionError:
        pytest.skip("a large receive buffer takes CAP_NET_ADMIN")


@pytest.fixture
def dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b
