# SPDX-License-Identifier: MIT
"""Waiting in a loop of asyncio: the stock one, uvloop, and whatever has ``add_reader``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable

from lowsock.aio._queue import WRITE, Queue

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


def running_loop() -> AbstractEventLoop | None:
    """The loop that runs in this thread. Where nobody has imported asyncio, none does."""
    asyncio: Any = sys.modules.get("asyncio")
    find = getattr(asyncio, "_get_running_loop", None)
    return None if find is None else find()


class LoopQueue(Queue):
    """A queue in a loop of asyncio."""

    __slots__ = ()

    @staticmethod
    def new_signal(loop: AbstractEventLoop) -> Future[None]:
        return loop.create_future()

    async def sleep(self, signal: Future[None], seconds: float | None) -> None:
        if seconds is None:
            await signal
            return
        timer = self.loop.call_later(seconds, _give, signal)
        try:
            await signal
        finally:
            timer.cancel()

    def wake(self, signal: Future[None]) -> None:
        if not signal.done() and not self.loop.is_closed():
            signal.set_result(None)

    async def watch(self, fd: int, signal: Future[None], seconds: float | None) -> None:
        add = self.loop.add_writer if self._is_for_writing(fd) else self.loop.add_reader
        try:
            add(fd, _give, signal)
        except (OSError, RuntimeError):  # a transport has it, or nothing can watch it: whoever does is left alone
            self.forget()
            raise
        await self.sleep(signal, seconds)

    def unwatch(self, fd: int) -> None:
        if self._is_for_writing(fd):
            self.loop.remove_writer(fd)
        else:
            self.loop.remove_reader(fd)

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
