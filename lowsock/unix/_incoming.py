# SPDX-License-Identifier: MIT
"""A stream's receive buffer: bytes, and the descriptors that came with them.

Linux ends a receive after the bytes that brought descriptors, but bytes that were sent earlier may come before these in the
same receive. So all that is known of descriptors is between which two bytes of the stream they came: a range of offsets,
counted from the stream's beginning. Nothing waits here, and the only system call is close(2).
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from lowsock import cmsg
from lowsock._memory.buffers import viewed
from lowsock._message.owned import OwnedFds, new_slots, owner
from lowsock._system.constants import CONSTANTS
from lowsock._system.ffi import lib
from lowsock.cmsg._base import seen_as

if TYPE_CHECKING:
    from typing import NoReturn

    from lowsock._system.types import Ancillary, Buffer, CData

_HEADER = struct.Struct("!II")  # of a message: how many bytes follow, how many descriptors came with the header's first byte
HEADER_SIZE = _HEADER.size
MSG_CTRUNC = CONSTANTS["MSG_CTRUNC"]
MAX_SIZE = 2**32 - 1  # bytes of one message
_CREDENTIALS = tuple(getattr(cmsg, name) for name in ("Credentials", "Creds", "Creds2") if hasattr(cmsg, name))


class BrokenStreamError(ConnectionError):
    """The stream cannot be received any further: the peer broke the protocol, or descriptors were lost on the way.

    The stream's descriptors are closed, and every further receive raises this again. Sends are not affected. It is an
    `OSError`, but no error of the kernel: its ``errno`` is None.
    """


class UnixMessage(NamedTuple):
    """Bytes of a stream, or a whole message, and what came with them. A later version may append fields."""

    data: bytes
    fds: OwnedFds
    """Owns the descriptors: use it in a ``with``, or `OwnedFds.take` them. ``fds.ancdata`` has other control messages."""
    credentials: cmsg.ControlMessage | None
    """Who sent it (`cmsg.Credentials`). None unless the socket asks for that: ``cmsg.enable(sock, cmsg.Credentials)``."""


class _FdRange:
    """Descriptors that came with the bytes from ``start`` up to ``end``, of which the first ``taken`` were taken."""

    __slots__ = ("end", "fds", "start", "taken")

    def __init__(self, start: int, end: int, fds: OwnedFds) -> None:
        self.start, self.end, self.fds, self.taken = start, end, fds, 0

    def __len__(self) -> int:
        return len(self.fds) - self.taken

    def move(self, count: int, to: CData) -> None:
        lib.lowsock_owned_take(self.fds._slots, self.taken, count, to)
        self.taken += count


class Incoming:
    """The buffer: bytes, and the descriptors that came with them."""

    def __init__(self, max_fds: int) -> None:
        self.credentials: cmsg.ControlMessage | None = None
        self._max_fds = max_fds
        self._bytes = bytearray()
        self._offset = 0  # of the buffer's first byte in the stream
        self._fd_ranges: deque[_FdRange] = deque()
        self._broken = ""  # why

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def held(self) -> int:
        """How many descriptors are in the buffer."""
        return sum(map(len, self._fd_ranges))

    @property
    def can_pass_through(self) -> bool:
        """Whether what comes next may bypass the buffer."""
        return not self._bytes and not self._broken

    # ---- in ----

    def pass_through(self, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> UnixMessage:
        """What a receive returned, which bypasses the buffer."""
        self._check(fds, msg_flags)
        self._offset += len(data)
        self.credentials = _credentials(fds.ancdata) if data and fds.ancdata else None  # at the end Linux tells 0, 0, 0
        return UnixMessage(data, fds, self.credentials)

    def pass_message(self, most: int, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> UnixMessage | None:
        """As `pass_through`, for a receive of exactly one message, of at most ``most`` bytes. Any other goes into the
        buffer; then this returns None."""
        size = len(data) - _HEADER.size
        if 0 <= size <= most and fds.pidfd is None and _HEADER.unpack_from(data) == (size, len(fds)):
            _, _, credentials = self.pass_through(data, fds, msg_flags)
            return UnixMessage(data[_HEADER.size :], fds, credentials)
        self.add(data, fds, msg_flags)
        return None

    def add(self, data: bytes, fds: OwnedFds, msg_flags: int, _: object = None) -> None:
        """Adds what a receive returned. The bytes must belong together with those in the buffer."""
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
            fds = _first_fds(fds, len(fds) - 1)
        if fds:
            start = self._offset + len(self._bytes)
            self._fd_ranges.append(_FdRange(start, start + len(data), fds))
        self._bytes += data

    def _check(self, fds: OwnedFds, msg_flags: int) -> None:
        count = len(fds) - (fds.pidfd is not None) if fds else 0
        lost = msg_flags & MSG_CTRUNC
        if not lost and count + (self.held if self._fd_ranges else 0) <= self._max_fds:
            return
        fds.close()
        if lost:
            self.fail("descriptors were lost (MSG_CTRUNC): the table is full (RLIMIT_NOFILE), or they are not allowed here")
        self.fail(f"more than {self._max_fds} descriptors came that nobody took")

    # ---- out ----

    def peek(self, size: int) -> bytes:
        return bytes(self._bytes[:size])

    def take(self, size: int) -> bytes:
        """Takes ``size`` bytes, which must be in the buffer."""
        if size == len(self._bytes):
            data = bytes(self._bytes)
            self._bytes.clear()
        else:
            with memoryview(self._bytes) as view:
                data = bytes(view[:size])
            del self._bytes[:size]
        self._offset += size
        return data

    def take_some(self, size: int) -> UnixMessage:
        """Takes at most ``size`` bytes that came together, and the descriptors that came with the first of them."""
        fds, start = None, self._offset
        fd_range = next((each for each in self._fd_ranges if each.end > start), None)
        if fd_range is not None and fd_range.start == start:
            self._fd_ranges.remove(fd_range)
            fds = fd_range.fds
        if fd_range is not None:
            size = min(size, (fd_range.start if fd_range.start > start else fd_range.end) - start)
        return UnixMessage(self.take(min(size, len(self._bytes))), OwnedFds() if fds is None else fds, self.credentials)

    def take_fds(self, count: int) -> OwnedFds:
        """Takes the first ``count`` descriptors that came with the bytes taken so far. Closes those that are left of ranges
        whose bytes are all taken."""
        ready = [fd_range for fd_range in self._fd_ranges if fd_range.start < self._offset]
        came = sum(map(len, ready))
        if count > came:
            self.fail(f"{count} descriptors were to come, and {came} came")
        whole = bool(ready) and not ready[0].taken and len(ready[0]) == count
        own = new_slots(0 if whole else count)
        fds = ready[0].fds if whole else owner(own)
        try:
            if whole:
                self._fd_ranges.popleft()
            for fd_range in ready:
                fd_range.move(min(len(fd_range), own.size - own.count), own)
            while self._fd_ranges and self._fd_ranges[0].end <= self._offset:
                self._fd_ranges.popleft().fds.close()
            return fds
        except BaseException:  # a signal handler's: nobody knows which descriptors were moved
            self._broken = "descriptors were being taken when an exception came"
            self.close()
            fds.close()
            raise

    # ---- messages ----

    def read_header(self, most: int) -> tuple[int, int]:
        """How many bytes follow the header that is in the buffer, and how many descriptors came with it."""
        size, count = _HEADER.unpack(self.peek(_HEADER.size))
        if size > most:
            self.fail(f"a message of {size} bytes is to come: max_message is {most}")
        return size, count

    def take_message(self, size: int, count: int) -> UnixMessage:
        """Takes the message that follows its header in the buffer."""
        data = self.take(HEADER_SIZE + size)[HEADER_SIZE:]
        return UnixMessage(data, self.take_fds(count), self.credentials)

    def refuse_partial(self) -> None:
        """The stream has ended: that is an error within a message."""
        if self._bytes:
            self.fail(f"the stream ended within a message, {len(self)} bytes after it began")

    # ---- the end ----

    def end_before(self, size: int) -> NoReturn:
        """The stream ended when ``size`` bytes were to come."""
        raise EOFError(f"the stream ended after {len(self)} of {size} bytes; receive() returns those that came")

    def refuse_broken(self) -> None:
        if self._broken:
            raise BrokenStreamError(self._broken)

    def fail(self, reason: str) -> NoReturn:
        self._broken = reason
        self.close()
        raise BrokenStreamError(reason)

    def close(self) -> None:
        """Closes all descriptors, and drops the bytes."""
        while self._fd_ranges:
            self._fd_ranges.popleft().fds.close()
        self._bytes.clear()


def encode_message(data: Buffer, fd_count: int) -> bytes:
    """What goes over the stream for one message; ``fd_count`` descriptors go beside its first byte."""
    with viewed("data", data) as view:
        if view.nbytes > MAX_SIZE:
            raise ValueError(f"data must not be more than {MAX_SIZE} bytes: {view.nbytes}")
        return b"".join((_HEADER.pack(view.nbytes, fd_count), view))


def _credentials(ancdata: Ancillary) -> cmsg.ControlMessage | None:
    """Whose bytes came. A class that a user has registered in the place of ours is seen through."""
    found = (seen_as(message, *_CREDENTIALS) for message in cmsg.decode(ancdata))
    return next((message for message in found if message is not None), None)


def _first_fds(fds: OwnedFds, count: int) -> OwnedFds:
    """The first ``count`` descriptors, moved to another owner; the others are closed."""
    own = new_slots(count)
    with fds:
        moved = owner(own)
        lib.lowsock_owned_take(fds._slots, 0, count, own)
    return moved
