# SPDX-License-Identifier: MIT
"""Messages encoded for sending in batches, and the loop that sends them.

``struct lowsock_outbox`` has the cursor. C moves it within the call, by what the kernel took: whatever is raised later,
nothing is sent twice or left out.
"""

from __future__ import annotations

import select
from itertools import accumulate

from lowsock._memory.address import encode_for, family_of
from lowsock._memory.ancillary import CMSG_SPACE, NO_ANCDATA, NO_CONTROL, Control, encode, refuse_without_data
from lowsock._memory.buffers import Gathered
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import Address, CData, Socket

BATCH, PIECES, SOCKADDR = lib.LOWSOCK_BATCH, lib.LOWSOCK_PIECES, lib.LOWSOCK_SOCKADDR
_PADDING = [b""] * PIECES  # C takes no fewer pointers
JOIN_COUNT = 32  # pieces: up to so many, none of them large, are joined; it is quicker than a pointer for each
SHAPE = "(buffers[, ancdata[, address]])"
JOIN_SIZE = 8 * 1024  # bytes of a message, on average: up to here one copy is cheaper than a pointer for each
POLLOUT = select.POLLOUT
_BUSY = -lib.LOWSOCK_BUSY
_HEADER = CMSG_SPACE(0) + 16  # bytes of a control message besides its payload, at most

_sendmmsg, _send_joined, _send_pieces = lib.lowsock_sendmmsg, lib.lowsock_send_joined, lib.lowsock_send_pieces


def deliver(outbox: Any, count: int, sock: Socket, flags: int, answer: int = 0) -> int:
    """Sends messages up to ``count`` of ``outbox.struct``, at least one, and waits for the first only; returns how many the
    kernel took. ``answer`` is the -errno of a first attempt.

    ``outbox`` keeps the memory alive, which others may drop meanwhile.
    """
    struct = outbox.struct
    fd, timeout = target(sock)
    if timeout:
        flags |= MSG_DONTWAIT
    start = struct.next
    answer = answer or not_busy(_sendmmsg(struct, fd, count, flags))
    if 0 < answer < BATCH:
        return answer

    def attempt(fd: int) -> int:
        return not_busy(_sendmmsg(struct, fd, count, flags))

    while struct.next == start:  # a stream may take a part of the first
        answer = retry(sock, flags, POLLOUT, attempt, answer) if answer < 0 else attempt(target(sock)[0])
    while answer == BATCH and struct.next < count:
        answer = attempt(target(sock)[0])
    return int(struct.next) - start


def send_pieces(
    outbox: CData, number: int, first: int, pieces: list[bytes], sizes: list[int], name: bytes, fd: int, flags: int
) -> int:
    """Sends messages of one piece, `PIECES` at most, by one call; ``sizes`` has the size of each, or the one size of all.
    Returns the answer of ``lowsock_send_pieces``."""
    count = len(pieces)
    if count <= JOIN_COUNT and max(sizes) <= JOIN_SIZE:
        data = b"".join(pieces)
        return _send_joined(outbox, number, first, count, sizes, len(sizes), name, len(name), fd, flags, data)
    if count < PIECES:
        pieces = pieces + _PADDING[count:]
    return _send_pieces(outbox, number, first, count, sizes, len(sizes), name, len(name), fd, flags, *pieces)


def not_busy(answer: int) -> int:
    """``answer``; raises if another thread is in a call with the batch."""
    if answer == _BUSY:
        raise RuntimeError("the batch is in use: another thread is in a call with it")
    return answer


class Outbox:
    """``struct lowsock_outbox`` for messages of all kinds, and the memory that it points to, until `release`."""

    __slots__ = ("_control", "_counts", "_family", "_gathered", "_memory", "_names", "_pieces", "_sock", "count", "struct")

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._family: int | None = None
        self._gathered: list[Gathered] = []
        self._pieces: list[Any] = []
        self._counts: list[int] = []
        self._names: list[bytes] = []
        self._control: list[Control] = []
        self.count = 0

    def encode(self, messages: list[Any]) -> Outbox:
        """Takes messages of all kinds; the error names the wrong one."""
        self.count = len(messages)
        try:
            for i, message in enumerate(messages):
                self._add(i, *_parts(i, message))
            self._fill_struct()
        except BaseException:
            self.release()
            raise
        return self

    def take(self, pieces: list[bytes], names: list[bytes]) -> Outbox:
        """Takes messages of one piece, and the ``struct sockaddr`` of each, or none at all."""
        self.count = len(pieces)
        self._pieces, self._counts, self._names = pieces, [1] * len(pieces), names
        self._fill_struct()
        return self

    def release(self) -> None:
        """Releases the caller's buffers."""
        for gathered in self._gathered:
            gathered.release()

    # ---- one message ----

    def _add(self, i: int, buffers: Any, ancdata: Any, address: Address) -> None:
        name = f"messages[{i}]"
        size = self._gather(f"{name} buffers", buffers)
        control = NO_CONTROL if ancdata is NO_ANCDATA else encode(ancdata, f"{name} ancdata")
        if control.descriptors and not size:
            refuse_without_data(target(self._sock)[0], f"{name} buffers")
        self._control.append(control)
        if address is not None and self._family is None:
            self._family = family_of(self._sock)
        self._names.append(b"" if address is None else encode_named(i, self._family, address))

    def _gather(self, name: str, buffers: Any) -> int:
        """Takes the pieces of a message; returns its bytes."""
        if type(buffers) is list and len(buffers) == 1 and type(only := buffers[0]) is bytes:
            self._pieces.append(only)
            self._counts.append(1)
            return len(only)
        gathered = Gathered(buffers, name)
        self._gathered.append(gathered)
        pieces = gathered.bases or [gathered.data]
        self._pieces += pieces
        self._counts.append(len(pieces))
        return gathered.size

    # ---- all of them ----

    def _fill_struct(self) -> None:
        self.struct = ffi.new("struct lowsock_outbox *")
        self._memory: list[CData] = []
        sizes = list(map(len, self._pieces))
        if len(sizes) == self.count and sum(sizes) <= JOIN_SIZE * len(sizes):
            self._join_pieces(sizes)
        else:
            self._point_to_pieces(sizes)
        if any(self._names):
            self._place_names()
        if any(control.rows for control in self._control):
            self._place_control()

    def _join_pieces(self, sizes: list[int]) -> None:
        data = b"".join([piece if type(piece) is bytes else ffi.buffer(piece)[:] for piece in self._pieces])
        self.struct.data = self._keep_alive(ffi.from_buffer("char[]", data))
        self.struct.starts, self.struct.sizes = self._columns(sizes)

    def _point_to_pieces(self, sizes: list[int]) -> None:
        bases = [ffi.from_buffer("char[]", piece) if type(piece) is bytes else piece for piece in self._pieces]
        self._memory += bases
        self.struct.pieces = self._keep_alive(ffi.new("char *[]", bases))
        self.struct.piece_sizes = self._keep_alive(ffi.new("size_t[]", sizes))
        self.struct.starts, self.struct.sizes = self._columns(self._counts)

    def _place_names(self) -> None:
        self.struct.names = self._keep_alive(ffi.from_buffer("char[]", b"".join(self._names)))
        self.struct.name_starts, self.struct.name_sizes = self._columns(list(map(len, self._names)))

    def _place_control(self) -> None:
        room = sum(len(control.payload) + control.rows * _HEADER for control in self._control)
        memory = self._keep_alive(ffi.new("char[]", room))
        sizes: list[int] = []
        at = 0
        for control in self._control:
            sizes.append(pack_control(memory + at, room - at, control) if control.rows else 0)
            at += sizes[-1]
        self.struct.control = memory
        self.struct.control_starts, self.struct.control_sizes = self._columns(sizes)

    def _columns(self, sizes: list[int]) -> tuple[CData, CData]:
        starts = [0, *accumulate(sizes)]
        return self._keep_alive(ffi.new("long long[]", starts)), self._keep_alive(ffi.new("long long[]", sizes))

    def _keep_alive(self, memory: CData) -> CData:
        self._memory.append(memory)  # the struct's pointers keep nothing alive
        return memory

    def bytes_sent(self) -> int:
        """How many bytes the kernel took, of whole messages and of a part."""
        pieces = sum(self._counts[: self.struct.next])
        return sum(map(len, self._pieces[:pieces])) + int(self.struct.partial)


def _parts(i: int, message: Any) -> tuple[Any, Any, Address]:
    """Buffers, ancillary data and address of a message; the error names the wrong one."""
    if not isinstance(message, (tuple, list)) or not 1 <= len(message) <= 3:
        raise TypeError(f"messages[{i}] must be a tuple {SHAPE}, not {message!r:.60}")
    own = tuple(message)
    return (*own, *(NO_ANCDATA, None)[len(own) - 1 :])


def pack_control(memory: CData, room: int, control: Control) -> int:
    """Makes a control buffer at ``memory``; returns its bytes, or -ENOBUFS."""
    return lib.lowsock_pack_control(memory, room, control.payload, control.table, control.rows)


def encode_named(i: int, family: Any, address: Address) -> bytes:
    """The ``struct sockaddr`` of a numeric address of message ``i``; the error names it."""
    try:
        name = encode_for(-1, address, family)
        if len(name) > SOCKADDR:
            raise ValueError(f"address is too long: {len(name)} bytes")  # more than a struct sockaddr_storage
        return name
    except (TypeError, ValueError, OverflowError, OSError) as error:
        if len(error.args) == 1 and str(error).startswith(("address", "AF_UNIX")):
            error.args = (f"messages[{i}] {error}",)
        raise
