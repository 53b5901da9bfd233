# SPDX-License-Identifier: MIT
"""The error queue of a socket, awaitable: `lowsock.errqueue` has the events. Linux only. See recvmsg(2), ip(7)."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from lowsock import errqueue
from lowsock._system.arguments import checked_seconds
from lowsock._system.errors import fail
from lowsock._system.exports import public
from lowsock.aio._wait.attempts import attempt, descriptor
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import ERROR
from lowsock.aio._zerocopy import ZeroCopySender
from lowsock.errqueue._events import LIMIT

if TYPE_CHECKING:
    from lowsock._system.types import Socket
    from lowsock.errqueue import Event

__all__ = ["ZeroCopySender", "read", "wait"]


async def read(sock: Socket, limit: int = LIMIT) -> list[Event]:
    """As `lowsock.errqueue.read`: empties the error queue, and never waits. See recvmsg(2), MSG_ERRQUEUE."""
    descriptor(sock)
    if is_trio():
        await checkpoint()
    return errqueue.read(sock, limit)


async def wait(sock: Socket, timeout: float | None = None, limit: int = LIMIT) -> list[Event]:
    """As `lowsock.errqueue.wait`, awaitable: waits until the error queue has events, at most ``timeout`` seconds. Returns
    what `read` then returns, or an empty list when the time is up.

    Data that arrives does not wake this call, and this call does not hold up calls that wait for data. See recvmsg(2).
    """
    seconds = checked_seconds("timeout", timeout)
    deadline = None if seconds is None else time.monotonic() + seconds

    def read_once() -> list[Event]:
        events = errqueue.read(sock, limit)
        if not events and (deadline is None or time.monotonic() < deadline):
            fail(-errno.EAGAIN)
        return events

    return await attempt(sock, ERROR, read_once, deadline)


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
