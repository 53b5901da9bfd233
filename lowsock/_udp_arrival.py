# SPDX-License-Identifier: MIT
"""Receiving datagrams in bulk: memory for one system call's worth, and what came in it, cut into datagrams.

All datagrams that UDP_GRO put together have one source and the same control messages, and so have most that follow: C says
when they are others than the last time, and only then anything is decoded.
"""

from __future__ import annotations

import errno
import select
import socket
from itertools import repeat
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._address import decode_name
from lowsock._ancillary import parse
from lowsock._buffers import IOV_MAX, PYPY, Bounced, Scattered
from lowsock._calling import MSG_DONTWAIT, ZERO, checked_int, fail, persist, raised_here, raised_inside, target
from lowsock._ffi import ffi, lib
from lowsock.cmsg._portable import arrival
from lowsock.cmsg._questions import ECN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._types import Address, Buffer, Socket

    Source = tuple[Address, "str | None", "int | None", "ECN | None"]

_POLLIN = select.POLLIN | select.POLLPRI
_EINTR = -errno.EINTR
_DATAGRAM, _SIZE, _SHIFT = lib.LOWSOCK_DATAGRAM, lib.LOWSOCK_SIZE, lib.LOWSOCK_SEGMENT_SHIFT
_NEWS = 1 << lib.LOWSOCK_NEWS_SHIFT
_KEPT = 1024  # sources, and control messages of them, that need not be decoded again
_SHAPES = 64  # formats that cut a buffer into datagrams

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_udp_recv = lib.lowsock_udp_recv
_Socket = socket.socket
_new: Any = tuple.__new__

_sources: dict[bytes, Address] = {}
_told: dict[bytes, tuple[str | None, int | None, ECN | None]] = {}
_formats: dict[int, Any] = {}


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

    __slots__ = ("_key", "_memory", "data", "source", "struct")

    def __init__(self) -> None:
        self.struct = ffi.new("struct lowsock_arrival *")
        sizes = _DATAGRAM, lib.LOWSOCK_SOCKADDR, lib.LOWSOCK_TOLD, lib.LOWSOCK_SOCKADDR + lib.LOWSOCK_TOLD
        self._memory = data, name, control, key = [_allocate("char[]", size) for size in sizes]
        self.struct.data, self.struct.name, self.struct.control, self.struct.key = data, name, control, key
        self.struct.name_size = self.struct.told_size = -1
        self.data, self._key = ffi.buffer(data), ffi.buffer(key)
        self.source: Source = (None, None, None, None)

    def learn(self) -> None:
        """Decodes the source and the control messages, which are not those of the last time."""
        end = self.struct.name_size
        name, control = self._key[:end], self._key[end : end + self.struct.told_size]
        address = _sources.get(name) or _remember(_sources, name, decode_name(name))
        self.source = (address, *(_told.get(control) or _remember(_told, control, _decode(control))))

    def time(self) -> int | None:
        time = int(self.struct.time)
        return None if time < 0 else time

    def pieces(self, answer: int) -> Any:
        """The datagrams' data, by an answer that tells the size of a segment. A shape that is seen again is cut out by
        one format."""
        known = _formats.get(answer)
        if known is not None:
            return known.unpack_from(self.data)
        size, segment, view = answer & _SIZE, answer >> _SHIFT, self.data
        if not PYPY:
            _note(answer, size, segment)
        return [view[at : min(at + segment, size)] for at in range(0, size, segment)]


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


def _decode(control: bytes) -> tuple[str | None, int | None, ECN | None]:
    told = arrival(parse(control))
    return told.local, told.ifindex, told.ecn


class Receiver:
    """The receiving half of an endpoint."""

    def __init__(self, sock: Socket, timestamps: bool) -> None:
        self._sock = sock
        self._timestamps = timestamps
        self._free: list[Arrivals] = []

    def take(self) -> Arrivals:
        """Memory that nobody else has, to be appended to the free ones afterwards."""
        try:
            return self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            return Arrivals()

    def receive(self, box: Arrivals, flags: int, size: int = _DATAGRAM, answer: int = _EINTR) -> int:
        """One receive into the memory; returns the answer. ``answer`` is the -errno of a first attempt, or news."""
        sock, flags = self._sock, checked_int("flags", flags)
        if answer < 0:
            if target(sock)[1]:
                flags |= MSG_DONTWAIT

            def attempt(fd: int) -> int:
                return _udp_recv(box.struct, fd, size, flags)

            try:
                answer = persist(sock, flags, _POLLIN, attempt, answer)
            except OSError as error:
                if raised_inside(error):  # nothing came, so the memory is as it was; programs drain until EAGAIN
                    self._free.append(box)
                raise
        if answer & _NEWS:
            box.learn()
            answer &= ~_NEWS
        return answer

    def _receive(self, box: Arrivals, flags: int) -> int:
        """The same; the commonest case is written out, because after a system call each step of the interpreter is slow."""
        sock, answer = self._sock, _EINTR
        if flags is ZERO and type(sock) is _Socket and not sock.gettimeout():
            answer = _udp_recv(box.struct, sock.fileno(), _DATAGRAM, 0)
            if 0 <= answer < _NEWS:
                return answer
        return self.receive(box, flags, _DATAGRAM, answer)

    def datagrams(self, flags: int) -> list[Datagram]:
        try:
            box = self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            box = Arrivals()
        answer = self._receive(box, flags)
        address, local, ifindex, ecn = box.source
        time = box.time() if self._timestamps else None
        size, segment = answer & _SIZE, answer >> _SHIFT
        if not 0 < segment < size:
            found = [_new(Datagram, (box.data[:size], address, local, ifindex, ecn, time))]
        elif PYPY:  # measured: each has its own quickest way
            found = [Datagram(piece, address, local, ifindex, ecn, time) for piece in box.pieces(answer)]
        else:
            beside = repeat(address), repeat(local), repeat(ifindex), repeat(ecn), repeat(time)
            found = list(map(_new, repeat(Datagram), zip(box.pieces(answer), *beside)))
        self._free.append(box)
        return found

    def coalesced(self, flags: int) -> Coalesced:
        box = self.take()
        answer = self._receive(box, flags)
        size, segment = answer & _SIZE, answer >> _SHIFT
        time = box.time() if self._timestamps else None
        found: Coalesced = _new(
            Coalesced, (box.data[:size], segment if 0 < segment < size else max(size, 1), *box.source, time)
        )
        self._free.append(box)
        return found

    # ---- into the caller's memory ----

    def into(self, buffers: Iterable[Buffer], flags: int) -> Received:
        box = self.take()
        answer = self._bounce(box, buffers, flags) if PYPY else self._scatter(box, buffers, flags)
        size, segment = answer & _SIZE, answer >> _SHIFT
        time = box.time() if self._timestamps else None
        segment = segment if 0 < segment < size else max(size, 1)
        found = Received(size, segment, *box.source, timestamp=time, msg_flags=int(box.struct.flags))
        self._free.append(box)
        return found

    def _scatter(self, box: Arrivals, buffers: Iterable[Buffer], flags: int) -> int:
        flags = checked_int("flags", flags)
        scattered = Scattered(buffers)

        def attempt(fd: int) -> int:
            bases = scattered.bases
            return lib.lowsock_udp_recv_into(box.struct, fd, bases, scattered.sizes, len(bases), flags)

        try:
            if target(self._sock)[1]:
                flags |= MSG_DONTWAIT
            answer = persist(self._sock, flags, _POLLIN, attempt, _EINTR)
        finally:
            scattered.release()
        return self.receive(box, flags, 0, answer)

    def _bounce(self, box: Arrivals, buffers: Iterable[Buffer], flags: int) -> int:
        bounced = Bounced(buffers)
        if len(bounced.sizes) > IOV_MAX:
            fail(-errno.EMSGSIZE)  # as the kernel says of so many iovecs
        answer = self.receive(box, flags, min(bounced.size, _DATAGRAM))
        bounced.settle(box.struct.data, answer & _SIZE)
        return answer
