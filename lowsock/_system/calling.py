# SPDX-License-Identifier: MIT
"""What every call shares: whose descriptor it is, how long to wait for it, and the only raise of OSError."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import sys
import time
from operator import index

from lowsock._system.constants import CONSTANTS
from lowsock._system.ffi import lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn

    from lowsock._system.types import Attempt, Socket


MORE = -lib.LOWSOCK_MORE  # an answer up to here says that more came than data; between here and 0 it is -errno
SAME = lib.LOWSOCK_SAME  # added to the bytes of data: the source is the one that the reply knows
MSG_DONTWAIT = CONSTANTS["MSG_DONTWAIT"]
MSG_TRUNC = CONSTANTS["MSG_TRUNC"]
MSG_ERRQUEUE = CONSTANTS.get("MSG_ERRQUEUE", 0)
INT_MAX = 2**31 - 1
ZERO = 0  # an argument that is this very int needs no check; 0.0 and None are not

_AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK)
NOT_YET = (-errno.EINTR, *_AGAIN)  # what another attempt may change
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_POLL = 0.001, 0.064, 86400.0  # seconds


def fail(answer: int) -> NoReturn:
    """Raises what the kernel said: ``answer`` is -errno."""
    raise OSError(-answer, os.strerror(-answer))


def time_out() -> NoReturn:
    """Raises that the time is up."""
    raise socket.timeout("timed out")


def target(sock: Socket) -> tuple[int, float | None]:
    """The descriptor of ``sock`` and its timeout in seconds (None: blocks as the descriptor's own flags say)."""
    if type(sock) is socket.socket:
        return sock.fileno(), sock.gettimeout()
    if isinstance(sock, int):
        return _checked(sock), None
    ssl = sys.modules.get("ssl")  # an SSLSocket cannot be here if nobody has imported all of it
    if isinstance(sock, getattr(ssl, "SSLSocket", ())):
        raise NotImplementedError(f"sendmsg and recvmsg are not allowed on instances of {type(sock)}: TLS has no messages")
    try:
        fileno = sock.fileno
    except AttributeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"sock must be an int or have a fileno() method, not {type(sock).__name__}") from None
    gettimeout = getattr(sock, "gettimeout", None)
    return _checked(fileno()), gettimeout() if gettimeout is not None else None


def _checked(fd: Any) -> int:
    if not isinstance(fd, int):
        raise TypeError(f"sock.fileno() must return an int, not {type(fd).__name__}")
    if not -INT_MAX <= fd <= INT_MAX:
        raise OverflowError(f"sock: descriptor {fd} does not fit a C int")
    return fd


def raised_here(error: BaseException) -> bool:
    """Whether a builtin raised ``error`` in the frame that caught it, and not some Python code below it.

    A signal handler runs between any two steps, and what it raises must not be taken for the step's own error.
    """
    traceback = error.__traceback__
    return traceback is None or traceback.tb_next is None


def raised_inside(error: BaseException) -> bool:
    """Whether nothing but this package's own code raised ``error``, below the frame that caught it: no signal handler."""
    traceback = error.__traceback__
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith("lowsock."):
            return False
        traceback = traceback.tb_next
    return True


def checked_index(name: str, value: Any) -> int:
    """``value`` as an int; the error names the argument."""
    try:
        return int(index(value))  # before 3.10, index lets a subclass of int through
    except TypeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None


def iterated(name: str, of: str, value: Iterable[Any]) -> Iterator[Any]:
    """An iterator over ``value``; the error names the argument and says of what it is an iterable."""
    try:
        return iter(value)
    except TypeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"{name} must be an iterable of {of}, not {type(value).__name__}") from None


def checked_int(name: str, value: Any, least: int = -INT_MAX - 1, most: int = INT_MAX) -> int:
    """``value`` as an int between ``least`` and ``most``; the error names the argument."""
    number = checked_index(name, value)
    if number < 0 <= least:
        raise ValueError(f"{name} must not be negative: {number}")
    if not least <= number <= most:
        raise OverflowError(f"{name} is out of range: {number}")
    return number


def checked_seconds(name: str, value: Any) -> float | None:
    """``value`` as a number of seconds, None for no end; the error names the argument."""
    if value is None:
        return None
    try:
        seconds = math.copysign(value, value)
    except (TypeError, OverflowError) as error:
        if not raised_here(error):
            raise
        if isinstance(error, OverflowError):
            raise OverflowError(f"{name} is out of range: {type(value).__name__}") from None
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}") from None
    if not seconds >= 0:
        raise ValueError(f"{name} must not be negative, or no number: {seconds}")
    return seconds


def checked_field(name: str, value: Any, most: int) -> int:
    """``value`` as an unsigned field of an address; whatever does not fit is an `OverflowError`, as in the socket module."""
    number = checked_index(name, value)
    if not 0 <= number <= most:
        raise OverflowError(f"{name} is out of range: {number}")
    return number


def persist(sock: Socket, flags: int, events: int, attempt: Attempt, answer: int) -> int:
    """Goes on after an ``answer`` of -errno: calls ``attempt(descriptor)`` until the kernel takes it or refuses it, or the
    socket's time is up.

    Python's signal handlers have run by the time an EINTR is seen here, and may have closed the socket: the descriptor is
    asked for again each time. See signal(7), poll(2).
    """
    waiting: _Waiting | None = None
    try:
        while MORE < answer < 0:
            fd, timeout = target(sock)
            if answer in _AGAIN and timeout:
                waiting = waiting or _Waiting(timeout, 0 if flags & MSG_ERRQUEUE else events)
                waiting.wait(fd)
                fd = target(sock)[0]
            elif answer != -errno.EINTR:
                fail(answer)
            answer = attempt(fd)
        return answer
    finally:
        if waiting is not None:
            waiting.close()


class _Waiting:
    """Waits for one descriptor against one deadline.

    poll(2) is level-triggered: it returns at once for as long as an error queue is not empty, or a full datagram peer
    seems writable. If the call still says EAGAIN after poll said otherwise, a receive waits for the next edge (epoll(7),
    EPOLLET), which is news. A refused send makes an edge of its own, so it is tried again after a growing pause, which
    also bounds what is lost where no edge announces the end of such a state.
    """

    def __init__(self, timeout: float, events: int) -> None:
        self._deadline = time.monotonic() + timeout
        self._events = events
        self._misled = False
        self._pause = _FIRST_PAUSE
        self._edges: Any = None

    def wait(self, fd: int) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            time_out()
        if fd < 0:
            return  # closed meanwhile: the call says EBADF
        if not self._misled:
            self._misled = self._poll(fd, min(left, _LONGEST_POLL))
            return
        if self._edges is None:
            self._edges = _edges(fd, self._events)
        else:
            self._edges.poll(min(left, self._pause))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _poll(self, fd: int, left: float) -> bool:
        poll = select.poll()
        poll.register(fd, self._events)
        return bool(poll.poll(math.ceil(left * 1000)))  # PyPy cuts a fraction off, and would spin through it

    def close(self) -> None:
        if self._edges is not None:
            self._edges.close()


class _Pauses:
    """Stands in for an epoll object where an edge would tell nothing."""

    def poll(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


def _edges(fd: int, events: int) -> Any:
    """Something to wait for the next edge with; the state that misled us has been read off it."""
    if events & select.POLLOUT or not hasattr(select, "epoll"):
        return _Pauses()
    try:
        edges = select.epoll()
    except OSError as error:  # no descriptor left
        if not raised_here(error):
            raise
        return _Pauses()
    try:
        edges.register(fd, events | select.EPOLLET)
        edges.poll(0)
    except BaseException:
        edges.close()
        raise
    return edges
