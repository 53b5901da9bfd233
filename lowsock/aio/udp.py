# SPDX-License-Identifier: MIT
"""Datagrams in bulk, awaitable. What they arrive as is in `lowsock.udp`. See udp(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock import udp
from lowsock._system.exports import public
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, snapshot
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import READ, WRITE
from lowsock.aio._zerocopy import finish
from lowsock.errqueue._events import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, Socket
    from lowsock.errqueue import Event
    from lowsock.udp import Coalesced, Datagram, Fallbacks, Received

__all__ = ["Endpoint"]


class Endpoint:
    """A `lowsock.udp.Endpoint` whose calls are awaitable. The socket is non-blocking, and stays yours. Tasks may share an
    endpoint. See udp(7)."""

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
        """As `lowsock.udp.Endpoint`. Also raises `ValueError` for a socket with a timeout other than 0."""
        descriptor(sock)
        self._sock = sock
        self._endpoint = udp.Endpoint(
            sock,
            gso=gso,
            gro=gro,
            ecn=ecn,
            local=local,
            timestamps=timestamps,
            errors=errors,
            zerocopy=zerocopy,
            txtime=txtime,
        )

    # ---- what it has ----

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._endpoint.fileno()

    def gettimeout(self) -> float | None:
        """The socket's timeout: 0, or None if the socket has none."""
        return self._endpoint.gettimeout()

    @property
    def max_gso_segments(self) -> int:
        """As `lowsock.udp.Endpoint.max_gso_segments`."""
        return self._endpoint.max_gso_segments

    @property
    def gro(self) -> bool:
        """Whether the kernel may join datagrams (UDP_GRO)."""
        return self._endpoint.gro

    @property
    def ecn(self) -> bool:
        """Whether datagrams come with their ECN."""
        return self._endpoint.ecn

    @property
    def local(self) -> bool:
        """Whether datagrams come with our address that they were sent to, and the interface."""
        return self._endpoint.local

    @property
    def timestamps(self) -> bool:
        """Whether datagrams come with the time when the kernel received them."""
        return self._endpoint.timestamps

    @property
    def zerocopy(self) -> bool:
        """Whether large sends of `bytes` go by MSG_ZEROCOPY."""
        return self._endpoint.zerocopy

    @property
    def txtime(self) -> bool:
        """Whether SO_TXTIME could be set, so that sends may say when their datagrams leave."""
        return self._endpoint.txtime

    @property
    def fallbacks(self) -> Fallbacks:
        """Which fallbacks the sends so far have led to: `lowsock.udp.Fallbacks`, a copy."""
        return self._endpoint.fallbacks

    # ---- sending ----

    async def send(
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
        """As `lowsock.udp.Endpoint.send`, awaitable; returns how many datagrams went. It waits for the first only: if it is
        cancelled, nothing has gone. See udp(7), UDP_SEGMENT."""
        flags, send = checked_flags(flags), self._endpoint.send
        options: dict[str, Any] = {"segment_size": segment_size, "ecn": ecn, "source": source, "ifindex": ifindex}
        return await attempt(self._sock, WRITE, lambda: send(data, address, txtime=txtime, flags=flags, **options))

    async def send_many(
        self,
        datagrams: Iterable[tuple[Buffer, Address]],
        *,
        ecn: int | None = None,
        source: Any = None,
        flags: int = 0,
    ) -> int:
        """As `lowsock.udp.Endpoint.send_many`, awaitable; returns how many datagrams went. See sendmmsg(2)."""
        own = snapshot("datagrams", "(data, address)", datagrams)
        flags, send_many = checked_flags(flags), self._endpoint.send_many
        return await attempt(self._sock, WRITE, lambda: send_many(own, ecn=ecn, source=source, flags=flags))

    # ---- receiving ----

    async def recv(self, flags: int = 0) -> list[Datagram]:
        """As `lowsock.udp.Endpoint.recv`, awaitable. See recvmsg(2), udp(7)."""
        flags = checked_flags(flags)
        return await attempt(self._sock, READ, lambda: self._endpoint.recv(flags))

    async def recv_coalesced(self, flags: int = 0) -> Coalesced:
        """As `lowsock.udp.Endpoint.recv_coalesced`, awaitable. See udp(7), UDP_GRO."""
        flags = checked_flags(flags)
        return await attempt(self._sock, READ, lambda: self._endpoint.recv_coalesced(flags))

    async def recv_into(self, buffers: Iterable[Buffer], flags: int = 0) -> Received:
        """As `lowsock.udp.Endpoint.recv_into`, awaitable. The buffers are not locked while it waits. See recvmsg(2)."""
        flags, own = checked_flags(flags), snapshot("buffers", "bytes-like objects", buffers)
        return await attempt(self._sock, READ, lambda: self._endpoint.recv_into(own, flags))

    async def read_errors(self, limit: int = LIMIT) -> list[Event]:
        """The events of the error queue, the oldest first, at most ``limit``. It never waits; `lowsock.aio.errqueue.wait`
        does. See recvmsg(2), MSG_ERRQUEUE."""
        if is_trio():
            await checkpoint()
        return self._endpoint.read_errors(limit)

    # ---- the end ----

    async def close(self, timeout: float | None = None) -> None:
        """Waits until the kernel is done with what was sent by MSG_ZEROCOPY, at most ``timeout`` seconds; then does what
        `lowsock.errqueue.ZeroCopySender.close` does. The socket stays open. Without ``zerocopy`` there is nothing to do. If
        it is cancelled, nothing is closed yet."""
        sender = self._endpoint._zerocopy
        if sender is None:
            if is_trio():
                await checkpoint()
            return
        if timeout == 0:
            sender.close(0)
        else:
            await finish(self._sock, sender)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(None if kind is None else 0)


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
