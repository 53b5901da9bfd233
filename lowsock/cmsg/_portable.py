# SPDX-License-Identifier: MIT
"""One spelling for what differs from family to family and from system to system: who answers which question, and what
the messages of one datagram say together.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from lowsock.cmsg._base import ControlMessage, decode, row_of
from lowsock.cmsg._errors import ExtendedError, RecvErr, RecvErr6
from lowsock.cmsg._ip import TOS, TTL, DstAddr, OrigDstAddr, PktInfo, RecvIf
from lowsock.cmsg._ipv6 import HopLimit, OrigDstAddr6, PktInfo6, TClass
from lowsock.cmsg._questions import ECN, HopCount, LocalAddress, OriginalDestination, ReceiveTime, TrafficClass
from lowsock.cmsg._times import Timestamp, TimestampNs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._types import Address

_MAPPED = "::ffff:"
Classes = tuple[type[ControlMessage], ...]

# For each question and address family the sets of classes that answer it, the best first: a platform has one of them.
_ANSWERS: dict[type[ControlMessage], dict[int, tuple[Classes, ...]]] = {
    LocalAddress: {socket.AF_INET: ((PktInfo,), (DstAddr, RecvIf)), socket.AF_INET6: ((PktInfo6,),)},
    HopCount: {socket.AF_INET: ((TTL,),), socket.AF_INET6: ((HopLimit,),)},
    TrafficClass: {socket.AF_INET: ((TOS,),), socket.AF_INET6: ((TClass,),)},
    OriginalDestination: {socket.AF_INET: ((OrigDstAddr,),), socket.AF_INET6: ((OrigDstAddr6,),)},
    ExtendedError: {socket.AF_INET: ((RecvErr,),), socket.AF_INET6: ((RecvErr6,),)},
    ReceiveTime: {socket.AF_UNSPEC: ((TimestampNs,), (Timestamp,))},
}


def is_question(cls: Any) -> bool:
    return cls in _ANSWERS


def answers(cls: type[ControlMessage], family: int) -> Classes:
    """The classes that answer a question on a socket of ``family``; a class that is no question is its own answer."""
    families = _ANSWERS.get(cls)
    if families is None:
        return (cls,)
    sets = families.get(family) or families.get(socket.AF_UNSPEC)
    if sets is None:
        raise ValueError(f"{cls.__name__} is a question to AF_INET and AF_INET6 sockets, not to family {family}")
    return next((classes for classes in sets if all(row_of(each).pairs for each in classes)), sets[0])


def all_answers(cls: type[ControlMessage]) -> Classes:
    """The classes that answer a question on a socket of any family."""
    return tuple(each for family in _ANSWERS.get(cls, ()) for each in answers(cls, family)) or (cls,)


def towards(destination: Address, question: type[ControlMessage], **fields: Any) -> ControlMessage:
    """The message of the class that answers ``question`` for datagrams to ``destination``, made from its fields.

    ``destination`` is a numeric host or an address tuple. It decides, not the socket: a datagram that goes from an IPv6
    socket to a v4-mapped address takes IPv4's messages, and a v4-mapped ``local`` is then taken as IPv4's. Raises what
    the class raises; `ValueError` where ``destination`` is no numeric address.
    """
    host = destination[0] if isinstance(destination, tuple) and destination else destination
    family = _family(str(host).partition("%")[0])
    if family == socket.AF_INET and "local" in fields:
        fields["local"] = _unmapped(str(fields["local"]))
    return answers(question, family)[0](**fields)


def _family(host: str) -> int:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, _unmapped(host))
        except (OSError, ValueError):  # ValueError: a null character
            continue
        return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    raise ValueError(f"destination must be a numeric address or a tuple with one, not {host!r:.60}")


def _unmapped(host: str) -> str:
    """The IPv4 address in a v4-mapped one; any other host as it is."""
    return host[len(_MAPPED) :] if host.lower().startswith(_MAPPED) and "." in host else host


class Arrival(NamedTuple):
    """What the control messages of one datagram say of how it came; None for what they do not say."""

    local: Optional[str] = None  # our address that it came to
    ifindex: Optional[int] = None  # the interface that it came in by
    hops: Optional[int] = None  # the TTL or hop limit that it still had
    dscp: Optional[int] = None
    ecn: Optional[ECN] = None
    nanoseconds: Optional[int] = None  # since the epoch: when the kernel received it
    original: Any = None  # the address that it was sent to before a firewall turned it here


# What Arrival takes from the messages that answer a question: its fields and theirs.
_TOLD: tuple[tuple[type[ControlMessage], dict[str, str]], ...] = (
    (LocalAddress, {"local": "local", "ifindex": "ifindex"}),
    (HopCount, {"hops": "hops"}),
    (TrafficClass, {"dscp": "dscp", "ecn": "ecn"}),
    (ReceiveTime, {"nanoseconds": "nanoseconds"}),
    (OriginalDestination, {"original": "address"}),
)


def arrival(ancdata: Iterable[Any]) -> Arrival:
    """How a datagram came, of the control messages that came with it, whatever its family and this system.

    Ask for them by `enable` with the questions. Where two messages tell the same thing, as a dual-stack socket's may,
    the first counts. Raises what `decode` raises.
    """
    told: dict[str, Any] = {}
    for message in decode(ancdata):
        for question, fields in _TOLD:
            if isinstance(message, question):
                for name, field in fields.items():
                    if told.get(name) is None:
                        told[name] = getattr(message, field)
    return Arrival(**told)
