# SPDX-License-Identifier: MIT
"""What has come on a stream and was not asked for yet: bytes, and descriptors with the place where they came.

Linux ends a receive behind the bytes that brought descriptors, and puts bytes that were sent before them in front: all
that one knows is between which two bytes of the stream descriptors came. That is kept, as counts of bytes since the
beginning. Nothing waits here, and nothing makes a system call but close(2).
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from lowsock import cmsg
from lowsock._message.owned import OwnedFds, new_slots, owner
from lowsock._system.constants import CONSTANTS
from lowsock._system.ffi import lib

if TYPE_CHECKING:
    from typing import NoReturn

    from lowsock._system.types import Ancillary, CData

HEADER = struct.Struct("!II")  # of a message: bytes that follow, descriptors that came with the first byte of this
MSG_CTRUNC = CONSTANTS["MSG_CTRUNC"]
_KINDS = tuple(getattr(cmsg, name) for name in ("Credentials", "Creds", "Creds2") if hasattr(cmsg, name))


class BrokenStream(Exception):
    """What comes cannot be put in order any more: the peer broke the protocol, or descriptors were lost on the way.

    Descriptors that were held are closed; every further receive raises this again. Sending is not touched.
    """


class Received(NamedTuple):
    """Bytes, and what came with them. It unpacks as ``data, fds, credentials``."""

    data: bytes
    fds: OwnedFds
    """Owns the descriptors: use it in a ``with``, or `OwnedFds.take` them. ``fds.ancdata`` has other control messages."""
    credentials: cmsg.ControlMessage | None
    """Who sent it (`cmsg.Credentials`), where the socket asks for that: ``cmsg.enable(sock, cmsg.Credentials)``."""


class _Brought:
    """Descriptors that came with the bytes from ``start`` up to ``end``; the first ``gone`` of them are taken."""

    __slots__ = ("end", "fds", "gone", "start")

    def __init__(self, start: int, end: int, fds: OwnedFds) -> None:
        self.start, self.end, self.fds, self.gone = start, end, fds, 0

    def __len__(self) -> int:
        return len(self.fds) - self.gone

    def move(self, count: int, to: CData) -> None:
        lib.lowsock_owned_take(self.fds._slots, self.gone, count, to)
        self.gone += count


class Incoming:
    """A buffer of bytes, and the descriptors that came with them."""

    def __init__(self, max_fds: int) -> None:
        self.credentials: cmsg.ControlMessage | None = None
        self._max_fds = max_fds
        self._bytes = bytearray()
        self._taken = 0
        self._brought: deque[_Brought] = deque()
        self._broken = ""

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def held(self) -> int:
        """How many descriptors are here."""
        return sum(map(len, self._brought))

    @property
    def may_be_passed(self) -> bool:
        """Whether nothing stands before what comes next."""
        return not self._bytes and not self._broken

    # ---- in ----

    def pass_on(self, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> Received:
        """What a receive returned, as it is."""
        self._check(fds, msg_flags)
        self._taken += len(data)
        self.credentials = _credentials(fds.ancdata) if data and fds.ancdata else None  # at the end Linux tells 0, 0, 0
        return Received(data, fds, self.credentials)

    def pass_message(self, most: int, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> Received | None:
        """A receive that was one whole message of at most ``most`` bytes and nothing else; any other is kept: None."""
        size = len(data) - HEADER.size
        if 0 <= size <= most and fds.pidfd is None and HEADER.unpack_from(data) == (size, len(fds)):
            _, _, credentials = self.pass_on(data, fds, msg_flags)
            return Received(data[HEADER.size :], fds, credentials)
        self.add(data, fds, msg_flags)
        return None

    def add(self, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> None:
        """Keeps what a receive returned. Only for bytes that are asked for together with those that are here."""
        self._check(fds, msg_flags)
        if not data:  # the end
            fds.close()
            return
        credentials = _credentials(fds.ancdata) if fds.ancdata else None
        if self._bytes and credentials != self.credentials:
            fds.close()
            self.fail(f"bytes of {credentials} came among those of {self.credentials}")
        self.credentials = credentials
        if fds.pidfd is not None:
            fds = _moved(fds, len(fds) - 1)
        if fds:
            start = self._taken + len(self._bytes)
            self._brought.append(_Brought(start, start + len(data), fds))
        self._bytes += data

    def _check(self, fds: OwnedFds, msg_flags: int) -> None:
        count = len(fds) - (fds.pidfd is not None) if fds else 0
        lost = msg_flags & MSG_CTRUNC
        if not lost and count + (self.held if self._brought else 0) <= self._max_fds:
            return
        fds.close()
        if lost:
            self.fail("descriptors were lost (MSG_CTRUNC): the table is full (RLIMIT_NOFILE), or they are not allowed here")
        self.fail(f"more than {self._max_fds} descriptors came that nobody took")

    # ---- out ----

    def peek(self, size: int) -> bytes:
        return bytes(self._bytes[:size])

    def take(self, size: int) -> bytes:
        """So many bytes, which are here."""
        if size == len(self._bytes):
            data = bytes(self._bytes)
            self._bytes.clear()
        else:
            with memoryview(self._bytes) as view:
                data = bytes(view[:size])
            del self._bytes[:size]
        self._taken += size
        return data

    def take_some(self, size: int) -> Received:
        """At most so many bytes, as far as they came together, and the descriptors that came with the first of them."""
        fds, start = None, self._taken
        brought = next((brought for brought in self._brought if brought.end > start), None)
        if brought is not None and brought.start == start:
            self._brought.remove(brought)
            fds = brought.fds
        if brought is not None:
            size = min(size, (brought.start if brought.start > start else brought.end) - start)
        return Received(self.take(min(size, len(self._bytes))), OwnedFds() if fds is None else fds, self.credentials)

    def take_fds(self, count: int) -> OwnedFds:
        """The first ``count`` of the descriptors that came with the bytes taken so far. Closes those that are left of bytes
        which are all taken."""
        ready = [brought for brought in self._brought if brought.start < self._taken]
        came = sum(map(len, ready))
        if count > came:
            self.fail(f"{count} descriptors were to come, and {came} came")
        whole = bool(ready) and not ready[0].gone and len(ready[0]) == count
        own = new_slots(0 if whole else count)
        fds = ready[0].fds if whole else owner(own)
        try:
            if whole:
                self._brought.popleft()
            for brought in ready:
                brought.move(min(len(brought), own.size - own.count), own)
            while self._brought and self._brought[0].end <= self._taken:
                self._brought.popleft().fds.close()
            return fds
        except BaseException:  # a signal handler's: what is where, nobody knows any more
            self._broken = "descriptors were being taken when an exception came"
            self.close()
            fds.close()
            raise

    # ---- the end ----

    def refuse_broken(self) -> None:
        if self._broken:
            raise BrokenStream(self._broken)

    def fail(self, why: str) -> NoReturn:
        self._broken = why
        self.close()
        raise BrokenStream(why)

    def close(self) -> None:
        """Closes all descriptors, and forgets the bytes."""
        while self._brought:
            self._brought.popleft().fds.close()
        self._bytes.clear()


def _credentials(ancdata: Ancillary) -> cmsg.ControlMessage | None:
    return next((message for message in cmsg.decode(ancdata) if isinstance(message, _KINDS)), None)


def _moved(fds: OwnedFds, count: int) -> OwnedFds:
    """The first ``count`` in an owner of their own; the others are closed."""
    own = new_slots(count)
    with fds:
        moved = owner(own)
        lib.lowsock_owned_take(fds._slots, 0, count, own)
    return moved
