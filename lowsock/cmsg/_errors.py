# SPDX-License-Identifier: MIT
"""What comes with each entry of an error queue: ``struct sock_extended_err``, and the offender's address. See ip(7)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lowsock._memory.address import decode_name
from lowsock.cmsg._base import NO_OPTION, ControlMessage, registered
from lowsock.cmsg._fields import UINT8, UINT32, Named, layout, named, number, socket_address

if TYPE_CHECKING:
    from typing_extensions import Self

    from lowsock._system.types import Address


class Origin(Named):
    """Where an entry of an error queue comes from: ``SO_EE_ORIGIN_*``."""

    NONE = 0
    LOCAL = 1
    ICMP = 2
    ICMP6 = 3
    TIMESTAMPING = 4
    TXSTATUS = 4  # the kernel's other name for it
    ZEROCOPY = 5
    TXTIME = 6


_EXTENDED = layout("sock_extended_err")
_ee_errno = _EXTENDED.reader("ee_errno")
_ee_origin = _EXTENDED.reader("ee_origin")
_ee_type = _EXTENDED.reader("ee_type")
_ee_code = _EXTENDED.reader("ee_code")
_ee_info = _EXTENDED.reader("ee_info")
_ee_data = _EXTENDED.reader("ee_data")

_SOCKADDR = layout("sockaddr")
_INET, _INET6 = layout("sockaddr_in"), layout("sockaddr_in6")
_SOCKADDR_SIZES: dict[int, int] = {socket.AF_INET: _INET.size, socket.AF_INET6: _INET6.size}


class ExtendedError(ControlMessage):
    """The question: of what does an entry of the error queue tell? See ip(7), IP_RECVERR.

    Answers: `RecvErr`, `RecvErr6`; beside them `VsockRecvErr` and `PacketTxTimestamp`, which have no offender. Received
    only, with MSG_ERRQUEUE. `lowsock.errqueue` reads the queue whole. ``info`` and ``value`` mean something else for each
    origin.
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ("errno", "origin", "icmp_type", "icmp_code", "info", "value")
    _family = socket.AF_UNSPEC  # of the offender; AF_UNSPEC: there is none

    def __new__(
        cls,
        *,
        errno: int = 0,
        origin: int = Origin.NONE,
        icmp_type: int = 0,
        icmp_code: int = 0,
        info: int = 0,
        value: int = 0,
    ) -> Self:
        """As the kernel would send it. ``origin``: 0 to 255, or an `Origin`; the types 0 to 255, the others 32 bits."""
        return cls.from_data(_packed(errno, origin, icmp_type, icmp_code, info, value))

    @property
    def errno(self) -> int:
        """The error, as the `errno` module numbers it; 0 for a completion, ENOMSG for a timestamp."""
        return _ee_errno(self[2])[0]

    @property
    def origin(self) -> Origin | int:
        """An `Origin`, or the number that the kernel gave where it has no name."""
        return named(Origin, _ee_origin(self[2])[0])

    @property
    def icmp_type(self) -> int:
        """The type of the ICMP message, ICMPv4's or ICMPv6's as ``origin`` says; ``ee_type`` of other origins."""
        return _ee_type(self[2])[0]

    @property
    def icmp_code(self) -> int:
        """The code of the ICMP message; ``ee_code`` of other origins."""
        return _ee_code(self[2])[0]

    @property
    def info(self) -> int:
        """EMSGSIZE: the MTU; a completion: the first send; a timestamp: the stage; TXTIME: the lower half of the time."""
        return _ee_info(self[2])[0]

    @property
    def value(self) -> int:
        """``ee_data``. A completion: the last send; a timestamp: the key; TXTIME: the upper half of the time."""
        return _ee_data(self[2])[0]

    @property
    def offender(self) -> Address:
        """Who reported the error, an address tuple whose port tells nothing; None where the message does not say."""
        name = self[2][_EXTENDED.size :]
        if len(name) < _SOCKADDR.offsets["sa_data"]:
            return None
        family = _SOCKADDR.unpack(name)[0]
        if family == socket.AF_UNSPEC or len(name) < _SOCKADDR_SIZES.get(family, 0):
            return None
        return decode_name(name)


class _WithOffender(ExtendedError):
    """An extended error with the address of the offender behind it."""

    __slots__ = ()
    _fields = (*ExtendedError._fields, "offender")

    def __new__(
        cls,
        *,
        errno: int = 0,
        origin: int = Origin.NONE,
        icmp_type: int = 0,
        icmp_code: int = 0,
        info: int = 0,
        value: int = 0,
        offender: Address = None,
    ) -> Self:
        """As the kernel would send it. ``offender``: an address tuple with a numeric host, or None."""
        extended = _packed(errno, origin, icmp_type, icmp_code, info, value)
        family = cls._family
        sockaddr = bytes(_SOCKADDR_SIZES[family]) if offender is None else socket_address("offender", offender, family)
        return cls.from_data(extended + sockaddr)


@registered("IP_RECVERR", least=_EXTENDED.size, option="IP_RECVERR", room=_EXTENDED.size + _INET.size)
class RecvErr(_WithOffender):
    """Received: an entry of an IPv4 socket's error queue. ICMP and local errors need IP_RECVERR, timestamps and completions
    come without. See ip(7)."""

    __slots__ = ()
    _family = socket.AF_INET


@registered("IPV6_RECVERR", least=_EXTENDED.size, option="IPV6_RECVERR", room=_EXTENDED.size + _INET6.size)
class RecvErr6(_WithOffender):
    """Received: an entry of an IPv6 socket's error queue. See ipv6(7).

    What came of a v4-mapped destination comes as this message too, with origin ICMP and a v4-mapped offender, but the
    option that asks for it is IPv4's: a dual-stack socket wants IP_RECVERR and IPV6_RECVERR.
    """

    __slots__ = ()
    _family = socket.AF_INET6


@registered("VSOCK_RECVERR", least=_EXTENDED.size, option=NO_OPTION, since="Linux 6.7")
class VsockRecvErr(ExtendedError):
    """Received: an entry of a vsock socket's error queue, a zero-copy completion. Linux 6.7. See vsock(7)."""

    __slots__ = ()


@registered("PACKET_TX_TIMESTAMP", least=_EXTENDED.size, option=NO_OPTION)
class PacketTxTimestamp(ExtendedError):
    """Received: an entry of a packet socket's error queue, a transmit timestamp. Flags of SO_TIMESTAMPING ask for it.
    See packet(7)."""

    __slots__ = ()


ERRORS = (ExtendedError, RecvErr, RecvErr6, VsockRecvErr, PacketTxTimestamp)


def _packed(errno: int, origin: int, icmp_type: int, icmp_code: int, info: int, value: int) -> bytes:
    return _EXTENDED.pack(
        number("errno", errno, UINT32),
        number("origin", origin, UINT8),
        number("icmp_type", icmp_type, UINT8),
        number("icmp_code", icmp_code, UINT8),
        0,
        number("info", info, UINT32),
        number("value", value, UINT32),
    )
