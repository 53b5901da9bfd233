# SPDX-License-Identifier: MIT
"""A batch of messages to send, which is filled again and again. See sendmmsg(2).

Data is kept as ``bytes``, which cannot change, and C gets a pointer to each for one call only. Control messages and
addresses are encoded into memory of the batch.

Every message that a batch is ever given has a number of its own, and the cursor in ``struct lowsock_outbox``, which C moves
within the call, is the number of the next one. So whatever comes between two steps, a signal handler that fills the batch
anew or an exception, C never takes one message for another.
"""

from __future__ import annotations

import select

from lowsock._batch.inbox import aligned
from lowsock._batch.outbox import PIECES, SOCKADDR, encode_named, not_busy, pack, send_pieces
from lowsock._batch.reused import Reused
from lowsock._memory.address import family_of
from lowsock._memory.ancillary import NO_ANCDATA, NO_CONTROL, encode, refuse_without_data
from lowsock._memory.buffers import as_bytes, listed
from lowsock._system import kinds
from lowsock._system.arguments import ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.descriptor import target
from lowsock._system.errors import raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

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

    A batch is for one user at a time: a `send` while another is in its system call is a `RuntimeError`. A signal handler may
    use the batch in the middle of any call: what it clears or sends itself is not sent again, what it adds is kept. A `send`
    that it came into leaves that to the next one, and returns the number of those that it sent itself. After a fork, a batch
    that another thread was in a call with stays in use in the child: make a new one there. `close`, or the end of a ``with``
    statement, lets go of the memory and is final: everything else raises `ValueError` from then on. See sendmmsg(2).
    """

    __slots__ = ("_filling",)

    def __init__(self, vlen: int, bufsize: int, ancbufsize: int = 0) -> None:
        super().__init__(vlen, bufsize)
        room = aligned(checked_int("ancbufsize", ancbufsize, least=0))
        self._filling = _Filling(0, [], set(), {})
        self._memory = _Box(min(self._vlen, PIECES), room)

    # ---- filling ----

    def append(self, data: Buffer, ancdata: Iterable[ControlMessage] = NO_ANCDATA, address: Address = None) -> None:
        """Adds a message: ``data``, one bytes-like object, with control messages as in `sendmsg`.

        An address is numeric, and is encoded when the batch is sent, for the socket tells its family. Descriptors are
        numbers here: they have to be open until the message has been sent. Raises `ValueError` if the batch is full, or has
        not as much room for a message. See sendmmsg(2).
        """
        piece = data if type(data) is bytes else as_bytes("data", data)
        control = NO_CONTROL if ancdata is NO_ANCDATA else encode(ancdata)  # what may be the caller's code has run
        box: _Box = self._memory or self._opened()
        size = len(piece)
        entry: Any = piece
        if control.rows or address is not None:
            self._find_room(box, 1, size)  # the first thing to complain of
            entry = box.beside(piece, control, address)
        while True:
            filling = self._filling
            pieces = filling.pieces
            if not pieces or size > self._bufsize or len(pieces) >= self._vlen or type(pieces[0]) is _Filling:
                filling = self._find_room(box, 1, size)
                pieces = filling.pieces
            filling.sizes.add(size)
            pieces.append(entry)
            if type(pieces[0]) is not _Filling or type(pieces[-1]) is _Filling:
                return
            pieces.pop()  # a signal handler has ended this filling before the message was in it

    def extend(self, pieces: Iterable[Buffer], address: Address = None) -> None:
        """Adds a message for each of ``pieces``, all of them to one address: the quick way for many.

        Adds all, or raises what `append` raises and adds none. See sendmmsg(2).
        """
        box: _Box = self._memory or self._opened()
        own: list[Any] = pieces.copy() if type(pieces) is list else listed("pieces", pieces)
        if {*map(type, own)} != _BYTES:
            own = [as_bytes(f"pieces[{i}]", piece) for i, piece in enumerate(own)]
        if not own:
            return
        sizes = {*map(len, own)}
        self._find_room(box, len(own), max(sizes))
        if address is not None:
            own = [box.beside(piece, NO_CONTROL, address) for piece in own]
        while True:
            filling = self._filling
            filling.sizes.update(sizes)
            added = filling.pieces
            added += own
            if type(added[0]) is not _Filling or type(added[-1]) is _Filling:
                return
            del added[-len(own) :]  # as in `append`
            self._find_room(box, len(own), max(sizes))

    def _find_room(self, box: _Box, count: int, size: int) -> _Filling:
        if size > self._bufsize:
            raise ValueError(f"data is too long: {size} bytes, and the batch has {self._bufsize} for a message")
        filling = self._find(box)
        i = len(filling.pieces)
        if i + count > self._vlen:
            raise ValueError(f"the batch is full: it has room for {self._vlen} messages, and {i} are in it")
        return filling

    def _find(self, box: _Box) -> _Filling:
        """The filling that has not gone, which may be an empty one."""
        filling = self._filling
        while filling.has_ended(box.struct.next):
            filling = filling.pieces[0]
        self._filling = filling
        return filling

    # ---- sending ----

    def __len__(self) -> int:
        box: _Box = self._opened()
        return max(self._find(box).end() - int(box.struct.next), 0)

    def send(self, sock: Socket, flags: int = 0) -> int:
        """Sends what waits to be sent, 64 messages by each system call; returns how many the kernel took.

        If it did not take all, or raised, the rest is still there, and the next call goes on with it: nothing is sent twice
        or left out, also after an exception from a signal handler. Only for the first message is waited. One that the kernel
        refuses stays the first until it is dropped by `skip` or `clear`. Returns 0 if nothing waits.

        Raises what `sendmsg` raises; `ValueError` for an address that is a host name, its message named by the number that
        it has in the batch. See sendmmsg(2).
        """
        box: _Box = self._memory or self._opened()
        if flags is not ZERO:
            flags = checked_int("flags", flags)
        fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is kinds.Socket else target(sock)
        if timeout:
            flags |= MSG_DONTWAIT
        filling = self._filling
        end = len(filling.pieces)
        if not end or type(filling.pieces[0]) is _Filling:
            filling = self._find(box)
            end = len(filling.pieces)
        answer = _offer(box, filling, end, sock, fd, flags)
        sent = answer if 0 < answer < PIECES else _send_rest(box, filling, end, sock, flags, answer)
        self._find(box)  # lets go of what has gone
        return sent

    def skip(self) -> None:
        """Drops the first message that waits to be sent. Raises `ValueError` if a stream has taken a part of it, or if
        there is none. See sendmmsg(2)."""
        box: _Box = self._opened()
        struct, filling = box.struct, self._find(box)
        number = struct.next
        if number >= filling.end():
            raise ValueError("the batch is empty")
        gone = not_busy(lib.lowsock_outbox_skip(struct, number + 1, True))
        if gone:
            raise ValueError(f"a stream has taken {gone} bytes of the message")
        self._find(box)

    def clear(self) -> None:
        """Drops all messages that wait to be sent. See sendmmsg(2)."""
        box: _Box = self._opened()
        not_busy(lib.lowsock_outbox_skip(box.struct, self._find(box).end(), False))
        self._find(box)

    # ---- the end ----

    def close(self) -> None:
        """Lets go of the memory; what waits to be sent is dropped. May be called again. See sendmmsg(2)."""
        self._memory = None
        self._filling = _Filling(0, [], set(), {})


class _Filling:
    """Messages from one time that the batch is empty to the next. The first has number ``base``.

    Signal handlers may do anything between two steps, so each change is one step that is right whatever came before it. A
    filling ends when all its messages have gone: then each of them is replaced by the filling that comes next.
    """

    __slots__ = ("_next", "base", "pieces", "sizes")

    def __init__(self, base: int, pieces: list[Any], sizes: set[int], following: dict[int, Any]) -> None:
        self.base = base
        self.pieces = pieces  # bytes, or what `_Box.beside` makes of them
        self.sizes = sizes  # of the pieces, each entered before them
        self._next = following  # what the next filling is made of, for all who try to end this one

    def end(self) -> int:
        return self.base + len(self.pieces)

    def has_ended(self, number: int) -> bool:
        """Whether this is over and ``pieces[0]`` is the next one, as all have gone before message ``number``."""
        pieces, gone = self.pieces, number - self.base
        if not pieces:
            return False
        if gone >= len(pieces) and type(pieces[0]) is not _Filling:
            following = _Filling(number, *self._next.setdefault(0, ([], set(), {})))
            try:
                pieces[::-1] = [following] * gone  # an extended slice: an error unless there are exactly so many
            except ValueError as error:
                if not raised_here(error):
                    raise
        return type(pieces[0]) is _Filling


class _Box:
    """``struct lowsock_outbox``, and memory for what goes beside the data of one call, which comes when it is needed."""

    __slots__ = ("_memory", "_slots", "control", "control_sizes", "name_sizes", "name_starts", "names", "room", "struct")

    def __init__(self, slots: int, room: int) -> None:
        self.struct = ffi.new("struct lowsock_outbox *")
        self._slots = slots
        self.room = room
        self.control: CData = None
        if room:
            self._have_beside()

    def _have_beside(self) -> None:
        """Makes the memory for addresses and control data. There is none of either in it."""
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

    def beside(self, piece: bytes, control: Control, address: Address) -> tuple[bytes, Control, Address]:
        """A message that is more than data, checked as far as it can be without a socket."""
        if self.control is None:
            self._have_beside()
        if control.rows and pack(self.control + self._slots * self.room, self.room, control) < 0:  # a slot that is not sent
            raise ValueError(f"ancdata is too long: the batch has {self.room} bytes of control data for a message")
        return piece, control, address

    def place(self, part: list[Any], first: int, sock: Socket) -> list[bytes]:
        """Puts what goes beside these messages, from the ``first`` of the batch on, to where C looks for it; returns their
        data. Only the socket tells whether descriptors may go without data, and how addresses are encoded."""
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
                controls[i] = pack(self.control + i * self.room, self.room, control)
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


def _offer(box: _Box, filling: _Filling, end: int, sock: Socket, fd: int, flags: int) -> int:
    """Offers the kernel as many as go at once, of the first ``end``; returns how many it took, or -errno."""
    struct = box.struct
    while True:
        number = struct.next
        first = number - filling.base
        part = filling.pieces[first : min(first + PIECES, end)]
        count = len(part)
        if not count:
            return 0
        if type(part[0]) is _Filling:
            continue  # by a signal handler, since we looked, all this has gone
        if box.control is not None:
            part = box.place(part, first, sock)
        sizes = [*filling.sizes]  # of these and maybe of more
        if len(sizes) > 1:
            sizes = list(map(len, part))
        answer = send_pieces(struct, number, 0, part, sizes, b"", fd, flags)
        if answer >= 0:
            return answer
        if answer != _MOVED:  # as above
            return not_busy(answer)


def _send_rest(box: _Box, filling: _Filling, end: int, sock: Socket, flags: int, answer: int) -> int:
    """Goes on after an answer of -errno, of 0 (nothing waits, or a stream has taken a part) or of as many as go at once."""
    last = filling.base + end

    def attempt(fd: int) -> int:
        return _offer(box, filling, end, sock, fd, flags)

    while answer <= 0 and box.struct.next < last:
        answer = retry(sock, flags, _POLLOUT, attempt, answer) if answer < 0 else attempt(target(sock)[0])
    sent = answer = max(answer, 0)
    while answer == PIECES and box.struct.next < last:
        answer = attempt(target(sock)[0])
        sent += max(answer, 0)
    return sent
