# SPDX-License-Identifier: MIT
"""Control buffers for datagrams that are sent in bulk. They are few, so each is made once."""

from __future__ import annotations

from typing import Any, NamedTuple

from lowsock._memory.ancillary import CMSG_SPACE, encode
from lowsock._system.arguments import checked_int
from lowsock._system.ffi import ffi, lib
from lowsock.cmsg._fields import UINT16, UINT64, host_text, number
from lowsock.cmsg._portable import towards
from lowsock.cmsg._questions import LocalAddress, TrafficClass
from lowsock.cmsg._times import TxTime
from lowsock.cmsg._udp import Segment

_MAX_CACHED = 1024  # control buffers
_IPV4, _IPV6 = "0.0.0.0", "::"


class Ancillary(NamedTuple):
    """What the control messages of a send say of each datagram, checked."""

    ecn: int | None = None
    local: str | None = None
    ifindex: int | None = None
    txtime_ns: int | None = None
    others: tuple[tuple[int, int, bytes], ...] = ()
    """The caller's own."""


NO_ANCILLARY = Ancillary()


class ControlBuffer(NamedTuple):
    """Control messages, and the buffer that holds them."""

    messages: tuple[tuple[int, int, bytes], ...]
    buffer: bytes


NO_MESSAGES = ControlBuffer((), b"")
_cache: dict[Any, ControlBuffer] = {}
SEGMENT_CONTROL: dict[int, bytes] = {}  # control buffers with a segment's size and nothing else


def checked(ecn: Any, local: Any, ifindex: Any = None, txtime_ns: Any = None) -> Ancillary:
    """The arguments of a send as plain values, which are equal only if they mean the same."""
    return Ancillary(
        None if ecn is None else number("ecn", ecn, 3),
        None if local is None else host_text("local", local),
        None if ifindex is None else checked_int("ifindex", ifindex, least=0),
        None if txtime_ns is None else number("txtime_ns", txtime_ns, UINT64),
    )


def checked_segment(size: Any) -> int:
    number = checked_int("segment_size", size, least=0, most=UINT16)
    if not number:
        raise ValueError("segment_size must be at least 1")
    return number


def control_buffer(ancillary: Ancillary, ipv4: bool, dscp: int, segment: int) -> ControlBuffer:
    """The control messages of a datagram to IPv4 or IPv6; a ``segment`` of 0 is left out."""
    key = ancillary, ipv4, dscp, segment
    found = _cache.get(key)
    if found is None:
        found = _pack(_messages(ancillary, ipv4, dscp, segment))
        if ancillary.txtime_ns is None and not ancillary.others:  # else each datagram has its own
            if len(_cache) >= _MAX_CACHED:
                _cache.clear()
            _cache[key] = found
    return found


def _messages(ancillary: Ancillary, ipv4: bool, dscp: int, segment: int) -> tuple[tuple[int, int, bytes], ...]:
    to = _IPV4 if ipv4 else _IPV6
    messages: list[tuple[int, int, bytes]] = []
    if segment:
        messages.append(Segment(size=segment))
    if ancillary.ecn is not None:
        messages.append(towards(to, TrafficClass, dscp=dscp, ecn=ancillary.ecn))
    if ancillary.local is not None or ancillary.ifindex is not None:
        messages.append(towards(to, LocalAddress, local=ancillary.local, ifindex=ancillary.ifindex))
    if ancillary.txtime_ns is not None:
        messages.append(TxTime(txtime_ns=ancillary.txtime_ns))
    return (*messages, *ancillary.others)


def _pack(messages: tuple[tuple[int, int, bytes], ...]) -> ControlBuffer:
    if not messages:
        return NO_MESSAGES
    control = encode(messages)
    room = sum(CMSG_SPACE(len(message[2])) for message in messages)
    memory = ffi.new("char[]", room)
    size = lib.lowsock_pack_control(memory, room, control.payload, control.table, control.rows)
    return ControlBuffer(messages, ffi.buffer(memory, size)[:])


def segment_control(segment: int) -> bytes:
    """The control buffer of a send with a segment's size and nothing else."""
    if len(SEGMENT_CONTROL) >= _MAX_CACHED:
        SEGMENT_CONTROL.clear()
    SEGMENT_CONTROL[segment] = buffer = control_buffer(NO_ANCILLARY, True, 0, segment).buffer
    return buffer
