# SPDX-License-Identifier: MIT
"""Descriptors that an owner receives: SCM_RIGHTS and SCM_PIDFD. See unix(7)."""

from __future__ import annotations

import errno
from _socket import AF_UNIX

from lowsock._memory import address as _address
from lowsock._memory.ancillary import CMSG_SPACE, INT_SIZE, decode, encode_rights
from lowsock._memory.buffers import joined
from lowsock._memory.recv_pool import DATA, FREE, give, new_entry, take
from lowsock._message.descriptors import MAX_FDS, OTHER_CONTROL, SCM_MAX_FD
from lowsock._message.owned import OwnedFds, new_slots, owner, refuse_closed
from lowsock._message.receiving import POLLIN
from lowsock._message.sending import transmit
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, checked_int, iterated
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import MORE, raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Address, Buffer, HasFileno, Socket

_INFO = lib.LOWSOCK_INFO
_ROOM = CMSG_SPACE(SCM_MAX_FD * INT_SIZE) + OTHER_CONTROL  # Linux puts a pidfd behind all rights, wanted or not

# bound early: each is looked up next to a system call
_free = FREE  # see receiving.py
_unpack = ffi.unpack
_recv_rights = lib.lowsock_recv_rights
_close = lib.lowsock_owned_close


def recv_rights(
    sock: Socket, bufsize: int, maxfds: int = SCM_MAX_FD, flags: int = 0
) -> tuple[bytes, OwnedFds, int, Address]:
    """Receives one message and owns the descriptors beside it; returns ``(data, owner, msg_flags, address)``.

    ``owner`` is an `OwnedFds`: use it in a ``with``. It holds at most ``maxfds`` descriptors of SCM_RIGHTS in their order,
    then the pidfd of SCM_PIDFD if the socket asks for one; all are close-on-exec. If the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set; Linux also sets it where it had no descriptor left to give (RLIMIT_NOFILE). What else
    came stands in ``owner.ancdata``; with ``maxfds=0`` the kernel has no room for any of it, and drops all. With
    ``MSG_PEEK`` the copies that the kernel made are closed at once: ``len(owner)`` says how many there are to come.

    The owner is there before the system call fills it, so there is no moment at which an exception loses a descriptor.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    if type(bufsize) is not int or type(maxfds) is not int or not 0 < maxfds <= SCM_MAX_FD or not 0 <= bufsize <= DATA:
        return _receive(sock, bufsize, maxfds, flags)
    if type(flags) is not int or not 0 <= flags <= INT_MAX or type(sock) is not kinds.Socket or sock.gettimeout():
        return _receive(sock, bufsize, maxfds, flags)
    owned = new_slots(maxfds + 1)
    fds = owner(owned)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    try:
        answer = _recv_rights(struct, sock.fileno(), bufsize, _ROOM, flags, owned)
        if answer <= MORE:
            info = _unpack(reply.info, MORE - answer)
            data = view[: info[0]]
            address = None if info[2] == -1 else _address.decode(reply, info[2])
            if len(info) > _INFO:
                fds.ancdata = decode(reply, info)
            _free.append(entry)
            return data, fds, info[1], address
    except BaseException:
        _close(owned)
        raise
    _free.append(entry)  # nothing came
    return _receive(sock, bufsize, maxfds, flags, answer)


def _receive(
    sock: Socket, bufsize: int, maxfds: int, flags: int, answer: int = -errno.EINTR
) -> tuple[bytes, OwnedFds, int, Address]:
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
        return data, fds, info[1], address
    except BaseException:
        _close(owned)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def send_rights(
    sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int | HasFileno], flags: int = 0, address: Address = None
) -> int:
    """Sends one message with copies of ``fds`` beside it; returns the bytes of data sent.

    ``fds`` are ints and objects with ``fileno()``, kept alive for the time of the call, or an `OwnedFds`. They stay open
    here, and whoever owned them owns them still. Nothing is sent, and a `ValueError` names it, if one of them is closed, if
    there are more than 253, or if a stream would lose them for want of a byte of data; anything else among them is a
    `TypeError`. Raises what `lowsock.sendmsg` raises. See unix(7), sendmsg(2).
    """
    items = list(iterated("fds", "ints or objects with fileno()", fds))
    if len(items) > SCM_MAX_FD:
        raise ValueError(f"fds must not be more than {SCM_MAX_FD} in one message: {len(items)}")
    numbers = [
        item if type(item) is int and -INT_MAX <= item <= INT_MAX else _descriptor(f"fds[{i}]", item)
        for i, item in enumerate(items)
    ]
    # On AF_UNIX the kernel refuses closed descriptors before it takes anything; elsewhere it does not look at them.
    if numbers and type(buffers) is list and type(flags) is int and address is None and type(sock) is kinds.Socket:
        data = joined(buffers)
        if data and 0 <= flags <= INT_MAX and not sock.gettimeout() and kinds.family_of(sock) == AF_UNIX:
            sent = lib.lowsock_send_fds(sock.fileno(), data, len(data), numbers, len(numbers), flags)
            if sent >= 0:
                return sent
            refuse_closed(numbers)
            return transmit(sock, [data], encode_rights(numbers), flags, None, sent)
    refuse_closed(numbers)
    return transmit(sock, buffers, encode_rights(numbers), flags, address)


def _descriptor(name: str, item: Any) -> int:
    if isinstance(item, int) and not isinstance(item, bool):
        return checked_int(name, item)
    if getattr(item, "fileno", None) is None:
        raise TypeError(f"{name} must be an int or have a fileno() method, not {type(item).__name__}")
    fd = _fileno(name, item)
    if not isinstance(fd, int):
        raise TypeError(f"{name}.fileno() must return an int, not {type(fd).__name__}")
    return checked_int(f"{name}.fileno()", fd)


def _fileno(name: str, item: Any) -> Any:
    """What ``item.fileno()`` returns. A closed file raises `ValueError`, maybe from Python code."""
    try:
        return item.fileno()
    except ValueError as error:
        if not raised_here(error) and getattr(item, "closed", None) is not True:
            raise
        raise ValueError(f"{name} is closed") from error
