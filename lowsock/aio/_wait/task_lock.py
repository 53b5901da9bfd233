# SPDX-License-Identifier: MIT
"""A lock of tasks that is fair: they get it in the order in which they came."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from lowsock.aio._wait.asyncio import running_loop
from lowsock.aio._wait.trio import running_token

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable


class Lock:
    """``async with lock:`` lets one task in at a time. To take a free lock awaits nothing, and nor does a release.

    A release passes the lock to the task that has waited longest; if that task is cancelled before it runs, to the next.
    """

    __slots__ = ("_waiters", "locked")

    def __init__(self) -> None:
        self.locked = False
        self._waiters: deque[Any] = deque()

    async def __aenter__(self) -> None:
        if not self.locked:
            self.locked = True
            return
        waiter = _new_waiter()
        self._waiters.append(waiter)
        try:
            await waiter.wait()
        except BaseException:
            if waiter.woken:
                self._release()
            else:
                self._waiters.remove(waiter)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._waiters:
            self._waiters.popleft().wake()
        else:
            self.locked = False


class _FutureWaiter:
    """A task that waits, on asyncio."""

    def __init__(self, future: Future[None]) -> None:
        self.woken = False
        self._future = future

    def wait(self) -> Awaitable[object]:
        return self._future

    def wake(self) -> None:
        self.woken = True
        if not (self._future.done() or self._future.get_loop().is_closed()):  # cancelled, and its task does not know yet
            self._future.set_result(None)


class _EventWaiter:
    """A task that waits, on trio."""

    def __init__(self, event: Any) -> None:
        self.woken = False
        self._event = event

    def wait(self) -> Awaitable[object]:
        return self._event.wait()

    def wake(self) -> None:
        self.woken = True
        self._event.set()


def _new_waiter() -> _FutureWaiter | _EventWaiter:
    if running_token() is not None:
        return _EventWaiter(sys.modules["trio"].Event())
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no event loop runs in this thread")
    return _FutureWaiter(loop.create_future())
