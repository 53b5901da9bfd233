# SPDX-License-Identifier: MIT
"""Descriptors, copied into another process over an ``AF_UNIX`` socket (SCM_RIGHTS). See unix(7)."""

from __future__ import annotations

import errno
from _socket import AF_UNIX

from lowsock._memory.ancillary import encode_rights
from lowsock._memory.buffers import joined
from lowsock._message.owned import refuse_closed
from lowsock._message.sending import transmit
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, checked_int, iterated
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import raised_here
from lowsock._system.ffi import lib
from lowsock._system.target import check_descriptor, fileno, timeout_of

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Address, Buffer, HasFileno, Socket

SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)  # descriptors that one message carries

_send_fds = lib.lowsock_send_fds  # bound early: looked up next to a system call


def send_fds(
    sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int | HasFileno], flags: int = 0, address: Address = None
) -> int:
    """Sends one message with copies of ``fds`` beside it; returns the bytes of data sent.

    ``fds`` are ints and objects with ``fileno()``, kept alive for the time of the call, or an `OwnedFds`. They stay open
    here: close them when you do not need them; whoever owned them owns them still. ``flags`` and ``address`` are honoured.

    Nothing is sent, and a `ValueError` names it, if one of them is closed, if there are more than 253, or if a stream would
    lose them for want of a byte of data; anything else among them is a `TypeError`. Raises what `lowsock.sendmsg` raises.
    See unix(7), sendmsg(2).
    """
    own = fds.copy() if type(fds) is list else list(iterated("fds", "ints or objects with fileno()", fds))
    if type(buffers) is not list or type(flags) is not int or address is not None:
        return _send(sock, buffers, own, flags, address)
    data = joined(buffers)
    if not data or not 0 <= flags <= INT_MAX or not 0 < len(own) <= SCM_MAX_FD:
        return _send(sock, buffers, own, flags, None)
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        return _send(sock, buffers, own, flags, None)
    # AF_UNIX refuses closed descriptors before it takes anything; other families do not look at them.
    if plain and kinds.family_of(sock) != AF_UNIX:
        return _send(sock, buffers, own, flags, None)
    for number in own:
        if type(number) is not int:
            return _send(sock, [data], own, flags, None)
    try:
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        sent = _send_fds(fd, data, len(data), own, len(own), flags, 0 if plain else AF_UNIX)
    except (TypeError, OverflowError):
        check_descriptor(sock)
        _numbers(own)  # names the wrong one
        raise
    return sent if sent >= 0 else _send(sock, [data], own, flags, None, sent)


def _send(
    sock: Socket, buffers: Iterable[Buffer], fds: list[Any], flags: int, address: Address, answer: int = -errno.EINTR
) -> int:
    """Any send of descriptors. ``answer`` is the -errno of a first attempt."""
    if len(fds) > SCM_MAX_FD:
        raise ValueError(f"fds must not be more than {SCM_MAX_FD} in one message: {len(fds)}")
    numbers = _numbers(fds)
    refuse_closed(numbers)
    return transmit(sock, buffers, encode_rights(numbers), flags, address, answer)


def _numbers(fds: list[Any]) -> list[int]:
    return [
        fd if type(fd) is int and -INT_MAX <= fd <= INT_MAX else _descriptor(f"fds[{i}]", fd) for i, fd in enumerate(fds)
    ]


def _descriptor(name: str, item: Any) -> int:
    if getattr(item, "fileno", None) is None:
        if hasattr(type(item), "__index__") and not isinstance(item, bool):
            return checked_int(name, item)
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
