# SPDX-License-Identifier: MIT
"""Datagrams in bulk, awaitable. What they arrive as is that of `lowsock.udp`, under the same names. See udp(7)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from lowsock import udp
from lowsock._system.errors import fail
from lowsock._system.exports import public
from lowsock._system.spellings import missing, refuse, renamed, shown_as
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, snapshot
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import ERROR, READ, WRITE
from lowsock.errqueue._events import LIMIT
from lowsock.udp import Coalesced, Datagram, Fallbacks, Scattered, Transmit
from lowsock.udp._capabilities import refuse_copies
from lowsock.udp._endpoint import ENDED
from lowsock.udp._former import MISSING, OLD_OPTIONS, OLD_PROPERTIES, OLD_RECV, OLD_SEND, refuse_send
from lowsock.udp._send_many import resumable
from lowsock.udp._sending import drain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, Host, Socket
    from lowsock.errqueue import Event

__all__ = ["Coalesced", "Datagram", "Endpoint", "Fallbacks", "Scattered", "Transmit"]


class Endpoint:
    """A `lowsock.udp.Endpoint` whose calls are awaitable. The socket is non-blocking, and the endpoint owns it: `aclose` and
    ``async with`` close it, `detach` gives it back. Tasks may share an endpoint. See udp(7)."""

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
        """As `lowsock.udp.Endpoint`. Also raises `ValueError` for a socket with a timeout other than 0."""
        descriptor(sock)
        self._sock: Any = sock
        self._endpoint = udp.Endpoint(
            sock,
            gso=gso,
            gro=gro,
            recv_ecn=recv_ecn,
            recv_pktinfo=recv_pktinfo,
            recv_timestamps=recv_timestamps,
            recv_errors=recv_errors,
            zerocopy=zerocopy,
            txtime_clock=txtime_clock,
        )

    # ---- what it has ----

    def fileno(self) -> int:
        """The socket's descriptor; -1 if it is closed or given back."""
        return self._endpoint.fileno()

    def gettimeout(self) -> float | None:
        """The socket's timeout: 0, or None if the socket has none."""
        return self._endpoint.gettimeout()

    @property
    def max_gso_segments(self) -> int:
        """As `lowsock.udp.Endpoint.max_gso_segments`."""
        return self._endpoint.max_gso_segments

    @property
    def gso(self) -> bool:
        """Whether sends go by segmentation offload (UDP_SEGMENT)."""
        return self._endpoint.gso

    @property
    def gro(self) -> bool:
        """Whether the kernel may join datagrams (UDP_GRO)."""
        return self._endpoint.gro

    @property
    def recv_ecn(self) -> bool:
        """Whether datagrams come with their ECN."""
        return self._endpoint.recv_ecn

    @property
    def recv_pktinfo(self) -> bool:
        """Whether datagrams come with our address that they were sent to, and the interface."""
        return self._endpoint.recv_pktinfo

    @property
    def recv_timestamps(self) -> bool:
        """Whether datagrams come with the time when the kernel received them."""
        return self._endpoint.recv_timestamps

    @property
    def recv_errors(self) -> bool:
        """Whether the kernel fills the error queue (`read_errors`)."""
        return self._endpoint.recv_errors

    @property
    def zerocopy(self) -> bool:
        """Whether large sends of `bytes` go by MSG_ZEROCOPY."""
        return self._endpoint.zerocopy

    @property
    def txtime_clock(self) -> int | None:
        """As `lowsock.udp.Endpoint.txtime_clock`."""
        return self._endpoint.txtime_clock

    @property
    def fallbacks(self) -> Fallbacks:
        """Which fallbacks the sends so far have led to: `Fallbacks`, a copy."""
        return self._endpoint.fallbacks

    # ---- sending ----

    async def send(
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
        """As `lowsock.udp.Endpoint.send`, awaitable; returns the bytes that went. It waits for the first datagram only: if
        it is cancelled, nothing has gone. See udp(7), UDP_SEGMENT."""
        flags, send = checked_flags(flags), self._endpoint._send
        return await attempt(
            self._sock, WRITE, lambda: send(data, address, segment_size, ecn, local, ifindex, txtime_ns, flags)
        )

    async def send_many(
        self,
        datagrams: Iterable[tuple[Buffer, Address] | Transmit | Datagram | Coalesced],
        *,
        ecn: int | None = None,
        local: Host | None = None,
        flags: int = 0,
    ) -> int:
        """As `lowsock.udp.Endpoint.send_many`, awaitable; returns how many datagrams went. It waits for the first, and for
        the rest of a `Transmit` of which a part went: cancelled then, nobody can say how much went. See sendmmsg(2)."""
        call = resumable(self._endpoint._sender, datagrams, ecn, local, checked_flags(flags))
        return await attempt(self._sock, WRITE, call)

    if not TYPE_CHECKING:  # the same, quick, and with an error for calls in the spelling of before 0.2

        @shown_as(send)
        async def send(
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
            flags, send = checked_flags(flags), self._endpoint._send
            return await attempt(
                self._sock, WRITE, lambda: send(data, address, segment_size, ecn, local, ifindex, txtime_ns, flags)
            )

        @shown_as(send_many)
        async def send_many(self, datagrams, *, ecn=None, local=None, flags=0, **old):
            if old:
                refuse("send_many", old, OLD_SEND)
            call = resumable(self._endpoint._sender, datagrams, ecn, local, checked_flags(flags))
            return await attempt(self._sock, WRITE, call)

    # ---- receiving ----

    async def recv(self, *, flags: int = 0) -> list[Datagram]:
        """As `lowsock.udp.Endpoint.recv`, awaitable. See recvmsg(2), udp(7)."""
        flags = checked_flags(flags)
        return await attempt(self._sock, READ, lambda: self._endpoint._recv(flags))

    async def recv_coalesced(self, *, flags: int = 0) -> Coalesced:
        """As `lowsock.udp.Endpoint.recv_coalesced`, awaitable. See udp(7), UDP_GRO."""
        flags = checked_flags(flags)
        return await attempt(self._sock, READ, lambda: self._endpoint.recv_coalesced(flags=flags))

    async def recv_into(self, buffers: Iterable[Buffer], *, flags: int = 0) -> Scattered:
        """As `lowsock.udp.Endpoint.recv_into`, awaitable. The buffers are not locked while it waits. See recvmsg(2)."""
        flags, own = checked_flags(flags), snapshot("buffers", "bytes-like objects", buffers)
        return await attempt(self._sock, READ, lambda: self._endpoint.recv_into(own, flags=flags))

    if not TYPE_CHECKING:

        @shown_as(recv)
        async def recv(self, *size, flags=0):
            if size:
                refuse("recv", ("size",), OLD_RECV)
            flags = checked_flags(flags)
            return await attempt(self._sock, READ, lambda: self._endpoint._recv(flags))

        @shown_as(recv_coalesced)
        async def recv_coalesced(self, *size, flags=0):
            if size:
                refuse("recv_coalesced", ("size",), OLD_RECV)
            flags = checked_flags(flags)
            return await attempt(self._sock, READ, lambda: self._endpoint.recv_coalesced(flags=flags))

        @shown_as(recv_into)
        async def recv_into(self, buffers, *by_position, flags=0):
            if by_position:
                refuse("recv_into", ("flags by position",), OLD_RECV)
            flags, own = checked_flags(flags), snapshot("buffers", "bytes-like objects", buffers)
            return await attempt(self._sock, READ, lambda: self._endpoint.recv_into(own, flags=flags))

    async def read_errors(self, limit: int = LIMIT) -> list[Event]:
        """The events of the error queue, the oldest first, at most ``limit``. It never waits; `lowsock.aio.errqueue.wait`
        does. See recvmsg(2), MSG_ERRQUEUE."""
        if is_trio():
            await checkpoint()
        return self._endpoint.read_errors(limit)

    # ---- the end ----

    async def drain(self) -> bool:
        """Waits until the kernel is done with what was sent by MSG_ZEROCOPY; returns True. Without ``zerocopy`` there is
        nothing to wait for. See `lowsock.udp.Endpoint.drain`."""
        sender = self._endpoint._zerocopy
        if sender is not None:
            return await attempt(self._sock, ERROR, lambda: drain(sender, 0) or fail(-errno.EAGAIN))
        if is_trio():
            await checkpoint()
        return True

    def detach(self) -> Socket:
        """As `lowsock.udp.Endpoint.detach`, at once: `drain` it first. Calls that wait fail with EBADF once woken."""
        sock = self._endpoint.detach()
        self._sock = ENDED
        return sock

    async def aclose(self) -> None:
        """Closes the socket. Calls that wait raise `OSError` (EBADF). You may call it again.

        Before that it waits until the kernel is done with what was sent by MSG_ZEROCOPY. If it is cancelled, or the wait
        fails, it closes at once: the memory that is in flight is kept for as long as the process runs, and a
        `ResourceWarning` says so. Leaving ``async with`` by an exception does not wait. See close(2).
        """
        sender = self._endpoint._zerocopy

        def check() -> None:
            if sender is not None and not sender._is_done():
                fail(-errno.EAGAIN)

        try:
            if sender is not None:
                await attempt(self._sock, ERROR, check)
            elif is_trio():
                await checkpoint()
        except OSError:
            if self._sock is not ENDED:  # else another task has closed it meanwhile
                raise
        finally:
            self._close()

    def _close(self) -> None:
        self._sock = ENDED
        self._endpoint._end(close)

    __reduce_ex__ = refuse_copies

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.aclose()
        else:
            self._close()

    if not TYPE_CHECKING:
        __getattr__ = missing(__name__, {**OLD_PROPERTIES, "close": "use await aclose()"})


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, gone={"Received": "use Scattered"})
