# SPDX-License-Identifier: MIT
"""Pairs of sockets for the cases, and each kind of first argument for them."""

import os
import socket
from typing import Any, Callable

from lowsock._memory import address as _address

Loop = Callable[[int], Any]
Pair = tuple[socket.socket, socket.socket]


class Wrapper:
    """An object that is no socket and has a ``fileno()``."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()


class Subclass(socket.socket):
    """A socket that is not a plain one."""


def subclass(sock: socket.socket) -> Subclass:
    copy = Subclass(fileno=os.dup(sock.fileno()))
    copy.settimeout(sock.gettimeout())
    return copy


KINDS: dict[str, Callable[[socket.socket], Any]] = {
    "lowsock": lambda sock: sock,
    "int": lambda sock: sock.fileno(),
    "subclass": subclass,
    "wrapper": Wrapper,
}


def by_kind(ours: Callable[[Any, Any], Loop], a: socket.socket, b: socket.socket) -> dict[str, Loop]:
    """The same loop for each kind of first argument."""
    return {name: ours(kind(a), kind(b)) for name, kind in KINDS.items()}


def unix_pair(kind: int) -> Pair:
    return socket.socketpair(socket.AF_UNIX, kind)


def udp_pair(connected: bool = True) -> Pair:
    pair = tuple(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in pair:
        sock.bind(("127.0.0.1", 0))
    for sock, peer in zip(pair, reversed(pair)):
        if connected:
            sock.connect(peer.getsockname())
    return pair


def checked(answer: int) -> None:
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))


def sockaddr(ffi: Any, sock: socket.socket) -> Any:
    """The bytes of a socket's own IPv4 address, for the C loops."""
    return ffi.new("char[]", _address.encode(socket.AF_INET, sock.getsockname()))
