# SPDX-License-Identifier: MIT
"""Two streams connected to each other."""

import socket
from collections.abc import Iterator

import pytest

from lowsock import aio


@pytest.fixture
def socks() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ``AF_UNIX`` streams connected to each other that do not block."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def streams(socks):
    """An `aio.UnixStream` around each of `socks`."""
    with aio.UnixStream(socks[0]) as a, aio.UnixStream(socks[1]) as b:
        yield a, b
