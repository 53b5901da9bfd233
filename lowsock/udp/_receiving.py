# SPDX-License-Identifier: MIT
"""Receiving datagrams in bulk: joined ones by one recvmsg(2); many that came unjoined by one recvmmsg(2), a burst."""

from __future__ import annotations

import errno
import select
import socket
from itertools import repeat
from typing import TYPE_CHECKING, Any

from lowsock._memory import buffers as memory
from lowsock._memory.buffers import IOV_MAX, PYPY, Bounced
from lowsock._system.arguments import ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT, MSG_ERRQUEUE
from lowsock._system.errors import fail, raised_here, raised_inside
from lowsock._system.ffi import lib
from lowsock._system.target import target
from lowsock._system.waiting import retry
from lowsock.udp._arrival import CHANGED, DATAGRAM, SHIFT, SIZE, Burst, Coalesced, Datagram, RecvBuffer, Scattered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Attempt, Buffer, Socket

_POLLIN = select.POLLIN | select.POLLPRI
_EINTR = -errno.EINTR
# Single datagrams after which a burst is tried: the first time, and after a burst that brought one only. PyPy gains nothing
# by bursts: it calls recvmsg(2) as quickly, and the memory is warmer.
_BURST_AFTER = 1 if not PYPY else 2**62
_BURST_RETRY = 16

_udp_recv, _recv_burst = lib.lowsock_udp_recv, lib.lowsock_udp_recv_burst
_Socket = socket.socket
_new: Any = tuple.__new__


class Receiver:
    """The receiving half of an endpoint. Threads may share it: each call takes memory of its own, and the countdown may be
    off."""

    def __init__(self, sock: Socket, timestamps: bool) -> None:
        self.sock = sock
        self._timestamps = timestamps
        self._free: list[RecvBuffer] = []
        self._countdown = _BURST_AFTER  # single datagrams until a burst is tried

    def take(self) -> RecvBuffer:
        """Memory that no other call has, to be appended to ``_free`` afterwards."""
        try:
            return self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            return RecvBuffer()

    def _checked_flags(self, flags: Any) -> int:
        """Flags for the system call."""
        flags = checked_int("flags", flags)
        if flags & MSG_ERRQUEUE:
            raise ValueError("flags must not have MSG_ERRQUEUE: read_errors reads the error queue")
        return flags | MSG_DONTWAIT if target(self.sock)[1] else flags

    def _retry(self, scratch: RecvBuffer, flags: int, attempt: Attempt, answer: int) -> int:
        """Goes on after an ``answer`` of -errno."""
        try:
            return retry(self.sock, flags, _POLLIN, attempt, answer)
        except OSError as error:
            if raised_inside(error):  # EAGAIN, mostly: nothing came, so the memory can be used again
                self._free.append(scratch)
            raise

    def _receive_slow(self, scratch: RecvBuffer, flags: int, size: int, answer: int = _EINTR) -> int:
        """One receive into the memory; returns the answer. ``answer`` is that of a first attempt."""
        if answer < 0:
            flags = self._checked_flags(flags)

            def attempt(fd: int) -> int:
                return _udp_recv(scratch.struct, fd, size, flags)

            answer = self._retry(scratch, flags, attempt, answer)
        return self._refresh_meta(scratch, answer)

    def _refresh_meta(self, scratch: RecvBuffer, answer: int) -> int:
        if answer & CHANGED:
            scratch.decode_meta()
            answer &= ~CHANGED
        return answer

    def _receive(self, scratch: RecvBuffer, flags: int) -> int:
        """The same. The commonest case is written out, because the interpreter is slow right after a system call."""
        sock, answer = self.sock, _EINTR
        if flags is ZERO:
            fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is _Socket else target(sock)
            answer = _udp_recv(scratch.struct, fd, DATAGRAM, MSG_DONTWAIT if timeout else 0)
            if 0 <= answer < CHANGED:
                return answer
        return self._receive_slow(scratch, flags, DATAGRAM, answer)

    def datagrams(self, flags: int) -> list[Datagram]:
        if self._countdown <= 0 and (flags is ZERO or flags == MSG_DONTWAIT):
            return self._receive_burst(flags)
        try:
            scratch = self._free.pop()
        except IndexError as error:
            if not raised_here(error):
                raise
            scratch = RecvBuffer()
        answer = self._receive(scratch, flags)
        address, local, ifindex, ecn, msg_flags = scratch.meta
        time = scratch.time() if self._timestamps else None
        size, segment = answer & SIZE, answer >> SHIFT
        if not 0 < segment < size:
            self._countdown -= 1
            found = [_new(Datagram, (scratch.data[:size], address, local, ifindex, ecn, time, msg_flags))]
        elif PYPY:  # measured: each has its own quickest way
            found = [Datagram(piece, address, local, ifindex, ecn, time, msg_flags) for piece in scratch.pieces(answer)]
        else:
            columns = repeat(address), repeat(local), repeat(ifindex), repeat(ecn), repeat(time), repeat(msg_flags)
            found = list(map(_new, repeat(Datagram), zip(scratch.pieces(answer), *columns)))
        self._free.append(scratch)
        return found

    def coalesced(self, flags: int) -> Coalesced:
        scratch = self.take()
        answer = self._receive(scratch, flags)
        size, segment = answer & SIZE, answer >> SHIFT
        address, local, ifindex, ecn, msg_flags = scratch.meta
        time = scratch.time() if self._timestamps else None
        segment = segment if 0 < segment < size else max(size, 1)
        found: Coalesced = _new(Coalesced, (scratch.data[:size], segment, address, local, ifindex, ecn, time, msg_flags))
        self._free.append(scratch)
        return found

    # ---- where nothing is joined ----

    def _receive_burst(self, flags: int) -> list[Datagram]:
        """The datagrams that are queued, by one recvmmsg(2)."""
        scratch = self.take()
        burst = scratch.burst = scratch.burst or Burst()
        sock, answer = self.sock, _EINTR
        if flags is ZERO:
            fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is _Socket else target(sock)
            answer = _recv_burst(scratch.struct, burst.struct, fd, MSG_DONTWAIT if timeout else 0)
        if answer < 0:
            flags = self._checked_flags(flags)

            def attempt(fd: int) -> int:
                return _recv_burst(scratch.struct, burst.struct, fd, flags)

            answer = self._retry(scratch, flags, attempt, answer)
        found = self._mixed(scratch, burst, answer) if answer & CHANGED else self._uniform(scratch, burst, answer)
        if len(found) == 1:
            self._countdown = _BURST_RETRY
        self._free.append(scratch)
        return found

    def _uniform(self, scratch: RecvBuffer, burst: Burst, answer: int) -> list[Datagram]:
        """Datagrams that all came as the one before them did, one in each slot."""
        address, local, ifindex, ecn, msg_flags = scratch.meta
        times: Iterable[int | None] = burst.times(answer) if self._timestamps else repeat(None)
        if PYPY:
            return [
                Datagram(data, address, local, ifindex, ecn, time, msg_flags)
                for data, time in zip(burst.pieces(answer), times)
            ]
        columns = repeat(address), repeat(local), repeat(ifindex), repeat(ecn), times, repeat(msg_flags)
        return list(map(_new, repeat(Datagram), zip(burst.pieces(answer), *columns)))

    def _mixed(self, scratch: RecvBuffer, burst: Burst, answer: int) -> list[Datagram]:
        """Datagrams of several sources, or joined ones."""
        rows = burst.rows(answer, scratch.meta)
        times = burst.times(answer) if self._timestamps else [None] * len(rows)
        found = [
            Datagram(piece, address, local, ifindex, ecn, time, msg_flags)
            for (pieces, (address, local, ifindex, ecn, msg_flags)), time in zip(rows, times)
            for piece in pieces
        ]
        scratch.meta = rows[-1][1]
        if len(found) > len(rows):
            self._countdown = _BURST_AFTER  # joined ones are quicker by recvmsg(2), into memory that stays in the cache
        return found

    # ---- into the caller's memory ----

    def into(self, buffers: Iterable[Buffer], flags: int) -> Scattered:
        scratch = self.take()
        answer = self._bounce(scratch, buffers, flags) if PYPY else self._scatter(scratch, buffers, flags)
        size, segment = answer & SIZE, answer >> SHIFT
        address, local, ifindex, ecn, msg_flags = scratch.meta
        time = scratch.time() if self._timestamps else None
        segment = segment if 0 < segment < size else max(size, 1)
        found = Scattered(size, segment, address, local, ifindex, ecn, time, msg_flags)
        self._free.append(scratch)
        return found

    def _scatter(self, scratch: RecvBuffer, buffers: Iterable[Buffer], flags: int) -> int:
        scattered = memory.Scattered(buffers)
        try:
            flags = self._checked_flags(flags)

            def attempt(fd: int) -> int:
                bases = scattered.bases
                return lib.lowsock_udp_recv_into(scratch.struct, fd, bases, scattered.sizes, len(bases), flags)

            answer = self._retry(scratch, flags, attempt, _EINTR)
        finally:
            scattered.release()
        return self._refresh_meta(scratch, answer)

    def _bounce(self, scratch: RecvBuffer, buffers: Iterable[Buffer], flags: int) -> int:
        bounced = Bounced(buffers)
        if len(bounced.sizes) > IOV_MAX:
            fail(-errno.EMSGSIZE)  # as the kernel says of so many iovecs
        answer = self._receive_slow(scratch, flags, min(bounced.size, DATAGRAM))
        bounced.copy_out(scratch.struct.data, answer & SIZE)
        return answer
