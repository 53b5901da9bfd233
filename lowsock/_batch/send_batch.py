# SPDX-License-Identifier: MIT
"""A batch of messages to send, which is filled again and again. See sendmmsg(2).

Data is kept as ``bytes``, which cannot change, and C gets a pointer to each for one call only. Control messages and
addresses are encoded into memory of the batch.

Each message that a batch ever gets has a number of its own. The cursor in ``struct lowsock_outbox``, which C moves within
the call, is the number of the next one. So C never takes one message for another, whatever comes between two steps: an
exception, or a signal handler that fills the batch anew.
"""

from __future__ import annotations

import select

from lowsock._batch.base import Reused
from lowsock._batch.inbox import aligned
from lowsock._batch.outbox import PIECES, SOCKADDR, encode_named, not_busy, pack_control, send_pieces
from lowsock._memory.address import family_of
from lowsock._memory.ancillary import NO_ANCDATA, NO_CONTROL, encode, refuse_without_data
from lowsock._memory.buffers import as_bytes, listed
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.spellings import keyword_only, refuse_old
from lowsock._system.target import target
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from lowsock._memory.ancillary import Control
    from lowsock._system.types import Address, Buffer, CData, ControlMessage, Socket

_POLLOUT = select.POLLOUT
_MOVED = -lib.LOWSOCK_MOVED
_BYTES = {bytes}


class SendBatch(Reused):
    """Up to ``vlen`` messages of ``bufsize`` bytes, with ``ancbufsize`` bytes of control data each, to be sent together.

    `append` and `extend` keep what is to be sent: ``bytes`` as they are, a copy of anything else. `send` sends it, and goes
    on after what has gone when it is called again. When all has gone, the batch is empty, keeps nothing, and can be filled
    anew. ``len()`` tells how many messages wait to be sent.

    A batch is for one user at a time: a `send` while another is in its system call raises `RuntimeError`. A signal handler
    may use the batch in the middle of any call: what it clears or sends is not sent again, what it adds is kept. A `send`
    that it interrupts leaves what was added to the next one, and returns how many messages it sent itself. After a fork, a
    batch that another thread was in a call with stays in use in the child: make a new one there. `close`, or the end of a
    ``with`` statement, lets go of the memory and is final: everything else raises `ValueError` from then on. See
    sendmmsg(2).
    """

    __slots__ = ("_queue",)

    def __init__(self, vlen: int, bufsize: int, ancbufsize: int = 0) -> None:
        super().__init__(vlen, bufsize)
        room = aligned(checked_int("ancbufsize", ancbufsize, least=0))
        self._queue = _Queue(0, [], set(), {})
        self._memory = _BatchOutbox(min(self._vlen, PIECES), room)

    # ---- filling ----

    @keyword_only
    def append(
        self, data: Buffer, *old: NoReturn, ancdata: Iterable[ControlMessage] = NO_ANCDATA, address: Address = None
    ) -> None:
        """Adds a message: ``data``, one bytes-like object, with control messages as in `sendmsg`.

        An address is numeric, and is encoded when the batch is sent, for the socket tells its family. Descriptors are
        numbers here: they have to be open until the message has been sent. Raises `ValueError` if the batch is full, or has
        not as much room for a message. See sendmmsg(2).
        """
        if old:
            refuse_old("append", "ancdata", "address")
        piece = data if type(data) is bytes else as_bytes("data", data)
        control = NO_CONTROL if ancdata is NO_ANCDATA else encode(ancdata)  # any code of the caller's has run now
        outbox: _BatchOutbox = self._memory or self._opened()
        size = len(piece)
        entry: Any = piece
        if control.rows or address is not None:
            self._queue_with_room(outbox, 1, size)  # a full batch is the first error to raise
            entry = outbox.checked_entry(piece, control, address)
        while True:
            queue = self._queue
            pieces = queue.pieces
            if not pieces or size > self._bufsize or len(pieces) >= self._vlen or type(pieces[0]) is _Queue:
                queue = self._queue_with_room(outbox, 1, size)
                pieces = queue.pieces
            queue.sizes.add(size)
            pieces.append(entry)
            if type(pieces[0]) is not _Queue or type(pieces[-1]) is _Queue:
                return
            pieces.pop()  # a signal handler has ended this queue before the message came in

    @keyword_only
    def extend(self, pieces: Iterable[Buffer], *old: NoReturn, address: Address = None) -> None:
        """Adds a message for each of ``pieces``, all of them to one address: the quick way for many.

        Adds all, or raises what `append` raises and adds none. See sendmmsg(2).
        """
        if old:
            refuse_old("extend", "address")
        outbox: _BatchOutbox = self._memory or self._opened()
        own: list[Any] = pieces.copy() if type(pieces) is list else listed("pieces", pieces)
        if {*map(type, own)} != _BYTES:
            own = [as_bytes(f"pieces[{i}]", piece) for i, piece in enumerate(own)]
        if not own:
            return
        sizes = {*map(len, own)}
        self._queue_with_room(outbox, len(own), max(sizes))
        if address is not None:
            own = [outbox.checked_entry(piece, NO_CONTROL, address) for piece in own]
        while True:
            queue = self._queue
            queue.sizes.update(sizes)
            added = queue.pieces
            added += own
            if type(added[0]) is not _Queue or type(added[-1]) is _Queue:
                return
            del added[-len(own) :]  # as in `append`
            self._queue_with_room(outbox, len(own), max(sizes))

    def _queue_with_room(self, outbox: _BatchOutbox, count: int, size: int) -> _Queue:
        if size > self._bufsize:
            raise ValueError(f"data is too long: {size} bytes, and the batch has {self._bufsize} for a message")
        queue = self._current_queue(outbox)
        i = len(queue.pieces)
        if i + count > self._vlen:
            raise ValueError(f"the batch is full: it has room for {self._vlen} messages, and {i} are in it")
        return queue

    def _current_queue(self, outbox: _BatchOutbox) -> _Queue:
        """The queue that has not ended, which may be empty."""
        queue = self._queue
        while queue.has_ended(outbox.struct.next):
            queue = queue.pieces[0]
        self._queue = queue
        return queue

    # ---- sending ----

    def __len__(self) -> int:
        outbox: _BatchOutbox = self._opened()
        return max(self._current_queue(outbox).end() - int(outbox.struct.next), 0)

    @keyword_only
    def send(self, sock: Socket, *old: NoReturn, flags: int = 0) -> int:
        """Sends what waits to be sent, 64 messages by each system call; returns how many the kernel took.

        If it did not take all, or raised, the rest is still there, and the next call goes on with it: nothing is sent twice
        or left out, also after an exception from a signal handler. Only for the first message is waited. One that the kernel
        refuses stays the first until it is dropped by `skip` or `clear`. Returns 0 if nothing waits.

        Raises what `sendmsg` raises; `ValueError` for an address that is a host name, its message named by the number that
        it has in the batch. See sendmmsg(2).
        """
        if old:
            refuse_old("send", "flags")
        outbox: _BatchOutbox = self._memory or self._opened()
        if flags is not ZERO:
            flags = checked_int("flags", flags)
        fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is kinds.Socket else target(sock)
        if timeout:
            flags |= MSG_DONTWAIT
        queue = self._queue
        end = len(queue.pieces)
        if not end or type(queue.pieces[0]) is _Queue:
            queue = self._current_queue(outbox)
            end = len(queue.pieces)
        answer = _send_once(outbox, queue, end, sock, fd, flags)
        sent = answer if 0 < answer < PIECES else _send_rest(outbox, queue, end, sock, flags, answer)
        self._current_queue(outbox)  # drops what was sent
        return sent

    def skip(self) -> None:
        """Drops the first message that waits to be sent. Raises `ValueError` if a stream has taken a part of it, or if
        there is none. See sendmmsg(2)."""
        outbox: _BatchOutbox = self._opened()
        struct, queue = outbox.struct, self._current_queue(outbox)
        number = struct.next
        if number >= queue.end():
            raise ValueError("the batch is empty")
        partial = not_busy(lib.lowsock_outbox_skip(struct, number + 1, True))
        if partial:
            raise ValueError(f"a stream has taken {partial} bytes of the message")
        self._current_queue(outbox)

    def clear(self) -> None:
        """Drops all messages that wait to be sent. See sendmmsg(2)."""
        outbox: _BatchOutbox = self._opened()
        not_busy(lib.lowsock_outbox_skip(outbox.struct, self._current_queue(outbox).end(), False))
        self._current_queue(outbox)

    # ---- the end ----

    def close(self) -> None:
        """Lets go of the memory; what waits to be sent is dropped. May be called again. See sendmmsg(2)."""
        self._memory = None
        self._queue = _Queue(0, [], set(), {})


class _Queue:
    """The pending messages, from one time that the batch is empty to the next. The first has number ``base``.

    Signal handlers may do anything between two steps, so each change is one step that is right whatever came before it. A
    queue ends when all its messages have been sent or dropped: then its successor replaces each of them.
    """

    __slots__ = ("_successor", "base", "pieces", "sizes")

    def __init__(self, base: int, pieces: list[Any], sizes: set[int], successor: dict[int, Any]) -> None:
        self.base = base
        self.pieces = pieces  # bytes, or what `_BatchOutbox.checked_entry` makes of them
        self.sizes = sizes  # of the pieces; a size comes in before its piece
        self._successor = successor  # what the next queue is made of, the same for all that try to end this one

    def end(self) -> int:
        return self.base + len(self.pieces)

    def has_ended(self, number: int) -> bool:
        """Whether all its messages come before ``number``, the next to be sent; ``pieces[0]`` is its successor then."""
        pieces, done = self.pieces, number - self.base
        if not pieces:
            return False
        if done >= len(pieces) and type(pieces[0]) is not _Queue:
            successor = _Queue(number, *self._successor.setdefault(0, ([], set(), {})))
            try:
                pieces[::-1] = [successor] * done  # an extended slice: it fails unless there are exactly so many
            except ValueError as error:
                if not raised_here(error):
                    raise
        return type(pieces[0]) is _Queue


class _BatchOutbox:
    """``struct lowsock_outbox``, and memory for the addresses and control messages of one call, made when first needed."""

    __slots__ = ("_memory", "_slots", "control", "control_sizes", "name_sizes", "name_starts", "names", "room", "struct")

    def __init__(self, slots: int, room: int) -> None:
        self.struct = ffi.new("struct lowsock_outbox *")
        self._slots = slots
        self.room = room
        self.control: CData = None
        if room:
            self._allocate()

    def _allocate(self) -> None:
        """Makes the memory for addresses and control messages. It holds none yet."""
        slots, room = self._slots, self.room
        control, names = ffi.new("char[]", (slots + 1) * room or 1), ffi.new("char[]", slots * SOCKADDR)
        control_starts = ffi.new("long long[]", [i * room for i in range(slots)])
        self.name_starts, self.name_sizes = ffi.new("long long[]", slots), ffi.new("long long[]", slots)
        self.control_sizes = ffi.new("long long[]", slots)
        self._memory = control, names, control_starts  # the struct's pointers keep nothing alive
        self.names = ffi.buffer(names)
        struct: Any = self.struct
        struct.control, struct.names, struct.control_starts = control, names, control_starts
        struct.name_starts, struct.name_sizes, struct.control_sizes = self.name_starts, self.name_sizes, self.control_sizes
        self.control = control

    def checked_entry(self, piece: bytes, control: Control, address: Address) -> tuple[bytes, Control, Address]:
        """A message that is more than data, checked as far as possible without a socket."""
        if self.control is None:
            self._allocate()
        # Into a slot that is never sent, to see whether it fits.
        if control.rows and pack_control(self.control + self._slots * self.room, self.room, control) < 0:
            raise ValueError(f"ancdata is too long: the batch has {self.room} bytes of control data for a message")
        return piece, control, address

    def fill_slots(self, part: list[Any], first: int, sock: Socket) -> list[bytes]:
        """Encodes addresses and control messages of ``part``, which begins with message ``first``, into the slots; returns
        the data. Only the socket tells whether descriptors may go without data, and how addresses are encoded."""
        data = part.copy()
        nothing = [0] * len(part)
        starts, sizes, controls = nothing.copy(), nothing.copy(), nothing.copy()
        family, known, name, at = None, None, b"", 0
        for i, each in enumerate(part):
            if type(each) is bytes:
                continue
            data[i], control, address = each
            if control.descriptors and not data[i]:
                refuse_without_data(target(sock)[0], f"messages[{first + i}] data")
            if control.rows:
                controls[i] = pack_control(self.control + i * self.room, self.room, control)
            if address is None:
                continue
            if address is not known:
                family = family_of(sock) if family is None else family
                known, name, at = address, encode_named(first + i, family, address), i * SOCKADDR
                self.names[at : at + len(name)] = name
            starts[i], sizes[i] = at, len(name)
        self.name_starts[0 : len(part)], self.name_sizes[0 : len(part)] = starts, sizes
        self.control_sizes[0 : len(part)] = controls
        return data


# ---- sending ----


def _send_once(outbox: _BatchOutbox, queue: _Queue, end: int, sock: Socket, fd: int, flags: int) -> int:
    """Sends up to `PIECES` of the first ``end`` messages by one call; returns how many the kernel took, or -errno."""
    struct = outbox.struct
    while True:
        number = struct.next
        first = number - queue.base
        part = queue.pieces[first : min(first + PIECES, end)]
        count = len(part)
        if not count:
            return 0
        if type(part[0]) is _Queue:
            continue  # a signal handler has sent or cleared all since
        if outbox.control is not None:
            part = outbox.fill_slots(part, first, sock)
        sizes = [*queue.sizes]  # of these and maybe of others
        if len(sizes) > 1:
            sizes = list(map(len, part))
        answer = send_pieces(struct, number, 0, part, sizes, b"", fd, flags)
        if answer >= 0:
            return answer
        if answer != _MOVED:  # else the same
            return not_busy(answer)


def _send_rest(outbox: _BatchOutbox, queue: _Queue, end: int, sock: Socket, flags: int, answer: int) -> int:
    """Sends the rest after an answer of -errno, of 0 (nothing is pending, or a stream has taken a part) or of `PIECES`."""
    last = queue.base + end

    def attempt(fd: int) -> int:
        return _send_once(outbox, queue, end, sock, fd, flags)

    while answer <= 0 and outbox.struct.next < last:
        answer = retry(sock, flags, _POLLOUT, attempt, answer) if answer < 0 else attempt(target(sock)[0])
    sent = answer = max(answer, 0)
    while answer == PIECES and outbox.struct.next < last:
        answer = attempt(target(sock)[0])
        sent += max(answer, 0)
    return sent
