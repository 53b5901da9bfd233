# SPDX-License-Identifier: MIT
"""Callbacks for a descriptor that can be read or written, whatever the loop makes of errors. See epoll(7).

A pending error or an error queue that is not empty makes a descriptor ready for everything, again and again. The stock loop
would spin, and uvloop stops watching for good (libuv ends a poll at POLLERR). So there is an epoll between the socket and
the loop: on uvloop always, on the stock loop from the first time on that it is needed. It tells of edges, once there are
wake-ups for nothing.
"""

from __future__ import annotations

import asyncio
import select
from typing import Callable

_TOLERATED = 2  # wake-ups for nothing in a row; some are innocent, such as a datagram whose checksum is wrong
_epoll = getattr(select, "epoll", None)
_IN, _OUT, _EDGES = 1, 4, 1 << 31  # EPOLLIN, EPOLLOUT, EPOLLET


class Readiness:
    """Calls ``on_read`` and ``on_write`` as long as each is wanted. While `edges`, ``on_read`` is to go on until nothing is
    left, or return False to be called again."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_read: Callable[[], bool], on_write: Callable[[], object]
    ) -> None:
        self._loop, self._fd = loop, fd
        self._on_read, self._on_write = on_read, on_write
        self._reading = self._writing = False
        self.misled = 0  # how many wake-ups to read were for nothing since the last that was not
        self._between: select.epoll | None = None
        self._registered = False
        self.edges = False
        if _epoll is not None and not isinstance(loop, asyncio.SelectorEventLoop):
            self._between = _epoll()

    def call(self, on_read: Callable[[], bool]) -> None:
        """Another ``on_read`` from now on."""
        self._on_read = on_read
        if self._reading:
            self._update()

    def read(self, wanted: bool) -> None:
        """From now on, ``on_read`` is called, or is not."""
        if self._reading != wanted:
            self._reading = wanted
            self._update()

    def write(self, wanted: bool) -> None:
        """From now on, ``on_write`` is called, or is not."""
        if self._writing != wanted:
            self._writing = wanted
            self._update()

    def mislead(self) -> None:
        """A wake-up to read was for nothing."""
        self.misled += 1
        if self.misled < _TOLERATED or self.edges or _epoll is None:
            return
        reading, writing = self._reading, self._writing
        self._reading = self._writing = False
        self._update()
        self._between = self._between or _epoll()
        self.edges = True
        self._reading, self._writing = reading, writing
        self._update()

    def close(self) -> None:
        """The end: nothing is called any more."""
        self._reading = self._writing = False
        self._update()
        if self._between is not None:
            self._between.close()

    def _update(self) -> None:
        if self._between is None:
            self._update_loop()
        else:
            self._update_between(self._between, self._reading * _IN | self._writing * _OUT)

    def _update_loop(self) -> None:
        loop, fd = self._loop, self._fd
        if self._reading:
            loop.add_reader(fd, self._on_read)
        else:
            loop.remove_reader(fd)
        if self._writing:
            loop.add_writer(fd, self._on_write)
        else:
            loop.remove_writer(fd)

    def _update_between(self, between: select.epoll, wanted: int) -> None:
        if wanted and self._registered:
            between.modify(self._fd, wanted | self.edges * _EDGES)
        elif wanted:
            between.register(self._fd, wanted | self.edges * _EDGES)
            self._loop.add_reader(between.fileno(), self._dispatch)
        elif self._registered:  # an empty mask would still tell of errors
            self._loop.remove_reader(between.fileno())
            try:
                between.unregister(self._fd)
            except OSError:  # somebody has closed the socket: the kernel has forgotten it
                pass
        self._registered = bool(wanted)

    def _dispatch(self) -> None:
        if not (self._writing or self.edges):
            self._on_read()
            return
        if self._between is None or self._between.closed:
            return
        for _, events in self._between.poll(0, 1):
            if self._writing and events & ~_IN:
                self._on_write()
            if self._reading and events & ~_OUT:
                self.reread()

    def reread(self) -> None:
        """Reads as if woken. An edge comes once, so after an exception this is to be called again."""
        drained = False
        if not self._reading:
            return
        try:
            drained = self._on_read()
        finally:
            if not drained and self.edges:
                self._loop.call_soon(self.reread)
