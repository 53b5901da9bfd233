# SPDX-License-Identifier: MIT
"""Datagrams that came, the memory that one system call fills with them, and how they are cut out of it.

All datagrams that UDP_GRO put together have one source and the same control messages, and so have most that follow: C says
when they are others than the last time, and only then anything is decoded.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._memory.address import decode_name
from lowsock._memory.ancillary import parse
from lowsock._memory.buffers import PYPY
from lowsock._system.ffi import ffi, lib
from lowsock.cmsg._portable import arrival
from lowsock.cmsg._questions import ECN

if TYPE_CHECKING:
    from lowsock._system.types import Address

    Source = tuple[Address, "str | None", "int | None", "ECN | None", int]

DATAGRAM, SIZE, SHIFT = lib.LOWSOCK_DATAGRAM, lib.LOWSOCK_SIZE, lib.LOWSOCK_SEGMENT_SHIFT
NEWS = 1 << lib.LOWSOCK_CHANGED_SHIFT
_BURST, _KEY = lib.LOWSOCK_BURST, lib.LOWSOCK_KEY
_COUNT = (1 << SHIFT) - 1
_KEPT = 1024  # sources, and control messages of them, that need not be decoded again
_SHAPES = 64  # formats that cut a buffer into datagrams

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_sources: dict[bytes, Address] = {}
_told: dict[bytes, tuple[str | None, int | None, ECN | None]] = {}
_formats: dict[int, Any] = {}
_burst_formats: dict[int, Any] = {}


class Datagram(NamedTuple):
    """A datagram and how it came. See udp(7)."""

    data: bytes
    address: Address
    """Where it came from."""
    local: str | None = None
    """Our address that it came to, to answer from; IPv4's own form on an IPv6 socket too. None where it is not told."""
    ifindex: int | None = None
    """The interface that it came in by; None where it is not told."""
    ecn: ECN | None = None
    """Explicit congestion notification; None where it is not told."""
    timestamp: int | None = None
    """When the kernel received it, in nanoseconds since the epoch; None where the endpoint did not ask."""
    msg_flags: int = 0
    """``MSG_CTRUNC``: more control messages than there was room for were asked for. No data is ever cut off."""


class Coalesced(NamedTuple):
    """One or more datagrams in a row, as the kernel put them together; all came in the same way. See udp(7), UDP_GRO."""

    data: bytes
    segment_size: int
    """The bytes of each datagram; the last may be shorter. ``len(data)`` if there is but one, and at least 1."""
    address: Address
    local: str | None = None
    ifindex: int | None = None
    ecn: ECN | None = None
    timestamp: int | None = None
    msg_flags: int = 0

    @property
    def segments(self) -> int:
        """How many datagrams there are."""
        return max(-(-len(self.data) // self.segment_size), 1) if self.segment_size else 1

    @property
    def datagrams(self) -> list[Datagram]:
        """The datagrams, each by itself."""
        data, size = self.data, self.segment_size
        pieces = [data[at : at + size] for at in range(0, len(data), size)] if data else [data]
        return [Datagram(piece, *self[2:]) for piece in pieces]


class Received(NamedTuple):
    """What `Endpoint.recv_into` put into the caller's memory, and how it came. See udp(7)."""

    nbytes: int
    segment_size: int
    """The bytes of each datagram; the last may be shorter. ``nbytes`` if there is but one, and at least 1."""
    address: Address
    local: str | None = None
    ifindex: int | None = None
    ecn: ECN | None = None
    timestamp: int | None = None
    msg_flags: int = 0
    """``MSG_TRUNC``: the buffers were too small, and the rest is lost."""


class Arrivals:
    """``struct lowsock_arrival`` and the memory that its pointers lead to. Whoever took it owns it alone."""

    __slots__ = ("_key", "_memory", "burst", "data", "source", "struct")

    def __init__(self) -> None:
        self.struct = ffi.new("struct lowsock_arrival *")
        sizes = DATAGRAM, lib.LOWSOCK_SOCKADDR, lib.LOWSOCK_CONTROL_ROOM, _KEY
        self._memory = data, name, control, key = [_allocate("char[]", size) for size in sizes]
        self.struct.data, self.struct.name, self.struct.control, self.struct.key = data, name, control, key
        self.struct.name_size = self.struct.control_size = -1
        self.data, self._key = ffi.buffer(data), ffi.buffer(key)
        self.source: Source = (None, None, None, None, 0)
        self.burst: Burst | None = None

    def learn(self) -> None:
        """Decodes the source and the control messages, which are not those of the last time."""
        struct = self.struct
        self.source = _decoded(self._key, 0, struct.name_size, struct.control_size, struct.flags)

    def time(self) -> int | None:
        time = int(self.struct.time)
        return None if time < 0 else time

    def pieces(self, answer: int) -> Any:
        """The datagrams' data, by an answer that tells the size of a segment. A shape that is seen again is cut out by
        one format."""
        known = _formats.get(answer)
        if known is not None:
            return known.unpack_from(self.data)
        size, segment, view = answer & SIZE, answer >> SHIFT, self.data
        if not PYPY:
            _note(answer, size, segment)
        return [view[at : min(at + segment, size)] for at in range(0, size, segment)]


class Burst:
    """``struct lowsock_burst`` and its memory: room for 64 of what an arrival has one of. What nothing was received into
    takes no memory."""

    __slots__ = ("_data", "_keys", "_memory", "struct")

    def __init__(self) -> None:
        struct = self.struct = ffi.new("struct lowsock_burst *")
        sizes = DATAGRAM, lib.LOWSOCK_SOCKADDR, lib.LOWSOCK_CONTROL_ROOM, _KEY
        self._memory = [_allocate("char[]", size * _BURST) for size in sizes]
        struct.data, struct.names, struct.control, struct.keys = self._memory
        numbers = struct.changes, struct.answers, struct.times = (
            ffi.new("int[]", 3 * _BURST),
            ffi.new("long long[]", _BURST),
            ffi.new("long long[]", _BURST),
        )
        self._memory += numbers
        self._data, self._keys = ffi.buffer(self._memory[0]), ffi.buffer(self._memory[3])

    def pieces(self, answer: int) -> Any:
        """The data of a burst in which nothing is news and nothing was put together."""
        count, size, data = answer & _COUNT, answer >> SHIFT, self._data
        known = _burst_formats.get(answer)
        if known is not None:
            return known.unpack_from(data)
        if size == SIZE:
            sizes = ffi.unpack(self.struct.answers, count)
            return [data[at : at + size] for at, size in zip(_STARTS, sizes)]
        if not PYPY:
            _remember(_burst_formats, answer, Struct(f"{size}s{DATAGRAM - size}x" * (count - 1) + f"{size}s"), _SHAPES)
        return [data[at : at + size] for at in _STARTS[:count]]

    def times(self, answer: int) -> list[int | None]:
        return [None if time < 0 else time for time in ffi.unpack(self.struct.times, answer & _COUNT)]

    def rows(self, answer: int, source: Source) -> list[tuple[list[bytes], Source]]:
        """The data of each slot, cut at its segments, and how it came. ``source`` is that of the one before them."""
        found = []
        for i, each in enumerate(ffi.unpack(self.struct.answers, answer & _COUNT)):
            if each & NEWS:
                source = _decoded(self._keys, i * _KEY, *ffi.unpack(self.struct.changes + 3 * i, 3))
                each &= ~NEWS
            start, end, segment = _STARTS[i], _STARTS[i] + (each & SIZE), each >> SHIFT
            step = segment or DATAGRAM
            starts = range(start, end, step) if start < end else (start,)
            found.append(([self._data[at : min(at + step, end)] for at in starts], source))
        return found


_STARTS = [i * DATAGRAM for i in range(_BURST)]
_seen: list[int] = []


def _note(shape: int, size: int, segment: int) -> None:
    """A format is made for the second of two alike: it costs as much as three cuts by hand."""
    if shape in _seen:
        _remember(
            _formats, shape, Struct(f"{segment}s" * (size // segment) + f"{size % segment}s" * (size % segment > 0)), _SHAPES
        )
    _seen[:] = [shape, *_seen[:3]]


def _remember(cache: dict[Any, Any], key: Any, value: Any, most: int = _KEPT) -> Any:
    if len(cache) >= most:
        cache.clear()
    cache[key] = value
    return value


def _decoded(keys: Any, at: int, name_size: int, control_size: int, flags: int) -> Source:
    """The source and what was told, which lie one after the other from ``at`` on."""
    end = at + name_size
    name, control = keys[at:end], keys[end : end + control_size]
    address = _sources.get(name) or _remember(_sources, name, decode_name(name))
    return (address, *(_told.get(control) or _remember(_told, control, _decode(control))), int(flags))


def _decode(control: bytes) -> tuple[str | None, int | None, ECN | None]:
    told = arrival(parse(control))
    return told.local, told.ifindex, told.ecn
