# SPDX-License-Identifier: MIT
"""Datagrams to different destinations in one batch. See sendmmsg(2).

Most batches are ``(data, address)`` throughout, and all have the same control messages, or none: these go the quick way.
Where one has its own, `_mixed` sends them.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from lowsock._batch.functions import _send_plain, sendmmsg
from lowsock._batch.outbox import BATCH, deliver, encode_named
from lowsock._memory.ancillary import NO_ANCDATA
from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import checked_int, iterated
from lowsock._system.errors import raised_inside
from lowsock.udp._control import NO_ANCILLARY, Ancillary, checked
from lowsock.udp._mixed import OWN, Datagrams, Mixed

if TYPE_CHECKING:
    from typing import Callable

    from lowsock._system.types import Address, Socket
    from lowsock.udp._sending import Sender

    Pairs = list[tuple[bytes, Address]]

SHAPE = "(data, address), Transmit or Datagram"


def send_many(sender: Sender, datagrams: Any, ecn: Any, local: Any, flags: int) -> int:
    """Sends all as far as they go; returns how many went."""
    flags = checked_int("flags", flags)
    ancillary = NO_ANCILLARY if ecn is None and local is None else checked(ecn, local)
    items = _items(datagrams)
    return (
        Mixed(sender, items, ancillary, flags).resume() if _is_mixed(items) else _send_pairs(sender, items, ancillary, flags)
    )


def resumable(sender: Sender, datagrams: Any, ecn: Any, local: Any, flags: int) -> Callable[[], int]:
    """The same as a function, which goes on where it was if it is called again after `BlockingIOError`."""
    ancillary = NO_ANCILLARY if ecn is None and local is None else checked(ecn, local)
    items = _items(datagrams)
    return (
        Mixed(sender, items, ancillary, flags).resume
        if _is_mixed(items)
        else lambda: _send_pairs(sender, items, ancillary, flags)
    )


def _items(datagrams: Any) -> list[Any]:
    return [
        item if type(item) is tuple and len(item) == 2 and type(item[0]) is bytes else _item(i, item)
        for i, item in enumerate(iterated("datagrams", SHAPE, datagrams))
    ]


def _is_mixed(items: list[Any]) -> bool:
    return not {*map(type, items)} <= {tuple}


def _send_pairs(sender: Sender, pairs: Pairs, ancillary: Ancillary, flags: int) -> int:
    if not pairs:
        return 0
    refused = sender.ecn_refused
    try:
        return _send(sender, pairs, ancillary, flags)
    except OSError as error:
        if ancillary.ecn is None or refused is not None or error.errno not in (errno.EINVAL, errno.EIO):
            raise
        if not raised_inside(error):  # the batch may be gone already
            raise
        sent = _send(sender, pairs, ancillary._replace(ecn=None), flags)
        sender.ecn_refused = error.errno
        return sent


def _item(i: int, item: Any) -> Any:
    """A datagram of a batch: one with a shape of its own as it is, others as pairs whose addresses are not checked."""
    if isinstance(item, OWN):
        return item
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"datagrams[{i}] must be a tuple (data, address), a Transmit or a Datagram, not {item!r:.60}")
    data, address = item
    return as_bytes(f"datagrams[{i}] data", data), address


def _send(sender: Sender, pairs: Pairs, ancillary: Ancillary, flags: int) -> int:
    pieces, addresses = [data for data, _ in pairs], [address for _, address in pairs]
    try:
        if ancillary == NO_ANCILLARY:
            return _send_without_control(sender.sock, pieces, addresses, flags)
        names = _names(sender, addresses)
    except (TypeError, ValueError, OverflowError) as error:
        if len(error.args) == 1 and str(error).startswith("messages["):
            error.args = (f"datagrams{str(error)[len('messages') :]}",)
        raise
    outbox = Datagrams(sender.sock)
    outbox.take(pieces, names)
    outbox.put_control(_control(sender, names, ancillary))
    return deliver(outbox, outbox.count, sender.sock, flags)


def _send_without_control(sock: Socket, pieces: list[bytes], addresses: list[Address], flags: int) -> int:
    """Sends without control messages, as `sendmmsg` does, but skips the first checks of its fast path."""
    if len(pieces) <= BATCH:
        return _send_plain(sock, pieces, addresses, flags)
    return sendmmsg(sock, [([data], NO_ANCDATA, address) for data, address in zip(pieces, addresses)], flags)


def _names(sender: Sender, addresses: list[Address]) -> list[bytes]:
    """The ``struct sockaddr`` of each datagram. If all have the same tuple, it is encoded once."""
    several = addresses if {*map(id, addresses)} != {id(addresses[0])} else addresses[:1]
    names = [b"" if address is None else encode_named(i, sender.family, address) for i, address in enumerate(several)]
    return names if len(names) == len(addresses) else names * len(addresses)


def _control(sender: Sender, names: list[bytes], ancillary: Ancillary) -> list[bytes]:
    """The control buffer of each datagram: one for IPv4, another for IPv6."""
    if sender.family == socket.AF_INET:
        return [sender.control_buffer(ancillary, names[0], 0).buffer] * len(names)
    buffers = {name: sender.control_buffer(ancillary, name, 0).buffer for name in set(names)}
    return [buffers[name] for name in names]
