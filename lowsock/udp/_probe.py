# SPDX-License-Identifier: MIT
"""What a UDP socket and the running kernel can do. Nothing that is asked here leaves a trace on the socket."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from lowsock._memory.address import encode_for, family_of
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS
from lowsock._system.descriptor import target
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock._system.layouts import LAYOUTS
from lowsock.cmsg._base import pair
from lowsock.udp._control import segment_control

if TYPE_CHECKING:
    from lowsock._system.types import Socket

_LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_MANY, _FEW = 128, 64  # segments of one call: since Linux 6.9, and before
_SOL_SOCKET, _SO_TYPE = CONSTANTS["SOL_SOCKET"], CONSTANTS["SO_TYPE"]
_PROTOCOL, _SEGMENT, _TXTIME, _GRO = map(pair, ("SO_PROTOCOL", "UDP_SEGMENT", "SO_TXTIME", "UDP_GRO"))
_SET = {  # what an endpoint sets, and what clears or is cleared by that
    *("UDP_GRO", "IP_RECVTOS", "IPV6_RECVTCLASS", "IP_PKTINFO", "IP_RECVDSTADDR", "IP_RECVIF", "IPV6_RECVPKTINFO"),
    *("IP_RECVERR", "IPV6_RECVERR", "SO_ZEROCOPY", "SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_TIMESTAMPING"),
    *("SO_TIMESTAMP_NEW", "SO_TIMESTAMPNS_NEW", "SO_TIMESTAMPING_NEW"),
}
_PLACES = [found for found in map(pair, sorted(_SET)) if found is not None]
_known: list[int] = []  # how many segments this kernel takes, once it has said so


def check(sock: Socket) -> int:
    """The family of a UDP socket; any other is a `ValueError`."""
    family, fd = family_of(sock), target(sock)[0]
    kind = lib.lowsock_option(fd, _SOL_SOCKET, _SO_TYPE) if family >= 0 else family
    if kind < 0:
        fail(kind)
    protocol = lib.lowsock_option(fd, *_PROTOCOL) if _PROTOCOL else socket.IPPROTO_UDP
    if family not in _LOOPBACK or kind != socket.SOCK_DGRAM or protocol != socket.IPPROTO_UDP:
        raise ValueError("sock must be a UDP socket, of AF_INET or AF_INET6")
    if _SEGMENT is not None and lib.lowsock_option(fd, *_SEGMENT) > 0:
        raise ValueError("sock has UDP_SEGMENT set for all that it sends, so it cannot send one datagram")
    return family


def has_coalescing(sock: Socket) -> bool:
    """Whether somebody else has set UDP_GRO."""
    return _GRO is not None and lib.lowsock_option(target(sock)[0], *_GRO) > 0


def options(sock: Socket) -> dict[tuple[int, int], int]:
    """What the options are set to that an endpoint may set: see `put_back`."""
    fd = target(sock)[0]
    found = {place: lib.lowsock_option(fd, *place) for place in _PLACES}
    return {place: value for place, value in found.items() if value >= 0}


def most_segments(sock: Socket, family: int) -> int:
    """How many segments one call may have; 1: there is no UDP_SEGMENT. To ask for the option is enough to know that."""
    if _SEGMENT is None or lib.lowsock_option(target(sock)[0], *_SEGMENT) < 0:
        return 1
    if not _known:
        answer = _try_many(family)
        if answer is None:
            return _FEW  # nobody could say
        _known.append(answer)
    return _known[0]


def _try_many(family: int) -> int | None:
    """Sends as many segments as may be to a socket of our own; None if it has no way to itself."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as own:
        own.bind((_LOOPBACK[family], 0))
        name, control = encode_for(own, own.getsockname()), segment_control(1)
        for most in (_MANY, _FEW):
            data = bytes(most)
            if lib.lowsock_udp_send(own.fileno(), data, most, control, len(control), name, len(name), 0) >= 0:
                return most
    return None


def set_clock(sock: Socket, clock: int) -> bool:
    """Sets SO_TXTIME; False where the kernel lacks it."""
    clock = checked_int("txtime", clock, least=0)
    if _TXTIME is None:
        return False
    value = LAYOUTS["lowsock_txtime"].pack(clock, 0)
    answer = lib.lowsock_write_option(target(sock)[0], *_TXTIME, value, len(value))
    if answer < 0 and answer != -errno.ENOPROTOOPT:
        fail(answer)
    return answer == 0
