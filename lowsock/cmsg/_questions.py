# SPDX-License-Identifier: MIT
"""What programs ask about a datagram, whatever the family and the system. Each question is the base of the classes that
answer it; `lowsock.cmsg._portable` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock.cmsg._base import ControlMessage
from lowsock.cmsg._fields import INT, INT_SIZE, Named, number

if TYPE_CHECKING:
    from typing_extensions import Self

ArrivalFields = list[Any]  # the fields of an `Arrival`, in its order, as far as the messages so far have filled them
LOCAL, IFINDEX, HOPS, DSCP, CODEPOINT, TIMESTAMP_NS, ORIGINAL, DESTINATION = range(8)


class ECN(Named):
    """The two bits of explicit congestion notification (RFC 3168)."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


_ECNS = tuple(ECN)
_int = INT.unpack


def int_or_byte(data: bytes) -> int:
    """An int that Linux gives in four bytes and others in one."""
    return _int(data)[0] if len(data) == INT_SIZE else data[0]


class Question(ControlMessage):
    """A message that tells something of how its datagram came."""

    __slots__ = ()

    def _fill(self, fields: ArrivalFields) -> None:
        """Fills in the fields of `lowsock.cmsg.Arrival` that this message tells of."""


class LocalAddress(Question):
    """The question: to which of our addresses, over which interface? And, sent: from which of them, over which?

    Answers: `PktInfo`, `PktInfo6`; on FreeBSD `DstAddr` and `RecvIf`. See ip(7), ipv6(7).
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

    @property
    def destination(self) -> str | None:
        """The destination in the datagram's header, a group's too; None where the message does not tell."""
        return None


class HopCount(Question):
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
        """Of the sender's 64 or 255, say, what the routers on the way have left."""
        data = self[2]
        return _int(data)[0] if len(data) == INT_SIZE else data[0]

    def _fill(self, fields: ArrivalFields) -> None:
        fields[HOPS] = self.hops


class TrafficClass(Question):
    """The question: which traffic class, of which the upper six bits are DSCP and the lower two ECN?

    Answers: `TOS`, `TClass`. See ip(7), ipv6(7), RFC 2474, RFC 3168.
    """

    __slots__ = ()
    _fields = ("dscp", "ecn")
    _wire_format = INT

    def __new__(cls, *, dscp: int = 0, ecn: int = ECN.NOT_ECT) -> Self:
        """``dscp``: 0 to 63; ``ecn``: 0 to 3, or an `ECN`. Both are replaced: what is not given is 0."""
        return cls.from_data(cls._wire_format.pack(number("dscp", dscp, 63) << 2 | number("ecn", ecn, 3)))

    @property
    def dscp(self) -> int:
        """Differentiated services: 0 to 63."""
        return int_or_byte(self[2]) >> 2 & 63

    @property
    def ecn(self) -> ECN:
        """Explicit congestion notification; `ECN.CE` says that a router on the way was congested."""
        return _ECNS[int_or_byte(self[2]) & 3]

    def _fill(self, fields: ArrivalFields) -> None:
        octet = int_or_byte(self[2])
        fields[DSCP], fields[CODEPOINT] = octet >> 2 & 63, _ECNS[octet & 3]


class ReceiveTime(Question):
    """The question: when did the kernel receive it? Answers: `TimestampNs`, `Timestamp`, `Timestamping`. See socket(7)."""

    __slots__ = ()

    @property
    def timestamp_ns(self) -> int | None:
        """Nanoseconds since the epoch, by the system's clock; None where the message does not tell."""
        return None

    def _fill(self, fields: ArrivalFields) -> None:
        if fields[TIMESTAMP_NS] is None:
            fields[TIMESTAMP_NS] = self.timestamp_ns


class OriginalDestination(Question):
    """The question: where was it sent to before the firewall turned it here? Answers: `OrigDstAddr`, `OrigDstAddr6`.

    Without a firewall that turns it, that is where it came to. See ip(7).
    """

    __slots__ = ()

    @property
    def address(self) -> Any:
        """``(host, port)``, or ``(host, port, flowinfo, scope_id)`` for IPv6."""
        return None

    def _fill(self, fields: ArrivalFields) -> None:
        fields[ORIGINAL] = self.address
