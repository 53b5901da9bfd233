# SPDX-License-Identifier: MIT
"""Waiting for what others may take first. See poll(2)."""

from __future__ import annotations

import math
import select
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds


class Patience:
    """Waits for a descriptor until a deadline. Others may take the event that it waits for, so no wait is long."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._pause = _FIRST_PAUSE
        self._woken = False

    def wait(self, fd: int, events: int, news: bool) -> bool:
        """Whether there was time left. A state that wakes poll(2) again and again, with no news, is slept through."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
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
