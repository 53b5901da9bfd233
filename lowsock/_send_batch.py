# SPDX-License-Identifier: MIT
"""A batch of messages to send, which owns its memory and is filled again and again. See sendmmsg(2)."""

from __future__ import annotations

from itertools import accumulate

from lowsock._address import family_of
from lowsock._ancillary import NO_ANCDATA, NO_CONTROL, encode, refuse_without_data
from lowsock._buffers import as_bytes, listed
from lowsock._calling import checked_int, target
from lowsock._ffi import ffi, lib
from lowsock._inbox import aligned, slots
from lowsock._outbox import BATCH, deliver, encode_named, pack

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn, SupportsIndex

    from lowsock._ancillary import Control
    from lowsock._types import Address, Buffer, CData, ControlMessage, Socket

_SOCKADDR = lib.LOWSOCK_SOCKADDR
_BYTES = {bytes}
_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class SendBatch:
    """Up to ``vlen`` messages of ``bufsize`` bytes, with ``ancbufsize`` bytes of control data each, to be sent together.

    `append` and `extend` copy what is to be sent into memory of the batch. `send` sends it, and goes on after what has
    gone when it is called again. When all has gone, the batch is empty and can be filled anew. ``len()`` tells how many
    messages wait to be sent.

    A batch is for one user at a time: a `send` while another is in its system call is a `RuntimeError`. `close`, or the end
    of a ``with`` statement, lets go of the memory and is final: everything else raises `ValueError` from then on.
    See sendmmsg(2).
    """

    __slots__ = ("_addresses", "_box", "_bufsize", "_count", "_room", "_shape", "_vlen", "_without_data")

    def __init__(self, vlen: int, bufsize: int, ancbufsize: int = 0) -> None:
        self._vlen = slots(vlen)
        self._bufsize = checked_int("bufsize", bufsize, least=0)
        self._room = aligned(checked_int("ancbufsize", ancbufsize, least=0))
        self._count = 0
        self._addresses: dict[
            int, tuple[int, Address]
        ] = {}  # the first of those that have one: the last but one, the address
        self._without_data: dict[int, bool] = {}  # those that carry descriptors
        self._shape: tuple[int, list[int]] | None = None
        self._box: _Box | None = _Box(self._vlen, self._vlen * self._bufsize, self._room)

    # ---- filling ----

    def append(self, data: Buffer, ancdata: Iterable[ControlMessage] = NO_ANCDATA, address: Address = None) -> None:
        """Adds a message: a copy of ``data``, one bytes-like object, with control messages as in `sendmsg`.

        An address is numeric, and is encoded when the batch is sent, for the socket tells its family. Descriptors are
        numbers here: they have to be open until the message has been sent. Raises `ValueError` if the batch is full, or has
        not as much room for a message. See sendmmsg(2).
        """
        box = self._opened()
        piece = data if type(data) is bytes else as_bytes("data", data)
        control = NO_CONTROL if ancdata is NO_ANCDATA else encode(ancdata)  # what may be the caller's code has run
        i, size = self._count or self._begin(box), len(piece)
        if i >= self._vlen or size > self._bufsize:
            i = self._find_room(box, i, 1, size)
        at = i * self._bufsize
        self._shape = None
        box.data[at : at + size] = piece
        box.starts[i], box.sizes[i] = at, size
        if box.control is not None or control.rows or address is not None:
            self._put_beside(box, i, size, control, address)
        self._count = i + 1

    def extend(self, pieces: Iterable[Buffer], address: Address = None) -> None:
        """Adds a message for each of ``pieces``, all of them to one address: the quick way for many.

        Adds all, or raises what `append` raises and adds none. See sendmmsg(2).
        """
        box = self._opened()
        own = listed("pieces", pieces)
        if {*map(type, own)} != _BYTES:
            own = [as_bytes(f"pieces[{i}]", piece) for i, piece in enumerate(own)]
        if not own:
            return
        sizes = list(map(len, own))
        i = self._count or self._begin(box)
        if i + len(sizes) > self._vlen or max(sizes) > self._bufsize:
            i = self._find_room(box, i, len(sizes), max(sizes))
        data, at = b"".join(own), i * self._bufsize
        box.data[at : at + len(data)] = data
        if self._shape != (i, sizes):
            self._lay_out(box, i, sizes)
        if box.control is not None or address is not None:
            box.have_beside(self._vlen, self._room)
            end = i + len(sizes)
            box.name_sizes[i:end] = box.control_sizes[i:end] = [0] * len(sizes)
            self._note_address(i, end, address)
            self._without_data.pop(i, None)  # of an append that an exception cut short
        self._count = i + len(sizes)

    def _begin(self, box: _Box) -> int:
        """The cursor goes back to the first message, for there is none yet; nothing of an earlier filling is left."""
        box.struct.next = 0
        box.struct.gone = 0
        self._addresses.clear()
        self._without_data.clear()
        return 0

    def _find_room(self, box: _Box, i: int, count: int, size: int) -> int:
        if size > self._bufsize:
            raise ValueError(f"data is too long: {size} bytes, and the batch has {self._bufsize} for a message")
        if box.struct.next >= i:  # all have gone, but an exception came between
            self._count = 0
            i = self._begin(box)
        if i + count > self._vlen:
            raise ValueError(f"the batch is full: it has room for {self._vlen} messages, and {i} are in it")
        return i

    def _lay_out(self, box: _Box, i: int, sizes: list[int]) -> None:
        end = i + len(sizes)
        self._shape = None
        box.starts[i:end] = list(accumulate([i * self._bufsize, *sizes[:-1]]))
        box.sizes[i:end] = sizes
        self._shape = i, sizes

    def _put_beside(self, box: _Box, i: int, size: int, control: Control, address: Address) -> None:
        box.have_beside(self._vlen, self._room)
        box.name_sizes[i] = box.control_sizes[i] = 0
        self._note_address(i, i + 1, address)
        self._without_data.pop(i, None)
        if not control.rows:
            return
        space = pack(box.control + i * self._room, self._room, control)
        if space < 0:
            raise ValueError(f"ancdata is too long: the batch has {self._room} bytes of control data for a message")
        box.control_sizes[i] = space
        if control.descriptors and not size:
            self._without_data[i] = True

    def _note_address(self, i: int, end: int, address: Address) -> None:
        if address is None:
            self._addresses.pop(i, None)
        else:
            self._addresses[i] = end, address

    # ---- sending ----

    def __len__(self) -> int:
        return max(self._count - int(self._opened().struct.next), 0)

    def send(self, sock: Socket, flags: int = 0) -> int:
        """Sends what waits to be sent, 1024 messages by each system call; returns how many the kernel took.

        If it did not take all, or raised, the rest is still there, and the next call goes on with it: nothing is sent twice
        or left out, also after an exception from a signal handler. Only for the first message is waited. One that the kernel
        refuses stays the first until it is dropped by `skip` or `clear`. Returns 0 if nothing waits.

        Raises what `sendmsg` raises; `ValueError` for an address that is a host name, its message named by the number that
        it has in the batch. See sendmmsg(2).
        """
        box = self._opened()
        flags = checked_int("flags", flags)
        count = self._count
        if box.struct.next >= count:
            return 0
        if self._addresses:
            self._place_names(box, sock)
        for i in self._without_data:
            if i >= box.struct.next:
                refuse_without_data(target(sock)[0], f"messages[{i}] data")
        sent = deliver(box, count, sock, flags)
        if box.struct.next >= self._count:  # a signal handler may have appended meanwhile
            self._count = 0
        return sent

    def _place_names(self, box: _Box, sock: Socket) -> None:
        family = family_of(sock)
        for i, (end, address) in self._addresses.items():
            name = encode_named(i, family, address)
            at = i * _SOCKADDR
            box.names[at : at + len(name)] = name
            box.name_starts[i:end] = [at] * (end - i)
            box.name_sizes[i:end] = [len(name)] * (end - i)

    def skip(self) -> None:
        """Drops the first message that waits to be sent. Raises `ValueError` if a stream has taken a part of it, or if
        there is none. See sendmmsg(2)."""
        struct = self._opened().struct
        if struct.next >= self._count:
            raise ValueError("the batch is empty")
        if struct.gone:
            raise ValueError(f"a stream has taken {struct.gone} bytes of the message")
        struct.next += 1

    def clear(self) -> None:
        """Drops all messages that wait to be sent. See sendmmsg(2)."""
        self._opened()
        self._count = 0

    # ---- the end ----

    def _opened(self) -> _Box:
        if self._box is None:
            raise ValueError("the batch is closed")
        return self._box

    @property
    def vlen(self) -> int:
        """How many messages there is room for."""
        return self._vlen

    @property
    def bufsize(self) -> int:
        """How many bytes of data there is room for in each."""
        return self._bufsize

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._box is None

    def close(self) -> None:
        """Lets go of the memory; what waits to be sent is dropped. May be called again. See sendmmsg(2)."""
        self._box = None

    def __enter__(self) -> SendBatch:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a SendBatch can be neither copied nor pickled: what waits in it is sent once")


class _Box:
    """``struct lowsock_outbox`` and the memory that its pointers lead to. What is beside data comes when it is needed."""

    __slots__ = ("_memory", "control", "control_sizes", "data", "name_sizes", "name_starts", "names", "sizes", "starts",
                 "struct")  # fmt: skip

    def __init__(self, vlen: int, data_size: int, room: int) -> None:
        self.struct = ffi.new("struct lowsock_outbox *")
        data = _allocate("char[]", max(data_size, 1))
        headers = _allocate("char[]", lib.lowsock_headers(min(vlen, BATCH)))
        self.starts, self.sizes = (ffi.new("long long[]", vlen) for _ in range(2))
        self.struct.data, self.struct.headers = data, headers
        self.struct.starts, self.struct.sizes = self.starts, self.sizes
        self.data = ffi.buffer(data)
        self.control: CData = None
        self._memory: list[CData] = [data, headers]  # the struct's pointers keep nothing alive
        if room:
            self.have_beside(vlen, room)

    def have_beside(self, vlen: int, room: int) -> None:
        """Makes the memory for addresses and control data, unless it is there. There is none of either in it."""
        if self.control is not None:
            return
        control, names = ffi.new("char[]", max(vlen * room, 1)), ffi.new("char[]", vlen * _SOCKADDR)
        control_starts = ffi.new("long long[]", [i * room for i in range(vlen)])
        self.name_starts, self.name_sizes, self.control_sizes = (ffi.new("long long[]", vlen) for _ in range(3))
        self._memory += [control, names, control_starts]
        self.names = ffi.buffer(names)
        struct: Any = self.struct
        struct.control, struct.names, struct.control_starts = control, names, control_starts
        struct.name_starts, struct.name_sizes, struct.control_sizes = self.name_starts, self.name_sizes, self.control_sizes
        self.control = control
