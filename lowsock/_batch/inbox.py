# SPDX-License-Identifier: MIT
"""Memory that receives of batches fill, and the loop that receives. Descriptors that came belong to the inbox until
somebody takes them over."""

from __future__ import annotations

import math
import os
import select
import sys
import time
from itertools import count as counted
from itertools import islice, repeat
from struct import Struct

from lowsock._batch.outbox import not_busy
from lowsock._memory.address import cached_inet, cached_inet6, decode_inet, decode_name
from lowsock._memory.ancillary import CMSG_LEN
from lowsock._memory.buffers import PYPY
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import RETRYABLE, raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Address, Ancillary, Received, Socket

COUNT = lib.LOWSOCK_COUNT
_SIZES, _SOURCES, _FLAGS, CONTROL = lib.LOWSOCK_SIZES, lib.LOWSOCK_SOURCES, lib.LOWSOCK_FLAGS, lib.LOWSOCK_CONTROL
_FIRST_SHIFT = lib.LOWSOCK_FIRST_SHIFT
_LAYOUT_MASK = -1 << _FIRST_SHIFT | _SIZES | COUNT  # the bits of an answer that tell where the data of each message is
_SOCKADDR, _ROW = lib.LOWSOCK_SOCKADDR, lib.LOWSOCK_ROW
_HEADER = CMSG_LEN(0)
POLLIN = select.POLLIN | select.POLLPRI
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0x2000 if sys.platform == "linux" else 0)  # PyPy lacks the name
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds

# Of the inboxes in the pool. Pages that nothing was received into take no memory.
SLOTS, DATA, ROOM = 1024, 256 * 1024, 64 * 1024

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_recvmmsg = lib.lowsock_recvmmsg
_unpack = ffi.unpack


class Inbox:
    """``struct lowsock_inbox`` and the memory that it points to."""

    __slots__ = ("_layout_cache", "_memory", "_rows", "control", "data", "names", "pooled", "struct")

    def __init__(self, slots: int, data_size: int, control_size: int) -> None:
        self.struct = ffi.new("struct lowsock_inbox *")
        self.struct.slots, self.struct.data_size, self.struct.control_size = slots, data_size, control_size
        data, control = _allocate("char[]", max(data_size, 1)), _allocate("char[]", max(control_size, 1))
        names, headers = _allocate("char[]", slots * _SOCKADDR), _allocate("char[]", lib.lowsock_headers_size(slots))
        columns = [_allocate("long long[]", slots) for _ in range(4)]
        self.struct.data, self.struct.control, self.struct.names, self.struct.headers = data, control, names, headers
        self.struct.sizes, self.struct.flags, self.struct.sources, self.struct.controls = columns
        self.data, self.control, self.names = ffi.buffer(data), ffi.buffer(control), ffi.buffer(names)
        self._memory = (data, control, names, headers, *columns)  # the struct's pointers keep nothing alive
        self._rows = ffi.new("long long[]", 0)
        self._layout_cache: tuple[int, int, list[slice], Struct | None] = -1, 0, [], None  # see _parts
        self.pooled = slots == SLOTS and data_size == DATA and control_size == ROOM

    def receive(self, sock: Socket, count: int, bufsize: int, ancbufsize: int, flags: int, wait_all: bool) -> int:
        """Receives up to ``count`` messages; returns the answer of ``lowsock_recvmmsg``."""
        started = time.monotonic() if wait_all else 0.0
        fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is kinds.Socket else target(sock)
        once = flags | MSG_DONTWAIT if timeout else flags
        answer = _recvmmsg(self.struct, fd, 0, count, bufsize, ancbufsize, once)
        if answer < 0:
            answer = self._retry(sock, (count, bufsize, ancbufsize, once), flags, not_busy(answer))
        if wait_all and not flags & MSG_DONTWAIT:
            answer = self._receive_rest(sock, count, flags, started, answer)
        return answer

    def _retry(self, sock: Socket, arguments: tuple[int, int, int, int], flags: int, answer: int) -> int:
        def attempt(fd: int) -> int:
            return not_busy(_recvmmsg(self.struct, fd, 0, *arguments))

        return retry(sock, flags, POLLIN, attempt, answer)

    def _receive_rest(self, sock: Socket, count: int, flags: int, started: float, answer: int) -> int:
        """Receives until all have come or the socket's timeout has passed. The next call raises an error that comes after
        messages: raised now, it would lose them."""
        pause = _FIRST_PAUSE
        while answer & COUNT < count:
            fd, timeout = target(sock)
            deadline = None if timeout is None else started + timeout
            if not _wait_for_more(fd, deadline):
                break
            more = self.receive_more(fd, count, flags | MSG_DONTWAIT)
            if more >= 0:
                answer, pause = more, _FIRST_PAUSE
            else:  # spurious: out-of-band data is pending, or other readers are quicker
                left = pause if deadline is None else deadline - time.monotonic()
                if more not in RETRYABLE or left <= 0 or has_ended(fd):
                    break
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)
        return answer

    def receive_more(self, fd: int, count: int, flags: int) -> int:
        """Receives more, up to ``count`` messages in all; returns the answer for all of them, or -errno."""
        struct = self.struct
        have = struct.count
        return not_busy(_recvmmsg(struct, fd, have, count - have, struct.bufsize, struct.ancbufsize, flags))

    # ---- what came ----

    def messages(self, answer: int) -> list[Received]:
        """All messages as `recvmsg` returns them. Their descriptors still belong to the inbox."""
        n = answer & COUNT
        pieces = self.pieces(answer)
        if not answer & (_SOURCES | _FLAGS | CONTROL):
            address = self.address(0)
            return [(piece, [], 0, address) for piece in pieces]
        ancdata = self.ancdata(0, n) if answer & CONTROL else map(list, repeat((), n))
        flags = _unpack(self.struct.flags, n) if answer & _FLAGS else repeat(0, n)
        return list(zip(pieces, ancdata, flags, self.addresses(answer)))

    def pieces(self, answer: int) -> Iterable[bytes]:
        """The data of all messages. If they are as many and as long as the last time, one format cuts them out."""
        cache = self._layout_cache
        if answer & _LAYOUT_MASK == cache[0] and self.struct.bufsize == cache[1] and not PYPY:
            cut = cache[3]
            if cut is None:
                n, first, size = answer & COUNT, answer >> _FIRST_SHIFT, cache[1]
                cut = Struct(f"{first}s{size - first}x" * n)
                self._layout_cache = *cache[:3], cut
            return cut.unpack_from(self.data)
        data = self.data
        return [data[part] for part in self._parts(answer)]

    def views(self, answer: int) -> list[memoryview]:
        """The same as views of the memory, which they keep alive."""
        view = memoryview(self.data)
        return [view[part] for part in self._parts(answer)]

    def _parts(self, answer: int) -> list[slice]:
        """Where the data of each message is; cached for the next time if all messages are of one size."""
        n, size, cache = answer & COUNT, self.struct.bufsize, self._layout_cache
        if answer & _LAYOUT_MASK == cache[0] and size == cache[1]:
            return cache[2]
        if answer & _SIZES or not n:
            return [slice(at, at + got) for at, got in zip(counted(0, size), _unpack(self.struct.sizes, n))]
        first = answer >> _FIRST_SHIFT
        parts = [slice(at, at + first) for at in islice(counted(0, size), n)]
        self._layout_cache = answer & _LAYOUT_MASK, size, parts, None
        return parts

    def addresses(self, answer: int) -> Any:
        """An iterable of all addresses."""
        n, sources = answer & COUNT, self.struct.sources
        if not n:
            return ()
        if not answer & _SOURCES:
            return repeat(cached_inet(sources[0]) or self._decode(0, sources[0]), n)
        sources = _unpack(sources, n)
        return [cached_inet(source) or self._decode(i, source) for i, source in enumerate(sources)]

    def address(self, i: int) -> Address:
        source = self.struct.sources[i]
        return cached_inet(source) or self._decode(i, source)

    def _decode(self, i: int, source: int) -> Address:
        if source >= 0:
            return decode_inet(source)
        name = self.names[i * _SOCKADDR : i * _SOCKADDR - 1 - source]
        return cached_inet6(name) or decode_name(name)

    def ancdata(self, first: int, count: int) -> list[Ancillary]:
        """The control messages of each of ``count`` messages from ``first`` on."""
        struct, control = self.struct, self.control
        most = count * (1 + _ROW * (struct.ancbufsize // _HEADER + 1))
        if len(self._rows) < most:
            self._rows = _allocate("long long[]", most)
        numbers = _unpack(self._rows, lib.lowsock_inbox_rows(struct, first, count, self._rows, most))
        found: list[Ancillary] = []
        at, base = 0, first * aligned(struct.ancbufsize)
        while at < len(numbers):
            rows = range(at + 1, at + 1 + numbers[at], _ROW)
            found.append(
                [(numbers[k], numbers[k + 1], control[base + numbers[k + 2] : base + numbers[k + 3]]) for k in rows]
            )
            at += 1 + numbers[at]
            base += aligned(struct.ancbufsize)
        return found


def aligned(room: int) -> int:
    """The bytes from one control buffer of ``room`` bytes to the next."""
    return -(-room // lib.LOWSOCK_ALIGNED) * lib.LOWSOCK_ALIGNED


def checked_vlen(vlen: int) -> int:
    """The ``vlen`` of a new batch: at least 1."""
    number = checked_int("vlen", vlen, least=0, most=COUNT)
    if not number:
        raise ValueError("vlen must be at least 1")
    return number


def _wait_for_more(fd: int, deadline: float | None) -> bool:
    """Waits for more to come. False: the deadline has passed, the descriptor does not block, or an error is pending."""
    if fd < 0:
        return False  # closed meanwhile: the next call fails with EBADF
    events = events_of(fd, 0)
    if not events and deadline is not None:
        events = events_of(fd, math.ceil(max(deadline - time.monotonic(), 0) * 1000))
    elif not events and _blocks(fd):
        events = events_of(fd, None)
    return bool(events) and not events & (select.POLLERR | select.POLLNVAL)


def _blocks(fd: int) -> bool:
    try:
        return os.get_blocking(fd)
    except OSError as error:  # closed meanwhile
        if not raised_here(error):
            raise
        return False


def has_ended(fd: int) -> bool:
    """Whether nothing more can come: poll(2) tells, where a call that does not wait fails with EAGAIN."""
    return fd < 0 or bool(events_of(fd, 0) & (select.POLLHUP | _POLLRDHUP))


def events_of(fd: int, milliseconds: int | None) -> int:
    """The events that poll(2) reports for reading."""
    poll = select.poll()
    poll.register(fd, POLLIN | _POLLRDHUP)
    return sum(event for _, event in poll.poll(milliseconds))


# ---- the pool ----

FREE: list[Inbox] = []
_free = FREE  # see docs/design.md: of an imported name CPython makes a bound method for each call


def take(count: int, size: int, room: int) -> Inbox:
    """An inbox with so much room. If that is more than the pool's inboxes have, one is made for the call."""
    if count > SLOTS or count * size > DATA or count * aligned(room) > ROOM:
        return Inbox(count, count * size, count * aligned(room))
    try:
        return _free.pop()
    except IndexError as error:
        if not raised_here(error):
            raise
        return Inbox(SLOTS, DATA, ROOM)


def give(inbox: Inbox) -> None:
    """Gives an inbox back. Somebody else has its descriptors, if there are any."""
    if inbox.pooled:
        _free.append(inbox)
