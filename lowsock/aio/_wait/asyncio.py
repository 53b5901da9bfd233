# SPDX-License-Identifier: MIT
"""Waiting in a loop of asyncio: the stock one, uvloop, and whatever has ``add_reader``."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any, Callable

from lowsock.aio._wait.queue import WRITE, Place, Queue

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


def running_loop() -> AbstractEventLoop | None:
    """The loop that runs in this thread. Where nobody has imported asyncio, none does."""
    asyncio: Any = sys.modules.get("asyncio")
    find = getattr(asyncio, "_get_running_loop", None)
    return None if find is None else find()


class LoopQueue(Queue):
    """A queue in a loop of asyncio.

    uvloop ends a watch for good at an error, which an error queue that is not empty is, and the whole process if the
    descriptor was closed before it watches: it never sees the descriptor itself, nor does any loop that is not asyncio's.
    """

    __slots__ = ()

    def __init__(self, loop: Any, fd: int, direction: int) -> None:
        super().__init__(loop, fd, direction, not isinstance(loop, sys.modules["asyncio"].SelectorEventLoop))

    async def wait(self, place: Place, seconds: float | None) -> None:
        fd, seconds = self.aim(place, seconds)
        loop = self.loop
        place.signal = signal = loop.create_future()
        timer = None
        try:
            if fd >= 0:
                self._watch(fd, signal)
            if seconds is not None:
                timer = loop.call_later(seconds, _give, signal)
            await signal
        finally:
            if timer is not None:
                timer.cancel()
            if fd >= 0:
                self.settle()

    def wake(self, signal: Future[None]) -> None:
        if not signal.done() and not self.loop.is_closed():
            signal.set_result(None)

    def _watch(self, fd: int, signal: Future[None]) -> None:
        add = self.loop.add_writer if self._is_for_writing(fd) else self.loop.add_reader
        try:
            add(fd, self._hear, fd, signal)
        except (OSError, RuntimeError):  # a transport has it, or nothing can watch it: whoever does is left alone
            self.forget()
            raise

    def _hear(self, fd: int, signal: Future[None]) -> None:
        if signal.done():  # it sleeps no more: it will look, or an exception has ended it before it could say so
            self.unwatch(fd)
        else:
            signal.set_result(None)

    def unwatch(self, fd: int) -> None:
        remove = self.loop.remove_writer if self._is_for_writing(fd) else self.loop.remove_reader
        try:
            remove(fd)
        except OSError as error:  # the number is another's by now; the stock loop has forgotten both directions of it
            if error.errno not in (errno.ENOENT, errno.EBADF):
                raise

    def _is_for_writing(self, fd: int) -> bool:
        return self.direction == WRITE and fd == self.fd

    def is_here(self) -> bool:
        return self.loop is running_loop() or not self.loop.is_running()

    def call_there(self, callback: Callable[..., object], *args: Any) -> bool:
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # it was closed
            return False
        return True


def _give(signal: Future[None]) -> None:
    if not signal.done():
        signal.set_result(None)
