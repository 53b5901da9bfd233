# SPDX-License-Identifier: MIT
"""Sending from memory that the kernel reads after the call: MSG_ZEROCOPY. See the kernel's msg_zerocopy document.

One send at a time is made under the lock, and it does not wait there: else nobody could say which number it got. What a
send came to is noted before any signal handler can run, and each step after that may be done twice.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import warnings
import weakref
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from lowsock import _address
from lowsock._ancillary import NO_ANCDATA, encode
from lowsock._buffers import viewed
from lowsock._calling import MSG_DONTWAIT, checked_int, fail, target
from lowsock._errqueue import ATTACHED, LIMIT, Event, Slot, ZeroCopyCompletion, cookie
from lowsock._ffi import ffi
from lowsock._inflight import (
    HELD,
    MSG_ZEROCOPY,
    Attempt,
    Ledger,
    Message,
    Piece,
    Sent,
    first_number,
    remember,
    set_option,
)
from lowsock._patience import Patience
from lowsock._reply import CONTROL, DATA, Reply
from lowsock.cmsg._fields import UINT32

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from typing_extensions import Self

    from lowsock._types import Address, ControlMessage, Socket

_STASHED = 16384  # events that wait for `read`
_ALL = 2**31

_REGISTRY = threading.RLock()  # a collection within may bring the end of another sender


class ZeroCopySender:
    """Sends on a TCP or UDP socket from memory that the kernel reads after the call, and keeps it until the kernel is done.

    It is the one consumer of the socket's error queue: other events come out of its `read`, and `lowsock.errqueue.read` of
    this socket leads here. Nobody else may send with MSG_ZEROCOPY on it; if numbers of other sends come, nothing is
    released any more and a `RuntimeError` says so. The socket stays yours: close the sender first, then the socket.

    Threads may share a sender. A context manager: leaving it closes it, and waits if no exception was raised. See send(2),
    socket(7).
    """

    _closed = True  # until it is whole

    def __init__(self, sock: Socket, *, timeout: float | None = None, first_key: int | None = None) -> None:
        """Sets SO_ZEROCOPY. ``timeout``: the seconds that leaving a ``with`` waits, None for as long as it takes.

        ``first_key``: what the socket's next zero-copy send counts as. The count starts at 0 and is remembered from sender
        to sender; only where a socket has SO_ZEROCOPY set already, and no sender is known to have done it, must it be
        told. (An accepted socket inherits the option from the listener, but not the count: 0.)

        Raises `NotImplementedError` where the kernel (Linux 4.14; UDP: 5.0) or this kind of socket lacks it; `ValueError`
        where a sender is on this socket, or ``first_key`` is wanted.
        """
        fd = target(sock)[0]
        if not MSG_ZEROCOPY:
            raise NotImplementedError("this platform has no zero-copy sends (MSG_ZEROCOPY)")
        self._sock, self._timeout = sock, timeout
        self._cookie = cookie(fd)
        self._lock: Any = threading.RLock()
        self._slot = Slot(Reply(DATA, CONTROL))
        self._events: deque[Event] = deque(maxlen=_STASHED)
        self._stashed: Event | None = None
        self._dropped = self._plain = 0
        self._lent: dict[int, weakref.ref[Any]] = {}
        with _REGISTRY:
            if self._cookie in ATTACHED:
                raise ValueError("sock: a sender is on this socket already")
            self._ledger = Ledger(first_number(fd, self._cookie, first_key))
            set_option(fd)
            HELD.add(self._ledger)
            ATTACHED[self._cookie] = self
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(self._timeout if kind is None else 0)

    def __del__(self) -> None:
        if not self._closed:
            self._abandon("was never closed")

    # ---- memory ----

    def buffer(self, size: int) -> memoryview:
        """Writable memory of ``size`` zero bytes, to be filled and given to `send`, whole or in slices. It can be used
        again when the sends from it are complete: see `is_free`, `wait`."""
        memory = ffi.new("char[]", checked_int("size", size, least=1))
        lent = ffi.buffer(memory)
        self._lent[id(lent)] = weakref.ref(lent, _forgetting(self._lent, id(lent)))
        return memoryview(lent)

    def is_free(self, view: memoryview) -> bool:
        """Whether lent memory may be written to: no send from it, or from a part of it, is incomplete."""
        piece = self._piece("view", view)
        with self._entered():
            self._catch_up()
            return not any(piece.overlaps(other) for other in self._ledger.pieces.values())

    def _piece(self, name: str, data: Any) -> Piece:
        if isinstance(data, bytes):
            return Piece(data, ffi.from_buffer("char[]", data))
        owner = data.obj if isinstance(data, memoryview) else None
        known = self._lent.get(id(owner))
        if known is None or known() is not owner:
            what = f"not {type(data).__name__}: the kernel reads it after the call, when this could have changed"
            raise TypeError(f"{name} must be bytes, or memory that buffer() of this sender lent, {what}")
        viewed(name, data).release()
        return Piece(owner, ffi.from_buffer("char[]", data))

    # ---- sending ----

    def send(
        self,
        data: bytes | memoryview,
        address: Address = None,
        flags: int = 0,
        ancdata: Iterable[ControlMessage] = NO_ANCDATA,
    ) -> Sent:
        """Sends ``data``, `bytes` or memory of `buffer`; returns the bytes that were taken, with ``key`` on them.

        On TCP fewer bytes than given may be taken, on a blocking socket as well: go on with the rest. An empty message,
        and one for which the kernel has no memory left to keep track of (ENOBUFS: net.core.optmem_max, RLIMIT_MEMLOCK),
        is sent as a plain copy; its ``key`` is None. ``address``, ``flags`` and ``ancdata`` are those of
        `lowsock.sendmsg`, and so are errors and timeouts; `TypeError` for other memory than that.
        """
        piece = self._piece("data", data)
        flags = checked_int("flags", flags)
        control = encode(ancdata)
        name = b"" if address is None else _address.encode_for(self._sock, address)
        message = Message(piece, name, flags, control)
        zerocopy, again, patience = piece.size > 0, True, None
        while True:
            attempt, fd = self._attempt(message, zerocopy)
            if attempt.answer >= 0:
                return Sent(attempt.answer, attempt.key)
            if attempt.answer == -errno.ENOBUFS and attempt.key is not None and not attempt.counted:
                zerocopy = again = again and attempt.news  # read events make room; if that is not enough, copy
            elif -attempt.answer in (errno.EAGAIN, errno.EWOULDBLOCK):
                patience = patience or Patience(self._seconds(fd, flags, attempt.answer))
                if not patience.wait(fd, select.POLLOUT, attempt.news):
                    raise socket.timeout("timed out")
            elif attempt.answer != -errno.EINTR:
                fail(attempt.answer)

    def _seconds(self, fd: int, flags: int, answer: int) -> float | None:
        """How long a send may wait; fails with ``answer`` if it may not."""
        timeout = target(self._sock)[1]
        if flags & MSG_DONTWAIT or timeout == 0 or (timeout is None and not os.get_blocking(fd)):
            fail(answer)
        return timeout

    def _attempt(self, message: Message, zerocopy: bool) -> tuple[Attempt, int]:
        with self._entered():
            self._conclude()
            self._refuse_astray()
            fd = self._fd()
            attempt = self._ledger.open = Attempt(message.piece, self._ledger.next if zerocopy else None)
            attempt.call(fd, message)
            self._conclude()
            if attempt.key is None and attempt.answer > 0:
                self._plain += 1
            return attempt, fd

    def _conclude(self) -> None:
        """Enters what the last attempt came to. Each step may be done twice: an exception may have come between."""
        attempt = self._ledger.open
        if attempt is not None and attempt.outcome:
            if attempt.answer < 0:
                self._look_into(attempt)
            else:
                self._ledger.enter(attempt)
        self._ledger.open = None

    def _look_into(self, attempt: Attempt) -> None:
        """UDP may count a send and fail after that (ENOBUFS of a queueing discipline, EPERM of a firewall); then its
        completion is there already. Where the kernel gave up earlier, it has taken the number back."""
        if attempt.answer != -errno.EINTR:
            self._ledger.refused = attempt.key is not None
            attempt.news = self._drain(_ALL) > 0
            self._ledger.refused = False
            attempt.counted = attempt.key is not None and self._ledger.next != attempt.key

    # ---- completions ----

    def read(self, limit: int = LIMIT) -> list[Event]:
        """The events that came, completions among them, at most ``limit``; it never waits.

        Completions of adjacent sends are merged if they say the same, under the first's ``ancdata``. If more than 16384
        events wait to be read, the oldest are lost, and counted by ``dropped``. See `lowsock.errqueue.read`.
        """
        limit = checked_int("limit", limit, least=1)
        with self._entered(closed=True):
            if not self._closed:
                self._catch_up(limit)
            events = list(islice(self._events, limit))
            for _ in events:
                self._events.popleft()
            return events

    def wait(self, timeout: float | None = None, key: int | None = None) -> bool:
        """Waits until the send with this number is complete, or all are; False when ``timeout`` seconds were too few."""
        patience = Patience(timeout)
        while True:
            with self._entered():
                news = self._catch_up() > 0
                self._refuse_astray()
                if self._is_complete(key):
                    return True
                fd = self._fd()
            if not patience.wait(fd, 0, news):
                return False

    def _is_complete(self, key: int | None) -> bool:
        if key is None:
            return not self._ledger.pieces
        if not self._ledger.was_given(checked_int("key", key, least=0, most=UINT32)):
            raise ValueError(f"key: no send has the number {key} yet")
        return key not in self._ledger.pieces

    def _catch_up(self, limit: int = LIMIT) -> int:
        self._conclude()
        return self._drain(limit)

    def _drain(self, limit: int) -> int:
        """Reads at most ``limit`` events; returns how many. Each step may be done twice."""
        fd = self._fd()
        for count in range(limit):
            event = self._slot.fill(fd)
            if event is None:
                return count
            if isinstance(event, ZeroCopyCompletion):
                self._ledger.settle(event)
            if self._stashed is not event:
                self._stash(event)
                self._stashed = event
            self._slot.clear()
        return limit

    def _stash(self, event: Event) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(event, ZeroCopyCompletion) and isinstance(last, ZeroCopyCompletion) and last.is_followed_by(event):
            self._events[-1] = last._replace(last=event.last)
            return
        self._dropped += len(self._events) == _STASHED
        self._events.append(event)

    # ---- the end ----

    def close(self, timeout: float | None = None) -> None:
        """Waits until all sends are complete, at most ``timeout`` seconds. The socket stays open, and `read` still gives
        the events that had come.

        If the time was too short, or the socket is closed, the memory of the incomplete sends is kept for as long as the
        process runs, since the kernel may still read it, and a `ResourceWarning` says so.
        """
        if self._closed:
            return
        try:
            self.wait(timeout)
        except (OSError, RuntimeError) as error:  # the socket is gone, or the count is
            if isinstance(error, RuntimeError) and not self._ledger.astray:
                raise
        except ValueError:  # another thread has closed it meanwhile
            return
        self._finish()

    def _finish(self) -> None:
        with self._entered(closed=True):
            if not self._closed:
                self._abandon("was closed")

    def _abandon(self, how: str) -> None:
        """The end. The ledger is held elsewhere, so that whatever comes between cannot free what it keeps."""
        self._closed = True
        pieces = self._ledger.end()
        with _REGISTRY:
            remember(self._cookie, self._ledger)
            if ATTACHED.get(self._cookie) is self:
                del ATTACHED[self._cookie]
        if not pieces:
            HELD.discard(self._ledger)
            return
        size = sum(piece.size for piece in pieces)
        message = f"a ZeroCopySender {how} while {len(pieces)} sends were incomplete: {size} bytes are kept for good"
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self)

    # ---- what it knows ----

    @property
    def pending(self) -> int:
        """How many sends are incomplete, by the events that were read so far."""
        return len(self._ledger.pieces)

    @property
    def pending_bytes(self) -> int:
        """The memory that is kept for them. A piece counts whole, also if less of it was taken, and once for each send."""
        return sum(piece.size for piece in self._ledger.pieces.copy().values())

    @property
    def copied(self) -> int:
        """How many complete sends the kernel copied, as far as it tells; those sent as plain copies are among them."""
        return self._ledger.copied + self._plain

    @property
    def dropped(self) -> int:
        """How many events were lost because nobody read them."""
        return self._dropped

    @property
    def next_key(self) -> int:
        """What the next zero-copy send counts as."""
        return self._ledger.next

    # ---- checks ----

    def _entered(self, closed: bool = False) -> Any:
        """The lock. A signal handler that comes back in here while its own thread is within would find things half done.

        On CPython 3.9 and PyPy a handler can raise between the end of a `with` block and its exit, which is then left out.
        """
        if self._lock._is_owned():
            if _is_within(self, sys._getframe(2)):
                raise RuntimeError("this sender is in use by the code that a signal handler interrupted")
            while self._lock._is_owned():
                self._lock.release()
        if self._closed and not closed:
            raise ValueError("this sender is closed")
        return self._lock

    def _fd(self) -> int:
        """The descriptor, if it still is that socket's: its number may have come back as another's."""
        fd = target(self._sock)[0]
        if cookie(fd) != self._cookie:
            fail(-errno.EBADF)
        return fd

    def _refuse_astray(self) -> None:
        if self._ledger.astray:
            raise RuntimeError("completions came that are not this sender's: somebody else sends with MSG_ZEROCOPY here")


_LOCKING = {
    method.__code__
    for method in (
        ZeroCopySender.is_free,
        ZeroCopySender._attempt,
        ZeroCopySender.read,
        ZeroCopySender.wait,
        ZeroCopySender._finish,
    )
}


def _is_within(sender: ZeroCopySender, frame: FrameType | None) -> bool:
    """Whether one of the sender's locking methods called what runs in ``frame``, or it itself is one."""
    while frame is not None:
        if frame.f_code in _LOCKING and frame.f_locals.get("self") is sender:
            return True
        frame = frame.f_back
    return False


def _forgetting(lent: dict[int, Any], number: int) -> Any:
    """What takes lent memory off the list when no view of it is left; the number may be another's by then."""

    def forget(ref: Any) -> None:
        if lent.get(number) is ref:
            del lent[number]

    return forget
