# SPDX-License-Identifier: MIT
"""Control messages of packet sockets: packet(7)."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

from lowsock._system.constants import CONSTANTS
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import UINT16, UINT32, layout, number

if TYPE_CHECKING:
    from typing_extensions import Self

_AUXDATA = layout("tpacket_auxdata")
_tp_status = _AUXDATA.reader("tp_status")
_tp_len = _AUXDATA.reader("tp_len")
_tp_snaplen = _AUXDATA.reader("tp_snaplen")
_tp_mac = _AUXDATA.reader("tp_mac")
_tp_net = _AUXDATA.reader("tp_net")
_tp_vlan_tci = _AUXDATA.reader("tp_vlan_tci")
_tp_vlan_tpid = _AUXDATA.reader("tp_vlan_tpid")


def _bit(name: str) -> int:
    return CONSTANTS.get(f"TP_STATUS_{name}", 0)  # 0: no class of this platform has it


class PacketStatus(IntFlag):
    """What the kernel says of a packet; before each name goes TP_STATUS_. See packet(7)."""

    USER = _bit("USER")
    COPY = _bit("COPY")
    LOSING = _bit("LOSING")
    CSUMNOTREADY = _bit("CSUMNOTREADY")
    VLAN_VALID = _bit("VLAN_VALID")
    BLK_TMO = _bit("BLK_TMO")
    VLAN_TPID_VALID = _bit("VLAN_TPID_VALID")
    CSUM_VALID = _bit("CSUM_VALID")
    GSO_TCP = _bit("GSO_TCP")
    TS_SOFTWARE = _bit("TS_SOFTWARE")
    TS_SYS_HARDWARE = _bit("TS_SYS_HARDWARE")
    TS_RAW_HARDWARE = _bit("TS_RAW_HARDWARE")

    def __repr__(self) -> str:
        """An expression: the names of the bits, and as a number those without one."""
        names = [bit for bit in PacketStatus if bit.value and bit.value & int(self)]
        rest = int(self) & ~sum(bit.value for bit in names)
        parts = [f"PacketStatus.{bit.name}" for bit in names]
        return " | ".join(parts + [f"PacketStatus({rest})"] * (rest != 0 or not parts))


_VLAN_VALID, _VLAN_TPID_VALID = int(PacketStatus.VLAN_VALID), int(PacketStatus.VLAN_TPID_VALID)


@registered("PACKET_AUXDATA", sizes=(_AUXDATA.size,), option="PACKET_AUXDATA")
class Auxdata(ControlMessage):
    """Received: what the kernel knows of a packet beyond its bytes.

    The kernel takes the outermost VLAN tag out of the packet, and tells it only here. See packet(7), PACKET_AUXDATA.
    """

    __slots__ = ()
    _fields = ("status", "length", "captured", "mac_offset", "network_offset", "vlan_tci", "vlan_tpid")

    def __new__(
        cls,
        *,
        status: int = 0,
        length: int = 0,
        captured: int = 0,
        mac_offset: int = 0,
        network_offset: int = 0,
        vlan_tci: int | None = None,
        vlan_tpid: int | None = None,
    ) -> Self:
        """``status``: a `PacketStatus`; a ``vlan_tci`` and ``vlan_tpid`` that are not None add that they are valid."""
        flags = number("status", status, UINT32)
        flags |= (_VLAN_VALID if vlan_tci is not None else 0) | (_VLAN_TPID_VALID if vlan_tpid is not None else 0)
        return cls.from_data(
            _AUXDATA.pack(
                flags,
                number("length", length, UINT32),
                number("captured", captured, UINT32),
                number("mac_offset", mac_offset, UINT16),
                number("network_offset", network_offset, UINT16),
                0 if vlan_tci is None else number("vlan_tci", vlan_tci, UINT16),
                0 if vlan_tpid is None else number("vlan_tpid", vlan_tpid, UINT16),
            )
        )

    @property
    def status(self) -> PacketStatus:
        (status,) = _tp_status(self[2])
        return PacketStatus(status)

    @property
    def length(self) -> int:
        """Bytes of the packet, as it came."""
        (length,) = _tp_len(self[2])
        return length

    @property
    def captured(self) -> int:
        """Bytes of it that the socket's filter kept: all without one, however small the buffer was."""
        (captured,) = _tp_snaplen(self[2])
        return captured

    @property
    def mac_offset(self) -> int:
        """Where the link-level header begins in the data, in bytes: 0, it is for the ring."""
        (offset,) = _tp_mac(self[2])
        return offset

    @property
    def network_offset(self) -> int:
        """Where the network header begins in the data, in bytes."""
        (offset,) = _tp_net(self[2])
        return offset

    @property
    def vlan_tci(self) -> int | None:
        """The tag: priority, drop eligibility and VLAN (IEEE 802.1Q); None where the packet had none."""
        return self._valid(_VLAN_VALID, _tp_vlan_tci(self[2]))

    @property
    def vlan_tpid(self) -> int | None:
        """The tag's protocol, 0x8100 or 0x88a8; None where the packet had no tag, or before Linux 3.14."""
        return self._valid(_VLAN_TPID_VALID, _tp_vlan_tpid(self[2]))

    @property
    def vlan_id(self) -> int | None:
        """The VLAN, 0 to 4095; None where the packet had no tag."""
        tci = self.vlan_tci
        return None if tci is None else tci & 0xFFF

    @property
    def vlan_priority(self) -> int | None:
        """0 to 7; None where the packet had no tag."""
        tci = self.vlan_tci
        return None if tci is None else tci >> 13

    def _valid(self, bit: int, read: tuple[int]) -> int | None:
        (status,) = _tp_status(self[2])
        return read[0] if status & bit else None
