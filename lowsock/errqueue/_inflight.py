# SPDX-License-Identifier: MIT
"""Memory that the kernel reads after a send: the zero-copy sends in flight, and one send. See send(2), MSG_ZEROCOPY.

The kernel numbers a socket's zero-copy sends from 0, and a completion names the numbers whose memory it is done with.
`InFlight` keeps the same count. The number alone says which memory is released, so the count must never be wrong.
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
from lowsock._system.errors import fail, unsupported
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


class Region:
    """Memory that the kernel may read: ``memory`` points to it, ``owner`` keeps it alive."""

    __slots__ = ("memory", "owner", "size")

    def __init__(self, owner: Any, memory: CData, size: int) -> None:
        self.owner, self.memory, self.size = owner, memory, size

    def overlaps(self, other: Region) -> bool:
        return self.memory < other.memory + other.size and other.memory < self.memory + self.size


def removal_callback(lent: dict[int, Any], number: int) -> Any:
    """A weak reference's callback: removes lent memory from ``lent`` when no view of it is left. By then ``number``, an
    `id`, may belong to another object."""

    def remove(ref: Any) -> None:
        if lent.get(number) is ref:
            del lent[number]

    return remove


# ---- the count ----


class InFlight:
    """The memory in flight, by the numbers of its sends as the kernel counts them. Numbers wrap at 2**32."""

    def __init__(self, key: int) -> None:
        self.next_key = key
        self.unrecorded: Attempt | None = None  # its outcome is not recorded yet
        self.regions: dict[int, Region] = {}
        self.copied = 0
        self.uncertain = 0  # sends that failed, but that the kernel may have counted: while there are any, no send is made
        self.saw_foreign = False  # a completion named numbers that are not ours: nothing can be released any more

    def add(self, key: int, region: Region) -> None:
        """Records the memory of a send. Doing it twice does no harm."""
        self.regions[key] = region
        self.next_key = (key + 1) & UINT32

    def record(self, attempt: Attempt) -> None:
        """Records an attempt that the kernel took."""
        if attempt.key is not None:
            self.add(attempt.key, attempt.region)

    def end(self) -> list[Region]:
        """What stays in flight, when nobody will read completions any more. It may be called twice."""
        if self.unrecorded is not None and self.unrecorded.outcome:
            self.uncertain += self.unrecorded.answer < 0
            if self.unrecorded.answer >= 0:
                self.record(self.unrecorded)
        return list(self.regions.values())

    def is_uncertain(self) -> bool:
        """Whether the kernel's count may be ahead of ours."""
        return self.saw_foreign or self.uncertain > 0

    def was_assigned(self, key: int) -> bool:
        """Whether a send had this number; half of all numbers are behind us (RFC 1982)."""
        return (key - self.next_key) & UINT32 >= _HALF

    def complete(self, completion: ZeroCopyCompletion) -> None:
        """Releases the memory that the kernel is done with."""
        ahead = (completion.last - self.next_key) & UINT32
        if ahead < self.uncertain:
            self.uncertain -= ahead + 1
            self.next_key = (completion.last + 1) & UINT32
        if self.saw_foreign or not self.was_assigned(completion.last):
            self.saw_foreign = True
            return
        for key in self._covered(completion):
            if self.regions.pop(key, None) is not None:
                self.copied += completion.copied

    def _covered(self, completion: ZeroCopyCompletion) -> list[int]:
        if completion.sends <= len(self.regions):
            return [key for key in completion.keys() if key in self.regions]  # noqa: SIM118  # not a mapping's
        return [key for key in self.regions if completion.covers(key)]


# ---- one send ----

# Refusals of devices and their queues. UDP has counted the send by then. A datagram of one packet is freed when it is
# refused; of one in several packets, which the kernel copies, the first may have left or may still wait.
_DEVICE_ERRORS = {errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.EPERM}
_SOL_UDP = CONSTANTS.get("SOL_UDP", 17)
_PROBE_DATA = bytes(4096)  # sent as datagrams of one byte each, which are too many


class Message:
    """The checked arguments of `ZeroCopySender.send`."""

    __slots__ = ("control", "flags", "name", "region")

    def __init__(self, region: Region, name: bytes, flags: int, control: Control) -> None:
        self.region, self.name, self.flags, self.control = region, name, flags, control


class Attempt:
    """One system call: ``outcome`` is empty until the call was made, then holds its answer."""

    __slots__ = ("counted", "got_events", "key", "outcome", "region")

    def __init__(self, region: Region, key: int | None) -> None:
        self.region, self.key = region, key
        self.outcome: list[int] = []
        self.got_events = self.counted = False  # of a refusal: whether events came, and whether the kernel counted it

    @property
    def may_be_counted(self) -> bool:
        """Of a refusal: whether the kernel may have counted it without having said so yet."""
        return self.key is not None and not self.counted and -self.answer in _DEVICE_ERRORS

    def call(self, fd: int, message: Message) -> None:
        """Makes the call. Extending a list by a map stores the answer before any Python code, such as a handler, can run."""
        control, region, name = message.control, message.region, message.name
        flags = message.flags | MSG_DONTWAIT | (0 if self.key is None else MSG_ZEROCOPY)
        memory, messages = ((region.memory,), (region.size,)), ((control.payload,), (control.table,), (control.rows,))
        self.outcome += map(lib.lowsock_sendmsg, (fd,), *memory, *messages, (name,), (len(name),), (flags,))

    @property
    def answer(self) -> int:
        return self.outcome[0]


def probe(fd: int, name: bytes) -> None:
    """Sends nothing, but makes the kernel reveal its count where it can: UDP counts a datagram of too many segments, then
    refuses it, and its completion comes at once. It asks for no timestamp, which would be counted too."""
    if lib.lowsock_option(fd, _SOL_UDP, CONSTANTS["UDP_CORK"]):
        return  # it would be appended to the corked datagram
    payload = struct.pack("=HI", 1, 0)
    table = [_SOL_UDP, CONSTANTS["UDP_SEGMENT"], 2, SOL_SOCKET, CONSTANTS["SO_TIMESTAMPING"], 4]
    flags = MSG_ZEROCOPY | MSG_DONTWAIT
    lib.lowsock_sendmsg(fd, _PROBE_DATA, len(_PROBE_DATA), payload, table, 2, name, len(name), flags)


def counts_refused(fd: int) -> bool:
    """Whether this kind of socket may count a send that it refuses: TCP takes the number back."""
    return bool(lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_TYPE"]) == socket.SOCK_DGRAM)


# ---- sockets and their senders ----

KEEP_ALIVE: set[InFlight] = set()  # of all senders; of one that ends with sends incomplete until the process ends
_BY_COOKIE: dict[int, InFlight] = {}  # the last of a socket, by its cookie: it knows the count
_MAX_REMEMBERED = 4096  # sockets in `_BY_COOKIE`
_FAMILIES = (socket.AF_INET, socket.AF_INET6)  # AF_VSOCK may count one send several times


def initial_key(fd: int, cookie: int, first_key: int | None) -> int:
    """The number of a socket's next zero-copy send: ``first_key``, or where its last sender left off."""
    if first_key is not None:
        return checked_int("first_key", first_key, least=0, most=UINT32)
    last = _BY_COOKIE.get(cookie)
    if last is not None:
        last.end()
    if last.is_uncertain() if last else lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"]) > 0:
        raise ValueError("first_key must be told: SO_ZEROCOPY is set, so zero-copy sends may have been counted already")
    return last.next_key if last else 0


def enable_zerocopy(fd: int) -> None:
    answer = -errno.EOPNOTSUPP
    if lib.lowsock_family(fd) in _FAMILIES:
        answer = lib.lowsock_set_option(fd, SOL_SOCKET, CONSTANTS["SO_ZEROCOPY"], 1)
    if -answer in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
        unsupported(f"no zero-copy sends (SO_ZEROCOPY) on this socket: {os.strerror(-answer)}", -answer)
    if answer < 0:
        fail(answer)


def remember(cookie: int, in_flight: InFlight) -> None:
    """Lets the next sender of this socket go on with its count."""
    _BY_COOKIE.pop(cookie, None)
    while len(_BY_COOKIE) >= _MAX_REMEMBERED:
        del _BY_COOKIE[next(iter(_BY_COOKIE))]
    _BY_COOKIE[cookie] = in_flight


try:  # now: at exit an import may fail
    from _ctypes import Py_INCREF

    _incref: Callable[[object], object] | None = Py_INCREF
except ImportError:  # PyPy, or a CPython that was built without ctypes
    _incref = None


def _keep_at_exit() -> None:
    """Leaks the memory in flight: CPython frees all memory before the process ends, when sockets may still send from it."""
    if any(in_flight.end() for in_flight in KEEP_ALIVE) and _incref is not None:
        _incref(KEEP_ALIVE)


if sys.implementation.name == "cpython":
    atexit.register(_keep_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BY_COOKIE.clear)  # the parent goes on counting
