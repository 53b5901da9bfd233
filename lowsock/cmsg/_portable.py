# SPDX-License-Identifier: MIT
"""One interface to what differs by family and by system: which class answers which question, and what all messages of one
datagram say together.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lowsock.cmsg._base import ControlMessage, checked_class, decode, row_of
from lowsock.cmsg._errors import ExtendedError, RecvErr, RecvErr6
from lowsock.cmsg._fields import address_bytes, address_text, host_text
from lowsock.cmsg._ip import TOS, TTL, DstAddr, OrigDstAddr, PktInfo, RecvIf
from lowsock.cmsg._ipv6 import MAPPED, HopLimit, OrigDstAddr6, PktInfo6, TClass
from lowsock.cmsg._questions import (
    ECN,
    HopCount,
    LocalAddress,
    OriginalDestination,
    Question,
    ReceiveTime,
    TrafficClass,
)
from lowsock.cmsg._times import Timestamp, TimestampNs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Address

M = TypeVar("M", bound=ControlMessage)
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


def find(ancdata: Iterable[Any], cls: type[M]) -> M | None:
    """The first message of a class, or that answers a question, decoded; None where there is none.

    For one message; of several, `decode` them once, or take an `arrival`. Raises what `decode` raises. See cmsg(3).
    """
    checked_class("cls", cls)
    return next((message for message in decode(ancdata) if isinstance(message, cls)), None)


def towards(destination: Address, question: type[M], **fields: Any) -> M:
    """The message that answers ``question`` for datagrams to ``destination``, made of its fields.

    ``destination`` is a numeric host, as text or of the `ipaddress` module, or an address tuple. It decides, not the
    socket: what goes from an IPv6 socket to a v4-mapped address takes IPv4's messages. A v4-mapped ``local`` is then
    taken as IPv4's, and a field that is None as not given, so that those of an `Arrival` may be passed on.

    Raises what the class raises; `TypeError` or `ValueError` where ``destination`` is no numeric address.
    """
    host = destination[0] if isinstance(destination, tuple) and destination else destination
    family = _family_and_bytes(host)[0]
    given = {name: value for name, value in fields.items() if value is not None}
    if family == socket.AF_INET and "local" in given:
        given["local"] = _unmapped(given["local"])
    made: Any = answers(checked_class("question", question), family)[0]
    return made(**given)


def _family_and_bytes(host: Any) -> tuple[int, bytes]:
    """The family whose datagrams go to a numeric host, and its bytes in that family."""
    text = host_text("destination", host).partition("%")[0]
    if ":" not in text:
        return socket.AF_INET, address_bytes("destination", text, socket.AF_INET)
    packed = address_bytes("destination", text, socket.AF_INET6)
    return (socket.AF_INET, packed[12:]) if packed[:12] == MAPPED else (socket.AF_INET6, packed)


def _unmapped(local: Any) -> Any:
    """The IPv4 address in a v4-mapped one; anything else as it is, for its class to judge."""
    text = host_text("local", local)
    if ":" not in text:
        return local
    packed = address_bytes("local", text, socket.AF_INET6)
    return address_text(packed[12:]) if packed[:12] == MAPPED else local


class Arrival(NamedTuple):
    """What the control messages of one datagram say of how it came; None for what they do not say."""

    local: str | None = None  # our address that it came to, to answer from; IPv4's own form on an IPv6 socket too
    ifindex: int | None = None  # the interface that it came in by
    hops: int | None = None  # the TTL or hop limit that it still had
    dscp: int | None = None
    ecn: ECN | None = None
    timestamp_ns: int | None = None  # nanoseconds since the epoch: when the kernel received it
    original: Any = None  # the address that it was sent to before a firewall turned it here
    destination: str | None = None  # in its header: local, or a multicast or broadcast address


_BLANK: list[Any] = [None] * len(Arrival._fields)
_new = tuple.__new__


def arrival(ancdata: Iterable[Any]) -> Arrival:
    """How a datagram came, of the control messages that came with it, whatever its family and this system.

    Ask for them by `enable` with the questions. ``local`` is an address to answer from: None for IPv6 multicast, where
    the kernel tells the group alone. Raises what `decode` raises. See ip(7), ipv6(7).
    """
    fields = _BLANK[:]
    for message in decode(ancdata):
        if isinstance(message, Question):
            message._fill(fields)
    return _new(Arrival, fields)
