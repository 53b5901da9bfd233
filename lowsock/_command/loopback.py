# SPDX-License-Identifier: MIT
"""Pairs of sockets on this machine, for the `lowsock` command: each has a timeout, and all are closed together."""

import contextlib
import socket
from typing import Callable

Pair = tuple[socket.socket, socket.socket]  # the one that sends, the one that receives

TIMEOUT = 0.5  # seconds: on loopback what has not come by then will not come
LOCALHOST = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Missing(Exception):
    """Something is missing that should be there or should have come; the message says what, in words."""


class Unsupported(Missing):
    """This interpreter does not support something that the kernel may support."""


def number(name: str) -> int:
    """A constant of the `socket` module that not every interpreter has (PyPy 7.3.11 has no ``AF_VSOCK``)."""
    try:
        return int(getattr(socket, name))
    except AttributeError:
        raise Unsupported(f"this Python's socket module has no {name}") from None


class Sockets:
    """Opens sockets, and closes them all on leaving the ``with`` block."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Sockets":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def callback(self, function: Callable[..., object], *args: object) -> None:
        """Calls ``function`` as the sockets are closed."""
        self._stack.callback(function, *args)

    def add(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(self._timeout)
        self._stack.enter_context(sock)
        return sock

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.add(socket.socket(family, kind, protocol))

    def unix(self, kind: int = socket.SOCK_STREAM) -> Pair:
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        return self.add(one), self.add(other)

    def udp(self, family: int = socket.AF_INET) -> Pair:
        """Two bound UDP sockets; the first is connected to the second."""
        one, other = self.bound(family, socket.SOCK_DGRAM), self.bound(family, socket.SOCK_DGRAM)
        one.connect(other.getsockname())
        return one, other

    def tcp(self) -> Pair:
        """Both ends of one TCP connection."""
        listener = self.bound(socket.AF_INET, socket.SOCK_STREAM)
        listener.listen(1)
        client = self.open(socket.AF_INET, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        return client, self.add(listener.accept()[0])

    def bound(self, family: int, kind: int) -> socket.socket:
        sock = self.open(family, kind)
        sock.bind((LOCALHOST[socket.AddressFamily(family)], 0))
        return sock
