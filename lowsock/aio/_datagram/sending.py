# SPDX-License-Identifier: MIT
"""The sending half of a transport: which datagrams are sent at once, which in a batch, and which wait for room."""

from __future__ import annotations

import asyncio
import logging
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any

from lowsock._memory.address import encode_for, family_of
from lowsock._system.errors import raised_inside
from lowsock._system.spellings import refuse, shown_as
from lowsock.aio._datagram.backends import segments
from lowsock.aio._datagram.flow_control import Flow
from lowsock.aio._datagram.readiness import Readiness
from lowsock.aio._datagram.send_queue import Outgoing
from lowsock.udp._control import checked_segment

if TYPE_CHECKING:
    import socket

    from lowsock.aio._datagram.backends import Backend

_MAX_CORKED = 256 * 1024  # bytes that wait for the end of an iteration of the loop
_LONE_THRESHOLD = 4  # iterations with one datagram each, after which the first of an iteration is sent at once
_PROBE_INTERVAL = 8  # one in so many of these iterations is watched for more datagrams
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds
_SILENT_DROPS = 5  # datagrams that a lost connection drops without a warning
_UNKNOWN: Any = object()
_OLD = {"source": "local=..."}

logger = logging.getLogger("asyncio")


class DatagramSender(asyncio.DatagramTransport):
    """All that sends. The receiving half sets `_draining` and `_closing`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any, backend: Backend, address: Any
    ) -> None:
        super().__init__()
        self._info = {
            "socket": TransportSocket(sock),
            "sockname": _name(sock.getsockname),
            "peername": _name(sock.getpeername),
            "endpoint": backend.endpoint,
        }
        self._loop, self._backend, self._protocol = loop, backend, protocol
        self._family, self._address = family_of(sock), address
        self._connected = self._info["peername"] is not None
        self._known_address = None if self._connected else _UNKNOWN  # the last address that was checked
        self._closing = self._lost = False
        self._corked = False  # datagrams stay in the queue, for one of these reasons:
        self._draining = self._scheduled = self._blocked = False
        self._bypass = False  # the next datagram bypasses the queue: it answers one that came alone
        self._flush_first = self._probing = False
        self._lone_iterations = self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _FIRST_PAUSE
        self._out = Outgoing(backend, self._refused, self._fail)
        self._queue = self._out.queue
        self._flow = Flow(self, loop)
        self._send, self._send_to = sock.send, sock.sendto
        self._readiness = Readiness(loop, sock.fileno(), self._read_ready, self._write_ready)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, ``sockname``, ``peername``, and ``endpoint``: the `lowsock.udp.Endpoint`, or None if there is none."""
        return self._info.get(name, default)

    def _refused(self, error: OSError) -> None:
        if not self._closing:
            self._protocol.error_received(error)
            return
        try:
            self._protocol.error_received(error)
        except Exception as raised:  # the caller of `close` does not expect it
            self._report("protocol.error_received() raised", raised)

    def _report(self, message: str, error: BaseException) -> None:
        """Passes an exception to the loop's exception handler."""
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    def _read_ready(self) -> bool:
        raise NotImplementedError

    def _fail(self, error: BaseException) -> None:
        raise NotImplementedError

    def _end_connection(self, error: BaseException | None) -> None:
        raise NotImplementedError

    # ---- sending ----

    def sendto(
        self, data: Any, addr: Any = None, *, ecn: int | None = None, local: Any = None, segment_size: int | None = None
    ) -> None:
        """Sends ``data``, at the latest at the end of this iteration of the loop.

        ``addr`` is numeric. ``segment_size`` cuts ``data`` into datagrams of that many bytes. ``ecn`` and ``local`` are as
        in `lowsock.udp.Endpoint.send`; they take a UDP socket. Wrong arguments raise; what the kernel refuses goes to
        ``error_received``.
        """
        raise NotImplementedError  # `_sendto` stands here

    def _sendto(
        self, data: Any, addr: Any = None, *, ecn: Any = None, local: Any = None, segment_size: Any = None, **old: Any
    ) -> None:
        if old:
            refuse("sendto", old, _OLD)
        if type(data) is not bytes:
            data = _as_bytes(data)
        if addr is not self._known_address:
            addr = self._known_address if addr == self._known_address else self._checked_address(addr)
        if self._bypass and ecn is local is segment_size is None:
            self._bypass = False
            try:
                if addr is None:
                    self._send(data)
                else:
                    self._send_to(data, addr)
                return
            except (BlockingIOError, InterruptedError):
                pass  # the queue tries it again, and then waits
            except OSError as error:
                if not raised_inside(error):
                    raise
                self._refused(error)
                return
        if self._lost:
            self._drop_after_loss()
            return
        out = self._out
        if ecn is local is segment_size is None:
            self._queue.append((data, addr))
        else:
            self._queue.extend(self._items(data, addr, ecn, local, segment_size))
            self._bypass = False  # the next datagram would overtake this one
        out.size += len(data) or 1
        if not self._corked:
            self._begin_iteration()
        elif self._blocked:
            self._flow.pause_if_full(out.size)
        elif out.size > _MAX_CORKED:
            self._flush()

    if not TYPE_CHECKING:
        sendto = shown_as(sendto)(_sendto)

    def _checked_address(self, addr: Any) -> Any:
        """The address to give the kernel."""
        if self._address is not None and addr is not None and addr != self._address:
            raise ValueError(f"addr must be None or {self._address!r}, the address that the endpoint was made with")
        if self._connected:
            return None
        if self._address is not None:
            return self._address
        if addr is not None:
            encode_for(-1, addr, self._family)
            self._known_address = addr
        return addr

    def _items(self, data: bytes, addr: Any, ecn: Any, local: Any, segment: Any) -> list[Any]:
        pieces = [data] if segment is None else segments(data, checked_segment(segment))
        if ecn is local is None:
            return [(piece, addr) for piece in pieces]
        control = self._backend.checked_control(addr or self._info["peername"], ecn, local)
        self._out.with_control += len(pieces)
        return [(piece, addr, control) for piece in pieces]

    def _begin_iteration(self) -> None:
        """The first datagram of an iteration. It is sent at once if iterations have one each: to wait would gain nothing."""
        if self._flush_first:
            self._lone_iterations += 1
            self._flush()
            if self._lone_iterations % _PROBE_INTERVAL or self._corked or self._lost:
                return
            self._probing = True
        self._schedule()

    def _schedule(self) -> None:
        self._scheduled = self._corked = True
        self._loop.call_soon(self._end_iteration)

    def _end_iteration(self) -> None:
        count = len(self._queue) + self._probing
        self._lone_iterations = self._lone_iterations + 1 if count <= 1 else 0
        self._flush_first = self._lone_iterations >= _LONE_THRESHOLD
        self._scheduled = self._probing = False
        self._flush()

    def _flush(self) -> None:
        """Sends what is in the queue, unless the kernel has no room."""
        if self._blocked or self._lost or self._out.flushing:
            return
        self._corked = True
        try:
            if not self._out.flush():
                self._block()
        finally:
            self._after_flush()

    def _after_flush(self) -> None:
        """What an exception or ``error_received`` has left in the queue goes in the next iteration."""
        self._corked = self._scheduled or self._draining or self._blocked
        if not self._queue:
            if self._closing:
                self._end_connection(None)
        elif not self._corked and not self._lost:
            self._schedule()

    def _block(self) -> None:
        self._blocked = self._corked = True
        self._readiness.want_write(True)
        self._flow.pause_if_full(self._out.size)

    def _write_ready(self) -> None:
        """The loop says that there is room. Of some sockets, and after errors, it always says so: then pauses grow."""
        self._timer = None
        if self._lost:
            return
        before, has_room = len(self._queue), True
        try:
            has_room = self._out.flush()
        finally:
            self._blocked = not has_room
            if not self._lost:
                self._watch_for_room(len(self._queue) < before)
                self._flow.resume_if_empty(self._out.size)
            self._after_flush()

    def _watch_for_room(self, some_sent: bool) -> None:
        if not self._blocked or some_sent:
            self._pause = _FIRST_PAUSE
            self._readiness.want_write(self._blocked)
        else:
            self._readiness.want_write(False)
            self._timer = self._loop.call_later(self._pause, self._write_ready)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    # ---- flow control ----

    def get_write_buffer_size(self) -> int:
        """The bytes that the kernel has not taken yet. An empty datagram counts as one."""
        return self._out.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """``(low, high)``, in bytes."""
        return self._flow.low, self._flow.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._flow.limit(high, low)
        if self._blocked:
            self._flow.pause_if_full(self._out.size)

    def _drop_after_loss(self) -> None:
        self._dropped += 1
        if self._dropped > _SILENT_DROPS:
            logger.warning("a datagram for a transport that is closed is dropped")


def _name(call: Any) -> Any:
    try:
        return call()
    except OSError:
        return None


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise TypeError(f"data must be a bytes-like object, not {type(data).__name__}") from None
