# SPDX-License-Identifier: MIT
"""Making a call that does not block, and waiting where the kernel says EAGAIN. See recvmsg(2), epoll(7)."""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from lowsock._system.arguments import ZERO, checked_int, iterated
from lowsock._system.constants import MSG_DONTWAIT, MSG_ERRQUEUE
from lowsock._system.errors import fail, raised_inside
from lowsock._system.target import target
from lowsock.aio._wait.asyncio import LoopQueue, running_loop
from lowsock.aio._wait.trio import TrioQueue, checkpoint, is_trio, running_token
from lowsock.aio._wait.waiters import ERROR, QUEUES, READ, WRITE, Queue, Waiter, key_of, register

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Socket

T = TypeVar("T")
_Socket = socket.socket
_queues_at = QUEUES.get
MODULES = sys.modules


def checked_flags(flags: int) -> int:
    """``flags`` with MSG_DONTWAIT, so that no call can block the loop."""
    return MSG_DONTWAIT if flags is ZERO else checked_int("flags", flags) | MSG_DONTWAIT


def read_direction(flags: int) -> int:
    """What a receive with these flags waits for."""
    return ERROR if flags & MSG_ERRQUEUE else READ


def descriptor(sock: Socket) -> int:
    """The descriptor of ``sock``. Raises `ValueError` for a timeout other than 0, which would promise to block."""
    if type(sock) is int:
        return sock
    if type(sock) is _Socket:
        fd, timeout = sock.fileno(), sock.gettimeout()
    else:
        fd, timeout = target(sock)
        if timeout is None and (isinstance(sock, int) or getattr(sock, "gettimeout", None) is None):
            return fd
    if timeout != 0:
        raise ValueError(f"sock must be non-blocking, its timeout is {timeout}: call setblocking(False)")
    return fd


def is_uncontended(sock: Socket, direction: int) -> bool:
    """Whether you may try a call at once, because no other call waits."""
    return not _queues_at(descriptor(sock) << 2 | direction)


def snapshot(name: str, of: str, value: Iterable[Any]) -> Any:
    """A tuple or list of our own that each attempt can iterate over; an error names the argument."""
    return value if isinstance(value, tuple) else list(iterated(name, of, value))


async def attempt(sock: Socket, direction: int, call: Callable[[], T]) -> T:
    """Makes a call, which does not block, until it does not raise `BlockingIOError`; returns what it returns.

    ``call`` must be this package's own code and no `functools.partial`: that is Python code on PyPy, so the error would seem
    to come from a signal handler.
    """
    if "trio" in MODULES and is_trio():
        await checkpoint()
    if is_uncontended(sock, direction):
        try:
            return call()
        except BlockingIOError as error:
            reraise_unless_ours(error)
    return await call_when_ready(sock, direction, call)


def reraise_unless_ours(error: BlockingIOError) -> None:
    """Raises an error again if a signal handler raised it."""
    if not raised_inside(error):
        raise error


async def call_when_ready(sock: Socket, direction: int, call: Callable[[], T]) -> T:
    """As `attempt`, once there is something to wait for: other calls wait, or the kernel has just said EAGAIN."""
    queue = _queue_for(descriptor(sock), direction)
    waiter = Waiter()
    try:
        queue.enter(waiter)
        if descriptor(sock) != queue.fd:  # another thread closed it before it could see us
            fail(-errno.EBADF)
        while True:
            was_first = queue.is_first(waiter)
            await queue.wait(waiter)
            if queue.is_stale():
                queue.notify_closed()
            if queue.closed or descriptor(sock) != queue.fd:
                fail(-errno.EBADF)
            if not queue.is_first(waiter):
                continue
            try:
                return call()
            except BlockingIOError as error:
                reraise_unless_ours(error)
            if was_first:
                queue.spurious_wakeup()
    finally:
        queue.leave(waiter)


def _queue_for(fd: int, direction: int) -> Queue:
    """This loop's queue for a descriptor. The calls that wait for what the number was before are told that it is closed."""
    loop, make = _framework()
    found: Queue | None = None
    for each in (READ, WRITE, ERROR):
        queue = _find_queue(fd, each, loop)
        if queue is not None and queue.is_stale():
            queue.notify_closed()
        elif each == direction:
            found = queue
    if found is None:
        found = make(loop, fd, direction)
        register(found)
    return found


def _find_queue(fd: int, direction: int, loop: Any) -> Queue | None:
    found = QUEUES.get(key_of(fd, direction), {}).get(id(loop))
    return None if found is None else found()


def _framework() -> tuple[Any, Callable[[Any, int, int], Queue]]:
    token = running_token()
    if token is not None:
        return token, TrioQueue
    loop = running_loop()
    if loop is None:
        raise RuntimeError("nothing to wait with: neither a task of trio nor a loop of asyncio runs in this thread")
    return loop, LoopQueue
