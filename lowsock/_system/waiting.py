# SPDX-License-Identifier: MIT
"""Waiting in a blocking call, and making it again, until a deadline. See poll(2), epoll(7), signal(7)."""

from __future__ import annotations

import errno
import math
import select
import time

from lowsock._system.arguments import checked_seconds
from lowsock._system.constants import MSG_ERRQUEUE
from lowsock._system.descriptor import target
from lowsock._system.errors import AGAIN, MORE, fail, raised_here, time_out

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import Attempt, Socket

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_POLL = 0.001, 0.064, 86400.0  # seconds


def persist(sock: Socket, flags: int, events: int, attempt: Attempt, answer: int) -> int:
    """Goes on after an ``answer`` of -errno: calls ``attempt(descriptor)`` until the kernel takes it or refuses it, or the
    socket's time is up.

    Python's signal handlers have run by the time an EINTR is seen here, and may have closed the socket: the descriptor is
    asked for again each time. See signal(7), poll(2).
    """
    waiting: _Waiting | None = None
    try:
        while MORE < answer < 0:
            fd, timeout = target(sock)
            if answer in AGAIN and timeout:
                waiting = waiting or _Waiting(timeout, 0 if flags & MSG_ERRQUEUE else events)
                waiting.wait(fd)
                fd = target(sock)[0]
            elif answer != -errno.EINTR:
                fail(answer)
            answer = attempt(fd)
        return answer
    finally:
        if waiting is not None:
            waiting.close()


class _Waiting:
    """Waits for one descriptor against one deadline.

    poll(2) is level-triggered: it returns at once for as long as an error queue is not empty, or a full datagram peer
    seems writable. If the call still says EAGAIN after poll said otherwise, a receive waits for the next edge (epoll(7),
    EPOLLET), which is news. A refused send makes an edge of its own, so it is tried again after a growing pause, which
    also bounds what is lost where no edge announces the end of such a state.
    """

    def __init__(self, timeout: float, events: int) -> None:
        self._deadline = time.monotonic() + timeout
        self._events = events
        self._misled = False
        self._pause = _FIRST_PAUSE
        self._edges: Any = None

    def wait(self, fd: int) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            time_out()
        if fd < 0:
            return  # closed meanwhile: the call says EBADF
        if not self._misled:
            self._misled = self._poll(fd, min(left, _LONGEST_POLL))
            return
        if self._edges is None:
            self._edges = _edges(fd, self._events)
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


class _Pauses:
    """Stands in for an epoll object where an edge would tell nothing."""

    def poll(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


def _edges(fd: int, events: int) -> Any:
    """Something to wait for the next edge with; the state that misled us has been read off it."""
    if events & select.POLLOUT or not hasattr(select, "epoll"):
        return _Pauses()
    try:
        edges = select.epoll()
    except OSError as error:  # no descriptor left
        if not raised_here(error):
            raise
        return _Pauses()
    try:
        edges.register(fd, events | select.EPOLLET)
        edges.poll(0)
    except BaseException:
        edges.close()
        raise
    return edges


class Patience:
    """Waits for a descriptor until a deadline. Others may take the event that it waits for, so no wait is long."""

    def __init__(self, timeout: float | None) -> None:
        seconds = checked_seconds("timeout", timeout)
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._pause = _FIRST_PAUSE
        self._woken = False

    def wait(self, fd: int, events: int, news: bool) -> bool:
        """Whether there was time left. A state that wakes poll(2) again and again, with no news, is slept through."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        if fd < 0:
            return True  # closed meanwhile: the next call says so
        if news:
            self._woken, self._pause = False, _FIRST_PAUSE
        if self._woken:
            time.sleep(min(left, self._pause))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return True
        poll = select.poll()
        poll.register(fd, events)
        self._woken = bool(poll.poll(math.ceil(min(left, _LONGEST_PAUSE) * 1000)))
        return True
