# SPDX-License-Identifier: MIT
"""Control messages of IPv4: ip(7)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lowsock._calling import INT_MAX
from lowsock.cmsg._base import known
from lowsock.cmsg._fields import INT_SIZE, TEXTS, address_bytes, address_text, layout, number
from lowsock.cmsg._questions import HopCount, LocalAddress, TrafficClass

if TYPE_CHECKING:
    from typing_extensions import Self

_PKTINFO = layout("in_pktinfo")
_ipi_ifindex = _PKTINFO.reader("ipi_ifindex")
_ipi_spec_dst = _PKTINFO.reader("ipi_spec_dst")
_ipi_addr = _PKTINFO.reader("ipi_addr")


@known("IP_PKTINFO", sizes=(_PKTINFO.size,), option="IP_PKTINFO")
class PktInfo(LocalAddress):
    """Received: our address that the datagram came to, and the interface. Sent: the address and interface to send it from.

    See ip(7), IP_PKTINFO.
    """

    __slots__ = ()
    _fields = ("local", "ifindex", "destination")

    def __new__(cls, *, local: str = "0.0.0.0", ifindex: int = 0, destination: str = "0.0.0.0") -> Self:
        """``local``: one of our addresses, "0.0.0.0" for any; ``ifindex``: 0 for any. Linux ignores ``destination``."""
        spec_dst = address_bytes("local", local, socket.AF_INET)
        addr = address_bytes("destination", destination, socket.AF_INET)
        return cls.from_data(_PKTINFO.pack(number("ifindex", ifindex, INT_MAX), spec_dst, addr))

    @property
    def local(self) -> str:
        """Our address; for a multicast or broadcast datagram the interface's, so that an answer may come from it."""
        (address,) = _ipi_spec_dst(self[2])
        return TEXTS.get(address) or address_text(address)

    @property
    def ifindex(self) -> int:
        """The number of the interface, as `socket.if_indextoname` takes it."""
        (ifindex,) = _ipi_ifindex(self[2])
        return ifindex

    @property
    def destination(self) -> str:
        """The destination in the datagram's header: ``local``, or a multicast or broadcast address."""
        (address,) = _ipi_addr(self[2])
        return address_text(address)


@known("IP_TTL", "IP_RECVTTL", sizes=(INT_SIZE, 1), option="IP_RECVTTL")
class TTL(HopCount):
    """The time to live. Linux sends and receives an int, BSD and macOS receive a byte under IP_RECVTTL. See ip(7)."""

    __slots__ = ()


@known("IP_TOS", "IP_RECVTOS", sizes=(INT_SIZE, 1), option="IP_RECVTOS")
class TOS(TrafficClass):
    """The type of service: DSCP and ECN. Linux receives a byte and sends either; an int needs Linux 3.13. See ip(7)."""

    __slots__ = ()


class DstAddr(LocalAddress): pass
class RecvIf(LocalAddress): pass
class OrigDstAddr(LocalAddress): pass
