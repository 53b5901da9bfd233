# SPDX-License-Identifier: MIT
"""The queue of a transport's datagrams, and which of them go by one call. See udp(7), sendmmsg(2)."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable

from lowsock._system.errors import raised_inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowsock.aio._datagram.backends import Backend

_MAX_BATCH = 1024  # datagrams of one call


class Outgoing:
    """Keeps datagrams in order. One leaves the queue when the kernel took it, or refused it for good.

    Items are ``(data, address)`` or ``(data, address, (ecn, local))``; `with_control` counts the latter.
    """

    __slots__ = (
        "_backend",
        "_batch_size",
        "_in_flight",
        "_min_run",
        "_on_failure",
        "_on_refusal",
        "_uniform",
        "flushing",
        "queue",
        "size",
        "with_control",
    )

    def __init__(
        self, backend: Backend, on_refusal: Callable[[OSError], None], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._backend, self._on_refusal, self._on_failure = backend, on_refusal, on_failure
        self.queue: deque[Any] = deque()
        self.size = 0  # bytes; an empty datagram counts as one, or nothing would bound how many there are
        self.with_control = 0
        self.flushing = False
        self._uniform = True  # all may have one address and one size
        self._in_flight: Sequence[Any] = ()  # the items of a call that has not returned
        self._batch_size, self._min_run = _MAX_BATCH, backend.min_run

    def flush(self) -> bool:
        """Sends what is in the queue now; returns False if the kernel has no room.

        Calls ``on_refusal`` for a datagram that the kernel refuses, and goes on with the rest. What the callback puts into
        the queue may be left for the next flush, so that each flush ends. If a signal handler raises, nobody knows which
        datagrams of the call went: none of them is sent again.
        """
        if self._in_flight:
            self._drop_in_flight()
        queue, left = self.queue, len(self.queue)
        self.flushing = self._uniform = True
        try:
            while queue and left > 0:
                try:
                    left -= self._send()
                except (BlockingIOError, InterruptedError):
                    self._in_flight = ()
                    return False
                except OSError as error:
                    if not raised_inside(error):
                        raise
                    left -= self._drop(1)
                    self._batch_size = 1  # the next may be refused too, and preparing a batch for each takes long
                    self._on_refusal(error)
                except BaseException as error:
                    if not raised_inside(error):
                        raise
                    self._on_failure(error)
            return True
        finally:
            self.flushing = False

    def clear(self) -> None:
        self.queue.clear()
        self.size = self.with_control = 0
        self._in_flight = ()

    def _drop(self, count: int) -> int:
        """Removes the first ``count`` items, which were sent or refused."""
        queue = self.queue
        if count >= len(queue):
            self.clear()
            return count
        dropped = [queue.popleft() for _ in range(count)]
        self.size -= sum([len(item[0]) or 1 for item in dropped])
        self.with_control -= sum([len(item) > 2 for item in dropped])
        self._in_flight = ()
        return count

    def _drop_in_flight(self) -> None:
        """Removes the items of the last call, which an exception ended."""
        queue, dropped = self.queue, set(map(id, self._in_flight))
        while queue and id(queue[0]) in dropped:
            queue.popleft()
        self.size = sum([len(item[0]) or 1 for item in queue])
        self.with_control = sum([len(item) > 2 for item in queue])
        self._in_flight = ()

    def _send(self) -> int:
        """Makes one call; returns how many datagrams of the queue went."""
        queue, limit = self.queue, self._batch_size
        if len(queue) > 1 and limit > 1:
            items = [*queue] if len(queue) <= limit else [*islice(queue, limit)]
            sent = self._send_with_control(items) if self.with_control else self._send_plain(items)
        elif len(queue[0]) > 2:
            sent = self._send_with_control([queue[0]])
        else:
            self._in_flight = (queue[0],)
            sent = self._backend.send_one(*queue[0])
        if limit < _MAX_BATCH:
            self._batch_size = 2 * limit
        return self._drop(sent)

    def _send_plain(self, items: list[Any]) -> int:
        if self._uniform:  # as most queues are: one look shows it
            pieces, addresses = zip(*items)
            if len({*map(len, pieces)}) == 1 and len({*map(id, addresses)}) == 1 and pieces[0]:
                self._in_flight = items
                return self._backend.send_run(pieces, addresses[0])
            self._uniform = False
        return self._send_first_run(items, _run_length(items, 0))

    def _send_with_control(self, items: list[Any]) -> int:
        count = _run_length(items, 0)
        if len(items[0]) == 2:
            return self._send_first_run(items, count)
        self._in_flight = items[:count]
        return self._backend.send_with_control([item[0] for item in self._in_flight], *items[0][1:])

    def _send_first_run(self, items: list[Any], count: int) -> int:
        """Sends the first run; if it is short, in one batch with the short runs after it."""
        if count >= self._min_run:
            self._in_flight = items[:count]
            return self._backend.send_run([item[0] for item in self._in_flight], items[0][1])
        pairs = self._in_flight = items[: self._end_of_short_runs(items, count)]
        return self._backend.send_many(pairs) if len(pairs) > 1 else self._backend.send_one(*pairs[0])

    def _end_of_short_runs(self, items: list[Any], end: int) -> int:
        """Where the short runs end, of which the first ends at ``end``."""
        while end < len(items) and len(items[end]) == 2:
            count = _run_length(items, end)
            if count >= self._min_run:
                break
            end += count
        return end


def _run_length(items: list[Any], at: int) -> int:
    """How many datagrams from ``at`` on have one address, one size and the same control data; the last may be shorter."""
    first = items[at]
    size, same = len(first[0]), first[1:]
    if not size:
        return 1
    for i in range(at + 1, len(items)):
        item = items[i]
        if len(item[0]) != size or item[1:] != same:
            return i - at + (0 < len(item[0]) < size and item[1:] == same)
    return len(items) - at
