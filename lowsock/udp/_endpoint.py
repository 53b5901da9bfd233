# SPDX-License-Identifier: MIT
"""The endpoint, which finds out once what a UDP socket can do, and then uses it. See udp(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock import cmsg
from lowsock._system.target import target
from lowsock.cmsg._options import restore_options
from lowsock.errqueue._events import LIMIT, Event, read
from lowsock.errqueue._zerocopy import ZeroCopySender
from lowsock.udp._arrival import Coalesced, Datagram, Received
from lowsock.udp._capabilities import check, current_options, has_coalescing, kernel_max_segments, set_clock
from lowsock.udp._receiving import Receiver
from lowsock.udp._send_many import send_many
from lowsock.udp._sending import Fallbacks, Sender

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, Socket


class Endpoint:
    """A bound or connected UDP socket (``AF_INET``, ``AF_INET6``, dual-stack) for datagrams in bulk.

    The socket stays yours: its timeout counts, options that you set stay, and it is never closed here. The endpoint sets
    the options that its arguments ask for, and leaves them set; the properties of the same names say which of them the
    platform and the running kernel have. Threads may share an endpoint. See udp(7).
    """

    def __init__(
        self,
        sock: Socket,
        *,
        gso: bool = True,
        gro: bool = True,
        ecn: bool = True,
        local: bool = True,
        timestamps: bool = False,
        errors: bool = False,
        zerocopy: bool = False,
        txtime: int | None = None,
    ) -> None:
        """``gso``, ``gro``: segmentation offload in sends and in receives. ``ecn``, ``local``, ``timestamps``: let the
        kernel tell these of each datagram. ``errors``: fill the error queue (`read_errors`). ``zerocopy``: send what is
        large by MSG_ZEROCOPY; then `close` the endpoint before the socket. ``txtime``: the clock, such as
        `time.CLOCK_TAI`, that the ``txtime`` of a send goes by (SO_TXTIME).

        Raises `ValueError` for a socket that is not of UDP, or has UDP_SEGMENT set for all that it sends; `OSError` as the
        kernel says it. Then the options are as they were.
        """
        family = check(sock)
        self._sock = sock
        self._zerocopy: ZeroCopySender | None = None
        before = current_options(sock)
        try:
            self._gro = has_coalescing(sock) if not gro else _enabled(sock, "Gro")
            self._ecn = ecn and _enabled(sock, "TrafficClass")
            self._local = local and _enabled(sock, "LocalAddress")
            self._timestamps = timestamps and _enabled(sock, "ReceiveTime")
            self._errors = errors and _enabled(sock, "ExtendedError")
            self._zerocopy = _zerocopy_sender(sock) if zerocopy else None
            self._sender = Sender(sock, kernel_max_segments(sock, family) if gso else 1, self._zerocopy)
            self._txtime = txtime is not None and set_clock(sock, txtime)  # the last: Linux never takes it back
        except BaseException:
            try:
                self.close(0)
            finally:
                restore_options(target(sock)[0], before)
            raise
        self._receiver = Receiver(sock, self._timestamps)

    # ---- what is there ----

    def fileno(self) -> int:
        """The socket's descriptor."""
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
    def gro(self) -> bool:
        """Whether the kernel may put datagrams together (UDP_GRO)."""
        return self._gro

    @property
    def ecn(self) -> bool:
        """Whether datagrams come with their ECN."""
        return self._ecn

    @property
    def local(self) -> bool:
        """Whether datagrams come with our address that they came to, and the interface."""
        return self._local

    @property
    def timestamps(self) -> bool:
        """Whether datagrams come with the time when the kernel received them."""
        return self._timestamps

    @property
    def zerocopy(self) -> bool:
        """Whether large sends of `bytes` go by MSG_ZEROCOPY."""
        return self._zerocopy is not None

    @property
    def txtime(self) -> bool:
        """Whether SO_TXTIME could be set, so that sends may say when they are to leave."""
        return self._txtime

    @property
    def fallbacks(self) -> Fallbacks:
        """What the endpoint has learned from refused sends so far: `Fallbacks`, a copy."""
        return self._sender.fallbacks()

    # ---- sending ----

    def send(
        self,
        data: Buffer,
        address: Address = None,
        *,
        segment_size: int | None = None,
        ecn: int | None = None,
        source: Any = None,
        ifindex: int | None = None,
        txtime: int | None = None,
        flags: int = 0,
    ) -> int:
        """Sends ``data``, one bytes-like object, as datagrams of ``segment_size`` bytes, the last one of what is left;
        returns how many datagrams went. Without ``segment_size`` it is one datagram.

        ``address`` is numeric; without it the socket is connected. ``ecn`` is 0 to 3 or a `cmsg.ECN`, beside the DSCP
        that the socket had when the endpoint was made; None leaves it to the socket. ``source`` and ``ifindex`` say from
        which address and interface, as `Datagram` tells them; None leaves it to the kernel. ``txtime`` is in nanoseconds
        of the clock that the endpoint was made with.

        Up to 65507 bytes and `max_gso_segments` datagrams go by each system call. Where the kernel refuses offload the
        same data goes by sendmmsg(2), and what was learned is remembered (`fallbacks`). A timeout is for the first
        datagram, a blocking socket waits for each. An error after some went ends the send, what went is returned, and the
        next call raises if the error lasts. To go on: ``data[sent * segment_size:]``.

        Raises what `lowsock.sendmsg` raises; `ValueError` for an address that is a host name. See udp(7), UDP_SEGMENT.
        """
        return self._sender.send(data, address, segment_size, ecn, source, ifindex, txtime, flags)

    def send_many(
        self,
        datagrams: Iterable[tuple[Buffer, Address]],
        *,
        ecn: int | None = None,
        source: Any = None,
        flags: int = 0,
    ) -> int:
        """Sends datagrams ``(data, address)`` to different destinations in one batch; returns how many went.

        All are checked before the first is sent. The rest is as in `lowsock.sendmmsg` and `send`. See sendmmsg(2).
        """
        return send_many(self._sender, datagrams, ecn, source, flags)

    # ---- receiving ----

    def recv(self, flags: int = 0) -> list[Datagram]:
        """Receives one system call's worth: a list of at least one `Datagram`, in the order that they came.

        Those that the kernel put together (UDP_GRO) are cut apart. Where datagrams come alone it is a batch of up to 64
        from whatever sources, of which only the first is waited for; an error after it is raised by the next call. With
        ``MSG_PEEK`` they stay. Raises what `lowsock.recvmsg` raises; `ValueError` for ``MSG_ERRQUEUE``, see `read_errors`.
        See recvmsg(2), recvmmsg(2), udp(7).
        """
        return self._receiver.datagrams(flags)

    def recv_coalesced(self, flags: int = 0) -> Coalesced:
        """Receives one datagram, or those that the kernel put together, and leaves them so: `Coalesced`. See udp(7),
        UDP_GRO."""
        return self._receiver.coalesced(flags)

    def recv_into(self, buffers: Iterable[Buffer], flags: int = 0) -> Received:
        """The same into ``buffers``, writable bytes-like objects filled in their order, without a copy on CPython.

        65536 bytes hold whatever comes; of what is longer than the buffers the rest is lost, and ``msg_flags`` says
        ``MSG_TRUNC``. Raises what `lowsock.recvmsg_into` raises. See recvmsg(2), udp(7).
        """
        return self._receiver.into(buffers, flags)

    def read_errors(self, limit: int = LIMIT) -> list[Event]:
        """The events of the error queue, the oldest first, at most ``limit``; it never waits. See
        `lowsock.errqueue.read`."""
        return read(self._sock, limit)

    # ---- the end ----

    def close(self, timeout: float | None = None) -> None:
        """Waits until the kernel is done with what was sent by MSG_ZEROCOPY, at most ``timeout`` seconds: see
        `lowsock.errqueue.ZeroCopySender.close`. The socket stays open. Without ``zerocopy`` there is nothing to do."""
        if self._zerocopy is not None:
            self._zerocopy.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(None if kind is None else 0)


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
