# SPDX-License-Identifier: MIT
"""A zero-copy sender whose calls are awaitable. See send(2), MSG_ZEROCOPY."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from lowsock import errqueue
from lowsock._memory.ancillary import NO_ANCDATA
from lowsock._system.errors import fail
from lowsock._system.spellings import keyword_only, missing, refuse_old, renamed
from lowsock._system.unique import Unique
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, snapshot
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import ERROR, WRITE
from lowsock.errqueue._events import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, ControlMessage, Socket
    from lowsock.errqueue import Event, Sent


LIMITED = "limit the wait with asyncio.timeout, asyncio.wait_for or trio.move_on_after"


class ZeroCopySender(Unique):
    """A `lowsock.errqueue.ZeroCopySender` whose calls are awaitable, and an asynchronous context manager: leaving it is
    `aclose`, without the wait if an exception was raised. It borrows the socket, which is non-blocking, and never closes it.
    Tasks may share a sender. See send(2), socket(7)."""

    @renamed("ZeroCopySender", {"timeout": LIMITED})
    def __init__(self, sock: Socket, *, first_key: int | None = None) -> None:
        """As `lowsock.errqueue.ZeroCopySender`. Also raises `ValueError` for a socket with a timeout other than 0."""
        descriptor(sock)
        self._sock = sock
        self._sender = errqueue.ZeroCopySender(sock, first_key=first_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.aclose()
        else:
            self._sender.close(0)

    if not TYPE_CHECKING:
        __getattr__ = missing(__name__, {"close": "use await aclose()"})

    # ---- memory ----

    def buffer(self, size: int) -> memoryview:
        """As `lowsock.errqueue.ZeroCopySender.buffer`."""
        return self._sender.buffer(size)

    def is_free(self, view: memoryview) -> bool:
        """As `lowsock.errqueue.ZeroCopySender.is_free`."""
        return self._sender.is_free(view)

    # ---- sending ----

    @keyword_only
    async def send(
        self,
        data: bytes | memoryview,
        *old: NoReturn,
        address: Address = None,
        flags: int = 0,
        ancdata: Iterable[ControlMessage] = NO_ANCDATA,
    ) -> Sent:
        """As `lowsock.errqueue.ZeroCopySender.send`, awaitable. Memory of `buffer` is read when it is sent: do not change it
        while this waits. See send(2), MSG_ZEROCOPY."""
        if old:
            refuse_old("send", "address", "flags", "ancdata")
        flags, send = checked_flags(flags), self._sender.send
        own = ancdata if ancdata is NO_ANCDATA else snapshot("ancdata", "(level, type, data)", ancdata)
        return await attempt(self._sock, WRITE, lambda: send(data, address=address, flags=flags, ancdata=own))

    # ---- the error queue ----

    async def read(self, limit: int = LIMIT) -> list[Event]:
        """As `lowsock.errqueue.ZeroCopySender.read`: it never waits. See recvmsg(2), MSG_ERRQUEUE."""
        if is_trio():
            await checkpoint()
        return self._sender.read(limit)

    async def drain(self) -> bool:
        """Waits until all sends are complete; returns True. The sender goes on. See recvmsg(2), MSG_ERRQUEUE."""
        return await self.wait()

    @renamed("wait", {"timeout": LIMITED}, after=1)
    async def wait(self, *, key: int | None = None) -> bool:
        """Waits until the send with this number is complete, or all are; returns True. See recvmsg(2), MSG_ERRQUEUE."""
        return await attempt(self._sock, ERROR, lambda: self._sender.wait(0, key) or fail(-errno.EAGAIN))

    @property
    def pending(self) -> int:
        """How many sends are not complete yet."""
        return self._sender.pending

    @property
    def pending_bytes(self) -> int:
        """How many bytes of memory are kept for these sends."""
        return self._sender.pending_bytes

    @property
    def copied(self) -> int:
        """As `lowsock.errqueue.ZeroCopySender.copied`."""
        return self._sender.copied

    @property
    def dropped(self) -> int:
        """As `lowsock.errqueue.ZeroCopySender.dropped`."""
        return self._sender.dropped

    @property
    def next_key(self) -> int:
        """As `lowsock.errqueue.ZeroCopySender.next_key`."""
        return self._sender.next_key

    # ---- the end ----

    async def aclose(self) -> None:
        """Ends the sender, once all sends are complete. The socket stays open, and may have another sender.

        If it is cancelled, it ends the sender at once: the memory of the incomplete sends is kept for as long as the process
        runs, and a `ResourceWarning` says so. See `lowsock.errqueue.ZeroCopySender.close`.
        """
        await finish(self._sock, self._sender)


async def finish(sock: Socket, sender: Any) -> None:
    """Waits until the kernel is done with what ``sender`` sent, and closes it; also if the wait is cancelled or fails."""

    def check() -> None:
        if not sender._is_done():
            fail(-errno.EAGAIN)

    try:
        await attempt(sock, ERROR, check)
    finally:
        sender.close(0)
