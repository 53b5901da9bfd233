# SPDX-License-Identifier: MIT
"""Waiting for a descriptor and retrying a call until a deadline. See poll(2), epoll(7), signal(7)."""

from __future__ import annotations

import errno
import math
import select
import time

from lowsock._system.arguments import checked_seconds
from lowsock._system.constants import MSG_ERRQUEUE
from lowsock._system.errors import AGAIN, MORE, fail, raised_here, time_out
from lowsock._system.target import target

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import Attempt, Socket

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_POLL = 0.001, 0.064, 86400.0  # seconds


def retry(sock: Socket, flags: int, events: int, attempt: Attempt, answer: int) -> int:
    """Retries after an ``answer`` of -errno: calls ``attempt(descriptor)`` until it succeeds, fails, or the socket's timeout
    has passed; returns the last answer.

    Python's signal handlers have run when EINTR comes here, and may have closed the socket, so each attempt asks for the
    descriptor again. See signal(7), poll(2).
    """
    waiter: _Waiter | None = None
    try:
        while MORE < answer < 0:
            fd, timeout = target(sock)
            if answer in AGAIN and timeout:
                waiter = waiter or _Waiter(timeout, 0 if flags & MSG_ERRQUEUE else events)
                waiter.wait(fd)
                fd = target(sock)[0]
            elif answer != -errno.EINTR:
                fail(answer)
            answer = attempt(fd)
        return answer
    finally:
        if waiter is not None:
            waiter.close()


class _Waiter:
    """Waits for one descriptor until one deadline.

    poll(2) is level-triggered: it returns at once while an error queue is not empty, or while a full datagram peer seems
    writable. If the call still fails with EAGAIN, that was a spurious wake-up. From then on a receive waits for the next
    edge (epoll(7), EPOLLET). A refused send makes an edge itself, so it is retried after growing pauses. These also limit
    each wait for an edge: some changes make none.
    """

    def __init__(self, timeout: float, events: int) -> None:
        self._deadline = time.monotonic() + timeout
        self._events = events
        self._woken = False
        self._pause = _FIRST_PAUSE
        self._edges: Any = None

    def wait(self, fd: int) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            time_out()
        if fd < 0:
            return  # closed meanwhile: the call fails with EBADF
        if not self._woken:
            self._woken = self._poll(fd, min(left, _LONGEST_POLL))
            return
        if self._edges is None:
            self._edges = _edge_triggered(fd, self._events)
        else:
            self._edges.poll(min(left, self._pause))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _poll(self, fd: int, left: float) -> bool:
        poll = select.poll()
        poll.register(fd, self._events)
        return bool(poll.poll(math.ceil(left * 1000)))  # PyPy cuts a fraction off, and would spin through it

    def close(self) -> None:
        if self._edges is not None:
            self._edges.close()


class _Sleeper:
    """Stands in for an epoll object where edges tell nothing."""

    def poll(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


def _edge_triggered(fd: int, events: int) -> Any:
    """An object whose ``poll(seconds)`` waits for the next edge. The edge of the current state has been consumed."""
    if events & select.POLLOUT or not hasattr(select, "epoll"):
        return _Sleeper()
    try:
        edges = select.epoll()
    except OSError as error:  # no descriptor left
        if not raised_here(error):
            raise
        return _Sleeper()
    try:
        edges.register(fd, events | select.EPOLLET)
        edges.poll(0)
    except BaseException:
        edges.close()
        raise
    return edges


class SharedWaiter:
    """Waits for a descriptor until a deadline. Others may take the event that it waits for, so each wait is short."""

    def __init__(self, timeout: float | None) -> None:
        seconds = checked_seconds("timeout", timeout)
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._pause = _FIRST_PAUSE
        self._woken = False

    def wait(self, fd: int, events: int, progress: bool) -> bool:
        """Waits once; returns False if the deadline has passed. Without ``progress`` since the last wake-up, that one was
        spurious, and this sleeps instead of polling."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        if fd < 0:
            return True  # closed meanwhile: the next call fails with EBADF
        if progress:
            self._woken, self._pause = False, _FIRST_PAUSE
        if self._woken:
            time.sleep(min(left, self._pause))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return True
        poll = select.poll()
        poll.register(fd, events)
        self._woken = bool(poll.poll(math.ceil(min(left, _LONGEST_PAUSE) * 1000)))
        return True
