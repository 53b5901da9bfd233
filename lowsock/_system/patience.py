# SPDX-License-Identifier: MIT
"""Waiting for what others may take first, and letting go of a lock whatever comes. See poll(2)."""

from __future__ import annotations

import functools
import math
import os
import select
import time
from typing import Any, Callable, TypeVar, cast

from lowsock._system.calling import checked_seconds

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds
Method = TypeVar("Method", bound=Callable[..., Any])


class Patience:
    """Waits for a descriptor until a deadline. Others may take the event that it waits for, so no wait is long."""

    def __init__(self, timeout: float | None) -> None:
        seconds = checked_seconds("timeout", timeout)
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._pause = _FIRST_PAUSE
        self._woken = False

    def wait(self, fd: int, events: int, news: bool) -> bool:
        """Whether there was time left. A state that wakes poll(2) again and again, with no news, is slept through."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        if fd < 0:
            return True  # closed meanwhile: the next call says so
        if news:
            self._woken, self._pause = False, _FIRST_PAUSE
        if self._woken:
            time.sleep(min(left, self._pause))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return True
        poll = select.poll()
        poll.register(fd, events)
        self._woken = bool(poll.poll(math.ceil(min(left, _LONGEST_PAUSE) * 1000)))
        return True


class Surely:
    """``with Surely(lock), lock:`` lets go of an `RLock` also where a signal handler raises between the end of the block and
    its exit, which CPython 3.9 and PyPy then leave out."""

    __slots__ = ("_before", "_lock")

    def __init__(self, lock: Any) -> None:
        self._lock, self._before = lock, lock._is_owned()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        while not self._before and self._lock._is_owned():
            self._lock.release()


def alone(method: Method) -> Method:
    """A method that has its sender (``_lock``, ``_process``) for itself. A signal handler that comes back in, on the same
    thread, would find things half done."""

    @functools.wraps(method)
    def locked(self: Any, *args: Any, **more: Any) -> Any:
        if self._process != os.getpid():
            raise RuntimeError("this sender is of another process, which forked this one: the completions are its own")
        if self._lock._is_owned():
            raise RuntimeError("this sender is in use by the code that a signal handler interrupted")
        with Surely(self._lock), self._lock:
            return method(self, *args, **more)

    return cast("Method", locked)
