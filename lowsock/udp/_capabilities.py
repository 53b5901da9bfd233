# SPDX-License-Identifier: MIT
"""Finds out what a UDP socket and the running kernel can do. Only `set_clock` changes the socket."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from lowsock._memory.address import encode_for, family_of
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock._system.layouts import LAYOUTS
from lowsock._system.target import target
from lowsock.cmsg._base import pair
from lowsock.udp._control import segment_control

if TYPE_CHECKING:
    from typing import Any, NoReturn, SupportsIndex

    from lowsock._system.types import Socket

_LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_MAX_SEGMENTS, _MAX_SEGMENTS_BEFORE = 128, 64  # segments of one call: since Linux 6.9, and before
_SOL_SOCKET, _SO_TYPE = CONSTANTS["SOL_SOCKET"], CONSTANTS["SO_TYPE"]
_PROTOCOL, _SEGMENT, _TXTIME, _GRO = map(pair, ("SO_PROTOCOL", "UDP_SEGMENT", "SO_TXTIME", "UDP_GRO"))
_OPTION_NAMES = {  # what an endpoint sets, and what clears those or is cleared by them
    *("UDP_GRO", "IP_RECVTOS", "IPV6_RECVTCLASS", "IP_PKTINFO", "IP_RECVDSTADDR", "IP_RECVIF", "IPV6_RECVPKTINFO"),
    *("IP_RECVERR", "IPV6_RECVERR", "SO_ZEROCOPY", "SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_TIMESTAMPING"),
    *("SO_TIMESTAMP_NEW", "SO_TIMESTAMPNS_NEW", "SO_TIMESTAMPING_NEW"),
}
_OPTIONS = [found for found in map(pair, sorted(_OPTION_NAMES)) if found is not None]
_kernel_max: list[int] = []  # the most segments that this kernel takes; empty until it has said so


def check(sock: Socket) -> int:
    """The address family of a UDP socket. Raises `ValueError` for any other, `TypeError` for what cannot be closed."""
    family, fd = family_of(sock), target(sock)[0]
    kind = lib.lowsock_option(fd, _SOL_SOCKET, _SO_TYPE) if family >= 0 else family
    if kind < 0:
        fail(kind)
    protocol = lib.lowsock_option(fd, *_PROTOCOL) if _PROTOCOL else socket.IPPROTO_UDP
    if family not in _LOOPBACK or kind != socket.SOCK_DGRAM or protocol != socket.IPPROTO_UDP:
        raise ValueError("sock must be a UDP socket, of AF_INET or AF_INET6")
    if _SEGMENT is not None and lib.lowsock_option(fd, *_SEGMENT) > 0:
        raise ValueError("sock has UDP_SEGMENT set for all that it sends, so it cannot send one datagram")
    if not isinstance(sock, int) and not callable(getattr(sock, "close", None)):
        raise TypeError(f"sock must be an int or have close(), since the endpoint owns it, not {type(sock).__name__}")
    return family


def refuse_copies(endpoint: Any, protocol: SupportsIndex) -> NoReturn:
    """The ``__reduce_ex__`` of endpoints: a socket has one owner."""
    raise TypeError(f"an {type(endpoint).__name__} can be neither copied nor pickled")


def has_coalescing(sock: Socket) -> bool:
    """Whether UDP_GRO is set."""
    return _GRO is not None and lib.lowsock_option(target(sock)[0], *_GRO) > 0


def current_options(sock: Socket) -> dict[tuple[int, int], int]:
    """The values of the options that an endpoint may set, for `restore_options`."""
    fd = target(sock)[0]
    found = {option: lib.lowsock_option(fd, *option) for option in _OPTIONS}
    return {option: value for option, value in found.items() if value >= 0}


def kernel_max_segments(sock: Socket, family: int) -> int:
    """How many segments one call may have; 1 where getsockopt(2) says that there is no UDP_SEGMENT."""
    if _SEGMENT is None or lib.lowsock_option(target(sock)[0], *_SEGMENT) < 0:
        return 1
    if not _kernel_max:
        answer = _probe_segments(family)
        if answer is None:
            return _MAX_SEGMENTS_BEFORE  # to be on the safe side
        _kernel_max.append(answer)
    return _kernel_max[0]


def _probe_segments(family: int) -> int | None:
    """Sends many segments from a socket of our own to itself; returns the most that went, None if none did."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as own:
        own.bind((_LOOPBACK[family], 0))
        name, control = encode_for(own, own.getsockname()), segment_control(1)
        for most in (_MAX_SEGMENTS, _MAX_SEGMENTS_BEFORE):
            data = bytes(most)
            if lib.lowsock_udp_send(own.fileno(), data, most, control, len(control), name, len(name), 0) >= 0:
                return most
    return None


def set_clock(sock: Socket, clock: int) -> bool:
    """Sets SO_TXTIME; False where the kernel lacks it."""
    if _TXTIME is None:
        return False
    value = LAYOUTS["lowsock_txtime"].pack(clock, 0)
    answer = lib.lowsock_write_option(target(sock)[0], *_TXTIME, value, len(value))
    if answer < 0 and answer != -errno.ENOPROTOOPT:
        fail(answer)
    return answer == 0
