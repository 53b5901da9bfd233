# SPDX-License-Identifier: MIT
"""Methods that hold their object's lock, and a guard that releases a lock whatever is raised."""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class ReleaseGuard:
    """``with ReleaseGuard(lock), lock:`` releases an `RLock` even if a signal handler raises between the end of the block
    and ``lock.__exit__``, which CPython 3.9 and PyPy then skip."""

    __slots__ = ("_lock", "_was_owned")

    def __init__(self, lock: Any) -> None:
        self._lock, self._was_owned = lock, lock._is_owned()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        while not self._was_owned and self._lock._is_owned():
            self._lock.release()


def exclusive(method: Method) -> Method:
    """Runs a method under its sender's ``_lock``, in the process that made the sender. A signal handler that calls in again,
    on the same thread, is refused: it would see a half-done state."""

    @functools.wraps(method)
    def locked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._process != os.getpid():
            raise RuntimeError("this sender is of another process, which forked this one: the completions are its own")
        if self._lock._is_owned():
            raise RuntimeError("this sender is in use by the code that a signal handler interrupted")
        with ReleaseGuard(self._lock), self._lock:
            return method(self, *args, **kwargs)

    return cast("Method", locked)
