# SPDX-License-Identifier: MIT
"""Reading error queues: each entry as an event of its kind. See recvmsg(2), MSG_ERRQUEUE, and ip(7)."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol, Union
from weakref import WeakValueDictionary

from lowsock._memory import address as _address
from lowsock._memory import ancillary as _ancillary
from lowsock._memory.recv_pool import CONTROL, DATA, Reply, give, take
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS, MSG_DONTWAIT, MSG_ERRQUEUE
from lowsock._system.errors import MORE, RETRYABLE, fail, unsupported
from lowsock._system.ffi import ffi, lib
from lowsock._system.spellings import missing
from lowsock._system.target import target
from lowsock._system.waiting import SharedWaiter
from lowsock.cmsg._base import ControlMessage, decode, seen_as
from lowsock.cmsg._errors import ERRORS, ExtendedError, Origin
from lowsock.cmsg._fields import UINT32, Named, named
from lowsock.cmsg._questions import LocalAddress
from lowsock.cmsg._times import Timestamping, TimestampingPktInfo

if TYPE_CHECKING:
    from lowsock._system.types import Address, Received, Socket

Messages = list[ControlMessage]

LIMIT = 1024  # events in one `read` by default
_COPIED = CONSTANTS.get("SO_EE_CODE_ZEROCOPY_COPIED", 1)
_WIFI = _ancillary.SOL_SOCKET, CONSTANTS.get("SCM_WIFI_STATUS", -1)
_COOKIE = CONSTANTS.get("SO_COOKIE", -1)
# A socket without an error queue takes no notice of MSG_ERRQUEUE and would hand out its data, so we peek. Error queues
# take no notice of MSG_PEEK: what was read from them is gone.
_FLAGS = MSG_ERRQUEUE | MSG_DONTWAIT | CONSTANTS["MSG_PEEK"]


class Stage(Named):
    """How far a message was when its transmit timestamp was taken: ``SCM_TSTAMP_*``."""

    SENT = 0  # to the device, or by it: SCM_TSTAMP_SND
    SCHEDULED = 1  # before the packet scheduler
    ACKNOWLEDGED = 2  # by the peer's TCP
    COMPLETED = 3  # Linux 6.15: the device reported completion


class TxTimeProblem(Named):
    """Why a datagram was not sent at its time: ``SO_EE_CODE_TXTIME_*``."""

    INVALID = 1  # its time had passed already, or its parameters were wrong
    MISSED = 2  # its deadline passed while it waited


class IcmpError(NamedTuple):
    """A router or the peer answered a datagram with an ICMP error. IP_RECVERR or IPV6_RECVERR asks for it. See ip(7)."""

    errno: int  # as the `errno` module numbers it
    origin: Origin | int  # ICMP or ICMP6: says whose types and codes those are
    icmp_type: int
    icmp_code: int
    mtu: int | None  # of the hop that was too small, for EMSGSIZE; else None
    offender: Address  # the host that reported it; its port means nothing; None: unknown
    destination: Address  # of the datagram; None: unknown
    data: bytes  # what came back of the datagram's own bytes
    ancdata: Messages
    msg_flags: int


class LocalError(NamedTuple):
    """The kernel here refused a datagram. IP_RECVERR or IPV6_RECVERR asks for it. See ip(7)."""

    errno: int  # as the `errno` module numbers it
    mtu: int | None  # of the path, for EMSGSIZE; else None
    destination: Address  # of the datagram, on Linux without an IPv4 port; None: unknown
    data: bytes  # Linux: none
    ancdata: Messages
    msg_flags: int


class TransmitTimestamp(NamedTuple):
    """When a message passed a stage on its way out. Flags of SO_TIMESTAMPING ask for it. See socket(7).

    Times are nanoseconds since the epoch, ``hardware_ns`` by the device's clock.
    """

    key: int  # SOF_TIMESTAMPING_OPT_ID: datagrams count from 0, a stream counts bytes: the last of the send; 0 without it
    stage: Stage | int
    software_ns: int | None
    hardware_ns: int | None
    ifindex: int | None  # of the interface, where SOF_TIMESTAMPING_OPT_CMSG with IP_PKTINFO, or OPT_PKTINFO, asked for it
    length: int | None  # of the packet, where SOF_TIMESTAMPING_OPT_PKTINFO asked for it
    data: bytes  # the packet from its link header on; none with SOF_TIMESTAMPING_OPT_TSONLY
    ancdata: Messages
    msg_flags: int


class ZeroCopyCompletion(NamedTuple):
    """The kernel is done with the memory of the sends ``first`` to ``last``. See send(2).

    Both are inclusive, count the zero-copy sends of the socket and wrap at 2**32. Linux merges completions into ranges;
    ``copied`` is then that of the first; that of the others is unknown.
    """

    first: int
    last: int
    copied: bool  # the kernel could not send from the memory and copied it
    ancdata: Messages
    msg_flags: int

    @property
    def sends(self) -> int:
        """How many sends these are."""
        return ((self.last - self.first) & UINT32) + 1

    def keys(self) -> Iterator[int]:
        """The numbers of the sends, in order."""
        return ((self.first + i) & UINT32 for i in range(self.sends))

    def covers(self, key: int) -> bool:
        """Whether the send of this number is among them."""
        return (key - self.first) & UINT32 < self.sends

    def is_followed_by(self, other: ZeroCopyCompletion) -> bool:
        """Whether the sends of ``other`` come right after these, and it says the same of them."""
        return self.copied == other.copied and other.first == (self.last + 1) & UINT32


class TxTimeMissed(NamedTuple):
    """A datagram was not sent at the time that SCM_TXTIME gave it. SO_TXTIME with SOF_TXTIME_REPORT_ERRORS asks for it.
    See tc-etf(8)."""

    reason: TxTimeProblem | int
    txtime_ns: int  # nanoseconds: the time, by the clock that SO_TXTIME set
    destination: Address  # None: unknown
    data: bytes  # the datagram, headers first
    ancdata: Messages
    msg_flags: int


if not TYPE_CHECKING:
    TransmitTimestamp.__getattr__ = missing(__name__, {"software": "use software_ns", "hardware": "use hardware_ns"})
    TxTimeMissed.__getattr__ = missing(__name__, {"nanoseconds": "use txtime_ns"})


class UnknownEvent(NamedTuple):
    """An entry that fits no other class, as recvmsg(2) returned it. ``error`` is the one in ``ancdata``, or None. A later
    version may know such an entry, and return another event for it."""

    error: ExtendedError | None
    address: Address
    data: bytes
    ancdata: Messages
    msg_flags: int


Event = Union[IcmpError, LocalError, TransmitTimestamp, ZeroCopyCompletion, TxTimeMissed, UnknownEvent]


# ---- reading ----


class Reader(Protocol):
    """The one consumer of a socket's error queue."""

    def read(self, limit: int = LIMIT) -> list[Event]: ...


READERS: WeakValueDictionary[int, Reader] = WeakValueDictionary()  # by the socket's cookie, which is never reused


def read(sock: Socket, limit: int = LIMIT) -> list[Event]:
    """Empties the error queue of ``sock``; returns the events, the oldest first. It never waits.

    At most ``limit`` events are read, so that it ends while new ones come: so many may mean that there are more. If the
    socket has a `ZeroCopySender`, this reads through it. A socket without an error queue has no events.

    A socket with an error pending fails its next send or receive with it. Reading the queue clears that for each event
    that it takes; if events are left, the next error is pending. A failed call clears the error, but leaves the event.

    Raises `OSError` with the kernel's errno (EBADF), `lowsock.UnsupportedError` where the platform has no error queues. If a
    signal handler raises meanwhile, the events read so far are lost. See recvmsg(2), MSG_ERRQUEUE.
    """
    limit = checked_int("limit", limit, least=1)
    if not MSG_ERRQUEUE:
        unsupported("this platform has no error queues (MSG_ERRQUEUE)")
    fd = target(sock)[0]
    reader = READERS.get(cookie(fd)) if READERS else None
    return _read(fd, limit) if reader is None else reader.read(limit)


def wait(sock: Socket, timeout: float | None = None, limit: int = LIMIT) -> list[Event]:
    """Waits until the error queue of ``sock`` has events, at most ``timeout`` seconds; returns what `read` then returns.

    The list is empty when the time is up. The timeout of the socket itself does not count here. Arriving data does not
    wake it, and an error that is pending without an event does not make it spin. Raises what `read` raises,
    and `ValueError` for a negative ``timeout``.
    """
    waiter = SharedWaiter(timeout)
    while True:
        events = read(sock, limit)
        if events or not waiter.wait(target(sock)[0], 0, progress=False):
            return events


def cookie(fd: int) -> int:
    """The kernel's number of a socket (SO_COOKIE); no other socket ever has the same."""
    number = find_cookie(fd)
    return number if number >= 0 else fail(number)


def find_cookie(fd: int) -> int:
    """The same, or -errno."""
    value = ffi.new("char[]", 8)
    size = lib.lowsock_read_option(fd, _ancillary.SOL_SOCKET, _COOKIE, value, 8)
    return size if size < 0 else int.from_bytes(ffi.buffer(value)[:], sys.byteorder)


def _read(fd: int, limit: int) -> list[Event]:
    reply = take(DATA, CONTROL)
    slot = Slot(reply)
    events: list[Event] = []
    try:
        while len(events) < limit:
            event = slot.fill(fd)
            if event is None:
                break
            events.append(event)
            slot.clear()
    finally:
        lib.lowsock_reply_close(reply.struct)  # a peeked message of a socket without an error queue
    give(reply)
    return events


class Slot:
    """Receives one event at a time, and keeps it until `clear`: an exception of a signal handler loses none."""

    __slots__ = ("_reply", "_unprocessed", "event")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._unprocessed: list[int] = []  # the answer of a receive whose event was not decoded yet; at most one
        self.event: Event | None = None

    def fill(self, fd: int) -> Event | None:
        """Returns the next event, or None if there is none; the same one until `clear`."""
        while self.event is None:
            answer = self._unprocessed[0] if self._unprocessed else self._receive(fd)
            if answer <= MORE:
                self.event = self._event(answer)
            self._unprocessed.clear()
            if answer != -errno.EINTR and self.event is None:
                if answer < 0 and answer > MORE and answer not in RETRYABLE:
                    fail(answer)
                return None
        self._unprocessed.clear()
        return self.event

    def clear(self) -> None:
        self.event = None

    def _receive(self, fd: int) -> int:
        """Makes the call. Extending a list by a map stores the answer before any Python code, such as a handler, can run."""
        self._unprocessed += map(lib.lowsock_recvmsg, (self._reply.struct,), (fd,), (DATA,), (CONTROL,), (_FLAGS,))
        return self._unprocessed[0]

    def _event(self, answer: int) -> Event | None:
        reply = self._reply
        info = ffi.unpack(reply.info, MORE - answer)
        if not info[1] & MSG_ERRQUEUE:
            return None
        data, address = reply.data[: info[0]], _address.decode(reply, info[2])
        return to_event((data, _ancillary.decode(reply, info), info[1], address))


# ---- what came, as an event ----


def to_event(received: Received) -> Event:
    """The event that a receive with MSG_ERRQUEUE brought."""
    data, ancdata, msg_flags, address = received
    messages = decode(ancdata)
    error = _first(messages, *ERRORS)
    decoder = _DECODERS.get(error.origin) if error is not None else None
    if error is None or decoder is None:
        return UnknownEvent(error, address, data, messages, msg_flags)
    return decoder(error, address, data, messages, msg_flags)


def _mtu(error: ExtendedError) -> int | None:
    return error.info if error.errno == errno.EMSGSIZE else None


def _icmp(error: ExtendedError, address: Address, data: bytes, messages: Messages, msg_flags: int) -> IcmpError:
    fields = error.errno, error.origin, error.icmp_type, error.icmp_code, _mtu(error), error.offender
    return IcmpError(*fields, address, data, messages, msg_flags)


def _local(error: ExtendedError, address: Address, data: bytes, messages: Messages, msg_flags: int) -> LocalError:
    return LocalError(error.errno, _mtu(error), address, data, messages, msg_flags)


def _timestamp(error: ExtendedError, address: Address, data: bytes, messages: Messages, msg_flags: int) -> Event:
    if any(message[:2] == _WIFI for message in messages):  # TXSTATUS is the same number
        return UnknownEvent(error, address, data, messages, msg_flags)
    times = _first(messages, Timestamping)
    packet = _first(messages, TimestampingPktInfo)
    local = packet or _first(messages, LocalAddress)
    return TransmitTimestamp(
        error.value,
        named(Stage, error.info),
        times and times.software_ns,
        times and times.hardware_ns,
        local and local.ifindex,
        packet and packet.length,
        data,
        messages,
        msg_flags,
    )


def _first(messages: Messages, *classes: type[ControlMessage]) -> Any:
    return next((found for found in (seen_as(message, *classes) for message in messages) if found is not None), None)


def _completion(error: ExtendedError, _address: Address, _data: bytes, messages: Messages, msg_flags: int) -> Event:
    return ZeroCopyCompletion(error.info, error.value, bool(error.icmp_code & _COPIED), messages, msg_flags)


def _missed(error: ExtendedError, address: Address, data: bytes, messages: Messages, msg_flags: int) -> TxTimeMissed:
    nanoseconds = error.value << 32 | error.info
    return TxTimeMissed(named(TxTimeProblem, error.icmp_code), nanoseconds, address, data, messages, msg_flags)


_DECODERS: dict[int, Callable[[ExtendedError, Address, bytes, Messages, int], Event]] = {
    Origin.LOCAL: _local,
    Origin.ICMP: _icmp,
    Origin.ICMP6: _icmp,
    Origin.TIMESTAMPING: _timestamp,
    Origin.ZEROCOPY: _completion,
    Origin.TXTIME: _missed,
}
