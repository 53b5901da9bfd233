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


class Mixed:
    """A batch, and how far it went: nothing goes twice, also if `resume` is called again after an exception."""

    __slots__ = ("_entries", "_flags", "_part", "_sender", "_whole")

    def __init__(self, sender: Sender, items: list[Any], default: Ancillary, flags: int) -> None:
        self._sender, self._flags = sender, flags
        self._entries = [_entry(sender, i, item, default) for i, item in enumerate(items)]
        self._whole = 0  # entries that went
        self._part: Sending | None = None  # of the next one, which goes by itself

    def resume(self) -> int:
        """Sends all as far as they go, and waits for the first only, and for the rest of one of which a part went; returns
        how many went. If that rest can't go, the error's ``characters_written`` counts the bytes of all that went."""
        while self._whole < len(self._entries):
            try:
                count = self._send_rest() if self._has_begun() else self._send_some()
            except OSError as error:
                if self._has_begun():
                    error.characters_written = self._bytes_sent()  # type: ignore[attr-defined]
                    raise
                if not self._whole or not raised_inside(error):
                    raise
                break  # the next call says why
            if not count:
                break
            self._whole, self._part = self._whole + count, None
        return self._whole

    def _has_begun(self) -> bool:
        return self._part is not None and self._part.at > 0

    def _bytes_sent(self) -> int:
        return sum(len(entry.data) for entry in self._entries[: self._whole]) + (self._part.at if self._part else 0)

    def _send_some(self) -> int:
        """Sends by one batch, or one entry by itself; returns how many went. Waits only if none went before."""
        entries, at = self._entries, self._whole
        end = at
        while end < min(len(entries), at + BATCH) and _is_one_message(self._sender, entries[end]):
            end += 1
        if end == at:
            return self._send_alone(entries[at], None)
        try:
            return _send_batch(self._sender, entries[at:end], self._flags, not at)
        except OSError as error:
            first = entries[at]
            cut, ecn = first.segments() > 1, first.ancillary.ecn is not None and self._sender.ecn_refused is None
            if error.errno not in _REFUSALS or not (cut or ecn) or not raised_inside(error):
                raise
            return self._send_alone(first, -error.errno if cut else None)

    def _send_alone(self, entry: _Entry, first: int | None) -> int:
        """Sends one entry as `Endpoint.send` does; returns 1 if all of it went, 0 if nothing did."""
        data, segment, name, address, ancillary = entry
        self._part = part = Sending(self._sender, data, len(data), segment, name, address, ancillary, self._flags)
        part.run(first, not self._whole)
        return int(part.is_done()) or (self._send_rest() if part.at else 0)

    def _send_rest(self) -> int:
        """Sends what is left of an entry of which a part went. Raises if it cannot go on."""
        part: Any = self._part
        while not part.is_done():
            part.run()
        return 1


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
