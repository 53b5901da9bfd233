# SPDX-License-Identifier: MIT
"""A blocking stream that carries descriptors and credentials with its bytes, and whole messages. See unix(7)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import checked_int
from lowsock.unix._base import CHUNK_SIZE, EMPTY, MAX_FDS, MAX_MESSAGE, Stream, checked_fds, checked_max_bytes
from lowsock.unix._incoming import HEADER_SIZE, encode_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Buffer, ControlMessage, HasFileno, Socket
    from lowsock.unix._incoming import UnixMessage


class UnixStream(Stream):
    """A connected ``AF_UNIX`` stream: bytes, and with them descriptors and credentials.

    The stream owns ``sock``: `close` and ``with`` close it. Each call waits as the socket's timeout says (a bare descriptor:
    as its file flags say). Bytes and messages may follow each other in either direction, as the two ends agree. One thread
    may send while another one receives; two that send, or two that receive, need a lock of yours.

    A timeout leaves nothing half done for good, nor does an exception of a signal handler that comes while a call waits. A
    receive has taken nothing then: the next one gets the bytes and descriptors that came. Of a send, either nothing was
    sent, or the rest is sent before anything else, or by `flush`; its descriptors went with its first byte.
    `lowsock.aio.UnixStream` is the same, awaitable. See unix(7).
    """

    def __init__(self, sock: Socket, *, max_fds: int = MAX_FDS, max_message: int = MAX_MESSAGE) -> None:
        """``max_fds``: how many descriptors may be here that nobody took. If more come, the stream is broken; 0 allows none.
        ``max_message``: the longest message that `receive_message` takes, in bytes.

        Raises `ValueError` for a socket that is not an ``AF_UNIX`` stream.
        """
        super().__init__(sock, max_fds, max_message)

    def close(self) -> None:
        """Closes the socket, and descriptors that nobody took; drops bytes that nobody took, and the rest of a send that was
        interrupted. You may call it again."""
        self._close(_close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- sending ----

    def send(self, data: Buffer, fds: Iterable[int | HasFileno] = (), credentials: ControlMessage | None = None) -> None:
        """Sends all of ``data``, with copies of ``fds`` at its first byte.

        ``fds`` are as `lowsock.send_fds` takes them, at most 253. ``credentials`` is a `cmsg.Credentials`: what the kernel
        tells the peer about the sender. Without it, a peer that asks gets the sender's own. Raises what `lowsock.send_fds`
        raises; see `UnixStream` for what a timeout leaves. See sendmsg(2), unix(7).
        """
        self._send(as_bytes("data", data), checked_fds(fds), credentials)

    def send_message(
        self, data: Buffer, fds: Iterable[int | HasFileno] = (), credentials: ControlMessage | None = None
    ) -> None:
        """Sends a message that `receive_message` returns whole, with its own descriptors. ``data`` may be empty.

        8 bytes go before it, in network order: its length, and how many descriptors come with the first of these bytes.
        Raises what `send` raises, and `ValueError` for more than 4 GiB. See sendmsg(2), unix(7).
        """
        items = checked_fds(fds)
        self._send(encode_message(data, len(items)), items, credentials)

    def flush(self) -> None:
        """Sends the rest of a send that was interrupted; does nothing if there is none. See sendmsg(2)."""
        while self._unsent:
            sent = self._send_part(self._unsent[:CHUNK_SIZE], (), self._unsent_credentials)
            self._unsent = self._unsent[sent:]
        self._unsent = EMPTY

    def send_eof(self) -> None:
        """Tells the peer that nothing more will come, after the rest of a send that was interrupted: it then receives no
        bytes. You may still receive. A later send raises `BrokenPipeError`. See shutdown(2)."""
        self.flush()
        self._shut_down()

    def _send(self, data: bytes, fds: Any, credentials: ControlMessage | None) -> None:
        if not data:
            if fds:
                raise ValueError("fds need a byte of data: a stream would lose them")
            return
        self.flush()
        part = data if len(data) <= CHUNK_SIZE else memoryview(data)[:CHUNK_SIZE]
        sent = self._send_part(part, fds, credentials)
        if sent < len(data):
            self._unsent, self._unsent_credentials = memoryview(data)[sent:], credentials
            self.flush()

    def _send_part(self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None) -> int:
        self._refuse_closed()
        return self._send_call(data, fds, credentials, 0)()

    # ---- receiving ----

    def receive(self, max_bytes: int = 65536) -> UnixMessage:
        """Receives 1 to ``max_bytes`` bytes, with the descriptors that came with them; no bytes at the end of the stream.

        Returns a `UnixMessage`, as the kernel separates it: it ends after bytes that brought descriptors and, while the
        socket asks for credentials, before another sender's bytes. Descriptors can belong to any byte of it. Raises
        `BrokenStreamError` if more descriptors came than ``max_fds``, or some were lost; `OSError` as the kernel says it,
        and `TimeoutError`. See recvmsg(2), unix(7).
        """
        size = checked_max_bytes(max_bytes)
        self._refuse_closed()
        if self._incoming:
            return self._incoming.take_some(size)
        self._incoming.refuse_broken()
        return self._incoming.pass_through(*self._recv(size, 0))

    def receive_exactly(self, size: int) -> bytes:
        """Receives ``size`` bytes of one sender. Their descriptors wait for `take_fds`.

        Raises `EOFError` if the stream ends before; `receive` still returns what came. Raises `BrokenStreamError` when
        `receive` does, and, if the socket asks for credentials, for bytes of several senders. See recvmsg(2), unix(7).
        """
        size = checked_int("size", size, least=0)
        self._fill(size) or self._incoming.end_before(size)
        return self._incoming.take(size)

    def peek_exactly(self, size: int) -> bytes:
        """Returns the bytes that `receive_exactly` would return, and leaves them in the stream: a look at the header of a
        message takes nothing. Raises what `receive_exactly` raises."""
        size = checked_int("size", size, least=0)
        self._fill(size) or self._incoming.end_before(size)
        return self._incoming.peek(size)

    def receive_message(self) -> UnixMessage | None:
        """Receives a message of `send_message`, with its descriptors and its sender; returns None at the end of the stream.

        Surplus descriptors are closed. Raises `BrokenStreamError` if the stream ends within a message, and for one that is
        longer than ``max_message``, promises more descriptors than came, or has bytes of another sender in it; `OSError` and
        `TimeoutError` as `receive` does. See recvmsg(2), unix(7).
        """
        if not self._fill(HEADER_SIZE):
            self._incoming.refuse_partial()
            return None
        size, count = self._incoming.read_header(self._max_message)
        if not self._fill(HEADER_SIZE + size):
            self._incoming.refuse_partial()
        return self._incoming.take_message(size, count)

    def _fill(self, size: int) -> bool:
        """Receives into the buffer until it has ``size`` bytes; returns False if the stream ends before."""
        self._refuse_closed()
        self._incoming.refuse_broken()
        while len(self._incoming) < size:
            arrival = self._recv(CHUNK_SIZE, 0)
            self._incoming.add(*arrival)
            if not arrival[0]:
                return False
        return True


def _close(sock: Any) -> None:
    if isinstance(sock, int):
        os.close(sock)
    else:
        sock.close()
