# SPDX-License-Identifier: MIT
"""Waiting in trio."""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable
from typing import Any, Callable

from lowsock.aio._wait.queue import WRITE, Place, Queue


def running_token() -> Any:
    """The token of the run that this is a task of; None outside trio. Where nobody has imported it, there is none."""
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    if lowlevel is None:
        return None
    try:
        lowlevel.current_task()
    except RuntimeError:
        return None
    return lowlevel.current_trio_token()


def is_trio() -> bool:
    """Whether this is a task of trio, which every call of this package gives way to others in, as trio's own do."""
    find = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_task", None)
    return running_token() is not None if find is None else bool(find())


async def checkpoint() -> None:
    """Gives way to others, or is cancelled. To be awaited before a call, when there is nothing that could be lost."""
    await sys.modules["trio"].lowlevel.checkpoint()


class TrioQueue(Queue):
    """A queue in a run of trio."""

    __slots__ = ()

    async def wait(self, place: Place, seconds: float | None) -> None:
        trio = sys.modules["trio"]
        fd, seconds = self.aim(place, seconds)
        place.signal = trio.Event()
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await (place.signal.wait() if fd < 0 else self._watch(fd))
        except trio.ClosedResourceError:
            self.ended = True
        finally:
            self.forget()  # trio has taken it down
            if fd >= 0:
                self.settle()

    def _watch(self, fd: int) -> Awaitable[None]:
        lowlevel = sys.modules["trio"].lowlevel
        wait = lowlevel.wait_writable if self.direction == WRITE and fd == self.fd else lowlevel.wait_readable
        awaited: Awaitable[None] = wait(fd)
        return awaited

    def wake(self, signal: Any) -> None:
        signal.set()

    def unwatch(self, fd: int) -> None:
        sys.modules["trio"].lowlevel.notify_closing(fd)

    def is_here(self) -> bool:
        return self.loop is running_token()

    def call_there(self, callback: Callable[..., object], *args: Any) -> bool:
        try:
            self.loop.run_sync_soon(callback, *args)
        except sys.modules["trio"].RunFinishedError:
            return False
        return True
