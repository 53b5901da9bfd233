# SPDX-License-Identifier: MIT
"""Memory that receives fill. A reply is taken for one call, whoever takes it owns it alone, and it is given back after.

Nothing is allocated for an ordinary receive: replies wait in a list whose `pop` and `append` are atomic. One that is not
given back (an exception came between) is freed by the garbage collector.
"""

from __future__ import annotations

from lowsock._system.errors import raised_here
from lowsock._system.ffi import ffi, lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import CData

    Entry = tuple[CData, CData, "Reply"]

DATA = 256 * 1024  # bytes: what asyncio passes to recvfrom; pages that nothing was received into cost no memory
CONTROL = 8 * 1024

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class Reply:
    """``struct lowsock_reply`` and the memory that its pointers lead to."""

    __slots__ = ("_memory", "address", "control", "data", "fds", "host", "info", "name", "pooled", "struct")

    def __init__(self, data_size: int, control_size: int) -> None:
        headers = control_size // lib.lowsock_cmsg_len(0) + 1
        data = _allocate("char[]", max(data_size, 1))
        control = _allocate("char[]", max(control_size, 1))
        name = _allocate("char[]", lib.LOWSOCK_NAME)
        self.info = ffi.new("long long[]", lib.LOWSOCK_INFO + lib.LOWSOCK_ROW * headers)
        self.fds = _allocate("int[]", control_size // ffi.sizeof("int") + 1)
        self.struct = ffi.new("struct lowsock_reply *")
        self.struct.data, self.struct.data_size = data, data_size
        self.struct.control, self.struct.control_size = control, control_size
        self.pooled = data_size == DATA and control_size == CONTROL
        self.struct.name, self.struct.info, self.struct.fds = name, self.info, self.fds
        self.data, self.control, self.name = ffi.buffer(data), ffi.buffer(control), ffi.buffer(name)
        self.host = self.struct.host
        self.struct.cached_source = -1
        self.address: Any = None  # of the source that `struct.cached_source` names
        self._memory = (data, control, name)  # the struct's pointers keep nothing alive

    def entry(self) -> Entry:
        return self.struct, self.data, self


# What a plain receive needs comes first in an entry, unpacked from a tuple: cheaper than attributes.
FREE: list[Entry] = []


def spare(error: IndexError) -> Entry:
    """A new reply, where `FREE.pop` raised ``error``; one that a signal handler raised there goes on."""
    if not raised_here(error):
        raise error
    return Reply(DATA, CONTROL).entry()


def take(data_size: int, control_size: int) -> Reply:
    """A reply with room for so many bytes. A larger one than usual is made for one call and dropped."""
    if data_size > DATA or control_size > CONTROL:
        return Reply(data_size, control_size)
    try:
        return FREE.pop()[2]
    except IndexError as error:
        return spare(error)[2]


def give(reply: Reply) -> None:
    """Gives a reply back; the descriptors that it noted are somebody else's from here on."""
    reply.struct.fd_count = 0
    if reply.pooled:
        FREE.append(reply.entry())
