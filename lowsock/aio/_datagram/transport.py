# SPDX-License-Identifier: MIT
"""The transport of datagrams in bulk: what an asyncio protocol sees of a socket."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

from lowsock._system.errors import raised_inside
from lowsock.aio._datagram.sender import DatagramSender
from lowsock.udp import Datagram

if TYPE_CHECKING:
    import asyncio
    import socket

    from lowsock.aio._datagram.backends import Carrier

_MOST = 512  # datagrams after which one readiness callback lets the loop go on
_ERROR = 64  # datagrams that an error counts as
_LARGEST = 65536  # bytes of any UDP datagram
_LOOKS = 64  # datagrams that come alone between two looks for more
_EAGER = 8  # wake-ups in a row that brought one datagram
_TOGETHER = 32  # datagrams sent while receiving that do not wait for the end of it
_SEVERAL = 8  # datagrams of one call after which another is worth it


class DatagramTransport(DatagramSender):
    """What `create_datagram_endpoint` returns: all that `asyncio.DatagramTransport` has, and `pause_reading`,
    `resume_reading`, `is_reading`, `set_protocol` and `get_protocol`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any, carrier: Carrier, address: Any
    ) -> None:
        self._sock: socket.socket | None = None
        super().__init__(loop, sock, protocol, carrier, address)
        self._recv, self._recv_from = carrier.recv, carrier.recv_from
        self._eager = _EAGER  # wake-ups that may bring one datagram only until the next is left to the loop's next turn
        self._looks = 1  # so many datagrams alone, and then it is seen whether there are more
        self._paused = False
        self._halted = False  # no datagram is to be delivered: paused, closing, or the protocol is another now
        self._left: list[Datagram] = []  # of a batch
        self._resuming = False  # that comes in the next turn
        self.set_protocol(protocol)
        if self._recv_from is not None:
            self._readiness.call(self._read_one)
        self._sock = sock

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "closing" if self._closing else f"fd={self._sock.fileno()}"
        return f"<{type(self).__name__} {state} write_buffer_size={self._out.size}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if not self._loop.is_closed():
                self._readiness.close()
            self._sock.close()

    def _begin(self) -> None:
        """The protocol knows of its connection, and can receive."""
        if not self._halted:
            self._readiness.read(True)

    # ---- the protocol ----

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._takes_all = hasattr(protocol, "datagrams_received")
        if self._takes_all:
            self._expect_many()
        self._halted = self._reading or self._closing or self._paused or self._resuming

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def _fail(self, error: BaseException) -> None:
        """Something that should not be: the connection is lost."""
        self._tell("error in a datagram transport", error)
        self._force_close(error)

    # ---- receiving ----

    def is_reading(self) -> bool:
        return not (self._closing or self._paused)

    def pause_reading(self) -> None:
        if self.is_reading():
            self._paused = self._halted = True
            self._readiness.read(False)

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused, self._halted = False, self._reading or self._resuming
        self._readiness.read(True)
        if self._left:
            self._resume_soon()

    def _read_ready(self) -> bool:
        """Drains the socket, within bounds; False if there may be more."""
        if self._halted:
            return True
        if self._left:
            datagrams, self._left = self._left, []
            return self._drain(datagrams)
        return self._drain(self._attempt())

    def _read_one(self) -> bool:
        """The short way, with nothing between system call and protocol, as long as datagrams come alone."""
        if self._halted:
            return True
        try:
            data, address = self._recv_from(_LARGEST)  # type: ignore[misc]  # or this is not called
        except BaseException as error:
            return self._drain(error)
        self._readiness.misled = 0
        self._held, self._express = True, not self._queue
        try:
            self._protocol.datagram_received(data, address)
        finally:
            self._express = False
            self._held = self._scheduled or self._blocked
            if self._queue:
                self._flush()
        self._looks -= 1
        return self._looks > 0 or self._look_for_more()

    def _look_for_more(self) -> bool:
        """From time to time, whether a datagram did not come alone."""
        self._looks = _LOOKS
        if self._halted or self._recv_from is None:
            return True
        try:
            data, address = self._recv_from(_LARGEST)
        except (BlockingIOError, InterruptedError):
            return True
        except BaseException as error:
            return self._drain(error)
        self._expect_many()
        return self._drain([Datagram(data, address)])

    def _expect_many(self) -> None:
        """From now on, and for good: what the kernel joined before could not be told from one datagram."""
        if self._recv_from is not None:
            self._recv_from = None
            self._carrier.expect_many()
            self._info["endpoint"] = self._carrier.endpoint
            self._recv = self._carrier.recv
            self._readiness.call(self._read_ready)

    def _drain(self, found: list[Datagram] | BaseException) -> bool:
        """Goes on after a first attempt to receive. All that is sent meanwhile leaves with its batch."""
        self._reading = self._held = True
        count = 0
        try:
            while True:
                if isinstance(found, BaseException):
                    if self._finds_nothing(found, count):
                        return True
                    count += _ERROR
                else:
                    self._readiness.misled = 0
                    count += len(found)
                    self._take(found)
                    if not (self._eager > 0 or len(found) >= _SEVERAL or self._readiness.edges or self._is_time_to_look()):
                        return False
                if self._halted or count >= _MOST:
                    return False
                found = self._attempt()
        finally:
            self._reading = False
            self._halted = self._closing or self._paused or self._resuming
            self._held = self._scheduled or self._blocked
            if self._queue:
                self._flush()

    def _attempt(self) -> list[Datagram] | BaseException:
        try:
            return self._recv()
        except BaseException as error:
            return error

    def _take(self, datagrams: list[Datagram]) -> None:
        if self._takes_all:
            self._protocol.datagrams_received(datagrams)
        else:
            self._deliver(datagrams)
        if len(self._queue) >= _TOGETHER:
            self._flush()

    def _is_time_to_look(self) -> bool:
        """Whether to see if there is more, though wake-ups have brought one datagram each."""
        self._looks -= 1
        if self._looks > 0:
            return False
        self._looks, self._eager = _LOOKS, 1
        return True

    def _finds_nothing(self, error: BaseException, count: int) -> bool:
        """What a receive raised; whether it is that there is nothing more."""
        if isinstance(error, (BlockingIOError, InterruptedError)):
            self._eager = _EAGER if count > 1 else self._eager - 1
            if not count and not self._read_errors():
                self._readiness.mislead()
                if self._readiness.edges:
                    self._expect_many()
            return True
        if not raised_inside(error):  # a signal handler has
            raise error
        if isinstance(error, OSError):
            if not self._read_errors():
                self._protocol.error_received(error)
        else:
            self._fail(error)
        return False

    def _read_errors(self) -> bool:
        """Gives the protocol what is in the error queue, if it asked for that; whether there was anything."""
        if not self._carrier.reads_errors:
            return False
        events = self._carrier.read_errors()
        if events:
            self._protocol.errors_received(events)
        return bool(events)

    def _deliver(self, datagrams: list[Datagram]) -> None:
        """One by one, within bounds. If one raises, the loop is told of that. The rest comes in the next turn."""
        received, arrived = self._protocol.datagram_received, iter(datagrams)
        try:
            for datagram in islice(arrived, _MOST):
                received(datagram[0], datagram[1])
                if self._halted:
                    break
        finally:
            self._left = list(arrived)
            if self._left and not self._paused:
                self._resume_soon()

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = self._halted = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        self._halted = self._closing or self._paused
        self._readiness.reread()

    # ---- the end ----

    def close(self) -> None:
        """Sends what is in the queue first, then ``connection_lost(None)``."""
        if self._closing:
            return
        self._closing = self._halted = True
        self._express = False
        self._readiness.read(False)
        self._flush()

    def abort(self) -> None:
        """Drops what the kernel has no room for, then ``connection_lost(None)``."""
        self._closing = self._halted = True
        try:
            self._flush()
        finally:
            self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        self._closing = self._halted = True
        self._out.clear()
        self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._lost, self._express = True, False
        self._readiness.close()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: BaseException | None) -> None:
        sock, self._sock = self._sock, None
        try:
            self._protocol.connection_lost(error)
        finally:
            self._left = []
            self._protocol = None
            if sock is not None:
                sock.close()
