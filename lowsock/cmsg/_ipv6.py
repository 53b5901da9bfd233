# SPDX-License-Identifier: MIT
"""Control messages of IPv6: ipv6(7), RFC 3542."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lowsock._memory.buffers import as_bytes
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import (
    INT,
    INT_SIZE,
    TEXT_CACHE,
    UINT32,
    address_bytes,
    address_text,
    inet6_tuple,
    is_multicast,
    layout,
    number,
    socket_address,
)
from lowsock.cmsg._ip import Size
from lowsock.cmsg._questions import (
    DESTINATION,
    IFINDEX,
    LOCAL,
    ArrivalFields,
    HopCount,
    LocalAddress,
    OriginalDestination,
    TrafficClass,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from lowsock._system.types import Address, Buffer, Host

MAPPED = bytes(10) + b"\xff\xff"  # what an IPv4 address has in front as an IPv6 one
_UNIT = 8  # bytes: what the length of an extension header counts in, after the first
_LONGEST = (255 + 1) * _UNIT

_PKTINFO = layout("in6_pktinfo")
_SIN6 = layout("sockaddr_in6")
_MTUINFO = layout("ip6_mtuinfo")
_ipi6_addr = _PKTINFO.reader("ipi6_addr")
_ipi6_ifindex = _PKTINFO.reader("ipi6_ifindex")


@registered("IPV6_PKTINFO", sizes=(_PKTINFO.size,), option="IPV6_RECVPKTINFO")
class PktInfo6(LocalAddress):
    """Received: the address that the datagram came to, and the interface. Sent: those to send it from.

    Of IPv4 datagrams it tells a v4-mapped address, and on Linux takes such a one for IPv4 destinations. To send from an
    address that is not this host's own, the socket wants IPV6_FREEBIND or IPV6_TRANSPARENT. See ipv6(7), RFC 3542.
    """

    __slots__ = ()
    _fields = ("local", "ifindex")

    def __new__(cls, *, local: Host = "::", ifindex: int = 0) -> Self:
        """``local``: one of our addresses, "::" for any; ``ifindex``: 0 for any, a link-local address needs one."""
        addr = address_bytes("local", local, socket.AF_INET6)
        return cls.from_data(_PKTINFO.pack(addr, number("ifindex", ifindex, UINT32)))

    @property
    def local(self) -> str:
        """Our address; for a multicast datagram the group's, which no answer can come from."""
        (address,) = _ipi6_addr(self[2])
        return TEXT_CACHE.get(address) or address_text(address)

    @property
    def ifindex(self) -> int:
        """The number of the interface, as `socket.if_indextoname` takes it."""
        (ifindex,) = _ipi6_ifindex(self[2])
        return ifindex

    @property
    def destination(self) -> str:
        """The same as ``local``."""
        return self.local

    def _fill(self, fields: ArrivalFields) -> None:
        (address,) = _ipi6_addr(self[2])
        if address[:12] == MAPPED:
            if fields[LOCAL] is not None:
                return  # IPv4's own message was there, and knows our address behind a broadcast
            address = address[12:]
        (fields[IFINDEX],) = _ipi6_ifindex(self[2])
        fields[DESTINATION] = text = TEXT_CACHE.get(address) or address_text(address)
        fields[LOCAL] = None if is_multicast(address) else text


@registered("IPV6_HOPLIMIT", sizes=(INT_SIZE, 1), option="IPV6_RECVHOPLIMIT")
class HopLimit(HopCount):
    """The hop limit. Both directions, of IPv6 alone: IPv4 on the same socket has `TTL`. See ipv6(7), RFC 3542."""

    __slots__ = ()


@registered("IPV6_TCLASS", sizes=(INT_SIZE, 1), option="IPV6_RECVTCLASS")
class TClass(TrafficClass):
    """The traffic class: DSCP and ECN. Both directions, of IPv6 alone: IPv4 on the same socket has `TOS`.

    See ipv6(7), RFC 3542.
    """

    __slots__ = ()


@registered("IPV6_ORIGDSTADDR", sizes=(_SIN6.size,), option="IPV6_RECVORIGDSTADDR")
class OrigDstAddr6(OriginalDestination):
    """Received: the address and port that the datagram was sent to, which a transparent proxy need not be bound to.

    See ipv6(7), ip(7), IPV6_RECVORIGDSTADDR.
    """

    __slots__ = ()
    _fields = ("address",)

    def __new__(cls, *, address: Address) -> Self:
        """``address``: (host, port[, flowinfo[, scope_id]]), the host numeric."""
        return cls.from_data(socket_address("address", address, socket.AF_INET6))

    @property
    def address(self) -> tuple[str, int, int, int]:
        """``(host, port, flowinfo, scope_id)``."""
        return inet6_tuple(self[2])


@registered("IPV6_RECVFRAGSIZE", sizes=(INT_SIZE,), option="IPV6_RECVFRAGSIZE")
class FragSize6(Size):
    """Received: the size of the largest fragment that the datagram came in; absent if it came whole. See ipv6(7)."""

    __slots__ = ()


@registered("IPV6_PATHMTU", sizes=(_MTUINFO.size,), option="IPV6_RECVPATHMTU")
class PathMTU(ControlMessage):
    """Received: the largest packet that the path to a destination takes. It comes beside an empty datagram.

    On Linux after a send that was too long failed with EMSGSIZE because of `DontFrag`. See ipv6(7), RFC 3542.
    """

    __slots__ = ()
    _fields = ("address", "mtu")

    def __new__(cls, *, address: Address, mtu: int) -> Self:
        """``address``: (host, port[, flowinfo[, scope_id]]), the host numeric; ``mtu``: in bytes."""
        name = socket_address("address", address, socket.AF_INET6)
        return cls.from_data(_MTUINFO.pack(name, number("mtu", mtu, UINT32)))

    @property
    def address(self) -> tuple[str, int, int, int]:
        """The destination: ``(host, port, flowinfo, scope_id)``."""
        return inet6_tuple(_MTUINFO.unpack(self[2])[0])

    @property
    def mtu(self) -> int:
        """In bytes, with the IPv6 header."""
        mtu: int = _MTUINFO.unpack(self[2])[1]
        return mtu


class ExtensionHeader(ControlMessage):
    """An extension header of IPv6 as it stands in the packet: RFC 8200, RFC 3542.

    One that is sent so replaces, for its datagram, all that were set by the socket's options.
    """

    __slots__ = ()
    _fields = ("header",)

    def __new__(cls, *, header: Buffer) -> Self:
        """``header``: 8 bytes or a multiple; its second byte counts the eights after the first one.

        Its first byte, the next header, is the kernel's to fill.
        """
        payload = as_bytes("header", header)
        if len(payload) < _UNIT or len(payload) != (payload[1] + 1) * _UNIT:
            said = f", as its second byte says {payload[1]}" if len(payload) > 1 else " at least"
            length = (payload[1] + 1) * _UNIT if len(payload) > 1 else _UNIT
            raise ValueError(f"header must be of {length} bytes{said}, not {len(payload)}")
        return cls.from_data(payload)

    @property
    def header(self) -> bytes:
        """All of it: the next header, the length, and what the kind of header has."""
        return self[2]


@registered("IPV6_HOPOPTS", least=_UNIT, step=_UNIT, room=_LONGEST, option="IPV6_RECVHOPOPTS")
class HopOptions(ExtensionHeader):
    """The hop-by-hop options. Both directions; Linux sends them with CAP_NET_RAW alone. See ipv6(7), RFC 3542."""

    __slots__ = ()


@registered("IPV6_DSTOPTS", least=_UNIT, step=_UNIT, room=_LONGEST, option="IPV6_RECVDSTOPTS")
class DstOptions(ExtensionHeader):
    """The options for the destination. Both directions; Linux sends them with CAP_NET_RAW alone.

    Received, those that stood in front of a routing header come as a message of their own. See ipv6(7), RFC 3542.
    """

    __slots__ = ()


@registered("IPV6_RTHDRDSTOPTS", least=_UNIT, step=_UNIT, room=_LONGEST)
class RthdrDstOptions(ExtensionHeader):
    """Sent: the options for each destination of a routing header, in front of it; they are received as `DstOptions`.

    Linux wants CAP_NET_RAW, and leaves them out where there is no routing header. See ipv6(7), RFC 3542.
    """

    __slots__ = ()


@registered("IPV6_RTHDR", least=_UNIT, step=_UNIT, room=_LONGEST, option="IPV6_RECVRTHDR")
class RoutingHeader(ExtensionHeader):
    """The routing header. Both directions.

    Linux sends type 2 (RFC 6275) alone, and that where it was built with Mobile IPv6; any other is EINVAL. What arrives
    has no segments left. See ipv6(7), RFC 3542.
    """

    __slots__ = ()


_LABEL_BITS = 20


@registered("IPV6_FLOWINFO", sizes=(4,), option="IPV6_FLOWINFO")
class FlowInfo(ControlMessage):
    """The flow label, and received the traffic class as well; absent if both are 0. Linux. See ipv6(7), RFC 6437."""

    __slots__ = ()
    _fields = ("flow_label", "traffic_class")

    def __new__(cls, *, flow_label: int, traffic_class: int = 0) -> Self:
        """``flow_label``: 20 bits; ``traffic_class``: 8 bits, of which Linux takes no notice, see `TClass`."""
        label = number("flow_label", flow_label, 2**_LABEL_BITS - 1)
        return cls.from_data((number("traffic_class", traffic_class, 255) << _LABEL_BITS | label).to_bytes(4, "big"))

    @property
    def flow_label(self) -> int:
        """20 bits."""
        return int.from_bytes(self[2], "big") & (2**_LABEL_BITS - 1)

    @property
    def traffic_class(self) -> int:
        """8 bits: DSCP and ECN."""
        return int.from_bytes(self[2], "big") >> _LABEL_BITS & 255


@registered("IPV6_DONTFRAG", sizes=(INT_SIZE,))
class DontFrag(ControlMessage):
    """Sent: whether the datagram is refused with EMSGSIZE where it would have to be cut, instead of cut.

    See ipv6(7), RFC 3542.
    """

    __slots__ = ()
    _fields = ("on",)

    def __new__(cls, *, on: bool = True) -> Self:
        """``on``: True or False."""
        return cls.from_data(INT.pack(number("on", on, 1)))

    @property
    def on(self) -> bool:
        """Whether it is refused."""
        return bool(INT.unpack(self[2])[0])
