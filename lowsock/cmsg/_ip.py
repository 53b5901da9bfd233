# SPDX-License-Identifier: MIT
"""Control messages of IPv4: ip(7)."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import INT_MAX
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import (
    INT,
    INT_SIZE,
    TEXT_CACHE,
    UINT,
    UINT16,
    UINT32,
    address_bytes,
    address_text,
    inet_tuple,
    is_multicast,
    layout,
    number,
    socket_address,
)
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

LINUX = sys.platform.startswith("linux")
MAX_OPTIONS = 40  # bytes: what the length of IPv4's header leaves for them

_PKTINFO = layout("in_pktinfo")
_ipi_ifindex = _PKTINFO.reader("ipi_ifindex")
_ipi_spec_dst = _PKTINFO.reader("ipi_spec_dst")
_ipi_addr = _PKTINFO.reader("ipi_addr")


@registered("IP_PKTINFO", sizes=(_PKTINFO.size,), option="IP_PKTINFO")
class PktInfo(LocalAddress):
    """Received: our address that the datagram came to, and the interface. Sent: the address and interface to send it from.

    An IPv6 socket receives it beside `PktInfo6` for IPv4 datagrams, if asked for both. See ip(7), IP_PKTINFO.
    """

    __slots__ = ()
    _fields = ("local", "ifindex", "destination")

    def __new__(cls, *, local: Host = "0.0.0.0", ifindex: int = 0, destination: Host = "0.0.0.0") -> Self:
        """``local``: one of our addresses, "0.0.0.0" for any; ``ifindex``: 0 for any. Linux ignores ``destination``."""
        spec_dst = address_bytes("local", local, socket.AF_INET)
        addr = address_bytes("destination", destination, socket.AF_INET)
        return cls.from_data(_PKTINFO.pack(number("ifindex", ifindex, INT_MAX), spec_dst, addr))

    @property
    def local(self) -> str:
        """Our address; for a multicast or broadcast datagram the interface's, so that an answer may come from it."""
        (address,) = _ipi_spec_dst(self[2])
        return TEXT_CACHE.get(address) or address_text(address)

    @property
    def ifindex(self) -> int:
        """The number of the interface, as `socket.if_indextoname` takes it."""
        (ifindex,) = _ipi_ifindex(self[2])
        return ifindex

    @property
    def destination(self) -> str:
        """The destination in the datagram's header: ``local``, or a multicast or broadcast address."""
        (address,) = _ipi_addr(self[2])
        return TEXT_CACHE.get(address) or address_text(address)

    def _fill(self, fields: ArrivalFields) -> None:
        data = self[2]
        (fields[IFINDEX],) = _ipi_ifindex(data)
        (local,), (destination,) = _ipi_spec_dst(data), _ipi_addr(data)
        fields[LOCAL] = TEXT_CACHE.get(local) or address_text(local)
        fields[DESTINATION] = TEXT_CACHE.get(destination) or address_text(destination)


@registered("IP_RECVDSTADDR", sizes=(4,), option="IP_RECVDSTADDR")
class DstAddr(LocalAddress):
    """Received: the destination in the datagram's header. Sent: the address to send it from. BSD and macOS.

    macOS receives it only. Its type is IP_SENDSRCADDR too, which is the same number. See ip(4).
    """

    __slots__ = ()
    _fields = ("local",)

    def __new__(cls, *, local: Host) -> Self:
        """``local``: one of our addresses."""
        return cls.from_data(address_bytes("local", local, socket.AF_INET))

    @property
    def local(self) -> str:
        """Our address; a multicast or broadcast datagram's destination."""
        return address_text(self[2])

    @property
    def destination(self) -> str:
        """The same as ``local``."""
        return address_text(self[2])

    def _fill(self, fields: ArrivalFields) -> None:
        fields[DESTINATION] = address = self.destination
        fields[LOCAL] = None if is_multicast(self[2]) else address


_SDL = layout("sockaddr_dl")
_sdl_index = _SDL.reader("sdl_index")


@registered("IP_RECVIF", least=_SDL.offsets.get("sdl_data", 0), room=_SDL.size, option="IP_RECVIF")
class RecvIf(LocalAddress):
    """Received: the interface that the datagram came in by. BSD and macOS. See ip(4), link_addr(3)."""

    __slots__ = ()
    _fields = ("ifindex",)

    def __new__(cls, *, ifindex: int) -> Self:
        """``ifindex``: 0 to 65535."""
        return cls.from_data(_SDL.pack(number("ifindex", ifindex, UINT16), b""))

    @property
    def ifindex(self) -> int:
        """The number of the interface, as `socket.if_indextoname` takes it."""
        (ifindex,) = _sdl_index(self[2])
        return ifindex

    def _fill(self, fields: ArrivalFields) -> None:
        fields[IFINDEX] = self.ifindex


_TTL_SIZES = (INT_SIZE, 1) if LINUX else (1, INT_SIZE)


@registered("IP_TTL", "IP_RECVTTL", sizes=_TTL_SIZES, option="IP_RECVTTL")
class TTL(HopCount):
    """The time to live. Linux sends and receives an int, BSD and macOS receive a byte under IP_RECVTTL. See ip(7)."""

    __slots__ = ()


@registered("IP_TOS", "IP_RECVTOS", sizes=(1, INT_SIZE), option="IP_RECVTOS")
class TOS(TrafficClass):
    """The type of service: DSCP and ECN. Both directions.

    Linux receives a byte and sends either width, an int from Linux 3.13 on; BSD sends a byte. Linux derives the priority
    of the datagram from what is sent. See ip(7).
    """

    __slots__ = ()
    _wire_format = INT if LINUX else struct.Struct("B")


@registered("IP_ORIGDSTADDR", sizes=(layout("sockaddr_in").size,), option="IP_RECVORIGDSTADDR")
class OrigDstAddr(OriginalDestination):
    """Received: the address and port that the datagram was sent to, which a transparent proxy need not be bound to.

    See ip(7), IP_RECVORIGDSTADDR.
    """

    __slots__ = ()
    _fields = ("address",)

    def __new__(cls, *, address: Address) -> Self:
        """``address``: (host, port), the host numeric."""
        return cls.from_data(socket_address("address", address, socket.AF_INET))

    @property
    def address(self) -> tuple[str, int]:
        """``(host, port)``."""
        return inet_tuple(self[2])


class Size(ControlMessage):
    """The largest fragment that the datagram came in, in bytes with the IP header."""

    __slots__ = ()
    _fields = ("size",)

    def __new__(cls, *, size: int) -> Self:
        """``size``: in bytes."""
        return cls.from_data(INT.pack(number("size", size, INT_MAX)))

    @property
    def size(self) -> int:
        """In bytes, with the IP header."""
        size: int = INT.unpack(self[2])[0]
        return size


@registered("IP_RECVFRAGSIZE", sizes=(INT_SIZE,), option="IP_RECVFRAGSIZE")
class FragSize(Size):
    """Received: the size of the largest fragment that the datagram came in; absent if it came whole.

    For UDP and raw sockets. See ip(7).
    """

    __slots__ = ()


@registered("IP_PROTOCOL", sizes=(INT_SIZE,), since="Linux 6.4")
class Protocol(ControlMessage):
    """Sent: the protocol by which a raw socket with IP_HDRINCL finds its IPsec policy; other sockets take no notice.

    Linux 6.4; before that EINVAL. See ip(7).
    """

    __slots__ = ()
    _fields = ("protocol",)

    def __new__(cls, *, protocol: int) -> Self:
        """``protocol``: 0 to 255, such as `socket.IPPROTO_UDP`. Linux refuses 0 with EINVAL."""
        return cls.from_data(INT.pack(number("protocol", protocol, 255)))

    @property
    def protocol(self) -> int:
        """As in the IP header: 17 is UDP."""
        protocol: int = INT.unpack(self[2])[0]
        return protocol


@registered("IP_CHECKSUM", sizes=(UINT.size,), option="IP_CHECKSUM")
class Checksum(ControlMessage):
    """Received: the sum of the payload's 16-bit words, where the kernel has it by then; absent otherwise.

    For UDP. Seen with devices that tell the sum, and with short datagrams that nobody has checked before; loopback
    between sockets brings none. See udp(7).
    """

    __slots__ = ()
    _fields = ("checksum",)

    def __new__(cls, *, checksum: int) -> Self:
        """``checksum``: 32 bits."""
        return cls.from_data(UINT.pack(number("checksum", checksum, UINT32)))

    @property
    def checksum(self) -> int:
        """A sum of 16-bit words in the host's order, not yet folded to 16 bits (RFC 1071)."""
        checksum: int = UINT.unpack(self[2])[0]
        return checksum


class Options(ControlMessage):
    """Options of the IPv4 header, RFC 791."""

    __slots__ = ()
    _fields = ("options",)

    def __new__(cls, *, options: Buffer) -> Self:
        """``options``: as they stand in the header, 40 bytes at most."""
        payload = as_bytes("options", options)
        if len(payload) > MAX_OPTIONS:
            raise ValueError(f"options must be of {MAX_OPTIONS} bytes at most, not {len(payload)}")
        return cls.from_data(payload)

    @property
    def options(self) -> bytes:
        """As they stand in the header, filled up to a multiple of four bytes."""
        return self[2]


@registered("IP_RECVOPTS", room=MAX_OPTIONS, option="IP_RECVOPTS")
class ReceivedOptions(Options):
    """Received: the options of the datagram's IPv4 header; absent if it has none. See ip(7)."""

    __slots__ = ()


@registered("IP_RETOPTS", room=MAX_OPTIONS, option="IP_RETOPTS")
class ReturnOptions(Options):
    """Received: the options to answer with, a source route turned round; absent if there are none. Sent: the options of
    this datagram's header. Linux needs CAP_NET_RAW for some.

    See ip(7).
    """

    __slots__ = ()
