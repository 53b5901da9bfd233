# SPDX-License-Identifier: MIT
"""Who waits for a descriptor in one loop and one direction, in order. See poll(2), epoll(7).

The coroutines that wait own the queue, and the loop does while it watches for them: nothing global keeps one alive, so what
is left of a loop that was dropped goes with it.
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
_EVENTS = (select.POLLIN, select.POLLOUT, 0)  # what loops watch for, and poll(2) always says: POLLERR, POLLHUP
_DIRECTIONS = (READ, WRITE, ERROR)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds
_EDGE = getattr(select, "EPOLLET", 0)
_epoll = getattr(select, "epoll", None)

# descriptor and direction -> loop's id -> queue. Each step is atomic, so threads and signal handlers need no lock. An inner
# dict stays when it is empty: there are no more of them than the process may have descriptors.
QUEUES: dict[int, dict[int, ref[Queue]]] = {}


def key_of(fd: int, direction: int) -> int:
    return fd << 2 | direction


def identity(fd: int) -> tuple[int, int]:
    """What is open behind a number. No other socket has the same while this one is open."""
    if not 0 <= fd <= INT_MAX:
        fail(-errno.EBADF)
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


class Place:
    """A call's place in a queue."""

    __slots__ = ("signal",)

    def __init__(self) -> None:
        self.signal: Any = None  # what it sleeps on


class Queue(ABC):
    """Calls that wait, first come first served. Only the first watches the descriptor, and only it is woken.

    A wake-up carries nothing: whoever is woken makes its system call itself, and the next one has its turn when it has
    left. If a wake-up has misled, which a state that poll(2) tells again and again does (an error queue that is not empty, a
    datagram peer that is full), the next edge is waited for, or a pause where no edge would tell.
    """

    __slots__ = ("__weakref__", "_between", "_edges", "_name", "_pause", "_pausing", "_places", "_shielded", "_watched",
                 "direction", "ended", "fd", "loop")  # fmt: skip

    def __init__(self, loop: Any, fd: int, direction: int, shielded: bool = False) -> None:
        """``shielded``: the loop is never to see the descriptor itself, but an epoll that has it."""
        self.loop, self.fd, self.direction = loop, fd, direction
        self._name = identity(fd)
        self._places: OrderedDict[Place, None] = OrderedDict()
        self._shielded = shielded and _epoll is not None
        self._between: Any = None  # the epoll between the descriptor and the loop
        self._edges = 0  # EPOLLET while it tells of edges
        self._watched = -1  # the descriptor that the loop watches for the first of us
        self._pause = _FIRST_PAUSE
        self._pausing = direction == ERROR  # no loop watches for POLLERR alone
        self.ended = False

    # ---- the loop's own ----

    @abstractmethod
    async def wait(self, place: Place, seconds: float | None) -> None:
        """Sleeps until there is a reason for the next attempt: `aim` says what that may be; then `settle`."""

    @abstractmethod
    def wake(self, signal: Any) -> None:
        """Wakes a place that sleeps on this signal, in the loop's own thread."""

    @abstractmethod
    def unwatch(self, fd: int) -> None:
        """Ends that the loop watches a descriptor, at once."""

    @abstractmethod
    def is_here(self) -> bool:
        """Whether the loop may be touched: it runs in this thread, or does not run."""

    @abstractmethod
    def call_there(self, callback: Callable[..., object], *args: Any) -> bool:
        """Has ``callback`` called in the loop's own thread; False: the loop is no more."""

    # ---- standing in it ----

    def enter(self, place: Place) -> None:
        self._places[place] = None

    def leave(self, place: Place) -> None:
        """The next has its turn. Whoever leaves last takes the queue down."""
        places = self._places
        was_first = bool(places) and self.is_first(place)
        places.pop(place, None)
        if not places:
            self.take_down()
        elif was_first:
            signal = next(iter(places)).signal
            if signal is not None:
                self.wake(signal)

    def is_first(self, place: Place) -> bool:
        return next(iter(self._places)) is place

    def aim(self, place: Place, seconds: float | None) -> tuple[int, float | None]:
        """What ends the next sleep beside a signal: a descriptor that becomes ready (-1: none), and a time."""
        if not self.is_first(place):
            return -1, seconds
        if not (self._pausing or self._shielded):
            self._watched = self.fd
            return self.fd, seconds
        if self._pausing and self.direction == WRITE:  # each send that fails is an edge: it gives its own buffer back
            self._close_between()
        else:
            self._put_between(_EDGE if self._pausing else 0)
        self._watched = -1 if self._between is None else self._between.fileno()
        if self._pausing or self._between is None:
            seconds = self._pause if seconds is None else min(seconds, self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self._watched, seconds

    def _put_between(self, edges: int) -> None:
        if edges != self._edges:
            self._close_between()
        if self._between is None:
            self._between, self._edges = _opened(self.fd, _EVENTS[self.direction] | edges), edges

    def settle(self) -> None:
        """The first does not sleep any more, so nothing is watched, and an edge that woke it is taken."""
        self._unwatch()
        if self._edges and self._between is not None:
            self._between.poll(0)

    def forget(self) -> None:
        """Nothing watches any more."""
        self._watched = -1

    def _unwatch(self) -> None:
        fd, self._watched = self._watched, -1
        if fd >= 0:
            self.unwatch(fd)

    def misled(self) -> None:
        """A wake-up was for nothing. If poll(2) would say the same again, that is no way to wait."""
        if self.direction == ERROR or _is_ready(self.fd, _EVENTS[self.direction]):
            self._pausing = True
            return
        self._pausing, self._pause = False, _FIRST_PAUSE

    # ---- the end ----

    def is_stale(self) -> bool:
        """Whether the number has been closed; it may be another socket's by now."""
        if self.ended:
            return True
        try:
            return identity(self.fd) != self._name
        except OSError as error:
            if not raised_inside(error):
                raise
            return True

    def end(self) -> None:
        """All who wait hear that the descriptor is closed; nobody comes after them."""
        self.ended = True
        self.take_down()
        for place in self._places:
            if place.signal is not None:
                self.wake(place.signal)

    def take_down(self) -> None:
        self._unwatch()
        self._close_between()
        queues = queues_of(key_of(self.fd, self.direction))
        found = queues.get(id(self.loop))
        if found is not None and found() is self:
            queues.pop(id(self.loop), None)

    def _close_between(self) -> None:
        between, self._between = self._between, None
        if between is not None:
            between.close()

    def abandon(self) -> None:
        """In a forked child: what watches is shared with the parent, who goes on with it, and is not to be touched."""
        self.forget()
        self._close_between()


def queues_of(key: int, _queues: Any = QUEUES) -> dict[int, ref[Queue]]:
    return _queues.setdefault(key, {})


def register(queue: Queue) -> None:
    """Lets others find a queue, for as long as somebody has it."""
    queues, name = queues_of(key_of(queue.fd, queue.direction)), id(queue.loop)

    def drop(dead: ref[Queue]) -> None:
        if queues.get(name) is dead:
            queues.pop(name, None)

    queues[name] = ref(queue, drop)


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
    """An epoll that is readable when there is news; None where there is no such thing, or no descriptor left."""
    if _epoll is None:
        return None
    try:
        between = _epoll()
    except OSError as error:
        if not raised_here(error):
            raise
        return None
    try:
        between.register(fd, events)
    except BaseException:
        between.close()
        raise
    return between
