# SPDX-License-Identifier: MIT
"""Memory that the kernel reads after a send: the count of zero-copy sends, and one send. See send(2), MSG_ZEROCOPY.

The kernel counts a socket's zero-copy sends from 0 and tells the numbers when it is done with their memory. `Ledger` keeps
the same count: a piece of memory is released by its number alone, so the count must never be off.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Callable

from lowsock._memory.ancillary import SOL_SOCKET, Control
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS, MSG_DONTWAIT
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock.cmsg._fields import UINT32
from lowsock.errqueue._events import ZeroCopyCompletion

if TYPE_CHECKING:
    from typing_extensions import Self

    from lowsock._system.types import CData

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

    def __init__(self, owner: Any, memory: CData, size: int) -> None:
        self.owner, self.memory, self.size = owner, memory, size

    def overlaps(self, other: Piece) -> bool:
        return self.memory < other.memory + other.size and other.memory < self.memory + self.size


def forgetting(lent: dict[int, Any], number: int) -> Any:
    """What takes lent memory off the list when no view of it is left; the number may be another's by then."""

    def forget(ref: Any) -> None:
        if lent.get(number) is ref:
            del lent[number]

    return forget


# ---- the count ----


class Ledger:
    """Which pieces are in flight, by the numbers that the kernel gave their sends. Numbers wrap at 2**32."""

    def __init__(self, key: int) -> None:
        self.next = key
        self.open: Attempt | None = None  # what it came to has not been entered yet
        self.pieces: dict[int, Piece] = {}
        self.copied = 0
        self.doubt = 0  # sends that failed and may have been counted all the same: while there are any, none is made
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
        if self.open is not None and self.open.outcome:
            self.doubt += self.open.answer < 0
            if self.open.answer >= 0:
                self.enter(self.open)
        return list(self.pieces.values())

    def is_off(self) -> bool:
        """Whether it may be behind the kernel's count."""
        return self.astray or self.doubt > 0

    def was_given(self, key: int) -> bool:
        return (key - self.next) & UINT32 >= _HALF

    def settle(self, told: ZeroCopyCompletion) -> None:
        """Releases what the kernel is done with."""
        ahead = (told.last - self.next) & UINT32
        if ahead < self.doubt:
            self.doubt -= ahead + 1
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

# What devices and their queues refuse. UDP has counted the send by then. One packet is freed with its refusal; of a
# datagram in several, which the kernel copies, the first may have left or wait.
_FROM_BELOW = {errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.EPERM}
_SOL_UDP = CONSTANTS.get("SOL_UDP", 17)
_TOO_MANY = bytes(4096)  # as datagrams of one byte each


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

    @property
    def may_count(self) -> bool:
        """Of a refusal: whether the kernel may have counted it, and not have told so yet."""
        return self.key is not None and not self.counted and -self.answer in _FROM_BELOW

    def call(self, fd: int, message: Message) -> None:
        """A list that is extended by a map has the answer before any Python code, such as a handler, can run again."""
        control, piece, name = message.control, message.piece, message.name
        flags = message.flags | MSG_DONTWAIT | (0 if self.key is None else MSG_ZEROCOPY)
        memory = (piece.memory,), (piece.size,), (control.payload,), (control.table,), (control.rows,), (name,), (len(name),)
        self.outcome += map(lib.lowsock_sendmsg, (fd,), *memory, (flags,))

    @property
    def answer(self) -> int:
        return self.outcome[0]


def probe(fd: int, name: bytes) -> None:
    """Sends nothing, but makes the kernel tell its count, where that can be: UDP counts a datagram of more segments than it
    takes, then refuses it, and its completion comes at once. It asks for no timestamp, which would be counted too."""
    if lib.lowsock_option(fd, _SOL_UDP, CONSTANTS["UDP_CORK"]):
        return  # it would be added to what waits there
    payload = struct.pack("=HI", 1, 0)
    table = [_SOL_UDP, CONSTANTS["UDP_SEGMENT"], 2, SOL_SOCKET, CONSTANTS["SO_TIMESTAMPING"], 4]
    flags = MSG_ZEROCOPY | MSG_DONTWAIT
    lib.lowsock_sendmsg(fd, _TOO_MANY, len(_TOO_MANY), payload, table, 2, name, len(name), flags)


def counts_refused(fd: int) -> bool:
    """Whether this kind of socket may have counted a send that it refused: TCP takes the number back."""
    return bool(lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_TYPE"]) == socket.SOCK_DGRAM)


# ---- sockets and their senders ----

HELD: set[Ledger] = set()  # of all senders; when one ends with sends incomplete, its own stays as long as the process runs
_LEFT: dict[int, Ledger] = {}  # the last of a socket, by its cookie: it knows how far the count is
_REMEMBERED = 4096  # of those
_FAMILIES = (socket.AF_INET, socket.AF_INET6)  # AF_VSOCK may count one send several times


def first_number(fd: int, name: int, first_key: int | None) -> int:
    """What the next zero-copy send of a socket counts as: as told, or as its last sender left it."""
    if first_key is not None:
        return checked_int("first_key", first_key, least=0, most=UINT32)
    known = _LEFT.get(name)
    if known is not None:
        known.end()
    if known.is_off() if known else lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"]) > 0:
        raise ValueError("first_key must be told: SO_ZEROCOPY is set, so zero-copy sends may have been counted already")
    return known.next if known else 0


def set_option(fd: int) -> None:
    answer = -errno.EOPNOTSUPP
    if lib.lowsock_family(fd) in _FAMILIES:
        answer = lib.lowsock_set_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"], 1)
    if -answer in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
        raise NotImplementedError(f"no zero-copy sends (SO_ZEROCOPY) on this socket: {os.strerror(-answer)}")
    if answer < 0:
        fail(answer)


def remember(name: int, ledger: Ledger) -> None:
    """The next sender of this socket goes on with its count."""
    _LEFT.pop(name, None)
    while len(_LEFT) >= _REMEMBERED:
        del _LEFT[next(iter(_LEFT))]
    _LEFT[name] = ledger


_hold_for_ever: Callable[[object], object] | None = None
if sys.implementation.name == "cpython":
    try:  # now: at the end nothing may be there to import from
        from _ctypes import Py_INCREF as _hold_for_ever
    except ImportError:  # it was built without ctypes
        pass


def _outlive() -> None:
    """CPython frees all memory before the process ends, and sockets may still send from it: one reference keeps it."""
    if any(ledger.end() for ledger in HELD) and _hold_for_ever is not None:
        _hold_for_ever(HELD)


if _hold_for_ever is not None:
    atexit.register(_outlive)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LEFT.clear)  # the parent goes on counting
