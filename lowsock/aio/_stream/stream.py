# SPDX-License-Identifier: MIT
"""A stream that carries descriptors and credentials with its bytes, and whole messages. See unix(7)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from lowsock import cmsg
from lowsock._memory.buffers import as_bytes, viewed
from lowsock._message.owned import OwnedFds
from lowsock._message.receiving_owned_fds import recv_owned_fds
from lowsock._message.sending import sendmsg
from lowsock._message.sending_fds import send_fds
from lowsock._system.arguments import checked_int, iterated
from lowsock._system.constants import CONSTANTS, MSG_DONTWAIT
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock._system.target import target
from lowsock.aio._stream.incoming import HEADER, Incoming, Received
from lowsock.aio._wait.attempts import MODULES, attempt, descriptor, is_uncontended, reraise_unless_ours
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.task_lock import Lock
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable

    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, ControlMessage, HasFileno, Socket

    Arrival = tuple[bytes, OwnedFds, int, Address]

_SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)
_MAX_FDS = 2 * _SCM_MAX_FD  # those of one message, and of the next, whose beginning may come in the same receive
_MAX_MESSAGE = 2**20
_MAX_SIZE = 2**32 - 1
_EMPTY = memoryview(b"")
_CHUNK_SIZE = 2**18  # bytes that a receive into the buffer asks for, and that one system call sends


class UnixStream:
    """A connected ``AF_UNIX`` stream: bytes, and with them descriptors and credentials.

    ``sock`` is non-blocking: a socket object has the timeout 0. It is yours; `close` and ``with`` close it. Bytes and
    messages may follow each other in either direction, as the two ends agree. A stream serves one event loop, and any
    number of tasks in it: sends are whole, receives are whole, and each waits for those before it.

    Cancellation leaves nothing half done for good. A receive that is cancelled has taken nothing: the next one gets the
    bytes and descriptors that came. Of a send that is cancelled, either nothing was sent, or the rest is sent before
    anything else, or by `flush`; its descriptors went with its first byte. See unix(7).
    """

    def __init__(self, sock: Socket, *, max_fds: int = _MAX_FDS, max_message: int = _MAX_MESSAGE) -> None:
        """``max_fds``: how many descriptors may be here that nobody took. If more come, the stream is broken; 0 allows none.
        ``max_message``: the longest message that `receive_message` takes, in bytes.

        Raises `ValueError` for a socket that is not an ``AF_UNIX`` stream, or is blocking.
        """
        self._max_message = checked_int("max_message", max_message, least=0, most=_MAX_SIZE)
        self._incoming = Incoming(checked_int("max_fds", max_fds, least=0))
        _check(sock)
        self._sock = sock
        self._unsent = _EMPTY
        self._unsent_credentials: ControlMessage | None = None
        self._closed = False
        self._send_lock, self._receive_lock = Lock(), Lock()

    def fileno(self) -> int:
        """The socket's descriptor; -1 if the stream is closed."""
        return -1 if self._closed else target(self._sock)[0]

    def close(self) -> None:
        """Closes the socket, and descriptors that nobody took; drops bytes that nobody took, and the rest of a send that was
        cancelled. Calls that wait raise `OSError` (EBADF). You may call it again."""
        closed, self._closed = self._closed, True
        self._incoming.close()
        self._unsent = _EMPTY
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
        """Sends all of ``data``, with copies of ``fds`` at its first byte.

        ``fds`` are as `lowsock.send_fds` takes them, at most 253. ``credentials`` is a `cmsg.Credentials`: what the
        kernel tells the peer about the sender. Without it, a peer that asks gets the sender's own. Raises what
        `lowsock.send_fds` raises; if nothing had gone by then, nothing will. See `UnixStream` for cancellation.
        """
        items = fds if isinstance(fds, OwnedFds) else list(iterated("fds", "ints or objects with fileno()", fds))
        await self._send(as_bytes("data", data), items, credentials)

    async def send_message(
        self,
        data: Buffer,
        fds: Iterable[int | HasFileno] = (),
        credentials: ControlMessage | None = None,
    ) -> None:
        """Sends a message that `receive_message` returns whole, with its own descriptors. ``data`` may be empty.

        8 bytes go before it, in network order: its length, and how many descriptors come with the first of these bytes.
        Raises what `send` raises, and `ValueError` for more than 4 GiB.
        """
        items = fds if isinstance(fds, OwnedFds) else list(iterated("fds", "ints or objects with fileno()", fds))
        with viewed("data", data) as view:
            if view.nbytes > _MAX_SIZE:
                raise ValueError(f"data must not be more than {_MAX_SIZE} bytes: {view.nbytes}")
            message = b"".join((HEADER.pack(view.nbytes, len(items)), view))
        await self._send(message, items, credentials)

    async def flush(self) -> None:
        """Sends the rest of a send that was cancelled; does nothing if there is none."""
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._send_lock:
            await self._send_unsent()

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
        part = data if len(data) <= _CHUNK_SIZE else memoryview(data)[:_CHUNK_SIZE]
        sent = 0
        if not self._send_lock.locked and not self._unsent and not self._closed and is_uncontended(self._sock, WRITE):
            try:
                sent = self._send_call(part, fds, credentials)()
            except BlockingIOError as error:
                reraise_unless_ours(error)
        if sent < len(data):
            await self._send_rest(data, part, sent, fds, credentials)

    async def _send_rest(self, data: bytes, part: bytes | memoryview, sent: int, fds: Any, credentials: Any) -> None:
        """Sends what could not be sent at once. Nothing else was sent since."""
        async with self._send_lock:
            if not sent:
                await self._send_unsent()
                sent = await self._send_part(part, fds, credentials)
            if sent < len(data):
                self._unsent, self._unsent_credentials = memoryview(data)[sent:], credentials
                await self._send_unsent()

    async def _send_unsent(self) -> None:
        while self._unsent:
            sent = await self._send_part(self._unsent[:_CHUNK_SIZE], (), self._unsent_credentials)
            self._unsent = self._unsent[sent:]
        self._unsent = _EMPTY

    async def _send_part(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> int:
        """Sends as much as the kernel takes, as soon as it takes anything."""
        self._refuse_closed()
        return await attempt(self._sock, WRITE, self._send_call(data, fds, credentials))

    def _send_call(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> Callable[[], int]:
        if credentials is None:
            return lambda: send_fds(self._sock, [data], fds, MSG_DONTWAIT)
        ancdata = [credentials, cmsg.Rights(fds=fds)] if fds else [credentials]
        return lambda: sendmsg(self._sock, [data], ancdata, MSG_DONTWAIT)

    # ---- receiving ----

    async def receive(self, max_bytes: int = 65536) -> Received:
        """Receives 1 to ``max_bytes`` bytes, with the descriptors that came with them; no bytes at the end of the stream.

        Returns `Received`, as the kernel separates it: it ends after bytes that brought descriptors and, while the socket
        asks for credentials, before another sender's bytes. Descriptors can belong to any byte of it. Raises `BrokenStream`
        if more descriptors came than ``max_fds``, or some were lost. Also raises the kernel's `OSError`.
        """
        if checked_int("max_bytes", max_bytes, least=0) == 0:
            raise ValueError("max_bytes must be more than 0: no bytes mean the end")
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._can_receive_now():
            try:
                return self._incoming.pass_through(*self._recv(max_bytes))
            except BlockingIOError as error:
                reraise_unless_ours(error)
        async with self._receive_lock:
            self._refuse_closed()
            if self._incoming:
                return self._incoming.take_some(max_bytes)
            self._incoming.refuse_broken()
            return self._incoming.pass_through(*await self._recv_when_ready(max_bytes))

    async def receive_exactly(self, size: int) -> bytes:
        """Receives ``size`` bytes of one sender. Their descriptors wait for `take_fds`.

        Raises `EOFError` if the stream ends before; `receive` still returns what came. Raises `BrokenStream` when `receive`
        does, and, if the socket asks for credentials, for bytes of several senders.
        """
        size = checked_int("size", size, least=0)
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._receive_lock:
            await self._fill_or_raise(size)
            return self._incoming.take(size)

    async def peek_exactly(self, size: int) -> bytes:
        """Returns the bytes that `receive_exactly` would return, and leaves them in the stream.

        For messages that begin with their own length: peek at the length, then receive the whole message. A cancellation
        between the two takes nothing. Raises what `receive_exactly` raises.
        """
        size = checked_int("size", size, least=0)
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._receive_lock:
            await self._fill_or_raise(size)
            return self._incoming.peek(size)

    def take_fds(self, count: int = 0) -> OwnedFds:
        """Takes the next ``count`` descriptors that came with the bytes which `receive_exactly` returned.

        Call it at the end of each message of a protocol, with the count from the message. Other descriptors that came with
        bytes which have all been returned are surplus, and are closed. Raises `BrokenStream` if fewer came.
        """
        self._incoming.refuse_broken()
        return self._incoming.take_fds(checked_int("count", count, least=0))

    @property
    def credentials(self) -> cmsg.ControlMessage | None:
        """Who sent the bytes that came last (`Received.credentials`)."""
        return self._incoming.credentials

    async def receive_message(self) -> Received | None:
        """Receives a message of `send_message`, with its descriptors and its sender; returns None at the end of the stream.

        Surplus descriptors are closed. Raises `BrokenStream` if the stream ends within a message, and for one that is longer
        than ``max_message``, promises more descriptors than came, or has bytes of another sender in it.
        """
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._can_receive_now():
            try:
                message = self._incoming.pass_message(self._max_message, *self._recv(_CHUNK_SIZE))
            except BlockingIOError as error:
                reraise_unless_ours(error)
            else:
                if message is not None:
                    return message
        return await self._receive_message()

    async def _receive_message(self) -> Received | None:
        async with self._receive_lock:
            if not await self._fill(HEADER.size):
                self._refuse_partial()
                return None
            size, count = HEADER.unpack(self._incoming.peek(HEADER.size))
            if size > self._max_message:
                self._incoming.fail(f"a message of {size} bytes is to come: max_message is {self._max_message}")
            if not await self._fill(HEADER.size + size):
                self._refuse_partial()
            data = self._incoming.take(HEADER.size + size)[HEADER.size :]
            return Received(data, self._incoming.take_fds(count), self._incoming.credentials)

    async def _fill_or_raise(self, size: int) -> None:
        if not await self._fill(size):
            raise EOFError(f"the stream ended after {len(self._incoming)} of {size} bytes")

    async def _fill(self, size: int) -> bool:
        """Receives into the buffer until it has ``size`` bytes; returns False if the stream ends before."""
        self._refuse_closed()
        self._incoming.refuse_broken()
        while len(self._incoming) < size:
            arrival = await self._recv_when_ready(_CHUNK_SIZE)
            if not arrival[0]:
                arrival[1].close()
                return False
            self._incoming.add(*arrival)
        return True

    def _can_receive_now(self) -> bool:
        """Whether the next bytes are in the socket, and nobody waits for them."""
        if self._receive_lock.locked or self._closed:
            return False
        return self._incoming.can_pass_through and is_uncontended(self._sock, READ)

    def _recv(self, size: int) -> Arrival:
        return recv_owned_fds(self._sock, size, _SCM_MAX_FD, MSG_DONTWAIT)

    async def _recv_when_ready(self, size: int) -> Arrival:
        return await attempt(self._sock, READ, lambda: self._recv(size))

    def _refuse_partial(self) -> None:
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
