# SPDX-License-Identifier: MIT
"""Memory that the kernel reads after a send: the count of zero-copy sends, and one send. See send(2), MSG_ZEROCOPY.

The kernel counts a socket's zero-copy sends from 0 and tells the numbers when it is done with their memory. `Ledger` keeps
the same count: a piece of memory is released by its number alone, so the count must never be off.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from lowsock._ancillary import SOL_SOCKET, Control
from lowsock._calling import MSG_DONTWAIT, checked_int, fail
from lowsock._constants import CONSTANTS
from lowsock._errqueue import ZeroCopyCompletion
from lowsock._ffi import lib
from lowsock.cmsg._fields import UINT32

if TYPE_CHECKING:
    from typing_extensions import Self

    from lowsock._types import CData

MSG_ZEROCOPY = CONSTANTS.get("MSG_ZEROCOPY", 0)
_HALF = 2**31


class Sent(int):
    """The bytes that a send took. ``key``: its number among the zero-copy sends of the socket, None for a plain copy."""

    key: int | None

    def __new__(cls, size: int, key: int | None = None) -> Self:
        self = super().__new__(cls, size)
        self.key = key
        return self

    def __repr__(self) -> str:
        return f"Sent({int(self)}, key={self.key})"

    __str__ = int.__repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return Sent, (int(self), self.key)


class Piece:
    """Memory that the kernel may read: ``memory`` points to it, ``owner`` is what keeps it."""

    __slots__ = ("memory", "owner", "size")

    def __init__(self, owner: Any, memory: CData) -> None:
        self.owner, self.memory, self.size = owner, memory, len(memory)

    def overlaps(self, other: Piece) -> bool:
        return self.memory < other.memory + other.size and other.memory < self.memory + self.size


# ---- the count ----


class Ledger:
    """Which pieces are in flight, by the numbers that the kernel gave their sends. Numbers wrap at 2**32."""

    def __init__(self, key: int) -> None:
        self.next = key
        self.open: Attempt | None = None  # what it came to has not been entered yet
        self.pieces: dict[int, Piece] = {}
        self.copied = 0
        self.refused = False  # a send just failed that may have been counted all the same
        self.astray = False  # numbers came that are not ours: nothing can be released any more

    def put(self, key: int, piece: Piece) -> None:
        """Enters a piece under its number. To do so twice does no harm."""
        self.pieces[key] = piece
        self.next = (key + 1) & UINT32

    def enter(self, attempt: Attempt) -> None:
        """Enters what the kernel took by an attempt."""
        if attempt.key is not None:
            self.put(attempt.key, attempt.piece)

    def end(self) -> list[Piece]:
        """What is in flight when nobody will read completions any more."""
        if self.open is not None and self.open.outcome and self.open.answer >= 0:
            self.enter(self.open)
        return list(self.pieces.values())

    def was_given(self, key: int) -> bool:
        return (key - self.next) & UINT32 >= _HALF

    def settle(self, told: ZeroCopyCompletion) -> None:
        """Releases what the kernel is done with."""
        if self.refused and told.last == self.next:
            self.next = (told.last + 1) & UINT32
        if self.astray or not self.was_given(told.last):
            self.astray = True
            return
        for key in self._held(told):
            if self.pieces.pop(key, None) is not None:
                self.copied += told.copied

    def _held(self, told: ZeroCopyCompletion) -> list[int]:
        if told.sends <= len(self.pieces):
            return [key for key in told.keys() if key in self.pieces]  # noqa: SIM118  # not a mapping's
        return [key for key in self.pieces if told.covers(key)]


# ---- one send ----


class Message:
    """What `ZeroCopySender.send` was given, checked."""

    __slots__ = ("control", "flags", "name", "piece")

    def __init__(self, piece: Piece, name: bytes, flags: int, control: Control) -> None:
        self.piece, self.name, self.flags, self.control = piece, name, flags, control


class Attempt:
    """One system call: ``outcome`` is empty until it was made, then holds its answer."""

    __slots__ = ("counted", "key", "news", "outcome", "piece")

    def __init__(self, piece: Piece, key: int | None) -> None:
        self.piece, self.key = piece, key
        self.outcome: list[int] = []
        self.news = self.counted = False  # of a refusal: whether events came, and whether the kernel counted it

    def call(self, fd: int, message: Message) -> None:
        """A list that is extended by a map has the answer before any Python code, such as a handler, can run again."""
        (payload, table, rows, _), piece, name = message.control, message.piece, message.name
        flags = message.flags | MSG_DONTWAIT | (0 if self.key is None else MSG_ZEROCOPY)
        memory = (piece.memory,), (piece.size,), (payload,), (table,), (rows,), (name,), (len(name),)
        self.outcome += map(lib.lowsock_sendmsg, (fd,), *memory, (flags,))

    @property
    def answer(self) -> int:
        return self.outcome[0]


# ---- sockets and their senders ----

HELD: set[Ledger] = set()  # of all senders; when one ends with sends incomplete, its own stays as long as the process runs
_LEFT: dict[int, int] = {}  # the next number of a socket, by its cookie, as its last sender left it
_REMEMBERED = 4096  # of those
_FAMILIES = (socket.AF_INET, socket.AF_INET6)  # AF_VSOCK may count one send several times


def first_number(fd: int, name: int, first_key: int | None) -> int:
    """What the next zero-copy send of a socket counts as: as told, or as its last sender left it."""
    if first_key is not None:
        return checked_int("first_key", first_key, least=0, most=UINT32)
    if name not in _LEFT and lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"]) > 0:
        raise ValueError("first_key must be told: SO_ZEROCOPY is set, so zero-copy sends may have been counted already")
    return _LEFT.get(name, 0)


def set_option(fd: int) -> None:
    answer = -errno.EOPNOTSUPP
    if lib.lowsock_family(fd) in _FAMILIES:
        answer = lib.lowsock_set_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"], 1)
    if -answer in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
        raise NotImplementedError(f"no zero-copy sends (SO_ZEROCOPY) on this socket: {os.strerror(-answer)}")
    if answer < 0:
        fail(answer)


def remember(name: int, ledger: Ledger) -> None:
    """Notes for the next sender how far the count is."""
    _LEFT.pop(name, None)
    if ledger.astray:
        return
    while len(_LEFT) >= _REMEMBERED:
        del _LEFT[next(iter(_LEFT))]
    _LEFT[name] = ledger.next
