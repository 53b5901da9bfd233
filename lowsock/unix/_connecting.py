# SPDX-License-Identifier: MIT
"""Connecting to a path. See unix(7), connect(2)."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from lowsock._system.arguments import checked_seconds
from lowsock._system.errors import raised_here, time_out
from lowsock.unix._base import MAX_FDS, MAX_MESSAGE
from lowsock.unix._stream import UnixStream

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds


def connect(
    path: str | bytes | os.PathLike[Any],
    *,
    timeout: float | None = None,
    max_fds: int = MAX_FDS,
    max_message: int = MAX_MESSAGE,
) -> UnixStream:
    """Connects to the server that listens at ``path``; returns a `UnixStream`, which owns its socket.

    ``path`` is text, bytes or a path object; one that begins with a NUL is a name of Linux's abstract namespace. ``timeout``
    is the socket's, in seconds: it limits this call and every later one. ``max_fds`` and ``max_message`` are the stream's.
    Raises `OSError` (ENOENT, ECONNREFUSED, EACCES), `TimeoutError` if the server has not accepted in time. See unix(7).
    """
    name, seconds = checked_path(path), checked_seconds("timeout", timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _connect(sock, name, seconds)
        sock.settimeout(seconds)
        return UnixStream(sock, max_fds=max_fds, max_message=max_message)
    except BaseException:
        sock.close()
        raise


def checked_path(path: str | bytes | os.PathLike[Any]) -> str | bytes:
    """``path`` as the socket module takes it; the error names the argument."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be str, bytes or a path object, not {type(path).__name__}")
    name = os.fspath(path)
    raw = os.fsencode(name)
    if not raw:
        raise ValueError("path must not be empty: nobody would know the name that the kernel chooses")
    if b"\0" in raw[1:] and raw[0]:  # Linux: an abstract name begins with a null character, and may have more
        raise ValueError("path must not contain a null character")
    return name


def _connect(sock: socket.socket, name: str | bytes, seconds: float | None) -> None:
    """A full backlog is EAGAIN (Linux), and no poll tells when it has room. So this tries again, as a blocking connect(2)
    that a signal interrupts is taken for one under way by the socket module, which then says that it is connected."""
    deadline = None if seconds is None else time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            return sock.connect(name)
        except BlockingIOError as error:
            if not raised_here(error) or seconds == 0:
                raise
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                time_out()
            pause = min(pause, left)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
