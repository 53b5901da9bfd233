# SPDX-License-Identifier: MIT
"""The calls that wait for a descriptor in one loop and one direction, in order. See poll(2), epoll(7).

The coroutines that wait own the queue, and the loop does while it watches for them. Nothing global keeps a queue alive, so
a loop that is dropped takes its queues with it.
"""

from __future__ import annotations

import errno
import os
import select
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Callable
from weakref import ref

from lowsock._system.arguments import INT_MAX
from lowsock._system.errors import fail, raised_here, raised_inside

READ, WRITE, ERROR = range(3)  # what is waited for; ERROR: an error queue
_EVENTS = (select.POLLIN, select.POLLOUT, 0)  # what loops watch for; poll(2) always reports POLLERR and POLLHUP too
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds
_EDGE = getattr(select, "EPOLLET", 0)
_new_epoll = getattr(select, "epoll", None)

# descriptor and direction -> loop's id -> queue. Each step is atomic, so threads and signal handlers need no lock. An inner
# dict stays when it is empty: there are no more of them than the process may have descriptors.
QUEUES: dict[int, dict[int, ref[Queue]]] = {}


def key_of(fd: int, direction: int) -> int:
    return fd << 2 | direction


def identity(fd: int) -> tuple[int, int]:
    """What is open behind a number. No other socket has the same identity while this one is open."""
    if not 0 <= fd <= INT_MAX:
        fail(-errno.EBADF)
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


class Waiter:
    """A call that waits in a queue."""

    __slots__ = ("wakeup",)

    def __init__(self) -> None:
        self.wakeup: Any = None  # the future or event that it sleeps on


class Queue(ABC):
    """Calls that wait, first come, first served. Only the first watches the descriptor, and only it is woken.

    A wake-up carries nothing: the waiter that is woken makes its system call itself, and wakes the next when it leaves.
    Wake-ups are spurious in a state that poll(2) reports again and again: an error queue that is not empty, a datagram peer
    that is full. After one, the first waits for the next edge, or for a pause where edges say nothing.
    """

    __slots__ = ("__weakref__", "_behind_epoll", "_edge_flag", "_epoll", "_identity", "_pause", "_pausing", "_waiters",
                 "_watched", "closed", "direction", "fd", "loop")  # fmt: skip

    def __init__(self, loop: Any, fd: int, direction: int, behind_epoll: bool = False) -> None:
        """``behind_epoll``: the loop never watches the descriptor itself, but an epoll that holds it."""
        self.loop, self.fd, self.direction = loop, fd, direction
        self._identity = identity(fd)
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._behind_epoll = behind_epoll and _new_epoll is not None
        self._epoll: Any = None  # stands between the descriptor and the loop
        self._edge_flag = 0  # EPOLLET while the epoll is edge-triggered
        self._watched = -1  # the descriptor that the loop watches for the first waiter
        self._pause = _FIRST_PAUSE
        self._pausing = direction == ERROR  # no loop watches for POLLERR alone
        self.closed = False  # the descriptor is

    # ---- what each framework does ----

    @abstractmethod
    async def wait(self, waiter: Waiter) -> None:
        """Sleeps until there is a reason for the next attempt: `arm` says what to wait for; then `disarm`."""

    @abstractmethod
    def wake(self, wakeup: Any) -> None:
        """Wakes the waiter that sleeps on ``wakeup``. Call it in the loop's own thread."""

    @abstractmethod
    def unwatch(self, fd: int) -> None:
        """Makes the loop stop watching a descriptor, at once."""

    @abstractmethod
    def in_loop_thread(self) -> bool:
        """Whether you may touch the loop: it runs in this thread, or does not run."""

    @abstractmethod
    def call_threadsafe(self, callback: Callable[..., object], *args: Any) -> bool:
        """Has ``callback`` called in the loop's own thread; False if the loop has ended."""

    # ---- the waiters ----

    def enter(self, waiter: Waiter) -> None:
        self._waiters[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Wakes the next waiter, or tears the queue down if there is none."""
        waiters = self._waiters
        was_first = bool(waiters) and self.is_first(waiter)
        waiters.pop(waiter, None)
        if not waiters:
            self._tear_down()
        elif was_first:
            wakeup = next(iter(waiters)).wakeup
            if wakeup is not None:
                self.wake(wakeup)

    def is_first(self, waiter: Waiter) -> bool:
        return next(iter(self._waiters)) is waiter

    def arm(self, waiter: Waiter) -> tuple[int, float | None]:
        """What ends the next sleep, apart from `wake`: a descriptor that becomes ready (-1: none), and a time in seconds."""
        seconds: float | None = None
        if not self.is_first(waiter):
            return -1, seconds
        if not (self._pausing or self._behind_epoll):
            self._watched = self.fd
            return self.fd, seconds
        if self._pausing and self.direction == WRITE:  # a send that fails gives its own buffer back, which is an edge
            self._close_epoll()
        else:
            self._set_epoll(_EDGE if self._pausing else 0)
        self._watched = -1 if self._epoll is None else self._epoll.fileno()
        if self._pausing or self._epoll is None:
            seconds = self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self._watched, seconds

    def _set_epoll(self, edge_flag: int) -> None:
        if edge_flag != self._edge_flag:
            self._close_epoll()
        if self._epoll is None:
            self._epoll, self._edge_flag = _opened(self.fd, _EVENTS[self.direction] | edge_flag), edge_flag

    def disarm(self) -> None:
        """The first waiter is awake: watches nothing, and consumes the edge that woke it."""
        self._unwatch()
        if self._edge_flag and self._epoll is not None:
            self._epoll.poll(0)

    def forget(self) -> None:
        """Notes that the loop watches nothing any more."""
        self._watched = -1

    def _unwatch(self) -> None:
        fd, self._watched = self._watched, -1
        if fd >= 0:
            self.unwatch(fd)

    def spurious_wakeup(self) -> None:
        """The call said EAGAIN after a wake-up. If poll(2) reports the same state again, to wait for that would spin."""
        if self.direction == ERROR or _is_ready(self.fd, _EVENTS[self.direction]):
            self._pausing = True
            return
        self._pausing, self._pause = False, _FIRST_PAUSE

    # ---- the end ----

    def is_stale(self) -> bool:
        """Whether the number has been closed; it may be another socket's by now."""
        if self.closed:
            return True
        try:
            return identity(self.fd) != self._identity
        except OSError as error:
            if not raised_inside(error):
                raise
            return True

    def notify_closed(self) -> None:
        """The descriptor is closed: wakes all waiters, which raise EBADF. The queue takes no more."""
        self.closed = True
        self._tear_down()
        for waiter in self._waiters:
            if waiter.wakeup is not None:
                self.wake(waiter.wakeup)

    def _tear_down(self) -> None:
        self._unwatch()
        self._close_epoll()
        queues = queues_of(key_of(self.fd, self.direction))
        found = queues.get(id(self.loop))
        if found is not None and found() is self:
            queues.pop(id(self.loop), None)

    def _close_epoll(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            epoll.close()

    def abandon(self) -> None:
        """In a forked child: the parent goes on with what it shares with us (the loop's epoll), so that is not touched."""
        self.forget()
        self._close_epoll()


def queues_of(key: int, _queues: Any = QUEUES) -> dict[int, ref[Queue]]:
    return _queues.setdefault(key, {})


def register(queue: Queue) -> None:
    """Lets others find a queue for as long as somebody owns it."""
    queues, loop_id = queues_of(key_of(queue.fd, queue.direction)), id(queue.loop)

    def drop(dead: ref[Queue]) -> None:
        if queues.get(loop_id) is dead:
            queues.pop(loop_id, None)

    queues[loop_id] = ref(queue, drop)


def _abandon_all() -> None:
    for queues in list(QUEUES.values()):
        for found in list(queues.values()):
            queue = found()
            if queue is not None:
                queue.abandon()
    QUEUES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _is_ready(fd: int, events: int) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


def _opened(fd: int, events: int) -> Any:
    """An epoll that is readable when ``fd`` is ready. None where the system has no epoll, or no descriptor left."""
    if _new_epoll is None:
        return None
    try:
        epoll = _new_epoll()
    except OSError as error:
        if not raised_here(error):
            raise
        return None
    try:
        epoll.register(fd, events)
    except BaseException:
        epoll.close()
        raise
    return epoll
