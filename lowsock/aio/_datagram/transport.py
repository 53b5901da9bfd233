# SPDX-License-Identifier: MIT
"""The transport: what an asyncio protocol sees of a datagram socket. Its receiving half, and its end."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

from lowsock._system.errors import raised_inside
from lowsock.aio._datagram.sending import DatagramSender
from lowsock.udp import Datagram

if TYPE_CHECKING:
    import asyncio
    import socket

    from lowsock.aio._datagram.backends import Backend

_MAX_BURST = 512  # datagrams after which a readiness callback returns to the loop
_ERROR_COST = 64  # how many datagrams an error counts as
_MAX_SIZE = 65536  # bytes of any UDP datagram
_PROBE_INTERVAL = 64  # datagrams that come alone between two looks for more
_MAX_RETRIES = 8  # retries in a row that find nothing; after these, a datagram that comes alone is not followed by a retry
_FLUSH_COUNT = 32  # datagrams in the queue that do not wait for the end of a receive
_FULL_ENOUGH = 8  # datagrams of one call that make another call worthwhile


class DatagramTransport(DatagramSender):
    """What `create_datagram_endpoint` returns: all that `asyncio.DatagramTransport` has, and `pause_reading`,
    `resume_reading`, `is_reading`, `set_protocol` and `get_protocol`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any, backend: Backend, address: Any
    ) -> None:
        self._sock: socket.socket | None = None
        super().__init__(loop, sock, protocol, backend, address)
        self._recv, self._recv_from = backend.recv, backend.recv_from
        self._retries_left = _MAX_RETRIES
        self._until_probe = 1  # datagrams that come alone until the next look for more
        self._paused = False
        self._suspended = False  # deliver nothing: the transport is paused or closing, or has another protocol now
        self._undelivered: list[Datagram] = []  # the rest of a batch
        self._resuming = False  # `_resume` runs in the next iteration
        self.set_protocol(protocol)
        if self._recv_from is not None:
            self._readiness.set_reader(self._read_one)
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

    def _start_reading(self) -> None:
        """Called after ``connection_made``: the protocol can receive."""
        if not self._suspended:
            self._readiness.want_read(True)

    # ---- the protocol ----

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._takes_batches = hasattr(protocol, "datagrams_received")
        if self._takes_batches:
            self._expect_batches()
        self._suspended = self._draining or self._closing or self._paused or self._resuming

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def _fail(self, error: BaseException) -> None:
        """Ends the connection after an error that should not happen."""
        self._report("error in a datagram transport", error)
        self._force_close(error)

    # ---- receiving ----

    def is_reading(self) -> bool:
        return not (self._closing or self._paused)

    def pause_reading(self) -> None:
        if self.is_reading():
            self._paused = self._suspended = True
            self._readiness.want_read(False)

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused, self._suspended = False, self._draining or self._resuming
        self._readiness.want_read(True)
        if self._undelivered:
            self._resume_soon()

    def _read_ready(self) -> bool:
        """Drains the socket, within bounds; False if there may be more."""
        if self._suspended:
            return True
        if self._undelivered:
            datagrams, self._undelivered = self._undelivered, []
            return self._drain(datagrams)
        return self._drain(self._receive())

    def _read_one(self) -> bool:
        """The fast path, as long as datagrams come alone: nothing between the system call and the protocol."""
        if self._suspended:
            return True
        try:
            data, address = self._recv_from(_MAX_SIZE)  # type: ignore[misc]  # or this is not called
        except BaseException as error:
            return self._drain(error)
        self._readiness.spurious = 0
        self._corked, self._bypass = True, not self._queue
        try:
            self._protocol.datagram_received(data, address)
        finally:
            self._bypass = False
            self._corked = self._scheduled or self._blocked
            if self._queue:
                self._flush()
        self._until_probe -= 1
        return self._until_probe > 0 or self._probe_for_more()

    def _probe_for_more(self) -> bool:
        """Looks whether a datagram did not come alone; if so, expects batches from now on."""
        self._until_probe = _PROBE_INTERVAL
        if self._suspended or self._recv_from is None:
            return True
        try:
            data, address = self._recv_from(_MAX_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        except BaseException as error:
            return self._drain(error)
        self._expect_batches()
        return self._drain([Datagram(data, address)])

    def _expect_batches(self) -> None:
        """Gives up the fast path for good: `_recv_from` cannot tell datagrams that the kernel joined from one datagram."""
        if self._recv_from is not None:
            self._recv_from = None
            self._backend.expect_batches()
            self._info["endpoint"] = self._backend.endpoint
            self._recv = self._backend.recv
            self._readiness.set_reader(self._read_ready)

    def _drain(self, found: list[Datagram] | BaseException) -> bool:
        """Delivers what a first attempt received, and receives more. What is sent meanwhile leaves in batches."""
        self._draining = self._corked = True
        count = 0
        try:
            while True:
                if isinstance(found, BaseException):
                    if self._on_receive_error(found, count):
                        return True
                    count += _ERROR_COST
                else:
                    self._readiness.spurious = 0
                    count += len(found)
                    self._deliver(found)
                    if not (
                        self._retries_left > 0
                        or len(found) >= _FULL_ENOUGH
                        or self._readiness.edge_triggered
                        or self._is_probe_due()
                    ):
                        return False
                if self._suspended or count >= _MAX_BURST:
                    return False
                found = self._receive()
        finally:
            self._draining = False
            self._suspended = self._closing or self._paused or self._resuming
            self._corked = self._scheduled or self._blocked
            if self._queue:
                self._flush()

    def _receive(self) -> list[Datagram] | BaseException:
        try:
            return self._recv()
        except BaseException as error:
            return error

    def _deliver(self, datagrams: list[Datagram]) -> None:
        if self._takes_batches:
            self._protocol.datagrams_received(datagrams)
        else:
            self._deliver_each(datagrams)
        if len(self._queue) >= _FLUSH_COUNT:
            self._flush()

    def _is_probe_due(self) -> bool:
        """Whether to try again, though wake-ups have brought one datagram each."""
        self._until_probe -= 1
        if self._until_probe > 0:
            return False
        self._until_probe, self._retries_left = _PROBE_INTERVAL, 1
        return True

    def _on_receive_error(self, error: BaseException, count: int) -> bool:
        """Handles what a receive raised. Returns whether the socket is drained."""
        if isinstance(error, (BlockingIOError, InterruptedError)):
            self._retries_left = _MAX_RETRIES if count > 1 else self._retries_left - 1
            if not count and not self._read_errors():
                self._readiness.spurious_wakeup()
                if self._readiness.edge_triggered:
                    self._expect_batches()
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
        """Gives the protocol what is in the error queue, if it asked for that. Returns whether there was anything."""
        if not self._backend.reads_errors:
            return False
        events = self._backend.read_errors()
        if events:
            self._protocol.errors_received(events)
        return bool(events)

    def _deliver_each(self, datagrams: list[Datagram]) -> None:
        """Delivers one by one, within bounds; the rest, also after an exception, follows in the next iteration."""
        received, arrived = self._protocol.datagram_received, iter(datagrams)
        try:
            for datagram in islice(arrived, _MAX_BURST):
                received(datagram[0], datagram[1])
                if self._suspended:
                    break
        finally:
            self._undelivered = list(arrived)
            if self._undelivered and not self._paused:
                self._resume_soon()

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = self._suspended = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        self._suspended = self._closing or self._paused
        self._readiness.reread()

    # ---- the end ----

    def close(self) -> None:
        """Sends what is in the queue first, then ``connection_lost(None)``."""
        if self._closing:
            return
        self._closing = self._suspended = True
        self._bypass = False
        self._readiness.want_read(False)
        self._flush()

    def abort(self) -> None:
        """Drops what the kernel has no room for, then ``connection_lost(None)``."""
        self._closing = self._suspended = True
        try:
            self._flush()
        finally:
            self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        self._closing = self._suspended = True
        self._out.clear()
        self._end_connection(error)

    def _end_connection(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._lost, self._bypass = True, False
        self._readiness.close()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        sock, self._sock = self._sock, None
        try:
            self._protocol.connection_lost(error)
        finally:
            self._undelivered = []
            self._protocol = None
            if sock is not None:
                sock.close()
