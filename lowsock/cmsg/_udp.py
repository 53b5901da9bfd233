# SPDX-License-Identifier: MIT
"""Control messages of segmentation offload: udp(7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lowsock._system.arguments import INT_MAX, checked_int
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import INT, INT_SIZE, UINT16, number

if TYPE_CHECKING:
    from typing_extensions import Self

_USHORT = struct.Struct("H")
_int = INT.unpack
_ushort = _USHORT.unpack


@registered("UDP_SEGMENT", sizes=(_USHORT.size,), since="Linux 4.18")
class Segment(ControlMessage):
    """Sent: the data is cut into datagrams of ``size`` bytes, the last one of what is left.

    It stands above the socket's own UDP_SEGMENT. 128 datagrams at most (64 before Linux 6.9) and 65535 bytes less headers
    in all; more is EINVAL or EMSGSIZE, a size beyond the path MTU EMSGSIZE, and EIO says that the device or IPsec cannot.
    See udp(7).
    """

    __slots__ = ()
    _fields = ("size",)

    def __new__(cls, *, size: int) -> Self:
        """``size``: the payload of each datagram in bytes, 1 to 65535."""
        return cls.from_data(_USHORT.pack(checked_int("size", size, least=1, most=UINT16)))

    @property
    def size(self) -> int:
        """The payload of each datagram in bytes, without headers."""
        return _ushort(self[2])[0]


@registered("UDP_GRO", sizes=(INT_SIZE, _USHORT.size), option="UDP_GRO", since="Linux 5.0")
class Gro(ControlMessage):
    """Received: the data is several datagrams of ``size`` bytes in a row, the last one of what is left.

    It is absent where nothing was put together. The buffer wants 64 KiB: what does not fit is cut off. See udp(7).
    """

    __slots__ = ()
    _fields = ("size",)

    def __new__(cls, *, size: int) -> Self:
        """``size``: the payload of each datagram in bytes."""
        return cls.from_data(INT.pack(number("size", size, INT_MAX)))

    @property
    def size(self) -> int:
        """The payload of each datagram but the last, in bytes."""
        data = self[2]
        return _int(data)[0] if len(data) == INT_SIZE else _ushort(data)[0]
