# SPDX-License-Identifier: MIT
"""The endpoint, which finds out once what a UDP socket can do, and then uses it. See udp(7)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lowsock import cmsg
from lowsock._system.arguments import checked_bool, checked_int, checked_seconds
from lowsock._system.spellings import missing, refuse, renamed, shown_as
from lowsock._system.target import target
from lowsock.cmsg._options import restore_options
from lowsock.errqueue._events import LIMIT, Event, read
from lowsock.errqueue._zerocopy import ZeroCopySender
from lowsock.udp._arrival import Coalesced, Datagram, Scattered
from lowsock.udp._capabilities import check, current_options, has_coalescing, kernel_max_segments, refuse_copies, set_clock
from lowsock.udp._former import MISSING, OLD_OPTIONS, OLD_PROPERTIES, OLD_RECV, OLD_SEND, refuse_send
from lowsock.udp._mixed import Transmit
from lowsock.udp._receiving import Receiver
from lowsock.udp._send_many import send_many
from lowsock.udp._sending import Fallbacks, Sender, drain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, Host, Socket


_OPTIONS = ("gso", "gro", "recv_ecn", "recv_pktinfo", "recv_timestamps", "recv_errors", "zerocopy")  # True or False


class Ended:
    """Stands in for the socket of an endpoint that has ended: calls fail with EBADF, as on a closed socket."""

    def fileno(self) -> int:
        return -1


ENDED = Ended()


class Endpoint:
    """A bound or connected UDP socket (``AF_INET``, ``AF_INET6``, dual-stack) for datagrams in bulk.

    The endpoint owns the socket: `close` and ``with`` close it, `detach` gives it back. Its timeout counts, and options that
    you set stay. The endpoint sets the options that its arguments ask for, and leaves them set; the properties of the same
    names say which of them the platform and the running kernel have. Threads may share an endpoint. See udp(7).
    """

    @renamed("Endpoint", OLD_OPTIONS)
    def __init__(
        self,
        sock: Socket,
        *,
        gso: bool = True,
        gro: bool = True,
        recv_ecn: bool = True,
        recv_pktinfo: bool = True,
        recv_timestamps: bool = False,
        recv_errors: bool = False,
        zerocopy: bool = False,
        txtime_clock: int | None = None,
    ) -> None:
        """``gso``, ``gro``: segmentation offload in sends and in receives. ``recv_ecn``, ``recv_pktinfo``,
        ``recv_timestamps``: let the kernel tell of each datagram its ECN, our address and the interface that it came to, and
        when. ``recv_errors``: fill the error queue (`read_errors`). ``zerocopy``: send what is large by MSG_ZEROCOPY.
        ``txtime_clock``: the clock, such as `time.CLOCK_TAI`, that the ``txtime_ns`` of a send goes by (SO_TXTIME).

        Raises `TypeError` for an option that is neither True nor False, and for an object without ``close()``; `ValueError`
        for a socket that is not of UDP, or has UDP_SEGMENT set for all that it sends; `OSError` as the kernel says it. Then
        the socket is still yours, and its options are as they were.
        """
        _check_options(gso, gro, recv_ecn, recv_pktinfo, recv_timestamps, recv_errors, zerocopy)
        clock = _checked_clock(txtime_clock)
        family = check(sock)
        self._sock: Any = sock
        self._zerocopy: ZeroCopySender | None = None
        before = current_options(sock)
        try:
            self._gro = has_coalescing(sock) if not gro else _enabled(sock, "Gro")
            self._recv_ecn = recv_ecn and _enabled(sock, "TrafficClass")
            self._recv_pktinfo = recv_pktinfo and _enabled(sock, "LocalAddress")
            self._recv_timestamps = recv_timestamps and _enabled(sock, "ReceiveTime")
            self._recv_errors = recv_errors and _enabled(sock, "ExtendedError")
            self._zerocopy = _zerocopy_sender(sock) if zerocopy else None
            self._sender = Sender(sock, kernel_max_segments(sock, family) if gso else 1, self._zerocopy)
            has_clock = clock is not None and set_clock(sock, clock)  # the last: Linux never takes it back
            self._txtime_clock = clock if has_clock else None
        except BaseException:
            try:
                if self._zerocopy is not None:
                    self._zerocopy.close(0)
            finally:
                restore_options(target(sock)[0], before)
            raise
        self._receiver = Receiver(sock, self._recv_timestamps)
        self._send, self._recv = self._sender.send, self._receiver.datagrams  # looked up once, for each call

    # ---- what is there ----

    def fileno(self) -> int:
        """The socket's descriptor; -1 if it is closed or given back."""
        return target(self._sock)[0]

    def gettimeout(self) -> float | None:
        """The socket's timeout in seconds; None where it has none."""
        return target(self._sock)[1]

    @property
    def max_gso_segments(self) -> int:
        """How many datagrams one call sends by UDP_SEGMENT: 128, before Linux 6.9 64; 1 where there is no offload, or the
        socket refused it (`fallbacks`)."""
        return self._sender.segments

    @property
    def gso(self) -> bool:
        """Whether sends go by segmentation offload (UDP_SEGMENT)."""
        return self._sender.segments > 1

    @property
    def gro(self) -> bool:
        """Whether the kernel may put datagrams together (UDP_GRO)."""
        return self._gro

    @property
    def recv_ecn(self) -> bool:
        """Whether datagrams come with their ECN."""
        return self._recv_ecn

    @property
    def recv_pktinfo(self) -> bool:
        """Whether datagrams come with our address that they came to, and the interface."""
        return self._recv_pktinfo

    @property
    def recv_timestamps(self) -> bool:
        """Whether datagrams come with the time when the kernel received them."""
        return self._recv_timestamps

    @property
    def recv_errors(self) -> bool:
        """Whether the kernel fills the error queue (`read_errors`)."""
        return self._recv_errors

    @property
    def zerocopy(self) -> bool:
        """Whether large sends of `bytes` go by MSG_ZEROCOPY."""
        return self._zerocopy is not None

    @property
    def txtime_clock(self) -> int | None:
        """The clock that the ``txtime_ns`` of a send goes by; None where it was not asked for, or SO_TXTIME is not there."""
        return self._txtime_clock

    @property
    def fallbacks(self) -> Fallbacks:
        """What the endpoint has learned from refused sends so far: `Fallbacks`, a copy."""
        return self._sender.fallbacks()

    # ---- sending ----

    def send(
        self,
        data: Buffer,
        *,
        address: Address,
        segment_size: int | None = None,
        ecn: int | None = None,
        local: Host | None = None,
        ifindex: int | None = None,
        txtime_ns: int | None = None,
        flags: int = 0,
    ) -> int:
        """Sends ``data``, one bytes-like object, as datagrams of ``segment_size`` bytes, the last one of what is left;
        returns how many bytes went, whole datagrams all of them. Without ``segment_size`` it is one datagram.

        ``address`` is numeric; None sends to the peer of a connected socket. ``ecn`` is 0 to 3 or a `cmsg.ECN`, beside the
        DSCP that the socket had when the endpoint was made; None leaves it to the socket. ``local`` and ``ifindex`` say from
        which address and interface, as `Datagram` tells them; None leaves it to the kernel. ``txtime_ns`` is in nanoseconds
        of the clock that the endpoint was made with.

        Up to 65507 bytes and `max_gso_segments` datagrams go by each system call. Where the kernel refuses offload the
        same data goes by sendmmsg(2), and what was learned is remembered (`fallbacks`). A timeout is for the first
        datagram, a blocking socket waits for each. An error after some went ends the send, what went is returned, and the
        next call raises if the error lasts. To go on: ``data[sent:]``.

        Raises what `lowsock.sendmsg` raises; `ValueError` for an address that is a host name. See udp(7), UDP_SEGMENT.
        """
        return self._send(data, address, segment_size, ecn, local, ifindex, txtime_ns, flags)

    if not TYPE_CHECKING:

        @shown_as(send)
        def send(
            self,
            data,
            *by_position,
            address=MISSING,
            segment_size=None,
            ecn=None,
            local=None,
            ifindex=None,
            txtime_ns=None,
            flags=0,
            **old,
        ):
            if old or by_position or address is MISSING:
                refuse_send(old, by_position)
            return self._send(data, address, segment_size, ecn, local, ifindex, txtime_ns, flags)

    def send_many(
        self,
        datagrams: Iterable[tuple[Buffer, Address] | Transmit | Datagram | Coalesced],
        *,
        ecn: int | None = None,
        local: Host | None = None,
        flags: int = 0,
    ) -> int:
        """Sends datagrams to different destinations in one batch; returns how many went: ``datagrams[sent:]`` is the rest.

        Each is a tuple ``(data, address)``; a `Transmit`; or what `recv` or `recv_coalesced` returned, whose data goes back
        to its ``address`` from its ``local``. ``ecn`` and ``local``, as in `send`, are for those that do not say it. A
        `Transmit` with a ``segment_size`` counts as one. Where only some of its datagrams find room, the rest is waited for;
        if that fails, the exception's ``characters_written`` counts the bytes of all that went.

        All are checked before the first is sent. The rest is as in `lowsock.sendmmsg` and `send`. See sendmmsg(2).
        """
        return send_many(self._sender, datagrams, ecn, local, flags)

    if not TYPE_CHECKING:

        @shown_as(send_many)
        def send_many(self, datagrams, *, ecn=None, local=None, flags=0, **old):
            if old:
                refuse("send_many", old, OLD_SEND)
            return send_many(self._sender, datagrams, ecn, local, flags)

    # ---- receiving ----

    def recv(self, *, flags: int = 0) -> list[Datagram]:
        """Receives one system call's worth: a list of at least one `Datagram`, in the order that they came.

        Those that the kernel put together (UDP_GRO) are cut apart. Where datagrams come alone it is a batch of up to 64
        from whatever sources, of which only the first is waited for; an error after it is raised by the next call. With
        ``MSG_PEEK`` they stay. Raises what `lowsock.recvmsg` raises; `ValueError` for ``MSG_ERRQUEUE``, see `read_errors`.
        See recvmsg(2), recvmmsg(2), udp(7).
        """
        return self._recv(flags)

    def recv_coalesced(self, *, flags: int = 0) -> Coalesced:
        """Receives one datagram, or those that the kernel put together, and leaves them so: `Coalesced`. See udp(7),
        UDP_GRO."""
        return self._receiver.coalesced(flags)

    def recv_into(self, buffers: Iterable[Buffer], *, flags: int = 0) -> Scattered:
        """The same into ``buffers``, writable bytes-like objects filled in their order, without a copy on CPython.

        65536 bytes hold whatever comes; of what is longer than the buffers the rest is lost, and ``msg_flags`` says
        ``MSG_TRUNC``. Raises what `lowsock.recvmsg_into` raises. See recvmsg(2), udp(7).
        """
        return self._receiver.into(buffers, flags)

    if not TYPE_CHECKING:

        @shown_as(recv)
        def recv(self, *size, flags=0):
            if size:
                refuse("recv", ("size",), OLD_RECV)
            return self._recv(flags)

        @shown_as(recv_coalesced)
        def recv_coalesced(self, *size, flags=0):
            if size:
                refuse("recv_coalesced", ("size",), OLD_RECV)
            return self._receiver.coalesced(flags)

        @shown_as(recv_into)
        def recv_into(self, buffers, *by_position, flags=0):
            if by_position:
                refuse("recv_into", ("flags by position",), OLD_RECV)
            return self._receiver.into(buffers, flags)

    def read_errors(self, limit: int = LIMIT) -> list[Event]:
        """The events of the error queue, the oldest first, at most ``limit``; it never waits. See
        `lowsock.errqueue.read`."""
        return read(self._sock, limit)

    # ---- the end ----

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until the kernel is done with what was sent by MSG_ZEROCOPY, at most ``timeout`` seconds; returns whether it
        is. Without ``zerocopy`` there is nothing to wait for. See `lowsock.errqueue.ZeroCopySender`."""
        checked_seconds("timeout", timeout)
        zerocopy = self._zerocopy  # read once: another thread may end the endpoint
        return zerocopy is None or drain(zerocopy, timeout)

    def detach(self) -> Socket:
        """Gives back the socket that the endpoint was made with, open, and ends the endpoint: what it is called for after
        that fails with EBADF. `drain` it first: the memory of what MSG_ZEROCOPY has in flight is kept for good, and a
        `ResourceWarning` says so. Raises `ValueError` if it has ended. See udp(7)."""
        sock: Socket = self._sock
        if sock is ENDED:
            raise ValueError("this endpoint is closed, or its socket given back")
        self._end(_keep)
        return sock

    def close(self, timeout: float | None = None) -> None:
        """Closes the socket, by its ``close()`` or, if it is a number, by close(2). You may call it again.

        Before that it waits until the kernel is done with what was sent by MSG_ZEROCOPY, at most ``timeout`` seconds: see
        `lowsock.errqueue.ZeroCopySender.close`. Leaving ``with`` by an exception does not wait. The socket is closed even if
        the wait is interrupted by an exception.
        """
        checked_seconds("timeout", timeout)
        zerocopy = self._zerocopy
        try:
            if zerocopy is not None:
                zerocopy.close(timeout)
        finally:
            self._end(_close)

    def _end(self, dispose: Callable[[Any], object]) -> None:
        """Ends the endpoint, once. Zero-copy sends in flight do not hold it up."""
        sock, self._sock = self._sock, ENDED
        if sock is ENDED:
            return
        self._sender.sock = self._receiver.sock = ENDED
        zerocopy, self._zerocopy, self._sender.zerocopy = self._zerocopy, None, None
        try:
            if zerocopy is not None:
                zerocopy.close(0)
        finally:
            dispose(sock)

    __reduce_ex__ = refuse_copies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(None if kind is None else 0)

    if not TYPE_CHECKING:
        __getattr__ = missing(__name__, OLD_PROPERTIES)


def _keep(sock: Any) -> None:
    pass


def _close(sock: Any) -> None:
    if isinstance(sock, int):
        os.close(sock)
    else:
        sock.close()


def _check_options(*values: Any) -> None:
    for name, value in zip(_OPTIONS, values):
        checked_bool(name, value)


def _checked_clock(clock: Any) -> int | None:
    if clock is None:
        return None
    if isinstance(clock, bool):
        raise TypeError(f"txtime_clock must be a clock, such as time.CLOCK_TAI, or None, not {clock}")
    return checked_int("txtime_clock", clock, least=0)


def _enabled(sock: Socket, name: str) -> bool:
    """Sets the options of a class of messages; False where the platform or the kernel lacks it."""
    cls = getattr(cmsg, name, None)  # `cmsg` hides what the platform lacks
    if cls is None:
        return False
    try:
        cmsg.enable(sock, cls)
    except NotImplementedError:
        return False
    return True


def _zerocopy_sender(sock: Socket) -> ZeroCopySender | None:
    try:
        return ZeroCopySender(sock)
    except NotImplementedError:
        return None
