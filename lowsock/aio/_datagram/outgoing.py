# SPDX-License-Identifier: MIT
"""Datagrams on their way out: the queue of a transport, and what of it goes by one call. See udp(7), sendmmsg(2)."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable

from lowsock._system.errors import raised_inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowsock.aio._datagram.backends import Carrier

_MOST = 1024  # datagrams of one call


class Outgoing:
    """Keeps the order. A datagram leaves the queue when the kernel took it, or refused it for good.

    Items are ``(data, address)``, or ``(data, address, (ecn, source))`` of which `marked` counts how many there are.
    """

    __slots__ = (
        "_alike",
        "_carrier",
        "_fail",
        "_flying",
        "_joined",
        "_most",
        "_refused",
        "marked",
        "queue",
        "sending",
        "size",
    )

    def __init__(self, carrier: Carrier, refused: Callable[[OSError], None], fail: Callable[[BaseException], None]) -> None:
        self._carrier, self._refused, self._fail = carrier, refused, fail
        self.queue: deque[Any] = deque()
        self.size = 0  # bytes; an empty datagram counts as one, or nothing would bound how many there are
        self.marked = 0
        self.sending = False  # in `flush`
        self._alike = True  # whether all may go to one address and have one size
        self._flying: Sequence[Any] = ()  # what a call got that has not answered for it
        self._most, self._joined = _MOST, carrier.joined

    def flush(self) -> bool:
        """Sends what is in the queue now; False if the kernel has no room. What it refuses is told to ``refused``, and the
        rest goes on; what that puts into the queue may be left for the next time, or there would be no end of it.

        After an exception of a signal handler nobody knows what went: what the call had is not sent again.
        """
        if self._flying:
            self._settle()
        queue, left = self.queue, len(self.queue)
        self.sending = self._alike = True
        try:
            while queue and left > 0:
                try:
                    left -= self._send()
                except (BlockingIOError, InterruptedError):
                    self._flying = ()
                    return False
                except OSError as error:
                    if not raised_inside(error):
                        raise
                    left -= self._drop(1)
                    self._most = 1  # the next may be refused as well: to prepare more of them would be in vain
                    self._refused(error)
                except BaseException as error:
                    if not raised_inside(error):
                        raise
                    self._fail(error)
            return True
        finally:
            self.sending = False

    def clear(self) -> None:
        self.queue.clear()
        self.size = self.marked = 0
        self._flying = ()

    def _drop(self, count: int) -> int:
        """The first ones are no longer ours to send."""
        queue = self.queue
        if count >= len(queue):
            self.clear()
            return count
        gone = [queue.popleft() for _ in range(count)]
        self.size -= sum([len(item[0]) or 1 for item in gone])
        self.marked -= sum([len(item) > 2 for item in gone])
        self._flying = ()
        return count

    def _settle(self) -> None:
        """Takes out what the last call got, in which there was an exception."""
        queue, gone = self.queue, set(map(id, self._flying))
        while queue and id(queue[0]) in gone:
            queue.popleft()
        self.size = sum([len(item[0]) or 1 for item in queue])
        self.marked = sum([len(item) > 2 for item in queue])
        self._flying = ()

    def _send(self) -> int:
        """One call; returns how many datagrams of the queue went."""
        queue, most = self.queue, self._most
        if len(queue) > 1 and most > 1:
            items = [*queue] if len(queue) <= most else [*islice(queue, most)]
            sent = self._send_marked(items) if self.marked else self._send_plain(items)
        elif len(queue[0]) > 2:
            sent = self._send_marked([queue[0]])
        else:
            self._flying = (queue[0],)
            sent = self._carrier.one(*queue[0])
        if most < _MOST:
            self._most = 2 * most
        return self._drop(sent)

    def _send_plain(self, items: list[Any]) -> int:
        if self._alike:  # as most are: seen at once
            pieces, addresses = zip(*items)
            if len({*map(len, pieces)}) == 1 and len({*map(id, addresses)}) == 1 and pieces[0]:
                self._flying = items
                return self._carrier.run(pieces, addresses[0])
            self._alike = False
        return self._send_first(items, _run(items, 0))

    def _send_marked(self, items: list[Any]) -> int:
        count = _run(items, 0)
        if len(items[0]) == 2:
            return self._send_first(items, count)
        self._flying = items[:count]
        return self._carrier.beside([item[0] for item in self._flying], *items[0][1:])

    def _send_first(self, items: list[Any], count: int) -> int:
        """The first run; if it is short, with what else goes side by side."""
        if count >= self._joined:
            self._flying = items[:count]
            return self._carrier.run([item[0] for item in self._flying], items[0][1])
        pairs = self._flying = items[: self._unlike(items, count)]
        return self._carrier.many(pairs) if len(pairs) > 1 else self._carrier.one(*pairs[0])

    def _unlike(self, items: list[Any], end: int) -> int:
        """Where datagrams end that are better sent side by side, the first of them before ``end``."""
        while end < len(items) and len(items[end]) == 2:
            count = _run(items, end)
            if count >= self._joined:
                break
            end += count
        return end


def _run(items: list[Any], at: int) -> int:
    """How many datagrams from here on go to one address, beside the same, and have one size, but for a shorter last."""
    first = items[at]
    size, beside = len(first[0]), first[1:]
    if not size:
        return 1
    for i in range(at + 1, len(items)):
        item = items[i]
        if len(item[0]) != size or item[1:] != beside:
            return i - at + (0 < len(item[0]) < size and item[1:] == beside)
    return len(items) - at
