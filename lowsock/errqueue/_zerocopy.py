# SPDX-License-Identifier: MIT
"""Sending from memory that the kernel reads after the call: MSG_ZEROCOPY. See the kernel's msg_zerocopy document.

The lock admits one send at a time, which never waits under it: otherwise nobody could say which number it got. The outcome
of a send is stored before any signal handler can run, and each step after that may be done twice.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from lowsock._memory import address as _address
from lowsock._memory.ancillary import NO_ANCDATA, encode
from lowsock._memory.buffers import viewed
from lowsock._memory.recv_pool import CONTROL, DATA, Reply
from lowsock._system.arguments import checked_int, checked_seconds
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import fail, time_out, unsupported
from lowsock._system.ffi import ffi
from lowsock._system.spellings import keyword_only, refuse_old
from lowsock._system.target import target
from lowsock._system.unique import Unique
from lowsock._system.waiting import SharedWaiter
from lowsock.cmsg._fields import UINT32
from lowsock.errqueue._backlog import Backlog
from lowsock.errqueue._events import LIMIT, READERS, Event, Slot, ZeroCopyCompletion, cookie, find_cookie
from lowsock.errqueue._inflight import (
    KEEP_ALIVE,
    MSG_ZEROCOPY,
    Attempt,
    InFlight,
    Message,
    Region,
    Sent,
    counts_refused,
    enable_zerocopy,
    initial_key,
    probe,
    remember,
    removal_callback,
)
from lowsock.errqueue._lock import ReleaseGuard, exclusive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from lowsock._system.types import Address, ControlMessage, Socket

_ALL = 2**31  # events: no limit
_REGISTRY_LOCK = threading.RLock()  # reentrant: the garbage collector may end another sender meanwhile


class ZeroCopySender(Unique):
    """Sends on a TCP or UDP socket from memory that the kernel reads after the call, and keeps it until the kernel is done.

    It is the one consumer of the socket's error queue: other events come out of its `read`, and `lowsock.errqueue.read` of
    this socket reads through it. Nothing else may send with MSG_ZEROCOPY on it: if numbers of other sends come, no memory is
    released any more, and calls raise `RuntimeError`. The sender borrows the socket and never closes it: `close` ends
    the sender alone. Close the sender first, then the socket.

    Threads may share a sender, a child made by fork cannot use it (`RuntimeError`). A context manager: leaving it closes
    the sender, and waits if no exception was raised. See send(2), socket(7).
    """

    _closed = True  # until it is complete

    def __init__(self, sock: Socket, *, timeout: float | None = None, first_key: int | None = None) -> None:
        """Sets SO_ZEROCOPY. ``timeout``: the seconds that leaving a ``with`` waits, None for as long as it takes.

        ``first_key``: what the socket's next zero-copy send counts as. The count starts at 0 and is remembered from sender
        to sender. You must pass it only if the socket has SO_ZEROCOPY set already and no sender is known to have set it.
        (An accepted socket inherits the option from the listener, but not the count: pass 0.)

        Raises `lowsock.UnsupportedError` where the kernel (Linux 4.14; UDP: 5.0) or this kind of socket lacks it;
        `ValueError` where a sender is on this socket, or ``first_key`` is wanted.
        """
        fd = target(sock)[0]
        if not MSG_ZEROCOPY:
            unsupported("this platform has no zero-copy sends (MSG_ZEROCOPY)")
        self._sock, self._timeout, self._process = sock, checked_seconds("timeout", timeout), os.getpid()
        self._cookie = cookie(fd)
        self._lock: Any = threading.RLock()
        self._slot = Slot(Reply(DATA, CONTROL))
        self._backlog = Backlog()
        self._plain_copies = 0
        self._lent: dict[int, weakref.ref[Any]] = {}
        with ReleaseGuard(_REGISTRY_LOCK), _REGISTRY_LOCK:
            if self._cookie in READERS:
                raise ValueError("sock: a sender is on this socket already")
            self._in_flight = InFlight(initial_key(fd, self._cookie, first_key))
            remember(self._cookie, self._in_flight)
            enable_zerocopy(fd)
            self._closed = False
            READERS[self._cookie] = self
            KEEP_ALIVE.add(self._in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(self._timeout if kind is None else 0)

    def __del__(self) -> None:
        if not self._closed and self._process == os.getpid():
            self._detach("was never closed")

    # ---- memory ----

    def buffer(self, size: int) -> memoryview:
        """Writable memory of ``size`` zero bytes, to be filled and given to `send`, whole or in slices. It can be used
        again when the sends from it are complete: see `is_free`, `wait`."""
        memory = ffi.new("char[]", checked_int("size", size, least=1))
        lent = ffi.buffer(memory)
        self._lent[id(lent)] = weakref.ref(lent, removal_callback(self._lent, id(lent)))
        return memoryview(lent)

    def is_free(self, view: memoryview) -> bool:
        """Whether lent memory may be written to: no send from it, or from a part of it, is incomplete."""
        region = self._region("view", view)
        self._read_queue()
        return not any(region.overlaps(other) for other in self._in_flight.regions.copy().values())

    def _region(self, name: str, data: Any) -> Region:
        """The memory of an argument. No name keeps the export: CPython crashes if it collects an exported view, as in the
        frames of an error."""
        if isinstance(data, bytes):
            return Region(data, ffi.from_buffer("char[]", data), len(data))
        owner = data.obj if isinstance(data, memoryview) else None
        ref = self._lent.get(id(owner))
        if ref is None or ref() is not owner:
            what = f"not {type(data).__name__}: the kernel reads it after the call, when this could have changed"
            raise TypeError(f"{name} must be bytes, or memory that buffer() of this sender lent, {what}")
        with viewed(name, data) as view:
            size = view.nbytes
        return Region(owner, ffi.cast("char *", ffi.from_buffer("char[]", data)), size)

    # ---- sending ----

    @keyword_only
    def send(
        self,
        data: bytes | memoryview,
        *old: NoReturn,
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
        if old:
            refuse_old("send", "address", "flags", "ancdata")
        region = self._region("data", data)
        flags = checked_int("flags", flags)
        control = encode(ancdata)
        name = b"" if address is None else _address.encode_for(self._sock, address)
        message = Message(region, name, flags, control)
        zerocopy, may_retry, waiter = region.size > 0, True, None
        while True:
            attempt, fd = self._attempt(message, zerocopy)
            if attempt.answer >= 0:
                return Sent(attempt.answer, attempt.key)
            if attempt.answer == -errno.ENOBUFS and attempt.key is not None and not attempt.counted:
                # Reading events made room. If that is not enough, copy.
                zerocopy = may_retry = may_retry and attempt.got_events
            elif -attempt.answer in (errno.EAGAIN, errno.EWOULDBLOCK):
                waiter = waiter or SharedWaiter(self._seconds(fd, flags, attempt.answer))
                if not waiter.wait(fd, select.POLLOUT, attempt.got_events):
                    time_out()
            elif attempt.answer != -errno.EINTR:
                fail(attempt.answer)

    def _seconds(self, fd: int, flags: int, answer: int) -> float | None:
        """How long a send may wait; fails with ``answer`` if it may not."""
        timeout = target(self._sock)[1]
        if flags & MSG_DONTWAIT or timeout == 0 or (timeout is None and not os.get_blocking(fd)):
            fail(answer)
        return timeout

    @exclusive
    def _attempt(self, message: Message, zerocopy: bool) -> tuple[Attempt, int]:
        fd = self._fd()
        self._record_attempt()
        self._refuse_foreign()
        if zerocopy and self._in_flight.uncertain:
            self._resync(fd, message.name)
            zerocopy = not self._in_flight.uncertain
        attempt = self._in_flight.unrecorded = Attempt(message.region, self._in_flight.next_key if zerocopy else None)
        attempt.call(fd, message)
        self._record_attempt()
        if attempt.key is None and attempt.answer > 0:
            self._plain_copies += 1
        return attempt, fd

    def _record_attempt(self) -> None:
        """Records the outcome of the last attempt. Each step may be done twice: an exception may have come between."""
        attempt = self._in_flight.unrecorded
        if attempt is not None and attempt.outcome:
            if attempt.answer < 0:
                self._resolve_refusal(attempt)
            else:
                self._in_flight.record(attempt)
        self._in_flight.unrecorded = None

    def _resolve_refusal(self, attempt: Attempt) -> None:
        """Finds out whether the kernel counted a send that failed. UDP may count it and then fail (ENOBUFS of a queueing
        discipline, EPERM of a firewall): its completion is there already, or, if it went in several packets, comes when
        they are gone. A kernel that gave up earlier has taken the number back."""
        in_flight = self._in_flight
        if attempt.answer != -errno.EINTR:
            in_flight.uncertain += attempt.key == in_flight.next_key and not in_flight.uncertain
            attempt.got_events = self._drain(_ALL) > 0
            attempt.counted = attempt.key not in (None, in_flight.next_key)
            if attempt.key == in_flight.next_key and not (attempt.may_be_counted and counts_refused(self._fd())):
                in_flight.uncertain = 0

    def _resync(self, fd: int, name: bytes) -> None:
        """Learns the kernel's count by a `probe` if it can. ``uncertain`` is never too low on the way."""
        in_flight = self._in_flight
        before, in_flight.uncertain = in_flight.next_key, in_flight.uncertain + 1
        probe(fd, name)
        self._drain(_ALL)
        in_flight.uncertain = 0 if in_flight.next_key != before else in_flight.uncertain - 1

    # ---- completions ----

    def read(self, limit: int = LIMIT) -> list[Event]:
        """The events that came, completions among them, at most ``limit``; it never waits.

        Completions of adjacent sends are merged if they say the same, under the first's ``ancdata``. If more than 16384
        events wait to be read, the oldest are lost, and counted by ``dropped``. See `lowsock.errqueue.read`.
        """
        return self._take_events(checked_int("limit", limit, least=1))

    @exclusive
    def _take_events(self, limit: int) -> list[Event]:
        if not self._closed:
            self._sync(limit)
        return self._backlog.take(limit)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until all sends are complete, at most ``timeout`` seconds; returns whether they are. The sender goes on."""
        return self.wait(timeout)

    def wait(self, timeout: float | None = None, key: int | None = None) -> bool:
        """Waits until the send with this number is complete, or all are; False when ``timeout`` seconds were too few."""
        waiter = SharedWaiter(timeout)
        while True:
            fd, got_events = self._read_queue()
            self._refuse_foreign()
            if self._is_complete(key):
                return True
            if not waiter.wait(fd, 0, got_events):
                return False

    @exclusive
    def _read_queue(self) -> tuple[int, bool]:
        """Reads the error queue; returns the descriptor and whether there were events."""
        fd = self._fd()
        return fd, self._sync() > 0

    def _is_complete(self, key: int | None) -> bool:
        if key is None:
            return not self._in_flight.regions
        if not self._in_flight.was_assigned(checked_int("key", key, least=0, most=UINT32)):
            raise ValueError(f"key: no send has the number {key} yet")
        return key not in self._in_flight.regions

    def _sync(self, limit: int = LIMIT) -> int:
        self._record_attempt()
        return self._drain(limit)

    def _drain(self, limit: int) -> int:
        """Reads at most ``limit`` events; returns how many. Each step may be done twice."""
        fd = self._fd()
        for count in range(limit):
            event = self._slot.fill(fd)
            if event is None:
                return count
            if isinstance(event, ZeroCopyCompletion):
                self._in_flight.complete(event)
            self._backlog.add(event)
            self._slot.clear()
        return limit

    # ---- the end ----

    def close(self, timeout: float | None = None) -> None:
        """Ends the sender, once all sends are complete or ``timeout`` seconds are over. The socket stays open, `read` still
        gives the events that had come, and the socket may have another sender.

        If the time was too short, the wait was interrupted by an exception, or the socket is closed, the memory of the
        incomplete sends is kept for as long as the process runs, since the kernel may still read it, and a
        `ResourceWarning` says so.
        """
        waiter = SharedWaiter(timeout)
        if self._process != os.getpid():
            self._closed = True
        try:
            while not self._closed:
                fd, got_events = self._read_for_close()
                if fd is None or not waiter.wait(fd, 0, got_events):
                    self._finish()
        except BaseException:
            self._end_at_once()
            raise

    def _end_at_once(self) -> None:
        """Closes without a wait, unless the code that a signal handler interrupted is using the sender."""
        if not self._closed and not self._lock._is_owned():
            try:
                self._read_for_close()
            finally:
                self._finish()

    def _is_done(self) -> bool:
        """Whether `close` has nothing to wait for: all sends are complete, or no completion can come."""
        return self._read_for_close()[0] is None

    @exclusive
    def _read_for_close(self) -> tuple[int | None, bool]:
        """As `_read_queue`; the descriptor is None if there is nothing left to wait for, or no completion can come."""
        if self._closed or find_cookie(target(self._sock)[0]) != self._cookie:
            return None, False
        fd, got_events = self._fd(), self._sync() > 0
        return fd if self._in_flight.regions and not self._in_flight.saw_foreign else None, got_events

    @exclusive
    def _finish(self) -> None:
        if not self._closed:
            self._detach("was closed")

    def _detach(self, end: str) -> None:
        """Ends the sender; it may be called twice. `KEEP_ALIVE` holds the memory in flight, so no exception frees it."""
        regions = self._in_flight.end()
        with ReleaseGuard(_REGISTRY_LOCK), _REGISTRY_LOCK:
            if READERS.get(self._cookie) is self:
                del READERS[self._cookie]
        if not regions:
            KEEP_ALIVE.discard(self._in_flight)
        self._closed = True
        if regions:
            text = f"a ZeroCopySender {end} while {len(regions)} sends were incomplete: "
            text += f"{sum(region.size for region in regions)} bytes are kept for good"
            warnings.warn(text, ResourceWarning, stacklevel=5, source=self)

    # ---- what it knows ----

    @property
    def pending(self) -> int:
        """How many sends are incomplete, by the events that were read so far."""
        return len(self._in_flight.regions)

    @property
    def pending_bytes(self) -> int:
        """The memory that is kept for them. A piece counts whole, also if less of it was taken, and once for each send."""
        return sum(region.size for region in self._in_flight.regions.copy().values())

    @property
    def copied(self) -> int:
        """How many complete sends the kernel copied, as far as it tells; those sent as plain copies are among them."""
        return self._in_flight.copied + self._plain_copies

    @property
    def dropped(self) -> int:
        """How many events were lost because nobody read them."""
        return self._backlog.dropped

    @property
    def next_key(self) -> int:
        """What the next zero-copy send counts as."""
        return self._in_flight.next_key

    # ---- checks ----

    def _fd(self) -> int:
        """The descriptor, if it still is that socket's: its number may have come back as another's."""
        if self._closed:
            raise ValueError("this sender is closed")
        fd = target(self._sock)[0]
        if cookie(fd) != self._cookie:
            fail(-errno.EBADF)
        return fd

    def _refuse_foreign(self) -> None:
        if self._in_flight.saw_foreign:
            raise RuntimeError("completions came that are not this sender's: somebody else sends with MSG_ZEROCOPY here")
