# SPDX-License-Identifier: MIT
"""Control messages that know what they mean."""

from lowsock.cmsg._alg import AlgAeadAssoclen, AlgIv, AlgOp, AlgOperation
from lowsock.cmsg._base import ControlMessage, decode, register
from lowsock.cmsg._ip import TOS, TTL, PktInfo
from lowsock.cmsg._netlink import NetlinkPktInfo
from lowsock.cmsg._options import enable, space
from lowsock.cmsg._packet import Auxdata, PacketStatus
from lowsock.cmsg._portable import Arrival, arrival, towards
from lowsock.cmsg._questions import ECN, HopCount, LocalAddress, OriginalDestination, ReceiveTime, TrafficClass
from lowsock.cmsg._tcp import Inq
from lowsock.cmsg._tls import GetRecordType, RecordType, SetRecordType
from lowsock.cmsg._udp import Gro, Segment

__all__ = [
    "ECN",
    "TOS",
    "TTL",
    "AlgAeadAssoclen",
    "AlgIv",
    "AlgOp",
    "AlgOperation",
    "Arrival",
    "Auxdata",
    "ControlMessage",
    "GetRecordType",
    "Gro",
    "HopCount",
    "Inq",
    "LocalAddress",
    "NetlinkPktInfo",
    "OriginalDestination",
    "PacketStatus",
    "PktInfo",
    "ReceiveTime",
    "RecordType",
    "Segment",
    "SetRecordType",
    "TrafficClass",
    "arrival",
    "decode",
    "enable",
    "register",
    "space",
    "towards",
]
