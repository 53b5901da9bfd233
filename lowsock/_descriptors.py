# SPDX-License-Identifier: MIT
"""Descriptors, copied into another process over an ``AF_UNIX`` socket (SCM_RIGHTS). See unix(7)."""

import contextlib
import os
from array import array
from typing import Iterable, List, Optional, Tuple

from lowsock import _address
from lowsock._ancillary import CMSG_SPACE, NO_CONTROL, SCM_RIGHTS, SOL_SOCKET, Control
from lowsock._calling import INT_MAX, MORE, MSG_DONTWAIT, Socket, checked_int, persist, target
from lowsock._constants import CONSTANTS
from lowsock._ffi import ffi, lib
from lowsock._message import POLLIN, Address, Buffer, transmit
from lowsock._reply import give, take

_INT = array("i").itemsize
_BESIDE = CMSG_SPACE(512)  # credentials, a pidfd, a security label: what options of the socket put before the descriptors
_MOST = INT_MAX // _INT - _BESIDE
_INFO = lib.LOWSOCK_INFO
_MSG_CTRUNC = CONSTANTS["MSG_CTRUNC"]


def send_fds(
    sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int], flags: int = 0, address: Address = None
) -> int:
    """Sends one message with copies of ``fds`` beside it; returns the bytes of data sent.

    The descriptors stay open here: close them when you do not need them. Linux takes at most 253 in one message (EINVAL).
    ``flags`` and ``address`` are honoured. Raises what `lowsock.sendmsg` raises; descriptors without a byte of data are a
    `ValueError` on a stream, which would lose them. See unix(7), sendmsg(2).
    """
    packed = array("i", [checked_int(f"fds[{i}]", fd) for i, fd in enumerate(_iterated(fds))]).tobytes()
    control = Control(packed, [SOL_SOCKET, SCM_RIGHTS, len(packed)], 1, True) if packed else NO_CONTROL
    return transmit(sock, buffers, control, flags, address)


def _iterated(fds: Iterable[int]) -> Iterable[int]:
    try:
        return iter(fds)
    except TypeError:
        raise TypeError(f"fds must be an iterable of int, not {type(fds).__name__}") from None


def recv_fds(sock: Socket, bufsize: int, maxfds: int, flags: int = 0) -> Tuple[bytes, List[int], int, Address]:
    """Receives one message and the descriptors beside it; returns ``(data, fds, msg_flags, address)``.

    ``fds`` is a list of at most ``maxfds`` ints, close-on-exec and yours to close; if the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set. From the return on an exception that a signal handler raises finds them in your hands.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    bufsize = checked_int("bufsize", bufsize, least=0, most=INT_MAX)
    maxfds = checked_int("maxfds", maxfds, least=0, most=_MOST)
    flags = checked_int("flags", flags)
    fd, timeout = target(sock)
    if timeout is not None:
        flags |= MSG_DONTWAIT
    room = CMSG_SPACE(maxfds * _INT) + _BESIDE if maxfds else 0
    reply = take(bufsize, room)
    fds: Optional[List[int]] = None
    try:

        def attempt(fd: int) -> int:
            return lib.lowsock_recvmsg(reply.struct, fd, bufsize, room, flags)

        answer = attempt(fd)
        if MORE < answer < 0:
            answer = persist(sock, flags, POLLIN, attempt, answer)
        size, msg_flags, source, came = (answer, 0, -1, 0) if answer >= 0 else ffi.unpack(reply.info, _INFO)
        data = reply.data[:size]
        address = _address.decode(reply, source)
        kept = lib.lowsock_keep_rights(reply.struct, maxfds) if came else 0
        if kept < came:
            msg_flags |= _MSG_CTRUNC
        fds = ffi.unpack(reply.fds, kept) if kept else []
        give(reply)
        return data, fds, msg_flags, address
    except BaseException:
        _close(reply.struct, fds)
        raise


def _close(reply: object, fds: Optional[List[int]]) -> None:
    if fds is None:
        lib.lowsock_close(reply)
        return
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
