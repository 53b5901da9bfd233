# SPDX-License-Identifier: MIT
"""The calls of `lowsock`, awaitable: each tries its system call, and waits only where the kernel says EAGAIN.

`sendmsg` and `recvmsg` have their common case written out: it costs a coroutine and a look whether other calls wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowsock._memory.address import encode_for, family_of
from lowsock._memory.ancillary import NO_ANCDATA
from lowsock._message import receiving, receiving_fds, receiving_owned_fds, sending, sending_fds
from lowsock._message.owned import OwnedFds
from lowsock._message.sending_fds import SCM_MAX_FD
from lowsock.aio._wait.attempts import (
    MODULES,
    attempt,
    call_when_ready,
    checked_flags,
    is_uncontended,
    read_direction,
    reraise_unless_ours,
    snapshot,
)
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._message.receiving_owned_fds import ReceivedFds
    from lowsock._system.types import Address, Ancillary, Buffer, ControlMessage, HasFileno, Received, Socket

_sendmsg, _recvmsg = sending.sendmsg, receiving.recvmsg


async def sendmsg(
    sock: Socket,
    buffers: Iterable[Buffer],
    ancdata: Iterable[ControlMessage] = NO_ANCDATA,
    flags: int = 0,
    address: Address = None,
) -> int:
    """As `lowsock.sendmsg`, awaitable. ``address`` is numeric: looking up a name would block. See sendmsg(2)."""
    flags = checked_flags(flags)
    if type(buffers) is not list:
        buffers = snapshot("buffers", "bytes-like objects", buffers)
    if ancdata is not NO_ANCDATA:
        ancdata = snapshot("ancdata", "(level, type, data)", ancdata)
    if address is not None:
        _refuse_names(sock, address)
    if "trio" in MODULES and is_trio():
        buffers = list(buffers)
        await checkpoint()
    if is_uncontended(sock, WRITE):
        try:
            return _sendmsg(sock, buffers, ancdata, flags, address)
        except BlockingIOError as error:
            reraise_unless_ours(error)
    own = list(buffers)  # the caller may change theirs while this waits
    return await call_when_ready(sock, WRITE, lambda: _sendmsg(sock, own, ancdata, flags, address))


async def recvmsg(sock: Socket, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Received:
    """As `lowsock.recvmsg`, awaitable. See recvmsg(2)."""
    flags = checked_flags(flags)
    direction = read_direction(flags)
    if "trio" in MODULES and is_trio():
        await checkpoint()
    if is_uncontended(sock, direction):
        try:
            return _recvmsg(sock, bufsize, ancbufsize, flags)
        except BlockingIOError as error:
            reraise_unless_ours(error)
    return await call_when_ready(sock, direction, lambda: _recvmsg(sock, bufsize, ancbufsize, flags))


async def recvmsg_into(
    sock: Socket, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0
) -> tuple[int, Ancillary, int, Address]:
    """As `lowsock.recvmsg_into`, awaitable. The buffers are not locked while it waits. See recvmsg(2)."""
    flags = checked_flags(flags)
    own = snapshot("buffers", "bytes-like objects", buffers)
    return await attempt(sock, read_direction(flags), lambda: receiving.recvmsg_into(sock, own, ancbufsize, flags))


async def send1msg(sock: Socket, data: Buffer, flags: int = 0, ancillary: Iterable[ControlMessage] = NO_ANCDATA) -> int:
    """As `lowsock.send1msg`, awaitable. See sendmsg(2)."""
    flags = checked_flags(flags)
    if ancillary is not NO_ANCDATA:
        ancillary = snapshot("ancillary", "(level, type, data)", ancillary)
    return await attempt(sock, WRITE, lambda: sending.send1msg(sock, data, flags, ancillary))


async def recv1msg(
    sock: Socket, maxsize: int = 8192, *, flags: int = 0, cmsg_size: int = 4096
) -> tuple[bytes, int, Ancillary]:
    """As `lowsock.recv1msg`, awaitable. See recvmsg(2)."""
    flags = checked_flags(flags)
    return await attempt(
        sock, read_direction(flags), lambda: receiving.recv1msg(sock, maxsize, flags=flags, cmsg_size=cmsg_size)
    )


async def send_fds(
    sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int | HasFileno], flags: int = 0, address: Address = None
) -> int:
    """As `lowsock.send_fds`, awaitable. Keep ``fds`` open until it is done: the objects among them are kept alive, and each
    attempt asks them for their numbers. ``address`` is numeric. See unix(7)."""
    flags = checked_flags(flags)
    own = snapshot("buffers", "bytes-like objects", buffers)
    rights = fds if isinstance(fds, OwnedFds) else snapshot("fds", "ints or objects with fileno()", fds)
    if address is not None:
        _refuse_names(sock, address)
    return await attempt(sock, WRITE, lambda: sending_fds.send_fds(sock, own, rights, flags, address))


async def recv_fds(sock: Socket, bufsize: int, maxfds: int, flags: int = 0) -> tuple[bytes, list[int], int, Address]:
    """As `lowsock.recv_fds`, awaitable. See unix(7), recvmsg(2)."""
    flags = checked_flags(flags)
    return await attempt(sock, read_direction(flags), lambda: receiving_fds.recv_fds(sock, bufsize, maxfds, flags))


async def recv_owned_fds(sock: Socket, bufsize: int, maxfds: int = SCM_MAX_FD, flags: int = 0) -> ReceivedFds:
    """As `lowsock.recv_owned_fds`, awaitable. See unix(7), recvmsg(2)."""
    flags = checked_flags(flags)
    call = receiving_owned_fds.recv_owned_fds
    return await attempt(sock, read_direction(flags), lambda: call(sock, bufsize, maxfds, flags))


def _refuse_names(sock: Socket, address: Address) -> None:
    encode_for(sock, address, family_of(sock))
