# SPDX-License-Identifier: MIT
"""Sending one message: sendmsg(2).

`sendmsg` begins with the commonest case written out, because after a system call every step of the interpreter is slow;
all other cases end in `transmit`. docs/design.md has the figures.
"""

from __future__ import annotations

import errno
import select

from lowsock._memory import address as _address
from lowsock._memory.ancillary import NO_ANCDATA, NO_CONTROL, Control, encode, refuse_without_data
from lowsock._memory.buffers import PYPY, Gathered, joined, viewed
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import RETRYABLE, fail, raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import check_descriptor, fileno, target, timeout_of
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Address, Buffer, ControlMessage, Socket

_POLLOUT = select.POLLOUT
_EINTR = -errno.EINTR  # stands for an attempt that was not made

# bound early: each is looked up next to a system call
_plain_send = lib.lowsock_send
_sendto = lib.lowsock_sendto
_sendto_family = lib.lowsock_sendto_family
_cached_encoding = _address.cached_encoding
_send_one = lib.lowsock_send_one
_encode_address = _address.encode_for
_from_buffer = ffi.from_buffer


def sendmsg(
    sock: Socket,
    buffers: Iterable[Buffer],
    ancdata: Iterable[ControlMessage] = NO_ANCDATA,
    flags: int = 0,
    address: Address = None,
) -> int:
    """Sends one message, gathered from ``buffers``, with control messages beside it; returns the bytes sent.

    ``sock`` is a descriptor or an object with ``fileno()``; ``buffers`` are C-contiguous bytes-like objects of any
    format; ``ancdata`` holds three-tuples ``(level, type, data)``; ``address`` has the socket module's shape for the
    family, a host name is resolved each time. On a stream fewer bytes than given may be sent: the control messages
    went with the first of them, so send the rest without.

    Raises `OSError` as the kernel says it; `TimeoutError` (`socket.timeout` before 3.10) when the socket's timeout is
    up, `BlockingIOError` where the descriptor is non-blocking; `TypeError`, `ValueError`, `OverflowError` or
    `BufferError` naming a bad argument, before anything is sent. Descriptors without data on an ``AF_UNIX``
    stream, which Linux would lose, raise `ValueError`. See sendmsg(2), cmsg(3).
    """
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        flags = MSG_DONTWAIT if flags is ZERO else checked_int("flags", flags) | MSG_DONTWAIT
    if type(buffers) is list and len(buffers) == 1 and type(only := buffers[0]) is bytes:
        data: bytes | None = only
    else:
        data = joined(buffers)
    try:
        if data is None:
            return _send_exported(sock, buffers, ancdata, flags, address)
        if ancdata is not NO_ANCDATA and (type(ancdata) is not list or ancdata):
            return _send_control(sock, data, ancdata, flags, address)
        if address is not None or flags is not ZERO:
            sent = _send_to(sock, data, flags, address)
        else:
            fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
            sent = _plain_send(fd, data, len(data))
    except OverflowError:
        check_descriptor(sock)
        raise
    return sent if sent >= 0 else transmit(sock, [data], NO_CONTROL, flags, address, sent)


def _send_to(sock: Any, data: bytes, flags: int, address: Address) -> int:
    """A first attempt with an address or flags; the count or -errno, -EINTR if it was not made."""
    if flags is not ZERO:
        flags = checked_int("flags", flags)
    if address is None:
        name = b""
    elif type(sock) is kinds.Socket:
        name = _encode_address(sock, address)  # it may take time to resolve, so the descriptor is asked for after it
    else:
        cached = _cached_encoding(address)
        if cached is None:
            return _EINTR
        family, name = cached
        return _sendto_family(sock if type(sock) is int else fileno(sock), family, data, len(data), name, len(name), flags)
    fd = sock.fileno() if type(sock) is kinds.Socket else sock if type(sock) is int else fileno(sock)
    return _sendto(fd, data, len(data), name, len(name), flags)


def _send_control(sock: Any, data: bytes, ancdata: Iterable[ControlMessage], flags: int, address: Address) -> int:
    """A send with control messages; one, the commonest case, goes straight to C."""
    if flags is not ZERO:
        flags = checked_int("flags", flags)
    sent = _EINTR
    if data and type(ancdata) is list and len(ancdata) == 1 and isinstance(ancdata[0], tuple) and len(ancdata[0]) == 3:
        level, kind, payload = ancdata[0]
        if type(payload) is bytes and type(level) is int and type(kind) is int:
            family, name = 0, b""
            if address is not None and type(sock) is kinds.Socket:
                name = _encode_address(sock, address)
            elif address is not None:
                family, name = _cached_encoding(address) or (INT_MAX, b"")  # no socket is of that family: nothing is sent
            fd = sock.fileno() if type(sock) is kinds.Socket else sock if type(sock) is int else fileno(sock)
            size, length = len(payload), len(name)
            try:
                sent = _send_one(fd, data, len(data), level, kind, payload, size, name, length, flags, family)
            except (TypeError, OverflowError):
                check_descriptor(sock)
                encode(ancdata)  # names what is wrong, if anything is
                raise
    return sent if sent >= 0 else transmit(sock, [data], encode(ancdata), flags, address, sent)


def _send_exported(sock: Any, buffers: Any, ancdata: Iterable[ControlMessage], flags: int, address: Address) -> int:
    """A send of buffers that are too large to be joined."""
    sent = _EINTR
    control = NO_CONTROL if ancdata is NO_ANCDATA else encode(ancdata)
    if not PYPY and type(buffers) is list and address is None and control is NO_CONTROL and flags is ZERO:
        exports: list[Any] = []  # they end with this frame, which a traceback may keep alive
        try:
            if _export(buffers, exports):
                fd = sock.fileno() if type(sock) is kinds.Socket else sock if type(sock) is int else fileno(sock)
                sent = lib.lowsock_send_gathered(fd, exports, list(map(len, exports)), len(exports))
        finally:
            exports.clear()
    return sent if sent >= 0 else transmit(sock, buffers, control, flags, address, sent)


def _export(buffers: list[Any], exports: list[Any]) -> bool:
    """Whether every buffer could be exported; if not, `Gathered` says why."""
    try:
        exports += map(_from_buffer, buffers)
    except (TypeError, ValueError, BufferError) as error:
        if not raised_here(error):
            raise
        return False
    return True


def transmit(
    sock: Socket, buffers: Iterable[Buffer], control: Control, flags: int, address: Address, answer: int = -errno.EINTR
) -> int:
    """Any send, its control messages checked. ``answer`` is the -errno of a first attempt."""
    if answer not in RETRYABLE:
        fail(answer)  # at once: a host name is not resolved a second time for it
    flags = checked_int("flags", flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    name = b"" if address is None else _encode_address(sock, address)
    data = joined(buffers)
    if data is None:
        return _send_gathered(sock, buffers, control, flags, name, answer)
    if control.descriptors and not data:
        refuse_without_data(target(sock)[0])
    return _send_joined(sock, data, control, flags, name, answer)


def _send_joined(sock: Socket, data: Any, control: Control, flags: int, name: bytes, answer: int) -> int:
    payload, table, rows = control.payload, control.table, control.rows

    def attempt(fd: int) -> int:
        if rows:
            return lib.lowsock_sendmsg(fd, data, len(data), payload, table, rows, name, len(name), flags)
        return _sendto(fd, data, len(data), name, len(name), flags)

    return retry(sock, flags, _POLLOUT, attempt, answer)


def _send_gathered(sock: Socket, buffers: Any, control: Control, flags: int, name: bytes, answer: int) -> int:
    gathered = Gathered(buffers)
    try:
        if control.descriptors and not gathered.size:
            refuse_without_data(target(sock)[0])
        if not gathered.bases:
            return _send_joined(sock, gathered.data, control, flags, name, answer)
        bases, sizes = gathered.bases, gathered.sizes
        payload, table, rows = control.payload, control.table, control.rows

        def attempt(fd: int) -> int:
            return lib.lowsock_sendmsg_from(fd, bases, sizes, len(bases), payload, table, rows, name, len(name), flags)

        return retry(sock, flags, _POLLOUT, attempt, answer)
    finally:
        gathered.release()


def send1msg(sock: Socket, data: Buffer, flags: int = 0, ancillary: Iterable[ControlMessage] = NO_ANCDATA) -> int:
    """Sends one buffer, the short way; returns the bytes sent.

    ``send1msg(sock, data)`` does what ``sock.send(data)`` does. ``ancillary`` holds three-tuples
    ``(level, type, data)``. Raises what `sendmsg` raises. See sendmsg(2).
    """
    plain = type(sock) is kinds.Socket
    if (
        flags is ZERO
        and type(data) is bytes
        and (ancillary is NO_ANCDATA or (type(ancillary) is list and not ancillary))
        and not (sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock))
    ):
        try:
            fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
            sent = _plain_send(fd, data, len(data))
        except OverflowError:
            check_descriptor(sock)
            raise
        return sent if sent >= 0 else transmit(sock, [data], NO_CONTROL, 0, None, sent)
    viewed("data", data).release()
    control = NO_CONTROL if ancillary is NO_ANCDATA else encode(ancillary, "ancillary")
    return transmit(sock, [data], control, flags, None)
