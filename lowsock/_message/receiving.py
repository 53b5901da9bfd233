# SPDX-License-Identifier: MIT
"""Receiving one message: recvmsg(2).

`recvmsg`, `recvmsg_into` and `recv1msg` begin with the commonest case written out, because after a system call every step
of the interpreter is slow; all other cases go to a function below. docs/design.md has the figures.

If an exception comes, received descriptors are closed: those in the reply until ``ancdata`` is there, then those in
``ancdata``. A reply is given back once, when nothing will read it again.
"""

from __future__ import annotations

import errno
import select

from lowsock._memory import address as _address
from lowsock._memory.ancillary import CMSG_SPACE, decode
from lowsock._memory.buffers import IOV_MAX, PYPY, Bounced, Scattered
from lowsock._memory.closing import close_received
from lowsock._memory.recv_pool import CONTROL, DATA, FREE, give, new_entry, take
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, ZERO, checked_int
from lowsock._system.constants import MSG_DONTWAIT, MSG_TRUNC
from lowsock._system.errors import CACHED, MORE, fail
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import check_descriptor, fileno, target, timeout_of
from lowsock._system.waiting import retry

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._memory.recv_pool import Reply
    from lowsock._system.types import Address, Ancillary, Buffer, Received, Socket

POLLIN = select.POLLIN | select.POLLPRI
_CMSG_SIZE = 4096
_CMSG_SPACE = CMSG_SPACE(_CMSG_SIZE)
_GO_ON = (
    -errno.EINTR,
    -errno.ENOBUFS,
)  # handlers have run, or the reply is too small: not the end for a call without a timeout
_INFO = lib.LOWSOCK_INFO
_SIZE_MASK = CACHED - 1

# bound early: each is looked up next to a system call
_plain_recv = lib.lowsock_recv
_recv_again = lib.lowsock_recv_again
_recvmsg = lib.lowsock_recvmsg
_recv_into = lib.lowsock_recv_into
_decode_address = _address.decode
_from_buffer = ffi.from_buffer
_unpack = ffi.unpack
_free = FREE  # not by its imported name: with such a name CPython 3.11 and later make a bound method for each call


def recvmsg(sock: Socket, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Received:
    """Receives one message; returns ``(data, ancdata, msg_flags, address)``.

    At most ``bufsize`` bytes of data and ``ancbufsize`` bytes of control messages (a sum of `CMSG_SPACE`) are taken;
    ``MSG_TRUNC`` and ``MSG_CTRUNC`` in ``msg_flags`` say that there was more. ``ancdata`` is a list of
    ``(level, type, bytes)``. ``address`` is None where the kernel tells none. Received descriptors are close-on-exec
    and yours from the return on: an exception that a signal handler raises later finds them in your hands.

    Raises `OSError` as the kernel says it, and closes what had already been received; `TimeoutError`
    (`socket.timeout` before 3.10), `BlockingIOError`; `TypeError`, `ValueError` or `OverflowError` naming a bad
    argument. See recvmsg(2), cmsg(3).
    """
    if type(bufsize) is not int:
        return _receive(sock, bufsize, ancbufsize, flags)
    plain = type(sock) is kinds.Socket
    timeout = sock.gettimeout() if plain else None if type(sock) is int else timeout_of(sock)
    if timeout:
        flags = MSG_DONTWAIT if flags is ZERO else checked_int("flags", flags) | MSG_DONTWAIT
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    ancdata: Ancillary | None = None
    try:
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        if ancbufsize is ZERO and flags is ZERO:
            if fd is reply.fd and bufsize is reply.bufsize:
                answer = _recv_again(struct)
            else:
                answer = _plain_recv(struct, fd, bufsize)
                reply.fd, reply.bufsize = fd, bufsize
        else:
            if type(ancbufsize) is not int or type(flags) is not int:
                ancbufsize, flags = _checked_receive(ancbufsize, flags)
            answer = _recvmsg(struct, fd, bufsize, ancbufsize, flags)
        if answer >= 0:
            address = None
            if answer >= CACHED:
                answer, address = answer - CACHED, reply.cached_address
            data, ancdata = view[:answer], []
            _free.append(entry)
            return data, ancdata, 0, address
        if answer <= MORE:
            info = _unpack(reply.info, MORE - answer)
            data = view[: info[0]]
            address = None if info[2] == -1 else _decode_address(reply, info[2])
            ancdata = decode(reply, info) if len(info) > _INFO else []
            if info[3]:
                struct.fd_count = 0  # ancdata has the descriptors now
            _free.append(entry)
            return data, ancdata, info[1], address
    except BaseException:
        close_received(reply, ancdata)
        check_descriptor(sock)
        checked_int("bufsize", bufsize, least=0, most=INT_MAX)
        _checked_receive(ancbufsize, flags)
        raise
    _free.append(entry)  # nothing came
    if not timeout and answer not in _GO_ON:
        fail(answer)
    return _receive(sock, bufsize, ancbufsize, flags, answer)


def _receive(
    sock: Socket, bufsize: int, ancbufsize: int, flags: int, answer: int = -errno.EINTR, *, short: bool = False
) -> Any:  # `Received`, or what `recv1msg` returns
    """Any receive. ``answer`` is the -errno of a first, plain attempt."""
    bufsize = checked_int("bufsize", bufsize, least=0, most=INT_MAX)
    ancbufsize, flags = _checked_receive(ancbufsize, flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    if bufsize > DATA or ancbufsize > CONTROL:
        answer = -errno.EINTR  # the first attempt lacked the room, and made no call
    reply = take(bufsize, ancbufsize)
    ancdata: Ancillary | None = None

    def attempt(fd: int) -> int:
        return _recvmsg(reply.struct, fd, bufsize, ancbufsize, flags)

    try:
        answer = retry(sock, flags, POLLIN, attempt, answer)
        size, ancdata, msg_flags, address = _decode_reply(reply, answer)
        data = reply.data[:size]
        give(reply)
        return (data, msg_flags, ancdata) if short else (data, ancdata, msg_flags, address)
    except BaseException:
        close_received(reply, ancdata)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def _checked_receive(ancbufsize: int, flags: int) -> tuple[int, int]:
    return checked_int("ancbufsize", ancbufsize, least=0, most=INT_MAX), checked_int("flags", flags)


def _decode_reply(reply: Reply, answer: int) -> tuple[int, Ancillary, int, Address]:
    """Bytes of data, control messages, flags and address. The reply owns the descriptors until it is given back."""
    if answer >= CACHED:
        return answer - CACHED, [], 0, reply.cached_address
    if answer >= 0:
        return answer, [], 0, None
    info = _unpack(reply.info, MORE - answer)
    return info[0], decode(reply, info), info[1], _decode_address(reply, info[2])


def recvmsg_into(
    sock: Socket, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0
) -> tuple[int, Ancillary, int, Address]:
    """Receives one message into ``buffers``, scattered; returns ``(nbytes, ancdata, msg_flags, address)``.

    ``buffers`` are writable, C-contiguous bytes-like objects of any format, filled in their order. They are held for the
    time of the call: on CPython nobody can resize them meanwhile; on PyPy, where nothing keeps one from it, data is
    received into memory of our own and copied. The rest is as in `recvmsg`.

    Raises what `recvmsg` raises, and `TypeError` or `BufferError` for a buffer that cannot be written to. See recvmsg(2).
    """
    if PYPY:
        return _receive_bounced(sock, buffers, ancbufsize, flags)
    if ancbufsize is not ZERO or flags is not ZERO or type(buffers) is not list:
        return _receive_scattered(sock, buffers, ancbufsize, flags)
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        return _receive_scattered(sock, buffers, ancbufsize, flags)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, _, reply = entry
    exports: list[Any] = []  # they end with this frame, which a traceback may keep alive
    sizes: list[int] = []
    try:
        for buffer in buffers:
            if type(buffer) is not bytearray:  # it may be read-only
                exports.clear()
                _free.append(entry)
                return _receive_scattered(sock, buffers, ancbufsize, flags)
            exports.append(_from_buffer(buffer))
            sizes.append(len(buffer))
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        answer = _recv_into(struct, fd, exports, sizes, len(sizes))
    except OverflowError:
        check_descriptor(sock)
        raise
    finally:
        exports.clear()
    if answer >= 0:
        address = None
        if answer >= CACHED:
            answer, address = answer - CACHED, reply.cached_address
        _free.append(entry)
        return answer, [], 0, address
    if answer > MORE:
        _free.append(entry)
        return _receive_scattered(sock, buffers, 0, 0, answer)
    size, ancdata, msg_flags, address = _decode_reply(reply, answer)
    _free.append(entry)
    return size, ancdata, msg_flags, address


def _receive_scattered(
    sock: Socket, buffers: Iterable[Buffer], ancbufsize: int, flags: int, answer: int = -errno.EINTR
) -> tuple[int, Ancillary, int, Address]:
    """Any receive into buffers, on CPython."""
    ancbufsize, flags = _checked_receive(ancbufsize, flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    scattered = Scattered(buffers)
    try:
        reply = take(0, ancbufsize)
    except BaseException:  # MemoryError
        scattered.release()
        raise
    ancdata: Ancillary | None = None

    def attempt(fd: int) -> int:
        bases = scattered.bases
        return lib.lowsock_recvmsg_into(reply.struct, fd, bases, scattered.sizes, len(bases), ancbufsize, flags)

    try:
        answer = retry(sock, flags, POLLIN, attempt, answer)
        scattered.release()
        size, ancdata, msg_flags, address = _decode_reply(reply, answer)
        give(reply)
        return size, ancdata, msg_flags, address
    except BaseException:
        close_received(reply, ancdata)
        scattered.release()
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def _receive_bounced(
    sock: Socket, buffers: Iterable[Buffer], ancbufsize: int, flags: int
) -> tuple[int, Ancillary, int, Address]:
    """Any receive into buffers, on PyPy: through the reply, as a bounce buffer."""
    ancbufsize, flags = _checked_receive(ancbufsize, flags)
    bounced = Bounced(buffers)
    if len(bounced.sizes) > IOV_MAX:
        fail(-errno.EMSGSIZE)  # as the kernel refuses so many iovecs
    fd, timeout = target(sock)
    if timeout:
        flags |= MSG_DONTWAIT
    reply = take(bounced.size, ancbufsize)
    answer = -errno.EINTR
    ancdata: Ancillary | None = None

    def attempt(fd: int) -> int:
        if flags & MSG_TRUNC:
            bounced.copy_in(reply.struct.data)
            base, size = [reply.struct.data], [bounced.size]
            return lib.lowsock_recvmsg_into(reply.struct, fd, base, size, 1, ancbufsize, flags)
        return _recvmsg(reply.struct, fd, bounced.size, ancbufsize, flags)

    try:
        answer = attempt(fd)
        if MORE < answer < 0:
            answer = retry(sock, flags, POLLIN, attempt, answer)
        size, ancdata, msg_flags, address = _decode_reply(reply, answer)
        bounced.copy_out(reply.struct.data, size)
        give(reply)
        return size, ancdata, msg_flags, address
    except BaseException:
        close_received(reply, ancdata)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def recv1msg(
    sock: Socket, maxsize: int = 8192, *, flags: int = 0, cmsg_size: int = _CMSG_SIZE
) -> tuple[bytes, int, Ancillary]:
    """Receives into one buffer, the short way; returns ``(data, msg_flags, ancillary)``.

    ``recv1msg(sock, size)`` does what ``sock.recv(size)`` does, with room for ``cmsg_size`` bytes of control data beside
    it. A peer on an ``AF_UNIX`` socket can put descriptors there unasked, and they are yours to close: pass
    ``cmsg_size=0`` where you expect none, and the kernel drops them.

    Twisted's ``recv1msg`` took flags where the size is here: a size of 0, which would lose a datagram, raises `ValueError`.
    Raises what `recvmsg` raises. See recvmsg(2).
    """
    space = _CMSG_SPACE if cmsg_size is _CMSG_SIZE else _space(cmsg_size)
    if type(maxsize) is not int or not 0 < maxsize <= INT_MAX:
        maxsize = _checked_maxsize(maxsize)
    if flags is not ZERO:
        return _receive(sock, maxsize, space, flags, short=True)
    plain = type(sock) is kinds.Socket
    if sock.gettimeout() if plain else type(sock) is not int and timeout_of(sock):
        return _receive(sock, maxsize, space, flags, short=True)
    try:
        entry = _free.pop()
    except IndexError as error:
        entry = new_entry(error)
    struct, view, reply = entry
    ancillary: Ancillary | None = None
    try:
        fd = sock.fileno() if plain else sock if type(sock) is int else fileno(sock)
        answer = _recvmsg(struct, fd, maxsize, space, 0)
        if answer >= 0:
            data, ancillary = view[: answer & _SIZE_MASK], []
            _free.append(entry)
            return data, 0, ancillary
        if answer <= MORE:
            info = _unpack(reply.info, MORE - answer)
            data = view[: info[0]]
            ancillary = decode(reply, info)
            if info[3]:
                struct.fd_count = 0  # ancillary has the descriptors now
            _free.append(entry)
            return data, info[1], ancillary
    except BaseException:
        close_received(reply, ancillary)
        check_descriptor(sock)
        raise
    _free.append(entry)  # nothing came
    return _receive(sock, maxsize, space, 0, answer, short=True)


def _checked_maxsize(maxsize: int) -> int:
    maxsize = checked_int("maxsize", maxsize, least=0, most=INT_MAX)
    if not maxsize:
        raise ValueError("maxsize must be at least 1: recv1msg() takes the size here, and flags by keyword: flags=0")
    return maxsize


def _space(cmsg_size: int) -> int:
    """The control room for so many bytes of payload; 0 for 0."""
    cmsg_size = checked_int("cmsg_size", cmsg_size, least=0, most=INT_MAX)
    return CMSG_SPACE(cmsg_size) if cmsg_size else 0
