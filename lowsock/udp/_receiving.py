# SPDX-License-Identifier: MIT
"""Receiving datagrams in bulk: joined ones by one recvmsg(2), and where they come alone, many by one recvmmsg(2)."""

from __future__ import annotations

import errno
import select
import socket
from itertools import repeat
from typing import TYPE_CHECKING, Any

from lowsock._memory.buffers import IOV_MAX, PYPY, Bounced, Scattered
from lowsock._system.arguments import ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT, MSG_ERRQUEUE
from lowsock._system.descriptor import target
from lowsock._system.errors import fail, raised_here, raised_inside
from lowsock._system.ffi import lib
from lowsock._system.waiting import retry
from lowsock.udp._arrival import DATAGRAM, NEWS, SHIFT, SIZE, Arrivals, Burst, Coalesced, Datagram, Received

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Attempt, Buffer, Socket

_POLLIN = select.POLLIN | select.POLLPRI
_EINTR = -errno.EINTR
_FIRST = 1 if not PYPY else 2**62  # PyPy gains nothing: it calls recvmsg(2) as quickly, and the memory is warmer
_ALONE = 16  # datagrams that come alone, after a burst that brought no more

_udp_recv, _recv_burst = lib.lowsock_udp_recv, lib.lowsock_udp_recv_burst
_Socket = socket.socket
_new: Any = tuple.__new__


class Receiver:
    """The receiving half of an endpoint. Threads may share it: memory is taken and given back, and the rest is a guess."""

    def __init__(self, sock: Socket, timestamps: bool) -> None:
        self._sock = sock
        self._timestamps = timestamps
        self._free: list[Arrivals] = []
        self._patience = _FIRST  # so many datagrams alone, and a burst is tried

    def take(self) -> Arrivals:
        """Memory that nobody else has, to be appended to the free ones afterwards."""
        try:
            return self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            return Arrivals()

    def _checked(self, flags: Any) -> int:
        """Flags for the system call."""
        flags = checked_int("flags", flags)
        if flags & MSG_ERRQUEUE:
            raise ValueError("flags must not have MSG_ERRQUEUE: read_errors reads the error queue")
        return flags | MSG_DONTWAIT if target(self._sock)[1] else flags

    def _persist(self, box: Arrivals, flags: int, attempt: Attempt, answer: int) -> int:
        """Goes on after an ``answer`` of -errno."""
        try:
            return retry(self._sock, flags, _POLLIN, attempt, answer)
        except OSError as error:
            if raised_inside(error):  # nothing came, so the memory is as it was; programs drain until EAGAIN
                self._free.append(box)
            raise

    def _one(self, box: Arrivals, flags: int, size: int, answer: int = _EINTR) -> int:
        """One receive into the memory; returns the answer. ``answer`` is the -errno of a first attempt, or news."""
        if answer < 0:
            flags = self._checked(flags)

            def attempt(fd: int) -> int:
                return _udp_recv(box.struct, fd, size, flags)

            answer = self._persist(box, flags, attempt, answer)
        return self._learned(box, answer)

    def _learned(self, box: Arrivals, answer: int) -> int:
        if answer & NEWS:
            box.learn()
            answer &= ~NEWS
        return answer

    def _receive(self, box: Arrivals, flags: int) -> int:
        """The same; the commonest case is written out, because after a system call each step of the interpreter is slow."""
        sock, answer = self._sock, _EINTR
        if flags is ZERO and type(sock) is _Socket:
            answer = _udp_recv(box.struct, sock.fileno(), DATAGRAM, MSG_DONTWAIT if sock.gettimeout() else 0)
            if 0 <= answer < NEWS:
                return answer
        return self._one(box, flags, DATAGRAM, answer)

    def datagrams(self, flags: int) -> list[Datagram]:
        if self._patience <= 0 and (flags is ZERO or flags == MSG_DONTWAIT):
            return self._several(flags)
        try:
            box = self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            box = Arrivals()
        answer = self._receive(box, flags)
        address, local, ifindex, ecn, odd = box.source
        time = box.time() if self._timestamps else None
        size, segment = answer & SIZE, answer >> SHIFT
        if not 0 < segment < size:
            self._patience -= 1
            found = [_new(Datagram, (box.data[:size], address, local, ifindex, ecn, time, odd))]
        elif PYPY:  # measured: each has its own quickest way
            found = [Datagram(piece, address, local, ifindex, ecn, time, odd) for piece in box.pieces(answer)]
        else:
            beside = repeat(address), repeat(local), repeat(ifindex), repeat(ecn), repeat(time), repeat(odd)
            found = list(map(_new, repeat(Datagram), zip(box.pieces(answer), *beside)))
        self._free.append(box)
        return found

    def coalesced(self, flags: int) -> Coalesced:
        box = self.take()
        answer = self._receive(box, flags)
        size, segment = answer & SIZE, answer >> SHIFT
        address, local, ifindex, ecn, odd = box.source
        time = box.time() if self._timestamps else None
        segment = segment if 0 < segment < size else max(size, 1)
        found: Coalesced = _new(Coalesced, (box.data[:size], segment, address, local, ifindex, ecn, time, odd))
        self._free.append(box)
        return found

    # ---- where nothing is joined ----

    def _several(self, flags: int) -> list[Datagram]:
        """What is there, by one recvmmsg(2)."""
        box = self.take()
        burst = box.burst = box.burst or Burst()
        sock, answer = self._sock, _EINTR
        if flags is ZERO and type(sock) is _Socket:
            answer = _recv_burst(box.struct, burst.struct, sock.fileno(), MSG_DONTWAIT if sock.gettimeout() else 0)
        if answer < 0:
            flags = self._checked(flags)

            def attempt(fd: int) -> int:
                return _recv_burst(box.struct, burst.struct, fd, flags)

            answer = self._persist(box, flags, attempt, answer)
        found = self._odd(box, burst, answer) if answer & NEWS else self._alike(box, burst, answer)
        if len(found) == 1:
            self._patience = _ALONE
        self._free.append(box)
        return found

    def _alike(self, box: Arrivals, burst: Burst, answer: int) -> list[Datagram]:
        """Datagrams that all came as the last one did, one in each slot."""
        address, local, ifindex, ecn, odd = box.source
        times: Iterable[int | None] = burst.times(answer) if self._timestamps else repeat(None)
        if PYPY:
            return [Datagram(each, address, local, ifindex, ecn, at, odd) for each, at in zip(burst.pieces(answer), times)]
        beside = repeat(address), repeat(local), repeat(ifindex), repeat(ecn), times, repeat(odd)
        return list(map(_new, repeat(Datagram), zip(burst.pieces(answer), *beside)))

    def _odd(self, box: Arrivals, burst: Burst, answer: int) -> list[Datagram]:
        """Datagrams of several sources, or joined ones."""
        rows = burst.rows(answer, box.source)
        times = burst.times(answer) if self._timestamps else [None] * len(rows)
        found = [
            Datagram(piece, address, local, ifindex, ecn, time, odd)
            for (pieces, (address, local, ifindex, ecn, odd)), time in zip(rows, times)
            for piece in pieces
        ]
        box.source = rows[-1][1]
        if len(found) > len(rows):
            self._patience = _FIRST  # joined ones are quicker by themselves, in memory that stays in the cache
        return found

    # ---- into the caller's memory ----

    def into(self, buffers: Iterable[Buffer], flags: int) -> Received:
        box = self.take()
        answer = self._bounce(box, buffers, flags) if PYPY else self._scatter(box, buffers, flags)
        size, segment = answer & SIZE, answer >> SHIFT
        address, local, ifindex, ecn, odd = box.source
        time = box.time() if self._timestamps else None
        segment = segment if 0 < segment < size else max(size, 1)
        found = Received(size, segment, address, local, ifindex, ecn, time, odd)
        self._free.append(box)
        return found

    def _scatter(self, box: Arrivals, buffers: Iterable[Buffer], flags: int) -> int:
        scattered = Scattered(buffers)
        try:
            flags = self._checked(flags)

            def attempt(fd: int) -> int:
                bases = scattered.bases
                return lib.lowsock_udp_recv_into(box.struct, fd, bases, scattered.sizes, len(bases), flags)

            answer = self._persist(box, flags, attempt, _EINTR)
        finally:
            scattered.release()
        return self._learned(box, answer)

    def _bounce(self, box: Arrivals, buffers: Iterable[Buffer], flags: int) -> int:
        bounced = Bounced(buffers)
        if len(bounced.sizes) > IOV_MAX:
            fail(-errno.EMSGSIZE)  # as the kernel says of so many iovecs
        answer = self._one(box, flags, min(bounced.size, DATAGRAM))
        bounced.copy_out(box.struct.data, answer & SIZE)
        return answer
