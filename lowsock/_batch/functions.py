# SPDX-License-Identifier: MIT
"""Many messages in one call: sendmmsg(2), recvmmsg(2).

Both begin with the commonest case written out, as `sendmsg` and `recvmsg` do. Here that is passes over the whole batch that
run in C: a Python loop would take each step of the interpreter once for each message. docs/design.md has the figures.
"""

from __future__ import annotations

from _socket import SO_TYPE, SOCK_STREAM, SOL_SOCKET
from operator import itemgetter

from lowsock._batch.inbox import CONTROL, COUNT, give, take
from lowsock._batch.outbox import BATCH, JOIN_SIZE, PIECES, SHAPE, Outbox, deliver, encode_named, send_pieces
from lowsock._memory.address import family_of
from lowsock._memory.ancillary import NO_ANCDATA
from lowsock._memory.closing import close_all, descriptors
from lowsock._message.receiving import recvmsg
from lowsock._message.sending import sendmsg
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX, ZERO, checked_int, iterated
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from lowsock._system.types import Address, Message, Received, Socket

_SEQUENCES = {tuple, list}
_BYTES = {bytes}
_ONE, _THREE = {1}, {3}
_ONE_MESSAGE = 1  # compared by identity, as `ZERO`
_first = itemgetter(0)
_send_joined = lib.lowsock_send_joined
_NO_OUTBOX = ffi.NULL


def sendmmsg(sock: Socket, messages: Iterable[Message], flags: int = 0) -> int:
    """Sends many messages, 1024 by each system call; returns how many the kernel took.

    A message is ``(buffers[, ancdata[, address]])``, each as in `sendmsg`, but addresses are numeric: a host name raises
    `ValueError`. All are checked before the first is sent; the error names the wrong one.

    Fewer than all go if the kernel refuses one, has no room for it or is interrupted: what was returned is what went, and
    the rest is yours to send again. Only for the first message is waited, as long as `sendmsg` would; an error of a later
    one is raised by the next call. A stream that takes a part of a message is waited for with the rest of it; if that
    fails, the exception's ``characters_written`` counts the bytes of all messages that went.

    Raises what `sendmsg` raises. See sendmmsg(2).
    """
    own = messages if type(messages) is list else listed(messages)
    if len(own) == 1 and (piece := _lone(own[0])) is not None:
        return _send_lone(sock, piece, flags)
    if 0 < len(own) <= BATCH and _type_of(sock) != SOCK_STREAM:
        found = _plain(own)
        if found is not None:
            return _send_plain(sock, *found, 0 if flags is ZERO else checked_int("flags", flags))
    flags = checked_int("flags", flags)
    return _send(sock, Outbox(sock).encode(own if own is not messages else own.copy()), flags, 0)


def _type_of(sock: Socket) -> int:
    """SOCK_STREAM and so on, or -errno."""
    return (
        kinds.type_of(sock)
        if issubclass(type(sock), kinds.Base)
        else lib.lowsock_option(target(sock)[0], SOL_SOCKET, SO_TYPE)
    )


def _lone(message: Any) -> bytes | None:
    """The buffer of a message that is one ``bytes`` and nothing else, for `sendmsg` to send; else None."""
    if type(message) is tuple and len(message) == 1 and type(buffers := message[0]) is list and len(buffers) == 1:
        return buffers[0] if type(buffers[0]) is bytes else None
    return None


def _send_lone(sock: Socket, piece: bytes, flags: int) -> int:
    sent = sendmsg(sock, [piece], NO_ANCDATA, flags)
    if sent == len(piece):
        return 1
    return _send(sock, Outbox(sock).take([piece], []), checked_int("flags", flags), sent * (COUNT + 1))


def _plain(messages: list[Any]) -> tuple[list[bytes], Sequence[Address]] | None:
    """The buffers of messages that are one ``bytes`` each, and their addresses if they have any; None if some are not. The
    passes run in C and call no code of the user's."""
    if not {*map(type, messages)} <= _SEQUENCES:
        return None
    lengths = {*map(len, messages)}
    buffers: Sequence[Any]
    addresses: Sequence[Address] = ()
    if lengths == _ONE:
        buffers = list(map(_first, messages))
    elif lengths == _THREE:
        buffers, ancdata, addresses = zip(*messages)
        if not {*map(type, ancdata)} <= _SEQUENCES or any(ancdata):
            return None
    else:
        return None
    if not {*map(type, buffers)} <= _SEQUENCES or {*map(len, buffers)} != _ONE:
        return None
    pieces = list(map(_first, buffers))
    return (pieces, addresses) if {*map(type, pieces)} == _BYTES else None


def _send_plain(sock: Any, pieces: list[bytes], addresses: Sequence[Address], flags: int) -> int:
    """Sends messages that `_plain` has unpacked, 1024 at most."""
    names: list[bytes] = []
    if addresses:
        family = family_of(sock)
        several = addresses if {*map(id, addresses)} != {id(addresses[0])} else addresses[:1]
        names = [b"" if address is None else encode_named(i, family, address) for i, address in enumerate(several)]
    answer = 0
    if len(names) <= 1:
        name = names[0] if names else b""
        fd, timeout = target(sock)
        answer = _send_at_once(fd, pieces, name, flags | MSG_DONTWAIT if timeout else flags)
        if 0 < answer <= COUNT:
            return answer
    return _send(sock, Outbox(sock).take(pieces, names * len(pieces) if len(names) == 1 else names), flags, answer)


def _send_at_once(fd: int, pieces: list[bytes], name: bytes, flags: int) -> int:
    """Sends messages of one piece to one address, if one call can take them; returns 0 if not."""
    count = len(pieces)
    sizes = [*{*map(len, pieces)}]
    if len(sizes) > 1:
        sizes = list(map(len, pieces))
    if max(sizes) > INT_MAX:
        return 0  # C takes each size as an int
    if count <= PIECES:
        return send_pieces(_NO_OUTBOX, 0, 0, pieces, sizes, name, fd, flags)
    data = b"".join(pieces)
    if len(data) > JOIN_SIZE * count:
        return 0
    return _send_joined(_NO_OUTBOX, 0, 0, count, sizes, len(sizes), name, len(name), fd, flags, data)


def listed(messages: Iterable[Any]) -> list[Any]:
    """The messages in a list of our own."""
    if isinstance(messages, (bytes, bytearray, memoryview, str)):
        raise TypeError(f"messages must be an iterable of {SHAPE}, not {type(messages).__name__}")
    return list(iterated("messages", SHAPE, messages))


def _send(sock: Socket, outbox: Outbox, flags: int, answer: int) -> int:
    """Sends any messages. ``answer`` is that of a first attempt: -errno, or where the cursor is now."""
    struct, count = outbox.struct, outbox.count
    try:
        if answer > 0:
            struct.partial, struct.next = divmod(answer, COUNT + 1)
        elif count:
            deliver(outbox, count, sock, flags, answer)
        while struct.partial:
            deliver(outbox, count, sock, flags)
        return int(struct.next)
    except OSError as error:
        if struct.partial:
            error.characters_written = outbox.bytes_sent()  # type: ignore[attr-defined]
        raise
    finally:
        outbox.release()


def recvmmsg(
    sock: Socket, vlen: int, bufsize: int, ancbufsize: int = 0, flags: int = 0, *, wait_all: bool = False
) -> list[Received]:
    """Receives up to ``vlen`` messages; returns a list of what `recvmsg` returns, ``(data, ancdata, msg_flags, address)``.

    Each has ``bufsize`` bytes of room for data and ``ancbufsize`` for control messages. Only the first is waited for, as
    `recvmsg` would; the rest is what is there already. With ``wait_all`` all are waited for, and fewer come only when the
    socket's time is up, nothing more can come (it was shut down, or the peer has closed), an error is pending or its error
    queue is not empty. An error after the first message is kept by the kernel for the next call. With ``MSG_PEEK`` the
    kernel looks at the first message each time: it comes ``vlen`` times, with descriptors of its own each time.

    Received descriptors are close-on-exec and yours from the return on; if anything is raised before, all are closed.
    Raises what `recvmsg` raises. See recvmmsg(2).
    """
    if vlen is _ONE_MESSAGE and flags is ZERO:
        return [recvmsg(sock, bufsize, ancbufsize)]
    plain = type(vlen) is type(bufsize) is type(ancbufsize) is type(flags) is int
    if not (plain and 0 < vlen <= COUNT and 0 <= bufsize <= INT_MAX and 0 <= ancbufsize <= INT_MAX >= flags > -INT_MAX):
        vlen = checked_int("vlen", vlen, least=0, most=COUNT)
        bufsize = checked_int("bufsize", bufsize, least=0)
        ancbufsize, flags = checked_int("ancbufsize", ancbufsize, least=0), checked_int("flags", flags)
    if not vlen:
        return []
    inbox = take(vlen, bufsize, ancbufsize)
    messages: list[Received] | None = None
    try:
        answer = inbox.receive(sock, vlen, bufsize, ancbufsize, flags, bool(wait_all))
        messages = inbox.messages(answer)
        if answer & CONTROL:
            lib.lowsock_inbox_forget(inbox.struct)  # messages has them now
        give(inbox)
        return messages
    except BaseException:
        if messages is None:
            lib.lowsock_inbox_close(inbox.struct)
            give(inbox)
        else:
            close_all([fd for message in messages for fd in descriptors(message[1])])
        raise
