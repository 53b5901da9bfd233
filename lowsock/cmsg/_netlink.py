# SPDX-License-Identifier: MIT
"""Control messages of netlink: netlink(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import UINT32, layout, number

if TYPE_CHECKING:
    from typing_extensions import Self

_PKTINFO = layout("nl_pktinfo")
_group = _PKTINFO.reader("group")


@registered("NETLINK_PKTINFO", sizes=(_PKTINFO.size,), option="NETLINK_PKTINFO")
class NetlinkPktInfo(ControlMessage):
    """Received: the multicast group that the message was sent to. See netlink(7), NETLINK_PKTINFO."""

    __slots__ = ()
    _fields = ("group",)

    def __new__(cls, *, group: int) -> Self:
        return cls.from_data(_PKTINFO.pack(number("group", group, UINT32)))

    @property
    def group(self) -> int:
        """The group's number (such as RTNLGRP_LINK, 1), not its bit; 0 where the message came to this socket alone."""
        (group,) = _group(self[2])
        return group
