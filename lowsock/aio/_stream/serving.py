# SPDX-License-Identifier: MIT
"""A server of streams: it listens at a path, and gives each connection a task. See unix(7), listen(2)."""

from __future__ import annotations

import errno
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from lowsock._system.arguments import checked_int
from lowsock.aio._stream.stream import UnixStream
from lowsock.aio._wait.asyncio import running_loop
from lowsock.aio._wait.attempts import attempt
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.trio import is_trio
from lowsock.aio._wait.waiters import READ
from lowsock.unix._base import MAX_FDS, MAX_MESSAGE
from lowsock.unix._connecting import checked_path
from lowsock.unix._incoming import MAX_SIZE

if TYPE_CHECKING:
    from asyncio import Future, Task
    from collections.abc import Awaitable

_BACKLOG = 128
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.1  # seconds, while the table of descriptors is full


async def serve_unix(
    handler: Callable[[UnixStream], Awaitable[object]],
    path: str | bytes | os.PathLike[Any],
    *,
    backlog: int = _BACKLOG,
    max_fds: int = MAX_FDS,
    max_message: int = MAX_MESSAGE,
    task_status: Any = None,
) -> None:
    """Listens at ``path`` and awaits ``handler(stream)`` for each connection, in a task of its own, until it is cancelled.

    A stream is a `UnixStream` (``max_fds``, ``max_message``), closed when its handler ends. ``task_status.started()`` is
    called as soon as clients can connect, so trio's ``nursery.start`` takes this. While the process has no descriptor left,
    connections wait. ``path`` must not exist, unless it begins with a NUL (Linux's abstract namespace).

    When it ends, by a cancellation or by an exception, the handlers are cancelled and waited for, all streams are closed,
    and the path is removed. An exception of a handler ends the server and comes out here, on trio in a group: so a handler
    catches what a peer can cause, `OSError` (`BrokenStreamError` is one) and `EOFError`. Raises `OSError` if it cannot
    listen (EADDRINUSE: the path exists). See unix(7), listen(2), accept(2).
    """

    checked_int("max_fds", max_fds, least=0)
    checked_int("max_message", max_message, least=0, most=MAX_SIZE)
    listener = _Listener(checked_path(path), checked_int("backlog", backlog, least=0))

    def handle(sock: socket.socket) -> Awaitable[None]:
        return _handle(handler, sock, max_fds, max_message)

    try:
        if task_status is not None:
            task_status.started()
        await (_serve_trio if is_trio() else _serve_asyncio)(listener, handle)
    finally:
        listener.close()


class _Listener:
    """A socket that listens."""

    def __init__(self, name: str | bytes, backlog: int) -> None:
        self._file = b"" if os.fsencode(name)[:1] in (b"", b"\0") else os.path.abspath(os.fsencode(name))
        self._identity: tuple[int, int] | None = None  # of the path that was made
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.setblocking(False)
            self._sock.bind(name)
            self._identity = self._look()
            self._sock.listen(backlog)
        except BaseException:
            self.close()
            raise

    async def accept(self) -> socket.socket:
        """The next connection. If it is cancelled, it has accepted none."""
        while True:
            try:
                return await attempt(self._sock, READ, self._accept)
            except OSError as error:
                if error.errno in _FULL:
                    await _sleep(_PAUSE)
                elif error.errno != errno.ECONNABORTED:
                    raise

    def _accept(self) -> socket.socket:
        fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # `accept` is the socket module's own Python code
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Stops listening, and removes the path if it is still the one that was made."""
        try:
            close(self._sock)
        finally:
            if self._identity is not None and self._identity == self._look():
                os.unlink(self._file)

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._file) if self._file else None
        except FileNotFoundError:
            return None
        return None if status is None else (status.st_dev, status.st_ino)


async def _handle(
    handler: Callable[[UnixStream], Awaitable[object]], sock: socket.socket, max_fds: int, max_message: int
) -> None:
    with UnixStream(sock, max_fds=max_fds, max_message=max_message) as stream:
        await handler(stream)


async def _serve_trio(listener: _Listener, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
    async with sys.modules["trio"].open_nursery() as nursery:
        while True:
            nursery.start_soon(handle, await listener.accept())


async def _serve_asyncio(listener: _Listener, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
    await _Tasks().run(listener, handle)


async def _sleep(seconds: float) -> None:
    await sys.modules["trio" if is_trio() else "asyncio"].sleep(seconds)


def _close(sock: socket.socket, _: object) -> None:
    sock.close()


class _Tasks:
    """The tasks of a server on asyncio, which has had task groups only since Python 3.11."""

    def __init__(self) -> None:
        loop = running_loop()
        if loop is None:
            raise RuntimeError("nothing to serve with: neither a task of trio nor a loop of asyncio runs in this thread")
        self._loop = loop
        self._running: set[Task[None]] = set()
        self._failed: Future[None] = loop.create_future()

    async def run(self, listener: _Listener, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._start(self._accept_all(listener, handle))
        try:
            await self._failed
        finally:
            await self._end()

    async def _accept_all(self, listener: _Listener, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
        while True:
            sock = await listener.accept()
            task = self._start(handle(sock))
            task.add_done_callback(partial(_close, sock))  # a task that is cancelled before it begins has closed nothing

    def _start(self, coroutine: Any) -> Task[None]:
        task = self._loop.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not self._failed.done():
            self._failed.set_exception(error)
        else:
            text = "a handler failed while its server ended"
            self._loop.call_exception_handler({"message": text, "exception": error, "task": task})

    async def _end(self) -> None:
        """Cancels all tasks and waits for them, however often this is cancelled meanwhile."""
        cancelled = None
        while self._running:
            for task in self._running:
                task.cancel()
            try:
                await sys.modules["asyncio"].wait(set(self._running))
            except BaseException as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
