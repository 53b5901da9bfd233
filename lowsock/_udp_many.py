# SPDX-License-Identifier: MIT
"""Datagrams to different destinations in one batch, with the same control messages beside each. See sendmmsg(2)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from lowsock._buffers import JOINED, as_bytes
from lowsock._calling import MSG_DONTWAIT, checked_int, iterated, raised_inside, target
from lowsock._ffi import ffi, lib
from lowsock._outbox import BATCH, Outbox, deliver, encode_named
from lowsock._udp_control import NOTHING, Beside, checked

if TYPE_CHECKING:
    from lowsock._types import Address
    from lowsock._udp_sending import Sender

    Pairs = list[tuple[bytes, Address]]

_COUNT = lib.LOWSOCK_COUNT
_send_many = lib.lowsock_send_many


def send_many(sender: Sender, datagrams: Any, ecn: Any, source: Any, flags: int) -> int:
    """Sends all as far as they go; returns how many went."""
    flags = checked_int("flags", flags)
    beside = NOTHING if ecn is None and source is None else checked(ecn, source, None, None)
    pairs = [
        item if type(item) is tuple and len(item) == 2 and type(item[0]) is bytes else _pair(i, item)
        for i, item in enumerate(iterated("datagrams", "(data, address)", datagrams))
    ]
    if not pairs:
        return 0
    refused = sender.ecn_refused
    try:
        return _send(sender, pairs, beside, flags)
    except OSError as error:
        if beside.ecn is None or refused is not None or error.errno not in (errno.EINVAL, errno.EIO):
            raise
        if not raised_inside(error):  # the batch may be gone already
            raise
        sent = _send(sender, pairs, beside._replace(ecn=None), flags)
        sender.ecn_refused = error.errno
        return sent


def _pair(i: int, item: Any) -> tuple[bytes, Address]:
    """A datagram of a batch, checked; its address is not."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"datagrams[{i}] must be a tuple (data, address), not {item!r:.60}")
    data, address = item
    return as_bytes(f"datagrams[{i}] data", data), address


def _send(sender: Sender, pairs: Pairs, beside: Beside, flags: int) -> int:
    pieces = [data for data, _ in pairs]
    names, answer = _names(sender, [address for _, address in pairs]), 0
    if beside == NOTHING and len(names) == 1:
        answer = _at_once(sender, pieces, names[0], flags)
        if answer > 0:
            return answer
    if len(names) == 1:
        names *= len(pieces)
    outbox = Datagrams(sender.sock)
    outbox.take(pieces, names)
    if beside != NOTHING:
        outbox.put_beside(_control(sender, names, beside))
    return deliver(outbox, outbox.count, sender.sock, flags, answer)


def _names(sender: Sender, addresses: list[Address]) -> list[bytes]:
    """The ``struct sockaddr`` of each; one, if all are the same tuple."""
    several = addresses if {*map(id, addresses)} != {id(addresses[0])} else addresses[:1]
    try:
        return [b"" if address is None else encode_named(i, sender.family, address) for i, address in enumerate(several)]
    except (TypeError, ValueError, OverflowError) as error:
        if len(error.args) == 1 and str(error).startswith("messages["):
            error.args = (f"datagrams{str(error)[len('messages') :]}",)
        raise


def _at_once(sender: Sender, pieces: list[bytes], name: bytes, flags: int) -> int:
    """All to one destination by one call, if they are not too many or too large; how many went, -errno, or 0."""
    sizes = list(map(len, pieces))
    if len(sizes) > BATCH or sum(sizes) > JOINED * len(sizes):
        return 0
    fd, timeout = target(sender.sock)
    if timeout:
        flags |= MSG_DONTWAIT
    answer = _send_many(fd, b"".join(pieces), sizes, len(sizes), name, len(name), flags)
    return answer if answer <= _COUNT else 0


def _control(sender: Sender, names: list[bytes], beside: Beside) -> list[bytes]:
    """The control buffer of each: one for IPv4, another one for IPv6."""
    if sender.family == socket.AF_INET:
        return [sender.ready(beside, names[0], 0).buffer] * len(names)
    made = {name: sender.ready(beside, name, 0).buffer for name in set(names)}
    return [made[name] for name in names]


class Datagrams(Outbox):
    """An outbox whose control buffers are few."""

    __slots__ = ()

    def put_beside(self, buffers: list[bytes]) -> None:
        """Takes the control buffer of each datagram; those that are equal are there once."""
        starts: dict[bytes, int] = {}
        for buffer in buffers:
            if buffer not in starts:
                starts[buffer] = sum(map(len, starts))
        if not any(starts):
            return
        self.struct.control = self._kept(ffi.from_buffer("char[]", b"".join(starts)))
        self.struct.control_starts = self._kept(ffi.new("long long[]", [starts[buffer] for buffer in buffers]))
        self.struct.control_sizes = self._kept(ffi.new("long long[]", list(map(len, buffers))))
