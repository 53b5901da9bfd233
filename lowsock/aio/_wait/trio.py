# SPDX-License-Identifier: MIT
"""Waiting in trio."""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable
from typing import Any, Callable

from lowsock.aio._wait.waiters import WRITE, Queue, Waiter


def running_token() -> Any:
    """The token of this task's run; None outside trio, or if nobody has imported trio."""
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    if lowlevel is None:
        return None
    try:
        lowlevel.current_task()
    except RuntimeError:
        return None
    return lowlevel.current_trio_token()


def is_trio() -> bool:
    """Whether this is a task of trio. Every call of this package is a checkpoint there, as trio's own calls are."""
    find = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_task", None)
    return running_token() is not None if find is None else bool(find())


async def checkpoint() -> None:
    """Lets other tasks run, or is cancelled. Await it before a system call, while there is nothing to lose."""
    await sys.modules["trio"].lowlevel.checkpoint()


class TrioQueue(Queue):
    """A queue in a run of trio."""

    __slots__ = ()

    async def wait(self, waiter: Waiter) -> None:
        trio = sys.modules["trio"]
        fd, seconds = self.arm(waiter)
        waiter.wakeup = trio.Event()
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await (waiter.wakeup.wait() if fd < 0 else self._watch(fd))
        except trio.ClosedResourceError:
            self.closed = True
        finally:
            self.forget()  # trio watches for one sleep only
            if fd >= 0:
                self.disarm()

    def _watch(self, fd: int) -> Awaitable[None]:
        lowlevel = sys.modules["trio"].lowlevel
        wait = lowlevel.wait_writable if self.direction == WRITE and fd == self.fd else lowlevel.wait_readable
        awaited: Awaitable[None] = wait(fd)
        return awaited

    def wake(self, wakeup: Any) -> None:
        wakeup.set()

    def unwatch(self, fd: int) -> None:
        sys.modules["trio"].lowlevel.notify_closing(fd)

    def in_loop_thread(self) -> bool:
        return self.loop is running_token()

    def call_threadsafe(self, callback: Callable[..., object], *args: Any) -> bool:
        try:
            self.loop.run_sync_soon(callback, *args)
        except sys.modules["trio"].RunFinishedError:
            return False
        return True
