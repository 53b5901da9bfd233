# SPDX-License-Identifier: MIT
"""A stand-in: the branch that types the times has the real one."""

from __future__ import annotations

from lowsock.cmsg._base import UNASKED, ControlMessage, known
from lowsock.cmsg._fields import SECOND, layout
from lowsock.cmsg._questions import ReceiveTime

RECEIVE_BY_SOFTWARE = 0
_TIMESPEC = layout("timespec")
_PKTINFO = layout("lowsock_ts_pktinfo")


class Timestamp(ReceiveTime):
    __slots__ = ()


class TimestampNs(ReceiveTime):
    __slots__ = ()


@known("SCM_TIMESTAMPING", sizes=(3 * _TIMESPEC.size,), option="SO_TIMESTAMPING")
class Timestamping(ReceiveTime):
    __slots__ = ()
    _fields = ("software", "hardware")

    def __new__(cls, *, software=None, hardware=None):  # type: ignore[no-untyped-def]
        times = (software or 0, 0, hardware or 0)
        return cls.from_data(b"".join(_TIMESPEC.pack(*divmod(each, SECOND)) for each in times))

    def _time(self, place: int) -> int | None:
        seconds, nanoseconds = _TIMESPEC.unpack(self[2][place * _TIMESPEC.size :])
        return seconds * SECOND + nanoseconds or None

    @property
    def software(self) -> int | None:
        return self._time(0)

    @property
    def hardware(self) -> int | None:
        return self._time(2)


@known("SCM_TIMESTAMPING_PKTINFO", sizes=(_PKTINFO.size,), option=UNASKED)
class TimestampingPktInfo(ControlMessage):
    __slots__ = ()
    _fields = ("ifindex", "length")

    def __new__(cls, *, ifindex=0, length=0):  # type: ignore[no-untyped-def]
        return cls.from_data(_PKTINFO.pack(ifindex, length))

    @property
    def ifindex(self) -> int:
        return _PKTINFO.unpack(self[2])[0]

    @property
    def length(self) -> int:
        return _PKTINFO.unpack(self[2])[1]
