# SPDX-License-Identifier: MIT
"""Batches, awaitable. Each call has a cursor, or uses a batch that has one, so it goes on where it was when it waited."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

from lowsock._batch import functions
from lowsock._batch.functions import listed
from lowsock._batch.inbox import events_of, has_ended
from lowsock._memory.ancillary import SOL_SOCKET
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import RETRYABLE, fail
from lowsock._system.ffi import lib
from lowsock._system.spellings import keyword_only, refuse_old
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, read_direction
from lowsock.aio._wait.waiters import WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from lowsock._batch.recv_batch import RecvBatch
    from lowsock._batch.send_batch import SendBatch
    from lowsock._system.types import Message, Received, Socket

_SO_TYPE = CONSTANTS["SO_TYPE"]


async def sendmmsg(sock: Socket, messages: Iterable[Message], flags: int = 0) -> int:
    """As `lowsock.sendmmsg`, awaitable, but not on a stream, which may take a part of a message: raises `ValueError`.

    A `SendBatch` keeps its place in the stream, also when the task is cancelled: see `send_batch`. See sendmmsg(2).
    """
    flags = checked_flags(flags)
    own = listed(messages)
    if lib.lowsock_option(descriptor(sock), SOL_SOCKET, _SO_TYPE) == socket.SOCK_STREAM:
        raise ValueError(
            "sock must not be a stream, which may take a part of a message: fill a SendBatch, and use send_batch"
        )
    return await attempt(sock, WRITE, lambda: functions.sendmmsg(sock, own, flags))


@keyword_only
async def recvmmsg(
    sock: Socket, vlen: int, bufsize: int, ancbufsize: int = 0, flags: int = 0, **old: NoReturn
) -> list[Received]:
    """As `lowsock.recvmmsg`, awaitable: waits for the first message only.

    To wait for all, make a `RecvBatch`, which keeps what had come when the task is cancelled: see `recv_batch`. See
    recvmmsg(2).
    """
    if "wait_all" in old:
        raise TypeError("recvmmsg() takes no wait_all: recv_batch(batch, sock, wait_all=True) keeps what had come")
    if old:
        raise TypeError(f"recvmmsg() got an unexpected keyword argument {next(iter(old))!r}")
    flags = checked_flags(flags)
    return await attempt(sock, read_direction(flags), lambda: functions.recvmmsg(sock, vlen, bufsize, ancbufsize, flags))


@keyword_only
async def send_batch(batch: SendBatch, sock: Socket, *old: NoReturn, flags: int = 0) -> int:
    """``batch.send(sock, flags=flags)``, awaitable: sends the pending messages; returns how many the kernel took.

    Whatever ends it, also a cancellation, ``len(batch)`` is how many are left, and the next call goes on with those. Raises
    what `lowsock.SendBatch.send` raises. See sendmmsg(2).
    """
    if old:
        refuse_old("send_batch", "flags")
    return await attempt(sock, WRITE, lambda: batch.send(sock, flags=checked_flags(flags)))


@keyword_only
async def recv_batch(batch: RecvBatch, sock: Socket, *old: NoReturn, flags: int = 0, wait_all: bool = False) -> int:
    """``batch.recv(sock, flags=flags, wait_all=wait_all)``, awaitable; returns how many messages came.

    With ``wait_all``, whatever ends it, also a cancellation, what had come by then is in the batch. Raises what
    `lowsock.RecvBatch.recv` raises. See recvmmsg(2).
    """
    if old:
        refuse_old("recv_batch", "flags", "wait_all")
    flags = checked_flags(flags)
    if not wait_all:
        return await attempt(sock, read_direction(flags), lambda: batch.recv(sock, flags=flags))
    return await attempt(sock, read_direction(flags), _WaitAllReceive(batch, sock, flags).resume)


class _WaitAllReceive:
    """A receive that fills a batch, which takes several attempts."""

    __slots__ = ("_batch", "_flags", "_sock", "_started")

    def __init__(self, batch: RecvBatch, sock: Socket, flags: int) -> None:
        self._batch, self._sock, self._flags, self._started = batch, sock, flags, False

    def resume(self) -> int:
        batch = self._batch
        if not self._started:
            batch.recv(self._sock, flags=self._flags)
            self._started = True
        while len(batch) < batch.vlen and self._receive_more():
            pass
        return len(batch)

    def _receive_more(self) -> bool:
        """False if no more will come, or an error is pending, which the next call reports."""
        fd = descriptor(self._sock)
        if fd < 0 or events_of(fd, 0) & (select.POLLERR | select.POLLNVAL):
            return False
        more = self._batch._opened().receive_more(fd, self._batch.vlen, self._flags)
        if more in RETRYABLE and not has_ended(fd):
            if more != -errno.EINTR:
                fail(more)
            return True
        return more >= 0
