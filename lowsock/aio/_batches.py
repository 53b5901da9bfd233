# SPDX-License-Identifier: MIT
"""Batches, awaitable. What a call has done stays done over its waits: each has a cursor, or is a batch that has one."""

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
from lowsock._memory.ancillary import SOL_SOCKET, close_all, descriptors
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import NOT_YET, fail
from lowsock._system.ffi import lib
from lowsock.aio._wait.queue import WRITE
from lowsock.aio._wait.waiting import attempt, checked_flags, descriptor, read_direction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Message, Received, Socket

_SO_TYPE = CONSTANTS["SO_TYPE"]


async def sendmmsg(sock: Socket, messages: Iterable[Message], flags: int = 0) -> int:
    """As `lowsock.sendmmsg`, awaitable.

    A stream that takes a part of a message is waited for with the rest of it. If the task is cancelled then, the
    exception has ``characters_written``, as any other; asyncio may replace it by one that has not. A `SendBatch` has a
    cursor that stays: see `send_batch`. See sendmmsg(2).
    """
    flags = checked_flags(flags)
    own = listed(messages)
    if lib.lowsock_option(descriptor(sock), SOL_SOCKET, _SO_TYPE) == socket.SOCK_STREAM:
        return await _send_stream(sock, own, flags)
    return await attempt(sock, WRITE, lambda: functions.sendmmsg(sock, own, flags))


async def _send_stream(sock: Socket, messages: list[Any], flags: int) -> int:
    sending = _Sending(sock, messages, flags)
    try:
        return await attempt(sock, WRITE, sending.go_on)
    except BaseException as error:
        sending.tell(error)
        raise
    finally:
        sending.outbox.release()


class _Sending:
    """Messages on their way through a stream."""

    __slots__ = ("_flags", "_sock", "outbox")

    def __init__(self, sock: Socket, messages: list[Any], flags: int) -> None:
        self._sock, self._flags = sock, flags
        self.outbox = Outbox(sock).encode(messages)

    def go_on(self) -> int:
        outbox = self.outbox
        struct, count = outbox.struct, outbox.count
        if count and not struct.next:
            deliver(outbox, count, self._sock, self._flags)
        while struct.gone:
            deliver(outbox, count, self._sock, self._flags)
        return int(struct.next)

    def tell(self, error: BaseException) -> None:
        struct = self.outbox.struct
        if struct.gone:
            try:
                error.characters_written = self.outbox.bytes_gone()  # type: ignore[attr-defined]
            except (AttributeError, TypeError):  # trio's own has no room for it
                pass


async def recvmmsg(
    sock: Socket, vlen: int, bufsize: int, ancbufsize: int = 0, flags: int = 0, *, wait_all: bool = False
) -> list[Received]:
    """As `lowsock.recvmmsg`, awaitable.

    With ``wait_all``, what had come is gone if the task is cancelled, and its descriptors are closed. A `RecvBatch` keeps
    it: see `recv_batch`. See recvmmsg(2).
    """
    flags = checked_flags(flags)
    if not wait_all:
        return await attempt(sock, read_direction(flags), lambda: functions.recvmmsg(sock, vlen, bufsize, ancbufsize, flags))
    if not checked_int("vlen", vlen, least=0, most=COUNT):
        return []
    with RecvBatch(vlen, bufsize, ancbufsize) as batch:
        await recv_batch(batch, sock, flags, wait_all=True)
        return _handed_out(batch)


def _handed_out(batch: RecvBatch) -> list[Received]:
    messages: list[Received] = []
    try:
        for i, (data, address) in enumerate(batch.datagrams()):
            messages.append((data, batch.ancdata(i), batch.flags(i), address))
        return messages
    except BaseException:
        close_all([fd for message in messages for fd in descriptors(message[1])])
        raise


async def send_batch(batch: SendBatch, sock: Socket, flags: int = 0) -> int:
    """``batch.send(sock, flags)``, awaitable: sends what waits to be sent; returns how many messages the kernel took.

    Whatever ends it, a cancellation too, ``len(batch)`` tells what is left, and the next call goes on with that. See
    sendmmsg(2).
    """
    return await attempt(sock, WRITE, lambda: batch.send(sock, checked_flags(flags)))


async def recv_batch(batch: RecvBatch, sock: Socket, flags: int = 0, *, wait_all: bool = False) -> int:
    """``batch.receive(sock, flags, wait_all=...)``, awaitable; returns how many messages came.

    With ``wait_all``, whatever ends it, a cancellation too, what had come by then is in the batch. See recvmmsg(2).
    """
    flags = checked_flags(flags)
    if not wait_all:
        return await attempt(sock, read_direction(flags), lambda: batch.receive(sock, flags))
    return await attempt(sock, read_direction(flags), _Filling(batch, sock, flags).go_on)


class _Filling:
    """A batch that is to be filled."""

    __slots__ = ("_batch", "_begun", "_flags", "_sock")

    def __init__(self, batch: RecvBatch, sock: Socket, flags: int) -> None:
        self._batch, self._sock, self._flags, self._begun = batch, sock, flags, False

    def go_on(self) -> int:
        batch = self._batch
        if not self._begun:
            batch.receive(self._sock, self._flags)
            self._begun = True
        while len(batch) < batch.vlen and self._receive_more():
            pass
        return len(batch)

    def _receive_more(self) -> bool:
        """False: no more will come, or there is an error, which is left to the next call."""
        fd = descriptor(self._sock)
        if fd < 0 or events_of(fd, 0) & (select.POLLERR | select.POLLNVAL):
            return False
        more = self._batch._opened().receive_more(fd, self._batch.vlen, self._flags)
        if more in NOT_YET and not has_ended(fd):
            if more != -errno.EINTR:
                fail(more)
            return True
        return more >= 0
