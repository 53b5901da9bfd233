# SPDX-License-Identifier: MIT
"""Sending datagrams in bulk: by UDP_SEGMENT, and where that is refused, the same data by sendmmsg(2).

What comes after a refusal decides what it means: it was about offload only if the same data then goes without.

EIO                       the route's device or IPsec cannot; a socket has seldom more than one: of the socket
EINVAL, no checksums      SO_NO_CHECK or UDP_NO_CHECK6_TX is set: of the socket
EMSGSIZE, other EINVAL    the path's MTU is below a segment (kernels differ): of the destination, for segments of this size
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._memory.address import encode_for, family_of
from lowsock._memory.buffers import COPY_SIZE, PYPY, viewed
from lowsock._system.arguments import ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import fail, raised_inside
from lowsock._system.ffi import ffi, lib
from lowsock._system.layouts import LAYOUTS
from lowsock._system.target import target
from lowsock._system.waiting import retry
from lowsock.cmsg._base import pair
from lowsock.cmsg._ipv6 import MAPPED
from lowsock.udp._control import (
    NO_ANCILLARY,
    SEGMENT_CONTROL,
    Ancillary,
    ControlBuffer,
    checked,
    checked_segment,
    control_buffer,
    segment_control,
)

if TYPE_CHECKING:
    from lowsock._system.types import Address, Buffer, Socket
    from lowsock.errqueue._zerocopy import ZeroCopySender

    Refused = tuple[Address, int, bytes]  # the destination, the size of a segment, the peer if it is that

MAX_BYTES = 65507  # bytes of one call: 65535 less the headers of IP and UDP
MAX_DESTINATIONS = 256  # whose refusals are remembered
_POLLOUT = select.POLLOUT
_EINTR = -errno.EINTR
_OFFLOAD_REFUSALS = (-errno.EIO, -errno.EINVAL, -errno.EMSGSIZE)
_ECN_REFUSALS = (-errno.EINVAL, -errno.EIO)
_NO_CHECKSUMS = [found for found in map(pair, ("SO_NO_CHECK", "UDP_NO_CHECK6_TX")) if found is not None]
_ZEROCOPY_LEAST = 10 * 1024  # bytes: below, a copy is cheaper than the bookkeeping (the kernel's msg_zerocopy document)
_HOST6 = slice(LAYOUTS["sockaddr_in6"].offsets["sin6_addr"], LAYOUTS["sockaddr_in6"].offsets["sin6_addr"] + 12)

_udp_send = lib.lowsock_udp_send
_send_each = lib.lowsock_udp_send_each
_Socket = socket.socket


class Fallbacks(NamedTuple):
    """What an endpoint has learned from refused sends, and does without from then on."""

    offload: int | None
    """The errno with which this socket refused segmentation offload; None if it did not."""
    ecn: int | None
    """The errno with which ECN was refused where the same datagram went without; None if it was not."""
    destinations: dict[Address, int]
    """Destinations that refused offload, with the least size of a segment that they refused; smaller ones go with offload.
    Of a connected socket's peer the address is None, and it is forgotten once the socket has another one. The last 256."""


class Sender:
    """The sending half of an endpoint. Threads may share it: all that changes is replaced whole or in one dict."""

    def __init__(self, sock: Socket, segments: int, zerocopy: ZeroCopySender | None) -> None:
        self.sock = sock
        self.family = family_of(sock)
        self._dscp = {True: self._own_dscp("IP_TOS"), False: self._own_dscp("IPV6_TCLASS")}
        self._segments = segments
        self.zerocopy = zerocopy
        self.offload_refused: int | None = None
        self.ecn_refused: int | None = None
        self._refused: dict[bytes, Refused] = {}

    def _own_dscp(self, name: str) -> int:
        """The socket's own DSCP, which datagrams with ECN keep."""
        found = pair(name)
        return 0 if found is None else max(lib.lowsock_option(target(self.sock)[0], *found), 0) >> 2 & 63

    @property
    def segments(self) -> int:
        return 1 if self.offload_refused is not None else self._segments

    def fallbacks(self) -> Fallbacks:
        known = [refused for name, refused in self._refused.copy().items() if self._still_applies(name, refused)]
        return Fallbacks(self.offload_refused, self.ecn_refused, {address: segment for address, segment, _ in known})

    def send(
        self, data: Buffer, address: Address, segment: Any, ecn: Any, local: Any, ifindex: Any, txtime_ns: Any, flags: int
    ) -> int:
        if flags is not ZERO:
            flags = checked_int("flags", flags)
        name = b"" if address is None else encode_for(self.sock, address, self.family)
        plain = ecn is None and local is None and ifindex is None and txtime_ns is None
        ancillary = NO_ANCILLARY if plain else checked(ecn, local, ifindex, txtime_ns)
        if type(data) is bytes:
            if segment is None:
                return Sending(self, data, len(data), max(len(data), 1), name, address, ancillary, flags).run()
            if type(segment) is not int or segment not in SEGMENT_CONTROL:
                segment = checked_segment(segment)
            size = len(data)
            answer = None
            if (
                plain
                and segment < size <= segment * self._segments
                and size <= MAX_BYTES
                and self.offload_refused is None
                and self.zerocopy is None
                and name not in self._refused
            ):
                answer = self._send_fast(data, size, segment, name, flags)
                if answer >= 0:
                    return answer
            return Sending(self, data, size, segment, name, address, ancillary, flags).run(answer)
        segment = None if segment is None else checked_segment(segment)
        return self._send_buffer(data, segment, name, address, ancillary, flags)

    def _send_fast(self, data: bytes, size: int, segment: int, name: bytes, flags: int) -> int:
        """Sends all of it by one call, as is usual; returns the bytes, or -errno."""
        control = SEGMENT_CONTROL.get(segment) or segment_control(segment)
        sock = self.sock
        if type(sock) is _Socket and not sock.gettimeout():
            return _udp_send(sock.fileno(), data, size, control, len(control), name, len(name), flags)
        fd, timeout = target(sock)
        if timeout:
            flags |= MSG_DONTWAIT
        return _udp_send(fd, data, size, control, len(control), name, len(name), flags)

    def _send_buffer(
        self, data: Any, segment: int | None, name: bytes, address: Address, ancillary: Ancillary, flags: int
    ) -> int:
        """Sends what is not `bytes`: a copy where it is small or may be resized meanwhile, else an export."""
        with viewed("data", data) as view:
            size = view.nbytes
            copy = view.tobytes() if PYPY or size <= COPY_SIZE else None
        if copy is not None:
            return Sending(self, copy, size, segment or max(size, 1), name, address, ancillary, flags).run()
        export = ffi.from_buffer("char[]", data)
        try:
            return Sending(self, export, size, segment or max(size, 1), name, address, ancillary, flags).run()
        finally:
            ffi.release(export)

    # ---- what was learned ----

    def max_segments(self, name: bytes, segment: int) -> int:
        """How many segments a call may have; 1: no offload."""
        refused = self._refused.get(name)
        return self.segments if refused is None or segment < refused[1] or not self._still_applies(name, refused) else 1

    def _still_applies(self, name: bytes, refused: Refused) -> bool:
        """Whether a refusal is still of this destination; that of another peer is forgotten. (Only a peer that has refused
        is asked for, and then many datagrams go one by one.)"""
        if name or refused[2] == self._peer():
            return True
        self._refused.pop(name, None)
        return False

    def record_refusal(self, refusal: int, name: bytes, address: Address, segment: int) -> None:
        if refusal == -errno.EIO or (refusal == -errno.EINVAL and self._lacks_checksums()):
            self.offload_refused = -refusal
            return
        refused, peer = self._refused, b"" if name else self._peer()
        known = refused.pop(name, None)
        if known is not None and known[2] == peer:
            segment = min(segment, known[1])
        while len(refused) >= MAX_DESTINATIONS:
            refused.pop(next(iter(refused.copy())), None)
        refused[name] = address, segment, peer

    def _lacks_checksums(self) -> bool:
        fd = target(self.sock)[0]
        return any(lib.lowsock_option(fd, *option) > 0 for option in _NO_CHECKSUMS)

    def is_ipv4(self, name: bytes) -> bool:
        """Whether datagrams go by IPv4: the destination decides, not the socket."""
        if self.family == socket.AF_INET:
            return True
        if name:
            return name[_HOST6] == MAPPED
        return self._peer()[_HOST6] == MAPPED

    def _peer(self) -> bytes:
        """The ``struct sockaddr`` of a connected socket's peer; empty where there is none."""
        name = ffi.new("char[]", lib.LOWSOCK_SOCKADDR)
        size = lib.lowsock_udp_peer(target(self.sock)[0], name)
        return ffi.buffer(name, max(size, 0))[:]

    def control_buffer(self, ancillary: Ancillary, name: bytes, segment: int) -> ControlBuffer:
        if self.ecn_refused is not None:
            ancillary = ancillary._replace(ecn=None)
        ipv4 = ancillary == NO_ANCILLARY or self.is_ipv4(name)
        return control_buffer(ancillary, ipv4, self._dscp[ipv4], segment)


class Sending:
    """One send: a cursor, which moves only by what the kernel took."""

    __slots__ = (
        "_address",
        "_ancillary",
        "_base",
        "_data",
        "_flags",
        "_name",
        "_segment",
        "_sender",
        "_sent",
        "_size",
        "at",
    )

    def __init__(
        self,
        sender: Sender,
        data: Any,
        size: int,
        segment: int,
        name: bytes,
        address: Address,
        ancillary: Ancillary,
        flags: int,
    ) -> None:
        self._sender, self._data, self._size, self._segment = sender, data, size, segment
        self._base = ffi.from_buffer("char[]", data) if type(data) is bytes else data
        self._name, self._address, self._ancillary, self._flags = name, address, ancillary, flags
        self.at = self._sent = 0

    def run(self, first: int | None = None, wait: bool = True) -> int:
        """Sends as far as it goes, and waits for the first datagram only, if ``wait``; returns how many bytes went, in all
        runs. After one that sent a part another goes on with the rest.
        ``first`` is the -errno of an attempt with offload that was made already: the kernel reports an error once, so it
        must not be lost."""
        sender, flags = self._sender, self._flags
        step = self._step if sender.zerocopy is None else self._zerocopy_step
        if target(sender.sock)[1]:
            self._flags |= MSG_DONTWAIT
        before = self._sent
        while not self._sent or self.at < self._size:
            fd = target(sender.sock)[0]
            answer = step(fd) if first is None else self._handle_answer(fd, first, *self._next())
            first = None
            if answer < 0 and wait and self._sent == before:
                answer = retry(sender.sock, flags, _POLLOUT, step, answer)
            if answer >= 0:
                self._sent += answer
                self.at = min(self._sent * self._segment, self._size)
            elif answer != _EINTR:
                break  # the next call says why
        return self.at

    def is_done(self) -> bool:
        """Whether all has gone."""
        return self._sent > 0 and self.at >= self._size

    def _step(self, fd: int) -> int:
        """One system call's worth, with offload where it is offered; returns the datagrams that went, or -errno."""
        size, count = self._next()
        if count == 1:
            return self._without_offload(fd)
        return self._handle_answer(fd, self._with_offload(fd, size), size, count)

    def _next(self) -> tuple[int, int]:
        """The bytes and datagrams of the next call: one datagram goes without offload."""
        left, segment = self._size - self.at, self._segment
        most = min(self._sender.max_segments(self._name, segment), MAX_BYTES // segment)
        size = min(left, most * segment) if most > 1 else min(left, segment)
        return size, max(-(-size // segment), 1)

    def _with_offload(self, fd: int, size: int) -> int:
        control = self._sender.control_buffer(self._ancillary, self._name, self._segment).buffer
        return _udp_send(fd, self._base + self.at, size, control, len(control), self._name, len(self._name), self._flags)

    def _handle_answer(self, fd: int, answer: int, size: int, count: int) -> int:
        """Turns the answer to a send with offload into datagrams that went or -errno. Sends again without, if refused."""
        if answer == -errno.EMSGSIZE:  # perhaps a pending error, which IP_RECVERR makes the next send report
            answer = self._with_offload(fd, size)
        if answer >= 0:
            return count
        if answer not in _OFFLOAD_REFUSALS:
            return answer
        ecn = self._sender.ecn_refused
        sent = self._without_offload(fd, size)
        if sent > 0 and ecn == self._sender.ecn_refused:  # else it was ECN that was refused
            self._sender.record_refusal(answer, self._name, self._address, self._segment)
        return sent

    def _without_offload(self, fd: int, size: int = -1) -> int:
        """Sends ``size`` bytes, -1 for all that is left, without offload; if ECN is refused, without that too."""
        answer = self._sendmmsg(fd, self._ancillary, size)
        if answer in _ECN_REFUSALS and self._ancillary.ecn is not None and self._sender.ecn_refused is None:
            sent = self._sendmmsg(fd, self._ancillary._replace(ecn=None), size)
            if sent > 0:
                self._sender.ecn_refused = -answer
                return sent
        return answer

    def _sendmmsg(self, fd: int, ancillary: Ancillary, size: int) -> int:
        control = self._sender.control_buffer(ancillary, self._name, 0).buffer
        left = self._size - self.at if size < 0 else size
        name, segment = self._name, self._segment
        data = self._base + self.at
        return _send_each(fd, data, left, segment, control, len(control), name, len(name), self._flags)

    # ---- MSG_ZEROCOPY ----

    def _zerocopy_step(self, fd: int) -> int:
        size, count = self._next()
        if size < _ZEROCOPY_LEAST or type(self._data) is not bytes:
            return self._step(fd)
        whole = self._data if size == self._size else self._data[self.at : self.at + size]
        control = self._sender.control_buffer(self._ancillary, self._name, self._segment if count > 1 else 0)
        answer = self._send_zerocopy(whole, control)
        if count > 1:
            return self._handle_answer(fd, answer, size, count)
        if answer in _ECN_REFUSALS and self._ancillary.ecn is not None:
            return self._without_offload(fd, size)
        return 1 if answer >= 0 else answer

    def _send_zerocopy(self, piece: bytes, control: ControlBuffer) -> int:
        """Sends by the socket's zero-copy sender, which waits itself on a blocking socket; returns the bytes, or -errno."""
        sender = self._sender.zerocopy
        if sender is None or sender._closed:  # another thread has ended the endpoint
            return -errno.EBADF
        try:
            return int(sender.send(piece, address=self._address, flags=self._flags, ancdata=control.messages))
        except ValueError as error:
            if not is_of_the_end(sender, error):
                raise
            return -errno.EBADF
        except OSError as error:
            if error.errno is None or not raised_inside(error):  # a timeout, or a signal handler's own error
                raise
            return -error.errno


def is_of_the_end(sender: ZeroCopySender, error: ValueError) -> bool:
    """Whether an error says that the zero-copy sender was closed meanwhile: for an endpoint that is EBADF."""
    return sender._closed and raised_inside(error)


def drain(sender: ZeroCopySender, timeout: float | None) -> bool:
    """Waits for zero-copy sends, at most ``timeout`` seconds; fails with EBADF if the endpoint ends meanwhile."""
    try:
        return sender.wait(timeout)
    except ValueError as error:
        if is_of_the_end(sender, error):
            fail(-errno.EBADF)
        raise
