# SPDX-License-Identifier: MIT
"""A method that has its object for itself: a lock that is let go of whatever comes."""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


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
