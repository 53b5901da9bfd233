# SPDX-License-Identifier: MIT
"""Waiting in a loop of asyncio: the stock one, uvloop, and whatever has ``add_reader``."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any, Callable

from lowsock.aio._wait.waiters import WRITE, Queue, Waiter

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


def running_loop() -> AbstractEventLoop | None:
    """The loop that runs in this thread; None if none runs, or nobody has imported asyncio."""
    asyncio: Any = sys.modules.get("asyncio")
    find = getattr(asyncio, "_get_running_loop", None)
    return None if find is None else find()


class LoopQueue(Queue):
    """A queue in a loop of asyncio.

    uvloop stops watching for good at an error, and an error queue that is not empty counts as one. If the descriptor is
    closed before uvloop begins to watch it, uvloop ends the process. So neither uvloop nor any other loop that is not
    asyncio's own watches the descriptor itself.
    """

    __slots__ = ()

    def __init__(self, loop: Any, fd: int, direction: int) -> None:
        super().__init__(loop, fd, direction, not isinstance(loop, sys.modules["asyncio"].SelectorEventLoop))

    async def wait(self, waiter: Waiter) -> None:
        fd, seconds = self.arm(waiter)
        loop = self.loop
        waiter.wakeup = wakeup = loop.create_future()
        timer = None
        try:
            if fd >= 0:
                self._watch(fd, wakeup)
            if seconds is not None:
                timer = loop.call_later(seconds, _on_timeout, wakeup)
            await wakeup
        finally:
            if timer is not None:
                timer.cancel()
            if fd >= 0:
                self.disarm()

    def wake(self, wakeup: Future[None]) -> None:
        if not wakeup.done() and not self.loop.is_closed():
            wakeup.set_result(None)

    def _watch(self, fd: int, wakeup: Future[None]) -> None:
        add = self.loop.add_writer if self._is_for_writing(fd) else self.loop.add_reader
        try:
            add(fd, self._on_ready, fd, wakeup)
        except (OSError, RuntimeError):  # it cannot be watched, or a transport watches it, which is to keep its watch
            self.forget()
            raise

    def _on_ready(self, fd: int, wakeup: Future[None]) -> None:
        if wakeup.done():  # the waiter is awake, or an exception ended it before it could stop watching
            self.unwatch(fd)
        else:
            wakeup.set_result(None)

    def unwatch(self, fd: int) -> None:
        remove = self.loop.remove_writer if self._is_for_writing(fd) else self.loop.remove_reader
        try:
            remove(fd)
        except OSError as error:  # the number is another's by now; the stock loop has forgotten both directions of it
            if error.errno not in (errno.ENOENT, errno.EBADF):
                raise

    def _is_for_writing(self, fd: int) -> bool:
        return self.direction == WRITE and fd == self.fd

    def in_loop_thread(self) -> bool:
        return self.loop is running_loop() or not self.loop.is_running()

    def call_threadsafe(self, callback: Callable[..., object], *args: Any) -> bool:
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # it was closed
            return False
        return True


def _on_timeout(wakeup: Future[None]) -> None:
    if not wakeup.done():
        wakeup.set_result(None)
