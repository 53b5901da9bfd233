# SPDX-License-Identifier: MIT
"""A batch whose entries say more than data and address: `Transmit`, and received datagrams that are answered.

What fits into one message goes in batches, by sendmmsg(2). What the kernel refuses so, and what has to be cut up here, goes
by `Sending`, which knows what to do without.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._batch.outbox import BATCH, Outbox, deliver
from lowsock._memory.address import encode_for
from lowsock._memory.ancillary import message
from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import iterated
from lowsock._system.constants import MSG_DONTWAIT
from lowsock._system.errors import raised_inside
from lowsock._system.ffi import ffi
from lowsock._system.target import target
from lowsock.udp._arrival import Coalesced, Datagram
from lowsock.udp._control import Ancillary, checked, checked_segment
from lowsock.udp._sending import MAX_BYTES, Sender, Sending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Address, Buffer, ControlMessage, Host

_REFUSALS = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)


class Transmit(NamedTuple):
    """What `Endpoint.send_many` sends as one message: data with its address, and what else it is to have. See udp(7)."""

    data: Buffer
    address: Address
    """Where it goes, numeric; None: to the peer of a connected socket."""
    local: Host | None = None
    """Our address that it goes from; None: as `Endpoint.send_many` says, or the kernel."""
    ecn: int | None = None
    """0 to 3 or a `lowsock.cmsg.ECN`; None: as `Endpoint.send_many` says, or the socket."""
    segment_size: int | None = None
    """Cuts ``data`` into datagrams of that many bytes. They count as one message. None: it is one datagram."""
    ancdata: Iterable[ControlMessage] = ()
    """Control messages that go with it, beside those that the other fields ask for."""


OWN = (Transmit, Datagram, Coalesced)  # entries with a shape of their own


class _Entry(NamedTuple):
    """An entry of a batch, checked."""

    data: bytes
    segment: int
    name: bytes
    address: Address
    ancillary: Ancillary

    def segments(self) -> int:
        return max(-(-len(self.data) // self.segment), 1)


def send_mixed(sender: Sender, items: list[Any], default: Ancillary, flags: int) -> int:
    """Sends all as far as they go, and waits for the first only; returns how many went, each of them whole."""
    entries = [_entry(sender, i, item, default) for i, item in enumerate(items)]
    sent = 0
    while sent < len(entries):
        try:
            count = _send_some(sender, entries, sent, flags)
        except OSError as error:
            if not sent or not raised_inside(error):
                raise
            break  # the next call says why
        if not count:
            break
        sent += count
    return sent


def _entry(sender: Sender, i: int, item: Any, default: Ancillary) -> _Entry:
    """An item, checked; the error names it."""
    data, address, local, ecn, segment, ancdata = _fields(item)
    piece = data if type(data) is bytes else as_bytes(f"datagrams[{i}] data", data)
    others = _others(f"datagrams[{i}] ancdata", ancdata) if ancdata else ()
    try:
        name = b"" if address is None else encode_for(sender.sock, address, sender.family)
        size = max(len(piece), 1) if segment is None else checked_segment(segment)
        own = checked(default.ecn if ecn is None else ecn, default.local if local is None else local)
        ancillary = own._replace(others=others)
        sender.control_buffer(ancillary, name, 0)  # raises for an address of the other family
    except (TypeError, ValueError, OverflowError) as error:
        if len(error.args) == 1 and raised_inside(error):
            error.args = (f"datagrams[{i}] {error}",)
        raise
    return _Entry(piece, size, name, address, ancillary)


def _fields(item: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """The fields of a `Transmit`. A received datagram goes back to where it came from, from the address that it came to."""
    if isinstance(item, Transmit):
        return item
    if isinstance(item, Datagram):
        return item.data, item.address, item.local, None, None, ()
    if isinstance(item, Coalesced):
        return item.data, item.address, item.local, None, item.segment_size, ()
    return (*item, None, None, None, ())


def _others(name: str, ancdata: Any) -> tuple[tuple[int, int, bytes], ...]:
    """The caller's control messages, checked and copied."""
    items = iterated(name, "(level, type, data)", ancdata)
    return tuple([message(f"{name}[{i}]", item) for i, item in enumerate(items)])


def _send_some(sender: Sender, entries: list[_Entry], at: int, flags: int) -> int:
    """Sends by one batch, or one entry by itself; returns how many went. Waits only if none went before (``at`` is 0)."""
    end = at
    while end < min(len(entries), at + BATCH) and _is_one_message(sender, entries[end]):
        end += 1
    if end == at:
        return _send_alone(sender, entries[at], flags, None, not at)
    try:
        return _send_batch(sender, entries[at:end], flags, not at)
    except OSError as error:
        first = entries[at]
        cut, ecn = first.segments() > 1, first.ancillary.ecn is not None and sender.ecn_refused is None
        if error.errno not in _REFUSALS or not (cut or ecn) or not raised_inside(error):
            raise
        return _send_alone(sender, first, flags, -error.errno if cut else None, not at)


def _is_one_message(sender: Sender, entry: _Entry) -> bool:
    """Whether the kernel takes an entry whole, as far as is known."""
    count = entry.segments()
    return count == 1 or (count <= sender.max_segments(entry.name, entry.segment) and len(entry.data) <= MAX_BYTES)


def _send_batch(sender: Sender, entries: list[_Entry], flags: int, wait: bool) -> int:
    sock: Any = sender.sock
    if not wait:
        sock, timeout = target(sock)
        flags |= MSG_DONTWAIT if timeout else 0
    outbox = Datagrams(sender.sock)
    outbox.take([entry.data for entry in entries], [entry.name for entry in entries])
    outbox.put_control([_control(sender, entry) for entry in entries])
    return deliver(outbox, outbox.count, sock, flags)


def _control(sender: Sender, entry: _Entry) -> bytes:
    return sender.control_buffer(entry.ancillary, entry.name, entry.segment if entry.segments() > 1 else 0).buffer


def _send_alone(sender: Sender, entry: _Entry, flags: int, first: int | None, wait: bool) -> int:
    """Sends one entry as `Endpoint.send` does; returns 1 if all of it went."""
    data, segment, name, address, ancillary = entry
    sending = Sending(sender, data, len(data), segment, name, address, ancillary, flags)
    sending.run(first, wait)
    return int(sending.is_done())


class Datagrams(Outbox):
    """An outbox whose control buffers are few."""

    __slots__ = ()

    def put_control(self, buffers: list[bytes]) -> None:
        """Takes the control buffer of each datagram; equal ones are stored once."""
        starts: dict[bytes, int] = {}
        end = 0
        for buffer in buffers:
            if buffer not in starts:
                starts[buffer] = end
                end += len(buffer)
        if not any(starts):
            return
        self.struct.control = self._keep_alive(ffi.from_buffer("char[]", b"".join(starts)))
        self.struct.control_starts = self._keep_alive(ffi.new("long long[]", [starts[buffer] for buffer in buffers]))
        self.struct.control_sizes = self._keep_alive(ffi.new("long long[]", list(map(len, buffers))))
