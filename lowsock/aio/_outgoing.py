# SPDX-License-Identifier: MIT
"""Datagrams on their way out: the queue of a transport, and what of it goes by one call. See udp(7), sendmmsg(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from lowsock.aio._carriers import Carrier

_JOINED = 3  # datagrams in a row that offload pays for
_MOST = 1024  # datagrams of one call


class Outgoing:
    """Keeps the order. A datagram leaves the queue when the kernel took it, or refused it for good.

    Items are ``(data, address)``, or ``(data, address, (ecn, source))`` of which `marked` counts how many there are.
    """

    __slots__ = ("_carrier", "_fail", "_refused", "marked", "queue", "sending", "size")

    def __init__(self, carrier: Carrier, refused: Callable[[OSError], None], fail: Callable[[BaseException], None]) -> None:
        self._carrier, self._refused, self._fail = carrier, refused, fail
        self.queue: list[Any] = []
        self.size = 0  # bytes
        self.marked = 0
        self.sending = False  # in `flush`: what is put into the queue meanwhile goes as well

    def flush(self) -> bool:
        """Sends until nothing is left; False if the kernel has no room. What it refuses is told to ``refused``, which may
        put more into the queue, and the rest goes on."""
        self.sending = True
        queue, carrier = self.queue, self._carrier
        try:
            while queue:
                try:
                    if len(queue) > 1 or self.marked:
                        self._drop(self._send())
                    else:
                        carrier.one(*queue[0])
                        queue.clear()
                        self.size = 0
                except (BlockingIOError, InterruptedError):
                    return False
                except OSError as error:
                    self._drop(1)
                    self._refused(error)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._fail(error)
            return True
        finally:
            self.sending = False

    def clear(self) -> None:
        self.queue.clear()
        self.size = self.marked = 0

    def _drop(self, count: int) -> None:
        """The first ones are no longer ours to send."""
        queue = self.queue
        if count >= len(queue):
            self.clear()
            return
        gone = queue[:count]
        del queue[:count]
        self.size -= sum([len(item[0]) for item in gone])
        self.marked -= sum([len(item) > 2 for item in gone])

    def _send(self) -> int:
        """One call; returns how many datagrams of the queue went."""
        queue, carrier = self.queue, self._carrier
        if self.marked:
            return self._send_marked()
        pieces, addresses = zip(*queue)
        if len({*map(len, pieces)}) == 1 and len({*map(id, addresses)}) == 1 and pieces[0]:
            return carrier.run(pieces, addresses[0])
        count = _run(queue, 0)
        if count >= _JOINED:
            return carrier.run(pieces[:count], addresses[0])
        return carrier.many(queue[: self._unlike(count)])

    def _unlike(self, end: int) -> int:
        """Where datagrams end that are better sent side by side, the first of them before ``end``."""
        queue = self.queue
        last = min(len(queue), _MOST)
        while end < last and len(queue[end]) == 2:
            count = _run(queue, end)
            if count >= _JOINED:
                break
            end += count
        return end

    def _send_marked(self) -> int:
        queue, carrier = self.queue, self._carrier
        count = _run(queue, 0)
        pieces = [item[0] for item in queue[:count]]
        if len(queue[0]) > 2:
            return carrier.beside(pieces, *queue[0][1:])
        if count >= _JOINED:
            return carrier.run(pieces, queue[0][1])
        return carrier.many(queue[: self._unlike(count)])


def _run(queue: list[Any], at: int) -> int:
    """How many datagrams from here on go to one address, beside the same, and have one size, but for a shorter last."""
    first = queue[at]
    size, beside = len(first[0]), first[1:]
    if not size:
        return 1
    for i in range(at + 1, len(queue)):
        item = queue[i]
        if len(item[0]) != size or item[1:] != beside:
            return i - at + (0 < len(item[0]) < size and item[1:] == beside)
    return len(queue) - at
