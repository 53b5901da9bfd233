# SPDX-License-Identifier: MIT
"""The error queue of a socket, awaitable, with the events of `lowsock.errqueue`. Linux only. See recvmsg(2), ip(7)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lowsock import errqueue
from lowsock._system.errors import fail
from lowsock._system.exports import public
from lowsock._system.spellings import renamed
from lowsock.aio._wait.attempts import attempt, descriptor
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import ERROR
from lowsock.aio._zerocopy import LIMITED, ZeroCopySender
from lowsock.errqueue import (
    Event,
    IcmpError,
    LocalError,
    Origin,
    Sent,
    Stage,
    TransmitTimestamp,
    TxTimeMissed,
    TxTimeProblem,
    UnknownEvent,
    ZeroCopyCompletion,
)
from lowsock.errqueue._events import LIMIT

if TYPE_CHECKING:
    from lowsock._system.types import Socket

__all__ = [
    "Event",
    "IcmpError",
    "LocalError",
    "Origin",
    "Sent",
    "Stage",
    "TransmitTimestamp",
    "TxTimeMissed",
    "TxTimeProblem",
    "UnknownEvent",
    "ZeroCopyCompletion",
    "ZeroCopySender",
    "read",
    "wait",
]


async def read(sock: Socket, limit: int = LIMIT) -> list[Event]:
    """As `lowsock.errqueue.read`: empties the error queue, and never waits. See recvmsg(2), MSG_ERRQUEUE."""
    descriptor(sock)
    if is_trio():
        await checkpoint()
    return errqueue.read(sock, limit)


@renamed("wait", {"timeout": LIMITED}, after=1)
async def wait(sock: Socket, *, limit: int = LIMIT) -> list[Event]:
    """Waits until the error queue of ``sock`` has events; returns what `read` then returns.

    Data that arrives does not wake this call, and this call does not hold up calls that wait for data. If it is cancelled,
    it has read nothing. See recvmsg(2), MSG_ERRQUEUE.
    """

    def read_once() -> list[Event]:
        return errqueue.read(sock, limit) or fail(-errno.EAGAIN)

    return await attempt(sock, ERROR, read_once)


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
