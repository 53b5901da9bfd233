# SPDX-License-Identifier: MIT
"""Descriptors that an owner receives: SCM_RIGHTS and SCM_PIDFD. See unix(7).

Loaded when it is first asked for: a named tuple takes `typing`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from lowsock._memory import address as _address
from lowsock._memory.ancillary import CMSG_SPACE, INT_SIZE, decode
from lowsock._memory.recv_pool import DATA, FREE, give, new_entry, take
from lowsock._message.owned import OwnedFds, new_slots, owner
from lowsock._message.receiving import POLLIN
from lowsock._message.receiving_fds import MAX_FDS, OTHER_CONTROL
from lowsock._message.sending_fds import SCM_MAX_FD
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import MORE
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import check_descriptor, fileno, target, timeout_of
from lowsock._system.waiting import retry

if TYPE_CHECKING:
    from lowsock._system.types import Address, Socket

_INFO = lib.LOWSOCK_INFO
_ROOM = CMSG_SPACE(SCM_MAX_FD * INT_SIZE) + OTHER_CONTROL  # Linux puts a pidfd behind all rights, wanted or not

# bound early: each is looked up next to a system call
_free = FREE  # see receiving.py
_unpack = ffi.unpack
_recv_rights = lib.lowsock_recv_rights
_close = lib.lowsock_owned_close
_tuple = tuple.__new__  # a frame less than the class's own


class ReceivedFds(NamedTuple):
    """A message and the owner of the descriptors that came beside it, from `recv_owned_fds`. See recvmsg(2)."""

    data: bytes
    fds: OwnedFds
    """Use it in a ``with``. It is there, and empty, if none came."""
    msg_flags: int
    address: Address
    """Where it came from; None where the kernel tells none."""


def recv_owned_fds(sock: Socket, bufsize: int, maxfds: int = SCM_MAX_FD, flags: int = 0) -> ReceivedFds:
    """Receives one message and owns the descriptors beside it; returns `ReceivedFds`: data, fds, msg_flags, address.

    ``fds`` is an `OwnedFds`: use it in a ``with``. It holds at most ``maxfds`` descriptors of SCM_RIGHTS in their order,
    then the pidfd of SCM_PIDFD if the socket asks for one; all are close-on-exec. If the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set; Linux also sets it where it had no descriptor left to give (RLIMIT_NOFILE). What else
    came stands in ``fds.ancdata``; with ``maxfds=0`` the kernel has no room for any of it, and drops all. With
    ``MSG_PEEK`` the copies that the kernel made are closed at once: ``len(fds)`` says how many there are to come.

    The owner is there before the system call fills it, so there is no moment at which an exception loses a descriptor.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    if type(bufsize) is not int or type(maxfds) is not int or not 0 < maxfds <= SCM_MAX_FD or not 0 <= bufsize <= DATA:
        return _receive(sock, bufsize, maxfds, flags)
    if type(flags) is not int or not 0 <= flags <= INT_MAX:
        return _receive(sock, bufsize, maxfds, flags)
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        return _receive(sock, bufsize, maxfds, flags)
    owned = new_slots(maxfds + 1)
    fds = owner(owned)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    try:
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        answer = _recv_rights(struct, fd, bufsize, _ROOM, flags, owned)
        if answer <= MORE:
            info = _unpack(reply.info, MORE - answer)
            data = view[: info[0]]
            address = None if info[2] == -1 else _address.decode(reply, info[2])
            if len(info) > _INFO:
                fds.ancdata = decode(reply, info)
            _free.append(entry)
            return _tuple(ReceivedFds, (data, fds, info[1], address))
    except BaseException:
        _close(owned)
        check_descriptor(sock)
        raise
    _free.append(entry)  # nothing came
    return _receive(sock, bufsize, maxfds, flags, answer)


def _receive(sock: Socket, bufsize: int, maxfds: int, flags: int, answer: int = -errno.EINTR) -> ReceivedFds:
    """Any receive of descriptors. ``answer`` is the -errno of a first attempt."""
    bufsize = checked_int("bufsize", bufsize, least=0, most=INT_MAX)
    maxfds = checked_int("maxfds", maxfds, least=0, most=MAX_FDS)
    flags = checked_int("flags", flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    room = max(CMSG_SPACE(maxfds * INT_SIZE) + OTHER_CONTROL, _ROOM) if maxfds else 0
    reply, owned = take(bufsize, room), new_slots(maxfds + 1)
    fds = owner(owned)

    def attempt(fd: int) -> int:
        return _recv_rights(reply.struct, fd, bufsize, room, flags, owned)

    try:
        answer = retry(sock, flags, POLLIN, attempt, answer)
        info = _unpack(reply.info, MORE - answer)
        data = reply.data[: info[0]]
        address = None if info[2] == -1 else _address.decode(reply, info[2])
        fds.ancdata = decode(reply, info)
        give(reply)
        return ReceivedFds(data, fds, info[1], address)
    except BaseException:
        _close(owned)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise
