# SPDX-License-Identifier: MIT
"""Descriptors that come as plain numbers (SCM_RIGHTS). See unix(7)."""

from __future__ import annotations

import errno

from lowsock._memory import address as _address
from lowsock._memory.ancillary import CMSG_SPACE, INT_SIZE
from lowsock._memory.closing import close_all
from lowsock._memory.recv_pool import DATA, FREE, give, new_entry, take
from lowsock._message.receiving import POLLIN
from lowsock._message.sending_fds import SCM_MAX_FD
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import MORE
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import check_descriptor, fileno, target, timeout_of
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from lowsock._system.types import Address, CData, Socket

OTHER_CONTROL = CMSG_SPACE(512)  # what options put before the descriptors: credentials, a pidfd, a security label
MAX_FDS = INT_MAX // INT_SIZE - OTHER_CONTROL
_INFO = lib.LOWSOCK_INFO
_ROOM = CMSG_SPACE(SCM_MAX_FD * INT_SIZE) + OTHER_CONTROL

_recv_fds = lib.lowsock_recv_fds
_unpack = ffi.unpack
_free = FREE  # see receiving.py


def recv_fds(sock: Socket, bufsize: int, maxfds: int, flags: int = 0) -> tuple[bytes, list[int], int, Address]:
    """Receives one message and the descriptors beside it; returns ``(data, fds, msg_flags, address)``.

    ``fds`` is a list of at most ``maxfds`` ints, close-on-exec and yours to close; if the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set. From the return on an exception that a signal handler raises finds them in your hands.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    if type(bufsize) is not int or type(maxfds) is not int or not 0 < maxfds <= SCM_MAX_FD or not 0 <= bufsize <= DATA:
        return _receive(sock, bufsize, maxfds, flags)
    if type(flags) is not int or not 0 <= flags <= INT_MAX:
        return _receive(sock, bufsize, maxfds, flags)
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        return _receive(sock, bufsize, maxfds, flags)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    fds: list[int] | None = None
    try:
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        answer = _recv_fds(struct, fd, bufsize, _ROOM, maxfds, flags)
        if answer <= MORE:
            size, msg_flags, source, count = _unpack(reply.info, _INFO)
            data = view[:size]
            address = None if source == -1 else _address.decode(reply, source)
            fds = _unpack(reply.fds, count)
            struct.fd_count = 0  # fds has them now
            _free.append(entry)
            return data, fds, msg_flags, address
    except BaseException:
        _close(struct, fds)
        check_descriptor(sock)
        raise
    _free.append(entry)  # nothing came
    return _receive(sock, bufsize, maxfds, flags, answer)


def _receive(
    sock: Socket, bufsize: int, maxfds: int, flags: int, answer: int = -errno.EINTR
) -> tuple[bytes, list[int], int, Address]:
    """Any receive of descriptors. ``answer`` is the -errno of a first attempt."""
    bufsize = checked_int("bufsize", bufsize, least=0, most=INT_MAX)
    maxfds = checked_int("maxfds", maxfds, least=0, most=MAX_FDS)
    flags = checked_int("flags", flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    room = CMSG_SPACE(maxfds * INT_SIZE) + OTHER_CONTROL if maxfds else 0
    reply = take(bufsize, room)
    fds: list[int] | None = None

    def attempt(fd: int) -> int:
        return _recv_fds(reply.struct, fd, bufsize, room, maxfds, flags)

    try:
        answer = retry(sock, flags, POLLIN, attempt, answer)
        size, msg_flags, source, count = _unpack(reply.info, _INFO)
        data = reply.data[:size]
        address = None if source == -1 else _address.decode(reply, source)
        fds = _unpack(reply.fds, count)
        give(reply)
        return data, fds, msg_flags, address
    except BaseException:
        _close(reply.struct, fds)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def _close(reply: CData, fds: list[int] | None) -> None:
    if fds is None:
        lib.lowsock_reply_close(reply)
    else:
        close_all(fds)
