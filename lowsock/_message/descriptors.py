# SPDX-License-Identifier: MIT
"""Descriptors, copied into another process over an ``AF_UNIX`` socket (SCM_RIGHTS). See unix(7)."""

from __future__ import annotations

import errno

from lowsock._memory import address as _address
from lowsock._memory.ancillary import CMSG_SPACE, INT_SIZE, Control, encode_rights
from lowsock._memory.buffers import joined
from lowsock._memory.closing import close_all
from lowsock._memory.recv_pool import DATA, FREE, give, new_entry, take
from lowsock._message.receiving import POLLIN
from lowsock._message.sending import transmit
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, checked_int, iterated
from lowsock._system.constants import CONSTANTS, MSG_DONTWAIT
from lowsock._system.errors import MORE
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Address, Buffer, CData, Socket

OTHER_CONTROL = CMSG_SPACE(512)  # what options put before the descriptors: credentials, a pidfd, a security label
MAX_FDS = INT_MAX // INT_SIZE - OTHER_CONTROL
_INFO = lib.LOWSOCK_INFO
SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)  # descriptors that one message carries, and that the quick ways take
_ROOM = CMSG_SPACE(SCM_MAX_FD * INT_SIZE) + OTHER_CONTROL

_recv_fds = lib.lowsock_recv_fds
_unpack = ffi.unpack
_free = FREE  # see receiving.py


def send_fds(sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int], flags: int = 0, address: Address = None) -> int:
    """Sends one message with copies of ``fds`` beside it; returns the bytes of data sent.

    The descriptors stay open here: close them when you do not need them. Linux takes at most 253 in one message (EINVAL).
    ``flags`` and ``address`` are honoured. Raises what `lowsock.sendmsg` raises; raises
    `ValueError` for descriptors without a byte of data on a stream, which would lose them. See unix(7), sendmsg(2).
    """
    own = _listed(fds)
    if own and type(buffers) is list and type(flags) is int and address is None and type(sock) is kinds.Socket:
        data = joined(buffers)
        if data and 0 <= flags <= INT_MAX and not sock.gettimeout() and len(own) <= SCM_MAX_FD:
            return _send_plain(sock, data, own, flags)
    return transmit(sock, buffers, _control(own), flags, address)


def _send_plain(sock: Any, data: bytes, fds: list[int], flags: int) -> int:
    """The quick way: data and descriptors on a socket object without a timeout."""
    for fd in fds:
        if type(fd) is not int:
            return transmit(sock, [data], _control(fds), flags, None)
    try:
        sent = lib.lowsock_send_fds(sock.fileno(), data, len(data), fds, len(fds), flags)
    except (TypeError, OverflowError):
        _control(fds)  # names the wrong one
        raise
    return sent if sent >= 0 else transmit(sock, [data], _control(fds), flags, None, sent)


def _control(fds: list[int]) -> Control:
    return encode_rights([checked_int(f"fds[{i}]", fd) for i, fd in enumerate(fds)])


def _listed(fds: Iterable[int]) -> list[int]:
    return fds.copy() if type(fds) is list else list(iterated("fds", "int", fds))


def recv_fds(sock: Socket, bufsize: int, maxfds: int, flags: int = 0) -> tuple[bytes, list[int], int, Address]:
    """Receives one message and the descriptors beside it; returns ``(data, fds, msg_flags, address)``.

    ``fds`` is a list of at most ``maxfds`` ints, close-on-exec and yours to close; if the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set. From the return on an exception that a signal handler raises finds them in your hands.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    if type(bufsize) is not int or type(maxfds) is not int or not 0 < maxfds <= SCM_MAX_FD or not 0 <= bufsize <= DATA:
        return _receive(sock, bufsize, maxfds, flags)
    if type(flags) is not int or not 0 <= flags <= INT_MAX or type(sock) is not kinds.Socket or sock.gettimeout():
        return _receive(sock, bufsize, maxfds, flags)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    fds: list[int] | None = None
    try:
        answer = _recv_fds(struct, sock.fileno(), bufsize, _ROOM, maxfds, flags)
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
