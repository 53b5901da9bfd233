# SPDX-License-Identifier: MIT
"""An awaitable connection to a path. See unix(7), connect(2)."""

from __future__ import annotations

import os
import socket
from typing import Any

from lowsock.aio._stream.stream import UnixStream
from lowsock.aio._wait.attempts import attempt
from lowsock.aio._wait.closing import close
from lowsock.aio._wait.waiters import WRITE
from lowsock.unix._base import MAX_FDS, MAX_MESSAGE
from lowsock.unix._connecting import checked_path


async def connect_unix(
    path: str | bytes | os.PathLike[Any], *, max_fds: int = MAX_FDS, max_message: int = MAX_MESSAGE
) -> UnixStream:
    """As `lowsock.unix.connect`, awaitable: connects to the server that listens at ``path``; returns a `UnixStream`.

    If it is cancelled, the socket is closed. Raises `OSError` (ENOENT, ECONNREFUSED, EACCES). See unix(7), connect(2).
    """
    name = checked_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await attempt(sock, WRITE, lambda: sock.connect(name))  # EAGAIN: the backlog is full
        return UnixStream(sock, max_fds=max_fds, max_message=max_message)
    except BaseException:
        close(sock)
        raise
