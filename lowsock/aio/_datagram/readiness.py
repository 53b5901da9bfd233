# SPDX-License-Identifier: MIT
"""Callbacks for a descriptor that can be read or written, whatever the loop makes of errors. See epoll(7).

A pending error, or an error queue that is not empty, makes a descriptor ready for everything, again and again. The stock
loop would spin, and uvloop stops watching for good (libuv ends a poll at POLLERR). So an epoll stands between the socket and
the loop: on uvloop always, on the stock loop as soon as wake-ups are spurious. From then on it is edge-triggered on both.
"""

from __future__ import annotations

import asyncio
import select
from typing import Callable

_SPURIOUS_LIMIT = 2  # spurious wake-ups in a row; one is innocent, such as a datagram whose checksum is wrong
_new_epoll = getattr(select, "epoll", None)
_EPOLLIN, _EPOLLOUT, _EPOLLET = 1, 4, 1 << 31  # not every platform's `select` has them


class Readiness:
    """Calls ``on_read`` and ``on_write`` for as long as you want each. While `edge_triggered`, ``on_read`` must go on until
    nothing is left, or return False to be called again."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_read: Callable[[], bool], on_write: Callable[[], object]
    ) -> None:
        self._loop, self._fd = loop, fd
        self._on_read, self._on_write = on_read, on_write
        self._reading = self._writing = False
        self.spurious = 0  # spurious wake-ups to read, in a row
        self._epoll: select.epoll | None = None
        self._registered = False
        self.edge_triggered = False
        if _new_epoll is not None and not isinstance(loop, asyncio.SelectorEventLoop):
            self._epoll = _new_epoll()

    def set_reader(self, on_read: Callable[[], bool]) -> None:
        """Replaces ``on_read``."""
        self._on_read = on_read
        if self._reading:
            self._update()

    def want_read(self, wanted: bool) -> None:
        """Starts or stops the calls of ``on_read``."""
        if self._reading != wanted:
            self._reading = wanted
            self._update()

    def want_write(self, wanted: bool) -> None:
        """Starts or stops the calls of ``on_write``."""
        if self._writing != wanted:
            self._writing = wanted
            self._update()

    def spurious_wakeup(self) -> None:
        """Notes that a wake-up to read was spurious."""
        self.spurious += 1
        if self.spurious < _SPURIOUS_LIMIT or self.edge_triggered or _new_epoll is None:
            return
        reading, writing = self._reading, self._writing
        self._reading = self._writing = False
        self._update()
        self._epoll = self._epoll or _new_epoll()
        self.edge_triggered = True
        self._reading, self._writing = reading, writing
        self._update()

    def close(self) -> None:
        """Ends all calls."""
        self._reading = self._writing = False
        self._update()
        if self._epoll is not None:
            self._epoll.close()

    def _update(self) -> None:
        if self._epoll is None:
            self._update_loop()
        else:
            self._update_epoll(self._epoll, self._reading * _EPOLLIN | self._writing * _EPOLLOUT)

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

    def _update_epoll(self, epoll: select.epoll, events: int) -> None:
        if events and self._registered:
            epoll.modify(self._fd, events | self.edge_triggered * _EPOLLET)
        elif events:
            epoll.register(self._fd, events | self.edge_triggered * _EPOLLET)
            self._loop.add_reader(epoll.fileno(), self._dispatch)
        elif self._registered:  # an empty mask would still report errors
            self._loop.remove_reader(epoll.fileno())
            try:
                epoll.unregister(self._fd)
            except OSError:  # somebody has closed the socket: the kernel has forgotten it
                pass
        self._registered = bool(events)

    def _dispatch(self) -> None:
        if not (self._writing or self.edge_triggered):
            self._on_read()
            return
        if self._epoll is None or self._epoll.closed:
            return
        for _, events in self._epoll.poll(0, 1):
            if self._writing and events & ~_EPOLLIN:
                self._on_write()
            if self._reading and events & ~_EPOLLOUT:
                self.reread()

    def reread(self) -> None:
        """Reads as after a wake-up. An edge comes once, so this runs again after an exception."""
        drained = False
        if not self._reading:
            return
        try:
            drained = self._on_read()
        finally:
            if not drained and self.edge_triggered:
                self._loop.call_soon(self.reread)
