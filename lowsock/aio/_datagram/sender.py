# SPDX-License-Identifier: MIT
"""The sending half of a datagram transport: what leaves at once, what leaves together, and what waits for room."""

from __future__ import annotations

import asyncio
import logging
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any

from lowsock._memory.address import encode_for, family_of
from lowsock._system.errors import raised_inside
from lowsock.aio._datagram.backends import cut
from lowsock.aio._datagram.flow import Flow
from lowsock.aio._datagram.outgoing import Outgoing
from lowsock.aio._datagram.readiness import Readiness
from lowsock.udp._control import checked_segment

if TYPE_CHECKING:
    import socket

    from lowsock.aio._datagram.backends import Carrier

_TURN = 256 * 1024  # bytes that wait for the end of a turn
_ALONE = 4  # turns of one datagram each, after which the first of a turn is sent at once
_PROBED = 8  # of these, one turn is watched for more
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.064  # seconds
_WARNED = 5  # datagrams for a lost connection
_NOT_KNOWN: Any = object()

logger = logging.getLogger("asyncio")


class DatagramSender(asyncio.DatagramTransport):
    """All that sends. `_reading` and `_closing` are the other half's to set."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Any, carrier: Carrier, address: Any
    ) -> None:
        super().__init__()
        self._info = {
            "socket": TransportSocket(sock),
            "sockname": _name(sock.getsockname),
            "peername": _name(sock.getpeername),
            "endpoint": carrier.endpoint,
        }
        self._loop, self._carrier, self._protocol = loop, carrier, protocol
        self._family, self._address = family_of(sock), address
        self._connected = self._info["peername"] is not None
        self._known = None if self._connected else _NOT_KNOWN  # the last address, which needs no more checks
        self._closing = self._lost = False
        self._held = False  # datagrams are not sent at once: any of the next three
        self._reading = self._scheduled = self._blocked = False
        self._express = False  # in the answer to a datagram that came alone: the first is sent at once
        self._direct = self._probing = False
        self._alone = self._after_loss = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _FIRST_PAUSE
        self._out = Outgoing(carrier, self._refused, self._fail)
        self._queue = self._out.queue
        self._flow = Flow(self, loop)
        self._send, self._send_to = sock.send, sock.sendto
        self._readiness = Readiness(loop, sock.fileno(), self._read_ready, self._write_ready)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, ``sockname``, ``peername``, and ``endpoint``: the `lowsock.udp.Endpoint`, None where there is none."""
        return self._info.get(name, default)

    def _refused(self, error: OSError) -> None:
        if not self._closing:
            self._protocol.error_received(error)
            return
        try:
            self._protocol.error_received(error)
        except Exception as raised:  # whoever closes a transport does not expect it
            self._tell("protocol.error_received() raised", raised)

    def _tell(self, message: str, error: BaseException) -> None:
        """Tells the loop of an exception."""
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    def _read_ready(self) -> bool:
        raise NotImplementedError

    def _fail(self, error: BaseException) -> None:
        raise NotImplementedError

    def _lose(self, error: BaseException | None) -> None:
        raise NotImplementedError

    # ---- sending ----

    def sendto(
        self, data: Any, addr: Any = None, *, ecn: int | None = None, source: Any = None, segment_size: int | None = None
    ) -> None:
        """Sends ``data``, at the latest at the end of this turn of the loop.

        ``addr`` is numeric. ``segment_size`` cuts ``data`` into datagrams of that many bytes. ``ecn`` and ``source`` are as
        in `lowsock.udp.Endpoint.send`; they take a UDP socket. Wrong arguments raise, what the kernel refuses is told to
        ``error_received``.
        """
        if type(data) is not bytes:
            data = _copied(data)
        if addr is not self._known:
            addr = self._known if addr == self._known else self._checked(addr)
        if self._express and ecn is source is segment_size is None:
            self._express = False
            try:
                if addr is None:
                    self._send(data)
                else:
                    self._send_to(data, addr)
                return
            except (BlockingIOError, InterruptedError):
                pass  # what waits in the queue is tried again, and then waited for
            except OSError as error:
                if not raised_inside(error):
                    raise
                self._refused(error)
                return
        if self._lost:
            self._warn_of_loss()
            return
        out = self._out
        if ecn is source is segment_size is None:
            self._queue.append((data, addr))
        else:
            self._queue.extend(self._items(data, addr, ecn, source, segment_size))
            self._express = False  # what comes next would overtake it
        out.size += len(data) or 1
        if not self._held:
            self._begin_turn()
        elif self._blocked:
            self._flow.pause_if_full(out.size)
        elif out.size > _TURN:
            self._flush()

    def _checked(self, addr: Any) -> Any:
        """The address that the kernel is to be told."""
        if self._address is not None and addr is not None and addr != self._address:
            raise ValueError(f"addr must be None or {self._address!r}, the address that the endpoint was made with")
        if self._connected:
            return None
        if self._address is not None:
            return self._address
        if addr is not None:
            encode_for(-1, addr, self._family)
            self._known = addr
        return addr

    def _items(self, data: bytes, addr: Any, ecn: Any, source: Any, segment: Any) -> list[Any]:
        pieces = [data] if segment is None else cut(data, checked_segment(segment))
        if ecn is source is None:
            return [(piece, addr) for piece in pieces]
        beside = self._carrier.checked(addr or self._info["peername"], ecn, source)
        self._out.marked += len(pieces)
        return [(piece, addr, beside) for piece in pieces]

    def _begin_turn(self) -> None:
        """The first datagram of a turn. Who sends but one in each has it sent at once: to wait would be all loss."""
        if self._direct:
            self._alone += 1
            self._flush()
            if self._alone % _PROBED or self._held or self._lost:
                return
            self._probing = True
        self._schedule()

    def _schedule(self) -> None:
        self._scheduled = self._held = True
        self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        count = len(self._queue) + self._probing
        self._alone = self._alone + 1 if count <= 1 else 0
        self._direct = self._alone >= _ALONE
        self._scheduled = self._probing = False
        self._flush()

    def _flush(self) -> None:
        """Sends what waits, unless the kernel has no room, and does what comes after that."""
        if self._blocked or self._lost or self._out.sending:
            return
        self._held = True
        try:
            if not self._out.flush():
                self._block()
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """What an exception or `error_received` has left in the queue goes in the next turn."""
        self._held = self._scheduled or self._reading or self._blocked
        if not self._queue:
            if self._closing:
                self._lose(None)
        elif not self._held and not self._lost:
            self._schedule()

    def _block(self) -> None:
        self._blocked = self._held = True
        self._readiness.write(True)
        self._flow.pause_if_full(self._out.size)

    def _write_ready(self) -> None:
        """There is room, it is said. For some sockets it always is, or there is an error: then pauses grow."""
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
            self._go_on()

    def _watch_for_room(self, some_went: bool) -> None:
        if not self._blocked or some_went:
            self._pause = _FIRST_PAUSE
            self._readiness.write(self._blocked)
        else:
            self._readiness.write(False)
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

    def _warn_of_loss(self) -> None:
        self._after_loss += 1
        if self._after_loss > _WARNED:
            logger.warning("a datagram for a transport that is closed is dropped")


def _name(call: Any) -> Any:
    try:
        return call()
    except OSError:
        return None


def _copied(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise TypeError(f"data must be a bytes-like object, not {type(data).__name__}") from None
