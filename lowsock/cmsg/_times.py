# SPDX-License-Identifier: MIT
"""Control messages that tell or ask when: socket(7), the kernel's timestamping document. All times are nanoseconds.

The kernel knows each receive time in two forms with a number each: of two longs, and of two 64-bit numbers, for systems
whose long has 32 bits. A 32-bit libc may deliver both for one datagram; the size tells them apart.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Callable

from lowsock._memory.ancillary import CMSG_SPACE
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS
from lowsock._system.spellings import missing, renamed
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import INT_SIZE, SECOND, UINT, UINT32, UINT64, layout, number
from lowsock.cmsg._questions import ReceiveTime

if TYPE_CHECKING:
    from typing_extensions import Self

    from lowsock._system.layouts import Layout

_LONG = struct.calcsize("@l")
_MICROSECOND = 1000
_NARROW = struct.Struct("=ii")
_WIDE = struct.Struct("=qq")
_SAMPLE = bytes(range(_WIDE.size))
_U64 = struct.Struct("=Q")

_TIMEVAL = layout("timeval")
_TIMESPEC = layout("timespec")
_TS_PKTINFO = layout("lowsock_ts_pktinfo")
_if_index, _pkt_length = map(_TS_PKTINFO.reader, ("if_index", "pkt_length"))
_uint = UINT.unpack
_u64 = _U64.unpack


def sizes(own: Layout, long: int = _LONG) -> tuple[int, ...]:
    """What a time can be in bytes, the commonest first: the libc's own structure, two longs, two 64-bit numbers."""
    return tuple(dict.fromkeys((own.size, 2 * long, _WIDE.size)))


def reader(own: Layout, long: int = _LONG) -> Callable[[bytes], tuple[Any, ...]]:
    """A function that gives seconds and what is finer of any of the forms that `sizes` tells."""
    if sizes(own, long) == (_WIDE.size,) and own.unpack(_SAMPLE) == _WIDE.unpack(_SAMPLE):
        return _WIDE.unpack  # on every 64-bit Linux: all are one
    forms = {_NARROW.size: _NARROW.unpack, _WIDE.size: _WIDE.unpack, own.size: own.unpack}
    return lambda data: forms[len(data)](data)


def _packed(name: str, nanoseconds: int, own: Layout, unit: int = 1) -> bytes:
    limit = SECOND << 8 * own.sizes["tv_sec"] - 1
    seconds, rest = divmod(checked_int(name, nanoseconds, least=-limit, most=limit - 1), SECOND)
    return own.pack(seconds, rest // unit)


_timeval = reader(_TIMEVAL)
_timespec = reader(_TIMESPEC)


# ---- received ----


def _twice(size: int) -> int:
    """Payload that leaves room for two messages of ``size``, which a 32-bit libc delivers."""
    return 2 * CMSG_SPACE(size)


@registered(
    "SCM_TIMESTAMPNS",
    "SO_TIMESTAMPNS_OLD",
    "SO_TIMESTAMPNS_NEW",
    sizes=sizes(_TIMESPEC),
    option="SO_TIMESTAMPNS",
    room=_twice(_WIDE.size),
)
class TimestampNs(ReceiveTime):
    """Received with SO_TIMESTAMPNS: when the kernel got it. Setting that option takes SO_TIMESTAMP back.

    Of a network's datagram that came while the kernel was not yet taking times, as it begins to a moment after the first
    socket has asked, this is when it was read. See socket(7).
    """

    __slots__ = ()
    _fields = ("timestamp_ns",)

    @renamed("TimestampNs", {"nanoseconds": "timestamp_ns=..."})
    def __new__(cls, *, timestamp_ns: int) -> Self:
        """``timestamp_ns``: nanoseconds since the epoch, below zero before it, in the libc's own form."""
        return cls.from_data(_packed("timestamp_ns", timestamp_ns, _TIMESPEC))

    @property
    def timestamp_ns(self) -> int:
        """Nanoseconds since the epoch, by the system's clock."""
        seconds, nanoseconds = _timespec(self[2])
        return seconds * SECOND + nanoseconds


@registered(
    "SCM_TIMESTAMP",
    "SO_TIMESTAMP_OLD",
    "SO_TIMESTAMP_NEW",
    sizes=sizes(_TIMEVAL),
    option="SO_TIMESTAMP",
    room=_twice(_WIDE.size),
)
class Timestamp(ReceiveTime):
    """Received with SO_TIMESTAMP: when the kernel got it, to the microsecond. Setting that option takes SO_TIMESTAMPNS back.

    The first ones may tell when they were read, as with `TimestampNs`. See socket(7).
    """

    __slots__ = ()
    _fields = ("timestamp_ns",)

    @renamed("Timestamp", {"nanoseconds": "timestamp_ns=..."})
    def __new__(cls, *, timestamp_ns: int) -> Self:
        """``timestamp_ns``: nanoseconds since the epoch, below zero before it, cut off to whole microseconds."""
        return cls.from_data(_packed("timestamp_ns", timestamp_ns, _TIMEVAL, _MICROSECOND))

    @property
    def timestamp_ns(self) -> int:
        """Nanoseconds since the epoch, by the system's clock: whole microseconds."""
        seconds, microseconds = _timeval(self[2])
        return seconds * SECOND + microseconds * _MICROSECOND


@registered(
    "SCM_TIMESTAMPING",
    "SO_TIMESTAMPING_OLD",
    "SO_TIMESTAMPING_NEW",
    sizes=(3 * size for size in sizes(_TIMESPEC)),
    option="SO_TIMESTAMPING",
    room=_twice(3 * _WIDE.size),
)
class Timestamping(ReceiveTime):
    """Received with SO_TIMESTAMPING: when the kernel got it, or sent it (on the error queue), and when the network card did.

    `enable` adds its flags to those that the socket has. The kernel begins to take such times a moment after the first
    socket has asked: the first datagrams may come without. See the kernel's timestamping document.
    """

    __slots__ = ()
    _fields = ("software_ns", "hardware_ns")

    @renamed("Timestamping", {"software": "software_ns=...", "hardware": "hardware_ns=..."})
    def __new__(cls, *, software_ns: int | None = None, hardware_ns: int | None = None) -> Self:
        """Nanoseconds; None and 0 are one."""
        times = (_packed("software_ns", software_ns or 0, _TIMESPEC), bytes(_TIMESPEC.size))
        return cls.from_data(b"".join(times) + _packed("hardware_ns", hardware_ns or 0, _TIMESPEC))

    @property
    def timestamp_ns(self) -> int | None:
        """The same as ``software_ns``."""
        return self._time(0)

    @property
    def software_ns(self) -> int | None:
        """By the system's clock, since the epoch; None where there is none."""
        return self._time(0)

    @property
    def hardware_ns(self) -> int | None:
        """By the card's own clock, which may have another epoch; None where there is none."""
        return self._time(2)

    def _time(self, place: int) -> int | None:
        """One of three; the kernel leaves the second empty."""
        size = len(self[2]) // 3
        seconds, nanoseconds = _timespec(self[2][place * size : (place + 1) * size])
        return seconds * SECOND + nanoseconds or None


def _flag(name: str) -> int:
    return CONSTANTS.get(f"SOF_TIMESTAMPING_{name}", 0)


class TimestampingFlags(IntFlag):
    """SOF_TIMESTAMPING_*: which times are taken (TX_, RX_), which are told (SOFTWARE, RAW_HARDWARE), and how (OPT_)."""

    TX_HARDWARE = _flag("TX_HARDWARE")
    TX_SOFTWARE = _flag("TX_SOFTWARE")
    RX_HARDWARE = _flag("RX_HARDWARE")
    RX_SOFTWARE = _flag("RX_SOFTWARE")
    SOFTWARE = _flag("SOFTWARE")
    SYS_HARDWARE = _flag("SYS_HARDWARE")
    RAW_HARDWARE = _flag("RAW_HARDWARE")
    OPT_ID = _flag("OPT_ID")
    TX_SCHED = _flag("TX_SCHED")
    TX_ACK = _flag("TX_ACK")
    OPT_CMSG = _flag("OPT_CMSG")
    OPT_TSONLY = _flag("OPT_TSONLY")
    OPT_STATS = _flag("OPT_STATS")
    OPT_PKTINFO = _flag("OPT_PKTINFO")
    OPT_TX_SWHW = _flag("OPT_TX_SWHW")
    BIND_PHC = _flag("BIND_PHC")
    OPT_ID_TCP = _flag("OPT_ID_TCP")
    OPT_RX_FILTER = _flag("OPT_RX_FILTER")
    TX_COMPLETION = _flag("TX_COMPLETION")

    def __repr__(self) -> str:
        members = [member for member in TimestampingFlags if int(self) & int(member)]
        rest = int(self) & ~sum(map(int, members))
        words = [f"{type(self).__name__}.{member.name}" for member in members]
        return " | ".join(words if words and not rest else [*words, f"{type(self).__name__}({rest})"])


RECEIVE_BY_SOFTWARE = TimestampingFlags.RX_SOFTWARE | TimestampingFlags.SOFTWARE
"""The flags that make the kernel's own receive times arrive."""


@registered(
    "SCM_TIMESTAMPING_PKTINFO",
    sizes=(_TS_PKTINFO.size,),
    option="SO_TIMESTAMPING",
    room=CMSG_SPACE(_TS_PKTINFO.size) + _twice(3 * _WIDE.size),  # it never comes alone
    since="Linux 4.13",
)
class TimestampingPktInfo(ControlMessage):
    """Received beside a hardware time: the interface that took it, and the length of the frame (Linux 4.13).

    `enable` adds its own flags to SO_TIMESTAMPING: OPT_PKTINFO and the hardware's times, without which it does not come.
    See the kernel's timestamping document.
    """

    __slots__ = ()
    _fields = ("ifindex", "length")
    _flags = TimestampingFlags.OPT_PKTINFO | TimestampingFlags.RX_HARDWARE | TimestampingFlags.RAW_HARDWARE

    def __new__(cls, *, ifindex: int = 0, length: int = 0) -> Self:
        return cls.from_data(_TS_PKTINFO.pack(number("ifindex", ifindex, UINT32), number("length", length, UINT32)))

    @property
    def ifindex(self) -> int:
        """The real interface under a bond or VLAN; 0 where its driver does not tell."""
        (ifindex,) = _if_index(self[2])
        return ifindex

    @property
    def length(self) -> int:
        """Bytes, with the link layer's header."""
        (length,) = _pkt_length(self[2])
        return length


# ---- sent ----


@registered("SO_TIMESTAMPING_OLD", "SO_TIMESTAMPING", "SO_TIMESTAMPING_NEW", sizes=(INT_SIZE,))
class RequestTimestamps(ControlMessage):
    """Sent: which transmit times are to be taken of this one message, in place of those that the socket's option says.

    TX_HARDWARE, TX_SOFTWARE, TX_SCHED, TX_ACK, TX_COMPLETION; another flag is EINVAL. They come to the error queue if the
    socket's SO_TIMESTAMPING says what is told: SOFTWARE, RAW_HARDWARE. See the kernel's timestamping document.
    """

    __slots__ = ()
    _fields = ("flags",)

    def __new__(cls, *, flags: int) -> Self:
        """``flags``: `TimestampingFlags`; 0 takes no time of this message."""
        return cls.from_data(UINT.pack(number("flags", flags, UINT32)))

    @property
    def flags(self) -> TimestampingFlags:
        return TimestampingFlags(_uint(self[2])[0])


@registered("SCM_TS_OPT_ID", sizes=(INT_SIZE,), since="Linux 6.13")
class TimestampKey(ControlMessage):
    """Sent: the key that the transmit times of this message come with, in place of the socket's counter (Linux 6.13).

    EINVAL unless SO_TIMESTAMPING has OPT_ID on this socket, and on TCP. See the kernel's timestamping document.
    """

    __slots__ = ()
    _fields = ("key",)

    def __new__(cls, *, key: int) -> Self:
        return cls.from_data(UINT.pack(number("key", key, UINT32)))

    @property
    def key(self) -> int:
        return _uint(self[2])[0]


@registered("SCM_TXTIME", sizes=(_U64.size,), since="Linux 4.19")
class TxTime(ControlMessage):
    """Sent: when the message is to leave, by the clock that SO_TXTIME named (Linux 4.19).

    EINVAL unless that option is set. Only the queueing disciplines fq and etf look at it. See tc-etf(8), tc-fq(8).
    """

    __slots__ = ()
    _fields = ("txtime_ns",)

    @renamed("TxTime", {"nanoseconds": "txtime_ns=..."})
    def __new__(cls, *, txtime_ns: int) -> Self:
        return cls.from_data(_U64.pack(number("txtime_ns", txtime_ns, UINT64)))

    @property
    def txtime_ns(self) -> int:
        """Nanoseconds of the clock that SO_TXTIME named."""
        return _u64(self[2])[0]


if not TYPE_CHECKING:
    TimestampNs.__getattr__ = Timestamp.__getattr__ = missing(__name__, {"nanoseconds": "use timestamp_ns"})
    TxTime.__getattr__ = missing(__name__, {"nanoseconds": "use txtime_ns"})
    Timestamping.__getattr__ = missing(
        __name__, {"nanoseconds": "use timestamp_ns", "software": "use software_ns", "hardware": "use hardware_ns"}
    )
