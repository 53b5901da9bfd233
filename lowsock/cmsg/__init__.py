# SPDX-License-Identifier: MIT
"""Control messages with named fields: each is the three-tuple of the socket module, and more. See cmsg(3).

`decode` turns what a receive returned into typed messages. `enable` sets the options that make messages arrive, and `space`
says how much room they take. `arrival` and `towards` hide the differences between families and systems. `register` adds
classes. The name of a class that this platform's headers lack raises `AttributeError`, which says so; `enable` finds out
whether the running kernel has it.
"""

# In: three-tuples as a receive returned them, fields to be sent, or a socket whose options are to be set. Out: typed
# messages, which are three-tuples, and sizes of control buffers. Called by users, `errqueue`, `udp` and the command.
#
#   _base.py       `ControlMessage`, `decode`, `register`: the registry of classes by level, type and size
#   _fields.py     what fields are made of: numbers, names of numbers, addresses
#   _questions.py  the questions, which are the bases of the classes that answer them
#   _portable.py   `arrival`, `towards`, `find`: which class answers which question
#   _options.py    `enable`, `space`
#   a file for each family or protocol: _alg, _errors (error queue), _ip, _ipv6, _netlink, _packet, _socket (all sockets and
#   AF_UNIX), _tcp, _times, _tls, _udp

from typing import TYPE_CHECKING

from lowsock._system.exports import public
from lowsock.cmsg._alg import AlgAeadAssoclen, AlgIv, AlgOp, AlgOperation
from lowsock.cmsg._base import ControlMessage, decode, register
from lowsock.cmsg._errors import ExtendedError, Origin, PacketTxTimestamp, RecvErr, RecvErr6, VsockRecvErr
from lowsock.cmsg._ip import (
    TOS,
    TTL,
    Checksum,
    DstAddr,
    FragSize,
    OrigDstAddr,
    PktInfo,
    Protocol,
    ReceivedOptions,
    RecvIf,
    ReturnOptions,
)
from lowsock.cmsg._ipv6 import (
    DontFrag,
    DstOptions,
    FlowInfo,
    FragSize6,
    HopLimit,
    HopOptions,
    OrigDstAddr6,
    PathMTU,
    PktInfo6,
    RoutingHeader,
    RthdrDstOptions,
    TClass,
)
from lowsock.cmsg._netlink import NetlinkPktInfo
from lowsock.cmsg._options import enable, space
from lowsock.cmsg._packet import Auxdata, PacketStatus
from lowsock.cmsg._portable import Arrival, arrival, find, towards
from lowsock.cmsg._questions import ECN, HopCount, LocalAddress, OriginalDestination, ReceiveTime, TrafficClass
from lowsock.cmsg._socket import Credentials, Creds, Creds2, Drops, Mark, PidFd, Priority, Rights, Security, WifiStatus
from lowsock.cmsg._tcp import Inq
from lowsock.cmsg._times import (
    RequestTimestamps,
    Timestamp,
    Timestamping,
    TimestampingFlags,
    TimestampingPktInfo,
    TimestampKey,
    TimestampNs,
    TxTime,
)
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
    "Checksum",
    "ControlMessage",
    "Credentials",
    "Creds",
    "Creds2",
    "DontFrag",
    "Drops",
    "DstAddr",
    "DstOptions",
    "ExtendedError",
    "FlowInfo",
    "FragSize",
    "FragSize6",
    "GetRecordType",
    "Gro",
    "HopCount",
    "HopLimit",
    "HopOptions",
    "Inq",
    "LocalAddress",
    "Mark",
    "NetlinkPktInfo",
    "OrigDstAddr",
    "OrigDstAddr6",
    "Origin",
    "OriginalDestination",
    "PacketStatus",
    "PacketTxTimestamp",
    "PathMTU",
    "PidFd",
    "PktInfo",
    "PktInfo6",
    "Priority",
    "Protocol",
    "ReceiveTime",
    "ReceivedOptions",
    "RecordType",
    "RecvErr",
    "RecvErr6",
    "RecvIf",
    "RequestTimestamps",
    "ReturnOptions",
    "Rights",
    "RoutingHeader",
    "RthdrDstOptions",
    "Security",
    "Segment",
    "SetRecordType",
    "TClass",
    "Timestamp",
    "TimestampKey",
    "TimestampNs",
    "Timestamping",
    "TimestampingFlags",
    "TimestampingPktInfo",
    "TrafficClass",
    "TxTime",
    "VsockRecvErr",
    "WifiStatus",
    "arrival",
    "decode",
    "enable",
    "find",
    "register",
    "space",
    "towards",
]

# The classes that this platform lacks: the kernel's name of each.
_ABSENT: dict[str, str] = {}


def _hide_absent() -> None:
    for name in __all__:
        row = getattr(globals()[name], "_row", None)
        if row is not None and not row.pairs:
            _ABSENT[name] = row.name
    for name in _ABSENT:
        __all__.remove(name)
        del globals()[name]


_hide_absent()


if not TYPE_CHECKING:  # a type checker that saw it would take any name, and leave what follows a wrong one unchecked
    _getattr, __dir__ = public(__name__, {})

    def __getattr__(name):
        if name in _ABSENT:
            raise AttributeError(f"this platform has no {_ABSENT[name]}, so there is no {name}")
        return _getattr(name)
