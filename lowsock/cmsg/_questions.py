# SPDX-License-Identifier: MIT
"""What people ask of a datagram, whatever the family and the system. Each question is the base of the classes that
answer it; `lowsock.cmsg._portable` says which those are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock.cmsg._base import ControlMessage
from lowsock.cmsg._fields import INT, INT_SIZE, Named, number

if TYPE_CHECKING:
    from typing_extensions import Self


class ECN(Named):
    """The two bits of explicit congestion notification (RFC 3168)."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


_ECNS = tuple(ECN)
_int = INT.unpack


def small_int(data: bytes) -> int:
    """An int that Linux gives in four bytes and others in one."""
    return _int(data)[0] if len(data) == INT_SIZE else data[0]


class LocalAddress(ControlMessage):
    """The question: to which of our addresses, over which interface? And, sent: from which of them, over which?

    Answers: `PktInfo`, `PktInfo6`; on BSD `DstAddr` and `RecvIf`. See ip(7), ipv6(7).
    """

    __slots__ = ()

    @property
    def local(self) -> str | None:
        """Our address, as text; None where the message does not tell."""
        return None

    @property
    def ifindex(self) -> int | None:
        """The number of the interface, 0 for any; None where the message does not tell."""
        return None


class HopCount(ControlMessage):
    """The question: how many more routers might the datagram have passed (received), may it pass (sent)?

    Answers: `TTL`, `HopLimit`. See ip(7), ipv6(7).
    """

    __slots__ = ()
    _fields = ("hops",)

    def __new__(cls, *, hops: int) -> Self:
        """``hops``: 0 to 255. Linux refuses 0 with EINVAL for IPv4."""
        return cls.from_data(INT.pack(number("hops", hops, 255)))

    @property
    def hops(self) -> int:
        data = self[2]
        return _int(data)[0] if len(data) == INT_SIZE else data[0]


class TrafficClass(ControlMessage):
    """The question: which traffic class, of which the upper six bits are DSCP and the lower two ECN?

    Answers: `TOS`, `TClass`. See ip(7), ipv6(7), RFC 2474, RFC 3168.
    """

    __slots__ = ()
    _fields = ("dscp", "ecn")

    def __new__(cls, *, dscp: int = 0, ecn: int = ECN.NOT_ECT) -> Self:
        """``dscp``: 0 to 63; ``ecn``: 0 to 3, or an `ECN`."""
        return cls.from_data(INT.pack(number("dscp", dscp, 63) << 2 | number("ecn", ecn, 3)))

    @property
    def dscp(self) -> int:
        """Differentiated services: 0 to 63."""
        return small_int(self[2]) >> 2 & 63

    @property
    def ecn(self) -> ECN:
        return _ECNS[small_int(self[2]) & 3]


class ReceiveTime(ControlMessage):
    """The question: when did the kernel receive it? Answers: `TimestampNs`, `Timestamp`, `Timestamping`. See socket(7)."""

    __slots__ = ()

    @property
    def nanoseconds(self) -> int | None:
        """Since the epoch, by the system's clock; None where the message does not tell."""
        return None


class OriginalDestination(ControlMessage):
    """The question: where was it sent to before the firewall turned it here? Answers: `OrigDstAddr`, `OrigDstAddr6`."""

    __slots__ = ()

    @property
    def address(self) -> Any:
        """``(host, port)``, or ``(host, port, flowinfo, scope_id)`` for IPv6."""
        return None
