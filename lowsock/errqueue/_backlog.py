# SPDX-License-Identifier: MIT
"""Events that a zero-copy sender has read and nobody has asked for yet."""

from __future__ import annotations

from collections import deque
from itertools import islice

from lowsock.errqueue._events import Event, ZeroCopyCompletion

_MOST = 16384


class Backlog:
    """Events in their order. If more than `_MOST` wait, the oldest are lost, and counted by ``dropped``."""

    __slots__ = ("_events", "dropped")

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=_MOST)
        self.dropped = 0

    def add(self, event: Event) -> None:
        """Adds an event; a completion that follows another one is merged with it. Twice for one event is once."""
        last = self._events[-1] if self._events else None
        if isinstance(event, ZeroCopyCompletion) and isinstance(last, ZeroCopyCompletion):
            if last.is_followed_by(event):
                last = self._events[-1] = last._replace(last=event.last)
            if last.last == event.last:
                return
        if last is event:
            return
        self.dropped += len(self._events) == self._events.maxlen
        self._events.append(event)

    def take(self, limit: int) -> list[Event]:
        """Takes at most ``limit`` events, the oldest first."""
        events = list(islice(self._events, limit))
        for _ in events:
            self._events.popleft()
        return events
