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
import socket

from lowsock._address import family_of
from lowsock._ancillary import NO_ANCDATA, NO_CONTROL, encode, refuse_without_data
from lowsock._buffers import as_bytes, listed
from lowsock._calling import MSG_DONTWAIT, ZERO, checked_int, persist, target
from lowsock._ffi import ffi, lib
from lowsock._inbox import aligned
from lowsock._outbox import PIECES, SOCKADDR, encode_named, not_busy, pack, send_pieces
from lowsock._reused import Reused

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._ancillary import Control
    from lowsock._types import Address, Buffer, CData, ControlMessage, Socket

_POLLOUT = select.POLLOUT
_MOVED = -lib.LOWSOCK_MOVED
_BYTES = {bytes}
_NO_ADDRESSES: list[tuple[int, int, Address]] = []  # of all fillings that have none
_NOBODY: set[int] = set()
_Socket = socket.socket


class SendBatch(Reused):
    """Up to ``vlen`` messages of ``bufsize`` bytes, with ``ancbufsize`` bytes of control data each, to be sent together.

    `append` and `extend` keep what is to be sent: ``bytes`` as they are, a copy of anything else. `send` sends it, and goes
    on after what has gone when it is called again. When all has gone, the batch is empty, keeps nothing, and can be filled
    anew. ``len()`` tells how many messages wait to be sent.

    A batch is for one user at a time: a `send` while another is in its system call is a `RuntimeError`. A signal handler may
    use the batch in the middle of a `send`: what it clears or sends itself is not sent again, what it adds waits for the
    next `send`, and a `send` returns the number of those that it sent itself. After a fork, a batch that another thread was
    in a call with stays in use in the child: make a new one there. `close`, or the end of a ``with`` statement, lets go of
    the memory and is final: everything else raises `ValueError` from then on. See sendmmsg(2).
    """

    __slots__ = ("_filling",)

    def __init__(self, vlen: int, bufsize: int, ancbufsize: int = 0) -> None:
        super().__init__(vlen, bufsize)
        room = aligned(checked_int("ancbufsize", ancbufsize, least=0))
        self._filling = _DRAINED
        self._memory = _Box(self._vlen, room)

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
        while True:
            filling = self._filling
            if filling is _DRAINED or size > self._bufsize or len(filling.pieces) >= self._vlen:
                filling = self._find_room(box, 1, size)
            if control.rows or address is not None or box.control is not None:
                filling = self._put_beside(box, 1, size, control, address)
            filling.sizes.add(size)
            filling.pieces.append(piece)
            if self._filling is filling or box.struct.next >= filling.end():
                return  # else a signal handler has ended this filling before the message was in it

    def extend(self, pieces: Iterable[Buffer], address: Address = None) -> None:
        """Adds a message for each of ``pieces``, all of them to one address: the quick way for many.

        Adds all, or raises what `append` raises and adds none. See sendmmsg(2).
        """
        box: _Box = self._memory or self._opened()
        own = pieces.copy() if type(pieces) is list else listed("pieces", pieces)
        if {*map(type, own)} != _BYTES:
            own = [as_bytes(f"pieces[{i}]", piece) for i, piece in enumerate(own)]
        if not own:
            return
        sizes = {*map(len, own)}
        while not self._add(box, own, sizes, address):
            pass

    def _add(self, box: _Box, own: list[bytes], sizes: set[int], address: Address) -> bool:
        """Whether they could be added before a signal handler ended the filling."""
        filling = self._filling
        if max(sizes) > self._bufsize or len(filling.pieces) + len(own) > self._vlen:
            filling = self._find_room(box, len(own), max(sizes))
        if address is not None or box.control is not None:
            filling = self._put_beside(box, len(own), max(sizes), NO_CONTROL, address)
        if filling is _DRAINED:
            filling = _Filling(box.struct.next, own, sizes)
            if self._filling is _DRAINED:
                self._filling = filling
                return True
            return False
        filling.sizes |= sizes
        filling.pieces += own
        return self._filling is filling or box.struct.next >= filling.end()

    def _find_room(self, box: _Box, count: int, size: int) -> _Filling:
        if size > self._bufsize:
            raise ValueError(f"data is too long: {size} bytes, and the batch has {self._bufsize} for a message")
        filling = self._filling
        if box.struct.next >= filling.end():  # all have gone, but an exception came between
            self._filling = filling = _Filling(box.struct.next, [], set())
        i = len(filling.pieces)
        if i + count > self._vlen:
            raise ValueError(f"the batch is full: it has room for {self._vlen} messages, and {i} are in it")
        return filling

    def _put_beside(self, box: _Box, count: int, size: int, control: Control, address: Address) -> _Filling:
        """Notes what goes beside the data of ``count`` messages that are then added to the filling that is returned."""
        box.have_beside(self._vlen)
        filling = self._find_room(box, count, size)
        i = len(filling.pieces)
        if filling.addresses is _NO_ADDRESSES:
            filling.addresses, filling.without_data = [], set()
        while filling.addresses and filling.addresses[-1][0] >= i:  # of one that an exception cut short
            filling.addresses.pop()
        filling.without_data.discard(i)
        if address is not None:
            filling.addresses.append((i, i + count, address))
        space = pack(box.control + i * box.room, box.room, control) if control.rows else 0
        if space < 0:
            raise ValueError(f"ancdata is too long: the batch has {box.room} bytes of control data for a message")
        box.control_sizes[i : i + count] = [space] * count
        if control.descriptors and not size:
            filling.without_data.add(i)
        return filling

    # ---- sending ----

    def __len__(self) -> int:
        return max(self._filling.end() - int(self._opened().struct.next), 0)

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
        fd, timeout = (sock.fileno(), sock.gettimeout()) if type(sock) is _Socket else target(sock)
        if timeout:
            flags |= MSG_DONTWAIT
        filling = self._filling
        end = len(filling.pieces)
        answer = _offer(box, filling, end, sock, fd, flags)
        sent = answer if 0 < answer < PIECES else _send_rest(box, filling, end, sock, flags, answer)
        if box.struct.next >= filling.base + len(filling.pieces) and self._filling is filling:
            self._filling = _DRAINED
        return sent

    def skip(self) -> None:
        """Drops the first message that waits to be sent. Raises `ValueError` if a stream has taken a part of it, or if
        there is none. See sendmmsg(2)."""
        struct = self._opened().struct
        number = struct.next
        if number >= self._filling.end():
            raise ValueError("the batch is empty")
        gone = not_busy(lib.lowsock_outbox_skip(struct, number + 1, True))
        if gone:
            raise ValueError(f"a stream has taken {gone} bytes of the message")

    def clear(self) -> None:
        """Drops all messages that wait to be sent. See sendmmsg(2)."""
        struct = self._opened().struct
        not_busy(lib.lowsock_outbox_skip(struct, self._filling.end(), False))
        self._filling = _DRAINED

    # ---- the end ----

    def close(self) -> None:
        """Lets go of the memory; what waits to be sent is dropped. May be called again. See sendmmsg(2)."""
        self._memory = None
        self._filling = _DRAINED


class _Filling:
    """Messages from one time that the batch is empty to the next. The first has number ``base``."""

    __slots__ = ("addresses", "base", "pieces", "sizes", "without_data")

    def __init__(self, base: int, pieces: list[bytes], sizes: set[int]) -> None:
        self.base = base
        self.pieces = pieces
        self.sizes = sizes  # of the pieces, each entered before them
        self.addresses: list[tuple[int, int, Address]] = (
            _NO_ADDRESSES  # the first that has one, the last but one, the address
        )
        self.without_data: set[int] = _NOBODY  # those that carry descriptors

    def end(self) -> int:
        return self.base + len(self.pieces)


_DRAINED = _Filling(-1, [], set())  # of all batches that are empty; stays so


class _Box:
    """``struct lowsock_outbox``, and memory for what goes beside data, which comes when it is needed."""

    __slots__ = ("_memory", "control", "control_sizes", "name_sizes", "name_starts", "names", "room", "struct")

    def __init__(self, vlen: int, room: int) -> None:
        self.struct = ffi.new("struct lowsock_outbox *")
        self.room = room
        self.control: CData = None
        if room:
            self.have_beside(vlen)

    def have_beside(self, vlen: int) -> None:
        """Makes the memory for addresses and control data, unless it is there. There is none of either in it."""
        if self.control is not None:
            return
        room = self.room
        control, names = ffi.new("char[]", max(vlen * room, 1)), ffi.new("char[]", vlen * SOCKADDR)
        control_starts = ffi.new("long long[]", [i * room for i in range(vlen)])
        self.name_starts, self.name_sizes, self.control_sizes = (ffi.new("long long[]", vlen) for _ in range(3))
        self._memory = control, names, control_starts  # the struct's pointers keep nothing alive
        self.names = ffi.buffer(names)
        struct: Any = self.struct
        struct.control, struct.names, struct.control_starts = control, names, control_starts
        struct.name_starts, struct.name_sizes, struct.control_sizes = self.name_starts, self.name_sizes, self.control_sizes
        self.control = control


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
        if box.control is not None:
            _check_beside(box, filling, first, count, sock)
        sizes = list(map(len, part)) if len(filling.sizes) > 1 else [*filling.sizes]
        answer = send_pieces(struct, number, first, part, sizes, b"", fd, flags)
        if answer >= 0:
            return answer
        if answer != _MOVED:  # by a signal handler, since we looked
            return not_busy(answer)


def _send_rest(box: _Box, filling: _Filling, end: int, sock: Socket, flags: int, answer: int) -> int:
    """Goes on after an answer of -errno, of 0 (nothing waits, or a stream has taken a part) or of as many as go at once."""
    last = filling.base + end

    def attempt(fd: int) -> int:
        return _offer(box, filling, end, sock, fd, flags)

    while answer <= 0 and box.struct.next < last:
        answer = persist(sock, flags, _POLLOUT, attempt, answer) if answer < 0 else attempt(target(sock)[0])
    sent = answer = max(answer, 0)
    while answer == PIECES and box.struct.next < last:
        answer = attempt(target(sock)[0])
        sent += max(answer, 0)
    return sent


def _check_beside(box: _Box, filling: _Filling, first: int, count: int, sock: Socket) -> None:
    """What only the socket tells: whether descriptors may go without data, and how addresses are encoded."""
    for i in sorted(filling.without_data):
        if first <= i < first + count:
            refuse_without_data(target(sock)[0], f"messages[{i}] data")
    starts, sizes = [0] * count, [0] * count
    if filling.addresses:
        family = family_of(sock)
        for i, end, address in filling.addresses:
            if i < first + count and first < end:
                name = encode_named(i, family, address)
                at, places = i * SOCKADDR, slice(max(i - first, 0), min(end - first, count))
                box.names[at : at + len(name)] = name
                starts[places] = [at] * len(starts[places])
                sizes[places] = [len(name)] * len(sizes[places])
    box.name_starts[first : first + count] = starts
    box.name_sizes[first : first + count] = sizes
