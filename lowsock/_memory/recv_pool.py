# SPDX-License-Identifier: MIT
"""Memory that receives fill, and the pool of it. A call takes a reply, owns it alone, and gives it back.

An ordinary receive allocates nothing: the pool is a list whose `pop` and `append` are atomic. If an exception keeps a reply
from the pool, the garbage collector frees it.
"""

from __future__ import annotations

from lowsock._system.errors import raised_here
from lowsock._system.ffi import ffi, lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import CData

    Entry = tuple[CData, CData, "Reply"]

DATA = 256 * 1024  # bytes, as asyncio passes to recvfrom; pages that nothing was received into take no memory
CONTROL = 8 * 1024

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class Reply:
    """``struct lowsock_reply`` and the memory that it points to."""

    __slots__ = (
        "_memory", "bufsize", "cached_address", "control", "data", "fd", "fds", "host", "info", "name", "pooled", "struct",
    )  # fmt: skip

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
        self.fd = self.bufsize = self.struct.fd = (
            self.struct.size
        ) = -1  # of the last plain receive, as C remembers them: see lowsock_recv_again
        self.cached_address: Any = None  # the tuple of `struct.cached_source`
        self._memory = (data, control, name)  # the struct's pointers keep nothing alive

    def entry(self) -> Entry:
        return self.struct, self.data, self


# The free list. An entry is a tuple, what a plain receive needs first: unpacking it is cheaper than reading attributes.
FREE: list[Entry] = []


def new_entry(error: IndexError) -> Entry:
    """A new reply, where `FREE.pop` raised ``error``; raises the error again if a signal handler raised it."""
    if not raised_here(error):
        raise error
    return Reply(DATA, CONTROL).entry()


def take(data_size: int, control_size: int) -> Reply:
    """A reply with room for so many bytes. If that is more than the pool's replies have, one is made for the call."""
    if data_size > DATA or control_size > CONTROL:
        return Reply(data_size, control_size)
    try:
        return FREE.pop()[2]
    except IndexError as error:
        return new_entry(error)[2]


def give(reply: Reply) -> None:
    """Gives a reply back. The descriptors noted in it belong to somebody else now."""
    reply.struct.fd_count = 0
    if reply.pooled:
        FREE.append(reply.entry())
