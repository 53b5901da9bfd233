# SPDX-License-Identifier: MIT
"""Closing what tasks wait for. See close(2)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from lowsock._system.target import target
from lowsock.aio._wait.waiters import ERROR, QUEUES, READ, WRITE, Queue, key_of

if TYPE_CHECKING:
    from lowsock._system.types import Socket


def close(sock: Socket) -> None:
    """Closes a socket, a descriptor or an object with ``close()``; the calls that wait on it raise `OSError` (EBADF).

    Call it in place of ``sock.close()``, which no loop notices. You may call it in any thread: while loops of other threads
    wait on the descriptor, it stays open until each of them knows, and its number is not used again before. You may close
    an object again, as sockets allow. See close(2).
    """
    fd = target(sock)[0]
    elsewhere: list[Queue] = []
    for queue in _queues_on(fd):
        if queue.in_loop_thread():
            queue.notify_closed()
        else:
            elsewhere.append(queue)
    if not elsewhere:
        _close(sock)
        _notify_stale(fd)
    elif isinstance(sock, (int, socket.socket)):
        _DeferredClose(sock if isinstance(sock, int) else sock.detach()).notify(elsewhere)
    else:
        for queue in elsewhere:
            queue.call_threadsafe(queue.notify_closed)
        _close(sock)
        _notify_stale(fd)


def _queues_on(fd: int) -> list[Queue]:
    found = [each() for direction in (READ, WRITE, ERROR) for each in QUEUES.get(key_of(fd, direction), {}).copy().values()]
    return [queue for queue in found if queue is not None]


def _notify_stale(fd: int) -> None:
    """Wakes the calls that began to wait in other threads after `close` had looked, and before the descriptor was closed."""
    for queue in _queues_on(fd):
        if queue.is_stale():
            if queue.in_loop_thread():
                queue.notify_closed()
            else:
                queue.call_threadsafe(queue.notify_closed)


def _close(sock: Any) -> None:
    if isinstance(sock, int):
        os.close(sock)
    else:
        sock.close()


class _DeferredClose:
    """Closes a descriptor as soon as the last of some queues was notified, or the last of their loops is gone."""

    def __init__(self, fd: int) -> None:
        self._fds = [fd]
        self._pending: list[Queue] = []

    def notify(self, queues: list[Queue]) -> None:
        self._pending += queues
        for queue in queues:
            if not queue.call_threadsafe(self._notify, queue):
                self._remove(queue)

    def _notify(self, queue: Queue) -> None:
        queue.notify_closed()
        self._remove(queue)

    def _remove(self, queue: Queue) -> None:
        self._pending.remove(queue)
        if not self._pending:
            self._close()

    def _close(self) -> None:
        try:
            fd = self._fds.pop()
        except IndexError:  # closed, by another thread where two were the last
            return
        os.close(fd)
        _notify_stale(fd)

    __del__ = _close
