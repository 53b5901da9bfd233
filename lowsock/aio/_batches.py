# SPDX-License-Identifier: MIT
"""Batches, awaitable. Each call has a cursor, or uses a batch that has one, so it goes on where it was when it waited."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

from lowsock._batch import functions
from lowsock._batch.functions import listed
from lowsock._batch.inbox import COUNT, events_of, has_ended
from lowsock._batch.outbox import Outbox, deliver
from lowsock._batch.recv_batch import RecvBatch
from lowsock._batch.send_batch import SendBatch
from lowsock._memory.ancillary import SOL_SOCKET
from lowsock._memory.closing import close_all, descriptors
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import RETRYABLE, fail
from lowsock._system.ffi import lib
from lowsock.aio._wait.attempts import attempt, checked_flags, descriptor, read_direction
from lowsock.aio._wait.waiters import WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Message, Received, Socket

_SO_TYPE = CONSTANTS["SO_TYPE"]


async def sendmmsg(sock: Socket, messages: Iterable[Message], flags: int = 0) -> int:
    """As `lowsock.sendmmsg`, awaitable.

    If a stream takes a part of a message, this waits until it took the rest. If the task is cancelled then, the exception
    has ``characters_written``, as any other; asyncio may replace it by one that has not. A `SendBatch` keeps its cursor:
    see `send_batch`. See sendmmsg(2).
    """
    flags = checked_flags(flags)
    own = listed(messages)
    if lib.lowsock_option(descriptor(sock), SOL_SOCKET, _SO_TYPE) == socket.SOCK_STREAM:
        return await _send_stream(sock, own, flags)
    return await attempt(sock, WRITE, lambda: functions.sendmmsg(sock, own, flags))


async def _send_stream(sock: Socket, messages: list[Any], flags: int) -> int:
    send = _StreamSend(sock, messages, flags)
    try:
        return await attempt(sock, WRITE, send.resume)
    except BaseException as error:
        send.note_written(error)
        raise
    finally:
        send.outbox.release()


class _StreamSend:
    """A send of messages on a stream, which takes several attempts."""

    __slots__ = ("_flags", "_sock", "outbox")

    def __init__(self, sock: Socket, messages: list[Any], flags: int) -> None:
        self._sock, self._flags = sock, flags
        self.outbox = Outbox(sock).encode(messages)

    def resume(self) -> int:
        outbox = self.outbox
        struct, count = outbox.struct, outbox.count
        if count and not struct.next:
            deliver(outbox, count, self._sock, self._flags)
        while struct.partial:
            deliver(outbox, count, self._sock, self._flags)
        return int(struct.next)

    def note_written(self, error: BaseException) -> None:
        """Gives an exception ``characters_written``, if the stream took a part of a message."""
        struct = self.outbox.struct
        if struct.partial:
            try:
                error.characters_written = self.outbox.bytes_sent()  # type: ignore[attr-defined]
            except (AttributeError, TypeError):  # trio's Cancelled takes no attributes
                pass


async def recvmmsg(
    sock: Socket, vlen: int, bufsize: int, ancbufsize: int = 0, flags: int = 0, *, wait_all: bool = False
) -> list[Received]:
    """As `lowsock.recvmmsg`, awaitable.

    If the task is cancelled with ``wait_all``, the messages that had come are lost, and their descriptors closed. A
    `RecvBatch` keeps them: see `recv_batch`. See recvmmsg(2).
    """
    flags = checked_flags(flags)
    if not wait_all:
        return await attempt(sock, read_direction(flags), lambda: functions.recvmmsg(sock, vlen, bufsize, ancbufsize, flags))
    if not checked_int("vlen", vlen, least=0, most=COUNT):
        return []
    with RecvBatch(vlen, bufsize, ancbufsize) as batch:
        await recv_batch(batch, sock, flags, wait_all=True)
        return _messages_of(batch)


def _messages_of(batch: RecvBatch) -> list[Received]:
    messages: list[Received] = []
    try:
        for i, (data, address) in enumerate(batch.datagrams()):
            messages.append((data, batch.ancdata(i), batch.flags(i), address))
        return messages
    except BaseException:
        close_all([fd for message in messages for fd in descriptors(message[1])])
        raise


async def send_batch(batch: SendBatch, sock: Socket, flags: int = 0) -> int:
    """``batch.send(sock, flags)``, awaitable: sends the pending messages; returns how many the kernel took.

    Whatever ends it, also a cancellation, ``len(batch)`` is how many are left, and the next call goes on with those. See
    sendmmsg(2).
    """
    return await attempt(sock, WRITE, lambda: batch.send(sock, checked_flags(flags)))


async def recv_batch(batch: RecvBatch, sock: Socket, flags: int = 0, *, wait_all: bool = False) -> int:
    """``batch.receive(sock, flags, wait_all=...)``, awaitable; returns how many messages came.

    With ``wait_all``, whatever ends it, also a cancellation, what had come by then is in the batch. See recvmmsg(2).
    """
    flags = checked_flags(flags)
    if not wait_all:
        return await attempt(sock, read_direction(flags), lambda: batch.receive(sock, flags))
    return await attempt(sock, read_direction(flags), _WaitAllReceive(batch, sock, flags).resume)


class _WaitAllReceive:
    """A receive that fills a batch, which takes several attempts."""

    __slots__ = ("_batch", "_flags", "_sock", "_started")

    def __init__(self, batch: RecvBatch, sock: Socket, flags: int) -> None:
        self._batch, self._sock, self._flags, self._started = batch, sock, flags, False

    def resume(self) -> int:
        batch = self._batch
        if not self._started:
            batch.receive(self._sock, self._flags)
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
