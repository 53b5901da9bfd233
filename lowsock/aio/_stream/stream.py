# SPDX-License-Identifier: MIT
"""An awaitable stream that carries descriptors and credentials with its bytes, and whole messages. See unix(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import checked_int
from lowsock._system.constants import MSG_DONTWAIT
from lowsock.aio._wait.attempts import MODULES, attempt, descriptor, is_uncontended, reraise_unless_ours
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.task_lock import Lock
from lowsock.aio._wait.trio import checkpoint, is_trio
from lowsock.aio._wait.waiters import READ, WRITE
from lowsock.unix._base import CHUNK_SIZE, EMPTY, MAX_FDS, MAX_MESSAGE, Stream, checked_fds, checked_max_bytes
from lowsock.unix._incoming import HEADER_SIZE, UnixMessage, encode_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Buffer, ControlMessage, HasFileno, Socket
    from lowsock.unix._base import Arrival


class UnixStream(Stream):
    """A connected ``AF_UNIX`` stream: bytes, and with them descriptors and credentials.

    ``sock`` is non-blocking: a socket object has the timeout 0. The stream owns it: `close`, `aclose`, ``with`` and ``async
    with`` close it. Bytes and messages may follow each other in either direction, as the two ends agree. A stream serves one
    event loop, and any number of tasks in it: sends are whole, receives are whole, and each waits for those before it.

    Cancellation leaves nothing half done for good. A receive that is cancelled has taken nothing: the next one gets the
    bytes and descriptors that came. Of a send that is cancelled, either nothing was sent, or the rest is sent before
    anything else, or by `flush`; its descriptors went with its first byte. See unix(7).
    """

    def __init__(self, sock: Socket, *, max_fds: int = MAX_FDS, max_message: int = MAX_MESSAGE) -> None:
        """``max_fds``: how many descriptors may be here that nobody took. If more come, the stream is broken; 0 allows none.
        ``max_message``: the longest message that `receive_message` takes, in bytes.

        Raises `ValueError` for a socket that is not an ``AF_UNIX`` stream, or is blocking.
        """
        descriptor(sock)
        super().__init__(sock, max_fds, max_message)
        self._send_lock, self._receive_lock = Lock(), Lock()

    def close(self) -> None:
        """Closes the socket, and descriptors that nobody took; drops bytes that nobody took, and the rest of a send that was
        cancelled. Calls that wait raise `OSError` (EBADF). You may call it again."""
        self._close(close)

    async def aclose(self) -> None:
        """As `close`, which waits for nothing; on trio a checkpoint follows. If it is cancelled, the stream is closed."""
        self.close()
        if "trio" in MODULES and is_trio():
            await checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ---- sending ----

    async def send(
        self, data: Buffer, fds: Iterable[int | HasFileno] = (), credentials: ControlMessage | None = None
    ) -> None:
        """Sends all of ``data``, with copies of ``fds`` at its first byte.

        ``fds`` are as `lowsock.send_fds` takes them, at most 253. ``credentials`` is a `cmsg.Credentials`: what the
        kernel tells the peer about the sender. Without it, a peer that asks gets the sender's own. Raises what
        `lowsock.send_fds` raises; if nothing had gone by then, nothing will. See `UnixStream` for cancellation.
        """
        await self._send(as_bytes("data", data), checked_fds(fds), credentials)

    async def send_message(
        self, data: Buffer, fds: Iterable[int | HasFileno] = (), credentials: ControlMessage | None = None
    ) -> None:
        """Sends a message that `receive_message` returns whole, with its own descriptors. ``data`` may be empty.

        8 bytes go before it, in network order: its length, and how many descriptors come with the first of these bytes.
        Raises what `send` raises, and `ValueError` for more than 4 GiB.
        """
        items = checked_fds(fds)
        await self._send(encode_message(data, len(items)), items, credentials)

    async def flush(self) -> None:
        """Sends the rest of a send that was cancelled; does nothing if there is none."""
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._send_lock:
            await self._send_unsent()

    async def send_eof(self) -> None:
        """Tells the peer that nothing more will come, after all sends before this one: it then receives no bytes. You may
        still receive. A later send raises `BrokenPipeError`. If it is cancelled, nothing was told. See shutdown(2)."""
        if "trio" in MODULES and is_trio():
            await checkpoint()
        async with self._send_lock:
            await self._send_unsent()
            self._shut_down()

    async def _send(self, data: bytes, fds: Any, credentials: ControlMessage | None) -> None:
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if not data:
            if fds:
                raise ValueError("fds need a byte of data: a stream would lose them")
            return
        part = data if len(data) <= CHUNK_SIZE else memoryview(data)[:CHUNK_SIZE]
        sent = 0
        if not self._send_lock.locked and not self._unsent and not self._closed and is_uncontended(self._sock, WRITE):
            try:
                sent = self._send_call(part, fds, credentials, MSG_DONTWAIT)()
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
            sent = await self._send_part(self._unsent[:CHUNK_SIZE], (), self._unsent_credentials)
            self._unsent = self._unsent[sent:]
        self._unsent = EMPTY

    async def _send_part(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> int:
        """Sends as much as the kernel takes, as soon as it takes anything."""
        self._refuse_closed()
        return await attempt(self._sock, WRITE, self._send_call(data, fds, credentials, MSG_DONTWAIT))

    # ---- receiving ----

    async def receive(self, max_bytes: int = 65536) -> UnixMessage:
        """Receives 1 to ``max_bytes`` bytes, with the descriptors that came with them; no bytes at the end of the stream.

        Returns a `UnixMessage`, as the kernel separates it: it ends after bytes that brought descriptors and, while the
        socket asks for credentials, before another sender's bytes. Descriptors can belong to any byte of it. Raises
        `BrokenStreamError` if more descriptors came than ``max_fds``, or some were lost. Also raises the kernel's `OSError`.
        """
        checked_max_bytes(max_bytes)
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._can_receive_now():
            try:
                return self._incoming.pass_through(*self._recv(max_bytes, MSG_DONTWAIT))
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

        Raises `EOFError` if the stream ends before; `receive` still returns what came. Raises `BrokenStreamError` when
        `receive` does, and, if the socket asks for credentials, for bytes of several senders.
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

    async def receive_message(self) -> UnixMessage | None:
        """Receives a message of `send_message`, with its descriptors and its sender; returns None at the end of the stream.

        Surplus descriptors are closed. Raises `BrokenStreamError` if the stream ends within a message, and for one that is
        longer than ``max_message``, promises more descriptors than came, or has bytes of another sender in it.
        """
        if "trio" in MODULES and is_trio():
            await checkpoint()
        if self._can_receive_now():
            try:
                message = self._incoming.pass_message(self._max_message, *self._recv(CHUNK_SIZE, MSG_DONTWAIT))
            except BlockingIOError as error:
                reraise_unless_ours(error)
            else:
                if message is not None:
                    return message
        return await self._receive_message()

    async def _receive_message(self) -> UnixMessage | None:
        async with self._receive_lock:
            if not await self._fill(HEADER_SIZE):
                self._incoming.refuse_partial()
                return None
            size, count = self._incoming.read_header(self._max_message)
            if not await self._fill(HEADER_SIZE + size):
                self._incoming.refuse_partial()
            return self._incoming.take_message(size, count)

    async def _fill_or_raise(self, size: int) -> None:
        if not await self._fill(size):
            self._incoming.end_before(size)

    async def _fill(self, size: int) -> bool:
        """Receives into the buffer until it has ``size`` bytes; returns False if the stream ends before."""
        self._refuse_closed()
        self._incoming.refuse_broken()
        while len(self._incoming) < size:
            arrival = await self._recv_when_ready(CHUNK_SIZE)
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

    async def _recv_when_ready(self, size: int) -> Arrival:
        return await attempt(self._sock, READ, lambda: self._recv(size, MSG_DONTWAIT))
