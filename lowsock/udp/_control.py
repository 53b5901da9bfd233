# SPDX-License-Identifier: MIT
"""Control buffers for datagrams that are sent in bulk: they are few, so each is made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._memory.ancillary import CMSG_SPACE, encode
from lowsock._system.arguments import checked_int
from lowsock._system.ffi import ffi, lib
from lowsock.cmsg._fields import UINT16, UINT64, host_text, number
from lowsock.cmsg._portable import towards
from lowsock.cmsg._questions import LocalAddress, TrafficClass
from lowsock.cmsg._times import TxTime
from lowsock.cmsg._udp import Segment

if TYPE_CHECKING:
    from lowsock.cmsg._base import ControlMessage

_KEPT = 1024
_IPV4, _IPV6 = "0.0.0.0", "::"


class Beside(NamedTuple):
    """What goes beside each datagram of a send, checked."""

    ecn: int | None = None
    source: str | None = None
    ifindex: int | None = None
    txtime: int | None = None


NOTHING = Beside()


class Ready(NamedTuple):
    """Control messages, and the buffer that holds them."""

    messages: tuple[ControlMessage, ...]
    buffer: bytes


NO_MESSAGES = Ready((), b"")
_ready: dict[Any, Ready] = {}
SEGMENTS: dict[int, bytes] = {}  # control buffers that say nothing but a segment's size


def checked(ecn: Any, source: Any, ifindex: Any, txtime: Any) -> Beside:
    """The arguments of a send as plain values, which are equal only if they mean the same."""
    return Beside(
        None if ecn is None else number("ecn", ecn, 3),
        None if source is None else host_text("source", source),
        None if ifindex is None else checked_int("ifindex", ifindex, least=0),
        None if txtime is None else number("txtime", txtime, UINT64),
    )


def checked_segment(size: Any) -> int:
    number = checked_int("segment_size", size, least=0, most=UINT16)
    if not number:
        raise ValueError("segment_size must be at least 1")
    return number


def ready(beside: Beside, ipv4: bool, dscp: int, segment: int) -> Ready:
    """The control messages of a datagram to IPv4 or IPv6; a ``segment`` of 0 is left out."""
    key = beside, ipv4, dscp, segment
    found = _ready.get(key)
    if found is None:
        found = _pack(_messages(beside, ipv4, dscp, segment))
        if beside.txtime is None:  # or there is no end of them
            if len(_ready) >= _KEPT:
                _ready.clear()
            _ready[key] = found
    return found


def _messages(beside: Beside, ipv4: bool, dscp: int, segment: int) -> tuple[ControlMessage, ...]:
    to = _IPV4 if ipv4 else _IPV6
    messages: list[ControlMessage] = []
    if segment:
        messages.append(Segment(size=segment))
    if beside.ecn is not None:
        messages.append(towards(to, TrafficClass, dscp=dscp, ecn=beside.ecn))
    if beside.source is not None or beside.ifindex is not None:
        messages.append(_source(to, beside.source, beside.ifindex))
    if beside.txtime is not None:
        messages.append(TxTime(nanoseconds=beside.txtime))
    return tuple(messages)


def _source(to: str, source: str | None, ifindex: int | None) -> ControlMessage:
    try:
        return towards(to, LocalAddress, local=source, ifindex=ifindex)
    except ValueError as error:
        if len(error.args) == 1 and str(error).startswith("local"):
            error.args = (f"source{str(error)[len('local') :]}",)
        raise


def _pack(messages: tuple[ControlMessage, ...]) -> Ready:
    if not messages:
        return NO_MESSAGES
    control = encode(messages)
    room = sum(CMSG_SPACE(len(message[2])) for message in messages)
    memory = ffi.new("char[]", room)
    size = lib.lowsock_pack_control(memory, room, control.payload, control.table, control.rows)
    return Ready(messages, ffi.buffer(memory, size)[:])


def segment_only(segment: int) -> bytes:
    """The control buffer of a send that says nothing but its segments' size."""
    if len(SEGMENTS) >= _KEPT:
        SEGMENTS.clear()
    SEGMENTS[segment] = buffer = ready(NOTHING, True, 0, segment).buffer
    return buffer
