# SPDX-License-Identifier: MIT
"""Descriptors and credentials on a stream, beside bytes, and messages on it. See unix(7)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from lowsock import cmsg
from lowsock._memory.buffers import as_bytes, viewed
from lowsock._message.owned import OwnedFds
from lowsock._message.rights import recv_rights, send_rights
from lowsock._message.sending import sendmsg
from lowsock._system.arguments import checked_int, iterated
from lowsock._system.constants import CONSTANTS, MSG_DONTWAIT
from lowsock._system.descriptor import target
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock.aio._stream.incoming import HEADER, Incoming, Received
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.lock import Lock
from lowsock.aio._wait.queue import READ, WRITE
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiting import MODULES, attempt, descriptor, is_uncontended, reraise_unless_ours

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, ControlMessage, HasFileno, Socket

    Arrival = tuple[bytes, OwnedFds, int, Address]

_SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)
_MAX_FDS = 2 * _SCM_MAX_FD  # a message's, and those of the next one, whose beginning may come in the same receive
_MAX_MESSAGE = 2**20
_MOST = 2**32 - 1
_NOTHING = memoryview(b"")
_AHEAD = 2**18  # bytes: what a receive into the buffer asks for, and what one system call sends


class UnixStream:
    """A connected ``AF_UNIX`` stream: bytes, and with them descriptors and credentials.

    ``sock`` does not block: a socket object has the timeout 0. It is yours; `close` and ``with`` close it. Bytes and
    messages may follow each other in either direction, as the two ends agree. A stream serves one event loop, there any
    number of tasks: sends are whole, receives are whole, and each waits for those before it.

    What was cancelled is never half done for good. A receive that is cancelled has taken nothing: bytes and descriptors
    that came are there for the next. Of a send that is cancelled either nothing has gone, or its rest goes before anything
    else that is sent, or with `flush`; its descriptors went with its first byte. See unix(7).
    """

    def __init__(self, sock: Socket, *, max_fds: int = _MAX_FDS, max_message: int = _MAX_MESSAGE) -> None:
        """``max_fds``: how many descriptors may be here that nobody took; if more come the stream is broken, so 0 is for
        those who want none. ``max_message``: the longest message that `receive_message` takes, in bytes.

        Raises `ValueError` for a socket that is not an ``AF_UNIX`` stream, or blocks.
        """
        self._max_message = checked_int("max_message", max_message, least=0, most=_MOST)
        self._incoming = Incoming(checked_int("max_fds", max_fds, least=0))
        _check(sock)
        self._sock = sock
        self._unsent = _NOTHING
        self._unsent_as: ControlMessage | None = None
        self._closed = False
        self._send_lock, self._receive_lock = Lock(), Lock()

    def fileno(self) -> int:
        """The socket's descriptor; -1 of a closed stream."""
        return -1 if self._closed else target(self._sock)[0]

    def close(self) -> None:
        """Closes the socket, and descriptors that nobody took; drops bytes that nobody took, and the rest of a send that was
        cancelled. Whoever waits gets an `OSError` (EBADF). It may be called again."""
        closed, self._closed = self._closed, True
        self._incoming.close()
        self._unsent = _NOTHING
        if not closed:
            close(self._sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- sending ----

    async def send(
        self,
        data: Buffer,
        fds: Iterable[int | HasFileno] = (),
        credentials: ControlMessage | None = None,
    ) -> None:
        """Sends all of ``data``, with copies of ``fds`` beside its first byte.

        ``fds`` are as `lowsock.send_rights` takes them, at most 253. ``credentials`` is a `cmsg.Credentials`: what the
        kernel is to tell of the sender; a peer that asks for them gets the sender's own without. Raises what
        `lowsock.send_rights` raises; where nothing has gone, nothing will. See `UnixStream` for cancellation.
        """
        items = fds if isinstance(fds, OwnedFds) else list(iterated("fds", "ints or objects with fileno()", fds))
        await self._send(as_bytes("data", data), items, credentials)

    async def send_message(
        self,
        data: Buffer,
        fds: Iterable[int | HasFileno] = (),
        credentials: ControlMessage | None = None,
    ) -> None:
        """Sends a message that `receive_message` gives whole, with its own descriptors. ``data`` may be empty.

        Before it go 8 bytes, in network order: its length, and how many descriptors came with the first of these bytes.
        Raises what `send` raises, and `ValueError` for more than 4 GiB.
        """
        items = fds if isinstance(fds, OwnedFds) else list(iterated("fds", "ints or objects with fileno()", fds))
        with viewed("data", data) as view:
            if view.nbytes > _MOST:
                raise ValueError(f"data must not be more than {_MOST} bytes: {view.nbytes}")
            message = b"".join((HEADER.pack(view.nbytes, len(items)), view))
        await self._send(message, items, credentials)

    async def flush(self) -> None:
        """Sends the rest of a send that was cancelled; does nothing where there is none."""
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._send_lock:
            await self._finish()

    @property
    def unsent(self) -> int:
        """How many bytes are left of a send that was cancelled in the middle."""
        return len(self._unsent)

    async def _send(self, data: bytes, fds: Any, credentials: ControlMessage | None) -> None:
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if not data:
            if fds:
                raise ValueError("fds need a byte of data: a stream would lose them")
            return
        part = data if len(data) <= _AHEAD else memoryview(data)[:_AHEAD]
        sent = 0
        if not self._send_lock.locked and not self._unsent and not self._closed and is_uncontended(self._sock, WRITE):
            try:
                sent = self._at_once(part, fds, credentials)()
            except BlockingIOError as error:
                reraise_unless_ours(error)
        if sent < len(data):
            await self._send_on(data, part, sent, fds, credentials)

    async def _send_on(self, data: bytes, part: bytes | memoryview, sent: int, fds: Any, credentials: Any) -> None:
        """What could not be sent at once; nobody has sent anything since."""
        async with self._send_lock:
            if not sent:
                await self._finish()
                sent = await self._part(part, fds, credentials)
            if sent < len(data):
                self._unsent, self._unsent_as = memoryview(data)[sent:], credentials
                await self._finish()

    async def _finish(self) -> None:
        while self._unsent:
            sent = await self._part(self._unsent[:_AHEAD], (), self._unsent_as)
            self._unsent = self._unsent[sent:]
        self._unsent = _NOTHING

    async def _part(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> int:
        """Sends what the kernel takes now, or as soon as it takes anything."""
        self._refuse_closed()
        return await attempt(self._sock, WRITE, self._at_once(data, fds, credentials))

    def _at_once(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> Callable[[], int]:
        if credentials is None:
            return lambda: send_rights(self._sock, [data], fds, MSG_DONTWAIT)
        ancdata = [credentials, cmsg.Rights(fds=fds)] if fds else [credentials]
        return lambda: sendmsg(self._sock, [data], ancdata, MSG_DONTWAIT)

    # ---- receiving ----

    async def receive(self, max_bytes: int = 65536) -> Received:
        """At least one byte and at most ``max_bytes``, with the descriptors that came with them; no bytes at the end.

        Returns `Received`, as the kernel keeps it apart: it ends behind bytes that brought descriptors, and, while the
        socket asks for credentials, where another sender's bytes begin. Descriptors can belong to any byte of it. Raises
        `BrokenStream` if more came than ``max_fds`` of the stream, or some were lost; `OSError` as the kernel says it.
        """
        if checked_int("max_bytes", max_bytes, least=0) == 0:
            raise ValueError("max_bytes must be more than 0: no bytes mean the end")
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._may_receive():
            try:
                return self._incoming.pass_on(*self._arrived(max_bytes))
            except BlockingIOError as error:
                reraise_unless_ours(error)
        async with self._receive_lock:
            self._refuse_closed()
            if self._incoming:
                return self._incoming.take_some(max_bytes)
            self._incoming.refuse_broken()
            return self._incoming.pass_on(*await self._arrival(max_bytes))

    async def receive_exactly(self, size: int) -> bytes:
        """So many bytes of one sender. Their descriptors wait for `take_fds`.

        Raises `EOFError` if the stream ends before; what came stays for `receive`. Also raises `BrokenStream`: as `receive`
        does, and for bytes of several senders, where the socket asks for credentials.
        """
        size = checked_int("size", size, least=0)
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._receive_lock:
            await self._fill(size)
            return self._incoming.take(size)

    async def peek_exactly(self, size: int) -> bytes:
        """The same bytes that `receive_exactly` would return, which stay.

        For a message that begins with its own length: look at that, and then receive all of it, so that a cancellation
        between the two takes nothing. Raises what `receive_exactly` raises.
        """
        size = checked_int("size", size, least=0)
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._receive_lock:
            await self._fill(size)
            return self._incoming.peek(size)

    def take_fds(self, count: int = 0) -> OwnedFds:
        """The next ``count`` descriptors that came with the bytes which `receive_exactly` returned.

        To be called at the end of each message of a protocol, with the count that the message told: what else came with
        bytes that have all been returned is surplus, and is closed. If fewer came, the stream is broken (`BrokenStream`).
        """
        self._incoming.refuse_broken()
        return self._incoming.take_fds(checked_int("count", count, least=0))

    @property
    def credentials(self) -> cmsg.ControlMessage | None:
        """Who sent the bytes that came last (`Received.credentials`)."""
        return self._incoming.credentials

    async def receive_message(self) -> Received | None:
        """The next message, as `send_message` sent it, with its descriptors and its sender; None at the end of the stream.

        Surplus descriptors are closed. Raises `BrokenStream` if the stream ends within a message, and for one that is longer
        than ``max_message``, tells more descriptors than came, or has bytes of another sender in it.
        """
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._may_receive():
            try:
                message = self._incoming.pass_message(self._max_message, *self._arrived(_AHEAD))
            except BlockingIOError as error:
                reraise_unless_ours(error)
            else:
                if message is not None:
                    return message
        return await self._message()

    async def _message(self) -> Received | None:
        async with self._receive_lock:
            if not await self._filled(HEADER.size):
                self._refuse_cut()
                return None
            size, count = HEADER.unpack(self._incoming.peek(HEADER.size))
            if size > self._max_message:
                self._incoming.fail(f"a message of {size} bytes is to come: max_message is {self._max_message}")
            if not await self._filled(HEADER.size + size):
                self._refuse_cut()
            data = self._incoming.take(HEADER.size + size)[HEADER.size :]
            return Received(data, self._incoming.take_fds(count), self._incoming.credentials)

    async def _fill(self, size: int) -> None:
        if not await self._filled(size):
            raise EOFError(f"the stream ended after {len(self._incoming)} of {size} bytes")

    async def _filled(self, size: int) -> bool:
        """Whether so many bytes are here; if not, the stream has ended."""
        self._refuse_closed()
        self._incoming.refuse_broken()
        while len(self._incoming) < size:
            arrival = await self._arrival(_AHEAD)
            if not arrival[0]:
                arrival[1].close()
                return False
            self._incoming.add(*arrival)
        return True

    def _may_receive(self) -> bool:
        """Whether the next bytes are in the socket, and nobody waits for them."""
        if self._receive_lock.locked or self._closed:
            return False
        return self._incoming.may_be_passed and is_uncontended(self._sock, READ)

    def _arrived(self, size: int) -> Arrival:
        return recv_rights(self._sock, size, _SCM_MAX_FD, MSG_DONTWAIT)

    async def _arrival(self, size: int) -> Arrival:
        return await attempt(self._sock, READ, lambda: self._arrived(size))

    def _refuse_cut(self) -> None:
        if self._incoming:
            self._incoming.fail(f"the stream ended within a message, {len(self._incoming)} bytes after it began")

    def _refuse_closed(self) -> None:
        if self._closed:
            fail(-errno.EBADF)


def _check(sock: Socket) -> None:
    fd = descriptor(sock)
    kind = lib.lowsock_option(fd, CONSTANTS["SOL_SOCKET"], CONSTANTS["SO_TYPE"])
    if kind < 0:
        fail(kind)
    if kind != socket.SOCK_STREAM or lib.lowsock_family(fd) != socket.AF_UNIX:
        raise ValueError("sock must be an AF_UNIX stream")
