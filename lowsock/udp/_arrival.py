# SPDX-License-Identifier: MIT
"""Received datagrams, the memory that one system call fills with them, and how they are cut out of it.

All datagrams that UDP_GRO put together have one source and the same control messages, and so have most that follow. C says
when these differ from the last time, and only then are they decoded: into `Meta`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._memory.address import decode_name
from lowsock._memory.ancillary import parse
from lowsock._memory.buffers import PYPY
from lowsock._system.ffi import ffi, lib
from lowsock._system.spellings import missing
from lowsock.cmsg._portable import arrival
from lowsock.cmsg._questions import ECN

if TYPE_CHECKING:
    from lowsock._system.types import Address

    # How a datagram came: the fields of `Datagram` behind the data, but for the timestamp.
    Meta = tuple[Address, "str | None", "int | None", "ECN | None", int]

DATAGRAM, SIZE, SHIFT = lib.LOWSOCK_DATAGRAM, lib.LOWSOCK_SIZE, lib.LOWSOCK_SEGMENT_SHIFT
CHANGED = 1 << lib.LOWSOCK_CHANGED_SHIFT
_BURST, _KEY = lib.LOWSOCK_BURST, lib.LOWSOCK_KEY
_COUNT = (1 << SHIFT) - 1
_MAX_CACHED = 1024  # decoded addresses, and as many decoded control buffers
_MAX_FORMATS = 64  # `struct` formats that cut a buffer into datagrams

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_address_cache: dict[bytes, Address] = {}
_control_cache: dict[bytes, tuple[str | None, int | None, ECN | None]] = {}
_formats: dict[int, Any] = {}
_burst_formats: dict[int, Any] = {}
_GONE = {"timestamp": "use timestamp_ns"}


class Datagram(NamedTuple):
    """A datagram and how it came. See udp(7)."""

    data: bytes
    address: Address
    """Where it came from."""
    local: str | None = None
    """Our address that it came to, to answer from; IPv4's own form on an IPv6 socket too. None if unknown."""
    ifindex: int | None = None
    """The interface that it came in by; None if unknown."""
    ecn: ECN | None = None
    """Explicit congestion notification; None if unknown."""
    timestamp_ns: int | None = None
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
    timestamp_ns: int | None = None
    msg_flags: int = 0

    def split(self) -> list[Datagram]:
        """The datagrams, each by itself: a list of at least one."""
        data, size = self.data, self.segment_size
        pieces = [data[at : at + size] for at in range(0, len(data), size)] if data else [data]
        return [Datagram(piece, *self[2:]) for piece in pieces]


class Scattered(NamedTuple):
    """What `Endpoint.recv_into` put into the caller's memory, and how it came. See udp(7)."""

    nbytes: int
    segment_size: int
    """The bytes of each datagram; the last may be shorter. ``nbytes`` if there is but one, and at least 1."""
    address: Address
    local: str | None = None
    ifindex: int | None = None
    ecn: ECN | None = None
    timestamp_ns: int | None = None
    msg_flags: int = 0
    """``MSG_TRUNC``: the buffers were too small, and the rest is lost."""


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    Datagram.__getattr__ = Scattered.__getattr__ = missing(__name__, _GONE)
    Coalesced.__getattr__ = missing(__name__, {**_GONE, "segments": "use len(split())", "datagrams": "use split()"})


class RecvBuffer:
    """``struct lowsock_arrival`` and the memory that its pointers lead to. The call that took it is its only user."""

    __slots__ = ("_key", "_memory", "burst", "data", "meta", "struct")

    def __init__(self) -> None:
        self.struct = ffi.new("struct lowsock_arrival *")
        sizes = DATAGRAM, lib.LOWSOCK_SOCKADDR, lib.LOWSOCK_CONTROL_ROOM, _KEY
        self._memory = data, name, control, key = [_allocate("char[]", size) for size in sizes]
        self.struct.data, self.struct.name, self.struct.control, self.struct.key = data, name, control, key
        self.struct.name_size = self.struct.control_size = -1
        self.data, self._key = ffi.buffer(data), ffi.buffer(key)
        self.meta: Meta = (None, None, None, None, 0)
        self.burst: Burst | None = None

    def decode_meta(self) -> None:
        """Decodes source and control messages, after C has said that they changed."""
        struct = self.struct
        self.meta = _decode_meta(self._key, 0, struct.name_size, struct.control_size, struct.flags)

    def time(self) -> int | None:
        time = int(self.struct.time)
        return None if time < 0 else time

    def pieces(self, answer: int) -> Any:
        """The data of each datagram, by an answer with the size of a segment. A shape that comes again is cut by one
        `struct` format."""
        cached = _formats.get(answer)
        if cached is not None:
            return cached.unpack_from(self.data)
        size, segment, view = answer & SIZE, answer >> SHIFT, self.data
        if not PYPY:
            _cache_format(answer, size, segment)
        return [view[at : min(at + segment, size)] for at in range(0, size, segment)]


class Burst:
    """``struct lowsock_burst`` and its memory: 64 slots of what a `RecvBuffer` has one of. Slots that were never received
    into take no memory."""

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
        """The data of a burst in which nothing changed and nothing was put together."""
        count, size, data = answer & _COUNT, answer >> SHIFT, self._data
        cached = _burst_formats.get(answer)
        if cached is not None:
            return cached.unpack_from(data)
        if size == SIZE:
            sizes = ffi.unpack(self.struct.answers, count)
            return [data[at : at + size] for at, size in zip(_STARTS, sizes)]
        if not PYPY:
            _store(_burst_formats, answer, Struct(f"{size}s{DATAGRAM - size}x" * (count - 1) + f"{size}s"), _MAX_FORMATS)
        return [data[at : at + size] for at in _STARTS[:count]]

    def times(self, answer: int) -> list[int | None]:
        return [None if time < 0 else time for time in ffi.unpack(self.struct.times, answer & _COUNT)]

    def rows(self, answer: int, meta: Meta) -> list[tuple[list[bytes], Meta]]:
        """The data of each slot, cut at its segments, and how it came. ``meta`` is that of the datagram before them."""
        found = []
        for i, each in enumerate(ffi.unpack(self.struct.answers, answer & _COUNT)):
            if each & CHANGED:
                meta = _decode_meta(self._keys, i * _KEY, *ffi.unpack(self.struct.changes + 3 * i, 3))
                each &= ~CHANGED
            start, end, segment = _STARTS[i], _STARTS[i] + (each & SIZE), each >> SHIFT
            step = segment or DATAGRAM
            starts = range(start, end, step) if start < end else (start,)
            found.append(([self._data[at : min(at + step, end)] for at in starts], meta))
        return found


_STARTS = [i * DATAGRAM for i in range(_BURST)]
_recent_shapes: list[int] = []


def _cache_format(shape: int, size: int, segment: int) -> None:
    """Makes a format when a shape comes for the second time: to make one costs as much as to cut three times by hand."""
    if shape in _recent_shapes:
        _store(
            _formats,
            shape,
            Struct(f"{segment}s" * (size // segment) + f"{size % segment}s" * (size % segment > 0)),
            _MAX_FORMATS,
        )
    _recent_shapes[:] = [shape, *_recent_shapes[:3]]


def _store(cache: dict[Any, Any], key: Any, value: Any, most: int = _MAX_CACHED) -> Any:
    if len(cache) >= most:
        cache.clear()
    cache[key] = value
    return value


def _decode_meta(keys: Any, at: int, name_size: int, control_size: int, flags: int) -> Meta:
    """How a datagram came, by the address and the control messages that stand in ``keys`` from ``at`` on."""
    end = at + name_size
    name, control = keys[at:end], keys[end : end + control_size]
    address = _address_cache.get(name) or _store(_address_cache, name, decode_name(name))
    return (address, *(_control_cache.get(control) or _store(_control_cache, control, _decode_control(control))), int(flags))


def _decode_control(control: bytes) -> tuple[str | None, int | None, ECN | None]:
    found = arrival(parse(control))
    return found.local, found.ifindex, found.ecn
