# SPDX-License-Identifier: MIT
"""A zero-copy sender whose calls are awaitable. See send(2), MSG_ZEROCOPY."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any

from lowsock import errqueue
from lowsock._memory.ancillary import NO_ANCDATA
from lowsock._system.arguments import checked_seconds
from lowsock._system.errors import fail
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, snapshot
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import ERROR, WRITE
from lowsock.errqueue._events import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, ControlMessage, Socket
    from lowsock.errqueue import Event, Sent


class ZeroCopySender:
    """A `lowsock.errqueue.ZeroCopySender` whose calls are awaitable, and an asynchronous context manager. The socket is
    non-blocking, and stays yours. Tasks may share a sender. See send(2), socket(7)."""

    def __init__(self, sock: Socket, *, timeout: float | None = None, first_key: int | None = None) -> None:
        """As `lowsock.errqueue.ZeroCopySender`. Also raises `ValueError` for a socket with a timeout other than 0."""
        descriptor(sock)
        self._sock, self._timeout = sock, timeout
        self._sender = errqueue.ZeroCopySender(sock, timeout=timeout, first_key=first_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(self._timeout if kind is None else 0)

    # ---- memory ----

    def buffer(self, size: int) -> memoryview:
        """As `lowsock.errqueue.ZeroCopySender.buffer`."""
        return self._sender.buffer(size)

    def is_free(self, view: memoryview) -> bool:
        """As `lowsock.errqueue.ZeroCopySender.is_free`."""
        return self._sender.is_free(view)

    # ---- sending ----

    async def send(
        self,
        data: bytes | memoryview,
        address: Address = None,
        flags: int = 0,
        ancdata: Iterable[ControlMessage] = NO_ANCDATA,
    ) -> Sent:
        """As `lowsock.errqueue.ZeroCopySender.send`, awaitable. Memory of `buffer` is read when it is sent: do not change it
        while this waits. See send(2), MSG_ZEROCOPY."""
        flags, send = checked_flags(flags), self._sender.send
        own = ancdata if ancdata is NO_ANCDATA else snapshot("ancdata", "(level, type, data)", ancdata)
        return await attempt(self._sock, WRITE, lambda: send(data, address, flags, own))

    # ---- the error queue ----

    async def read(self, limit: int = LIMIT) -> list[Event]:
        """As `lowsock.errqueue.ZeroCopySender.read`: it never waits. See recvmsg(2), MSG_ERRQUEUE."""
        if is_trio():
            await checkpoint()
        return self._sender.read(limit)

    async def wait(self, timeout: float | None = None, key: int | None = None) -> bool:
        """As `lowsock.errqueue.ZeroCopySender.wait`, awaitable. See recvmsg(2), MSG_ERRQUEUE."""
        deadline = _deadline(timeout)

        def check() -> bool:
            done = self._sender.wait(0, key)
            if not done and (deadline is None or time.monotonic() < deadline):
                fail(-errno.EAGAIN)
            return done

        return await attempt(self._sock, ERROR, check, deadline)

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

    async def close(self, timeout: float | None = None) -> None:
        """As `lowsock.errqueue.ZeroCopySender.close`, awaitable. If it is cancelled, nothing is closed yet."""
        await finish(self._sock, self._sender, timeout)


async def finish(sock: Socket, sender: Any, timeout: float | None) -> None:
    """Waits until the kernel is done with what ``sender`` sent, at most ``timeout`` seconds, and closes it."""
    deadline = _deadline(timeout)

    def check() -> None:
        if not sender._is_done() and (deadline is None or time.monotonic() < deadline):
            fail(-errno.EAGAIN)

    await attempt(sock, ERROR, check, deadline)
    sender.close(0)


def _deadline(timeout: float | None) -> float | None:
    seconds = checked_seconds("timeout", timeout)
    return None if seconds is None else time.monotonic() + seconds
