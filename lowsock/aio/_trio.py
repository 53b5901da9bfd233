# SPDX-License-Identifier: MIT
"""Waiting in trio."""

from __future__ import annotations

import math
import sys
from typing import Any, Callable

from lowsock.aio._queue import WRITE, Queue


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


class TrioQueue(Queue):
    """A queue in a run of trio."""

    __slots__ = ()

    @staticmethod
    def new_signal(loop: Any) -> Any:
        return sys.modules["trio"].Event()

    async def sleep(self, signal: Any, seconds: float | None) -> None:
        with sys.modules["trio"].move_on_after(math.inf if seconds is None else seconds):
            await signal.wait()

    def wake(self, signal: Any) -> None:
        signal.set()

    async def watch(self, fd: int, signal: Any, seconds: float | None) -> None:
        trio = sys.modules["trio"]
        lowlevel = trio.lowlevel
        wait = lowlevel.wait_writable if self.direction == WRITE and fd == self.fd else lowlevel.wait_readable
        try:
            if seconds is None:
                await wait(fd)
            else:
                with trio.move_on_after(seconds):
                    await wait(fd)
        except trio.ClosedResourceError:
            self.ended = True
        finally:
            self.forget()  # trio has taken it down

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
