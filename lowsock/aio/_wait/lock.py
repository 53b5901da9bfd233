# SPDX-License-Identifier: MIT
"""One task after the other, in the order in which they came."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from lowsock.aio._wait.asyncio import running_loop
from lowsock.aio._wait.trio import running_token

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable


class Turns:
    """``async with turns:`` lets one task in at a time. Nothing is awaited if nobody is inside, and never on the way out.

    Whoever leaves hands over to the one that waits longest; if that one is cancelled before it runs, to the next.
    """

    __slots__ = ("_waiting", "free")

    def __init__(self) -> None:
        self.free = True
        self._waiting: deque[Any] = deque()

    async def __aenter__(self) -> None:
        if self.free:
            self.free = False
            return
        place = _place()
        self._waiting.append(place)
        try:
            await place.wait()
        except BaseException:
            if place.called:
                self._hand_over()
            else:
                self._waiting.remove(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting:
            self._waiting.popleft().call()
        else:
            self.free = True


class _FuturePlace:
    """A place in the queue, on asyncio."""

    def __init__(self, future: Future[None]) -> None:
        self.called = False
        self._future = future

    def wait(self) -> Awaitable[object]:
        return self._future

    def call(self) -> None:
        self.called = True
        if not (self._future.done() or self._future.get_loop().is_closed()):  # cancelled, and its task does not know yet
            self._future.set_result(None)


class _EventPlace:
    """A place in the queue, on trio."""

    def __init__(self, event: Any) -> None:
        self.called = False
        self._event = event

    def wait(self) -> Awaitable[object]:
        return self._event.wait()

    def call(self) -> None:
        self.called = True
        self._event.set()


def _place() -> _FuturePlace | _EventPlace:
    if running_token() is not None:
        return _EventPlace(sys.modules["trio"].Event())
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no event loop runs in this thread")
    return _FuturePlace(loop.create_future())
