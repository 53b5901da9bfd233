# SPDX-License-Identifier: MIT
"""What sends and receives a transport's datagrams: an endpoint of `lowsock.udp`, or calls on any other datagram socket."""

from __future__ import annotations

import socket
from itertools import starmap
from typing import TYPE_CHECKING, Any, Union

from lowsock._batch.functions import sendmmsg
from lowsock._batch.recv_batch import RecvBatch
from lowsock.udp import Datagram, Endpoint
from lowsock.udp._control import checked, control_buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowsock.errqueue import Event

    Address = Any
    Control = tuple["int | None", "str | None"]  # ECN and our address
    Pair = tuple[bytes, Address]

_MAX_SIZE = 256 * 1024  # bytes of a datagram that is not UDP's: what the loops have room for
_BATCH_SIZE = 16
_NEVER = 1 << 30
_MAX_SEGMENT = 2**16 - 1  # bytes that the size of a segment can say
_METADATA = ("recv_ecn", "recv_pktinfo", "recv_timestamps", "recv_errors")  # options that bring more than data and address
_IPV4_MAPPED = bytes(10) + b"\xff\xff"


class _Backend:
    """`send_one`, `send_run`, `send_many` and `send_with_control` return how many datagrams went, or raise `OSError`."""

    min_run = _NEVER  # datagrams in a row from which on `send_run` is better than `send_many`

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send_one(self, data: bytes, address: Address) -> int:
        if address is None:
            self._sock.send(data)  # the shortest way for one datagram
        else:
            self._sock.sendto(data, address)
        return 1


class UdpBackend(_Backend):
    """A UDP socket.

    If nothing is asked for but data and address, datagrams are received one by one at first, with `recv_from`, and the
    kernel does not join them until `expect_batches`.
    """

    def __init__(self, sock: socket.socket, gro: bool, **options: bool) -> None:
        super().__init__(sock)
        self.reads_errors = options["recv_errors"]
        self._options = options
        self._defers_gro = gro and not any(map(options.get, _METADATA))
        self._use(Endpoint(sock, gro=gro and not self._defers_gro, **options))
        assert self.endpoint is not None
        if self.endpoint.max_gso_segments > 1:
            self.min_run = 3
        one_by_one = not self.endpoint.gro and not any(map(options.get, _METADATA))
        self.recv_from = sock.recvfrom if one_by_one else None

    def _use(self, endpoint: Endpoint) -> None:
        self.endpoint: Endpoint | None = endpoint
        self.recv, self.send_many, self._send = endpoint.recv, endpoint.send_many, endpoint._send

    def expect_batches(self) -> None:
        """Lets the kernel join datagrams from now on. `recv_from` must not be called any more."""
        if self._defers_gro:
            self._use(Endpoint(self._sock, gro=True, **self._options))

    def send_run(self, pieces: Sequence[bytes], address: Address) -> int:
        """Datagrams of one size; only the last may be shorter."""
        if len(pieces[0]) > _MAX_SEGMENT:  # the kernel refuses it
            return self.send_one(pieces[0], address)
        size = len(pieces[0])
        sent = self._send(b"".join(pieces), address, size, None, None, None, None, 0)
        return -(-sent // size)

    def send_with_control(self, pieces: Sequence[bytes], address: Address, control: Control) -> int:
        """As `send_run`, with ECN or an address of ours."""
        ecn, local = control
        size = len(pieces[0])
        if not 0 < size <= _MAX_SEGMENT:
            self._send(pieces[0], address, None, ecn, local, None, None, 0)
            return 1
        return -(-self._send(b"".join(pieces), address, size, ecn, local, None, None, 0) // size)

    def checked_control(self, address: Address, ecn: Any, local: Any) -> Control:
        """What `send_with_control` takes. Raises if a datagram to this address cannot have them."""
        control = checked(ecn, local)
        control_buffer(control, self._sock.family == socket.AF_INET or _is_mapped(address), 0, 0)
        return control.ecn, control.local

    def read_errors(self) -> list[Event]:
        assert self.endpoint is not None
        return self.endpoint.read_errors()


class SocketBackend(_Backend):
    """Any other datagram socket, such as one of AF_UNIX."""

    endpoint = None
    recv_from = None
    reads_errors = False

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._batch = RecvBatch(_BATCH_SIZE, _MAX_SIZE)

    def expect_batches(self) -> None:
        pass

    def recv(self) -> list[Datagram]:
        self._batch.recv(self._sock)
        return list(starmap(Datagram, self._batch.messages()))

    def send_run(self, pieces: Sequence[bytes], address: Address) -> int:
        return self.send_many([(piece, address) for piece in pieces])

    def send_many(self, pairs: Sequence[Pair]) -> int:
        return sendmmsg(self._sock, [([data], (), address) for data, address in pairs])

    def checked_control(self, address: Address, ecn: Any, local: Any) -> Control:
        raise ValueError("ecn and local take a UDP socket")

    def send_with_control(self, pieces: Sequence[bytes], address: Address, control: Control) -> int:
        raise NotImplementedError  # nothing passes `checked_control`

    def read_errors(self) -> list[Event]:
        return []


Backend = Union[UdpBackend, SocketBackend]


def backend_for(sock: socket.socket, **options: bool) -> Backend:
    """The backend of a socket. Raises `ValueError` for a socket that is not UDP's, if the options ask for what only UDP
    has."""
    try:
        return UdpBackend(sock, **options)
    except ValueError:
        asked = [name for name in _METADATA if options[name]]
        if asked:
            raise
        return SocketBackend(sock)


def segments(data: bytes, size: int) -> list[bytes]:
    """Datagrams of ``size`` bytes, of which the last may be shorter. Without data it is one empty datagram."""
    return [data[at : at + size] for at in range(0, len(data), size)] or [data]


def _is_mapped(address: Address) -> bool:
    """Whether an IPv6 address is an IPv4-mapped one."""
    if not address:
        return False
    return socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])[:12] == _IPV4_MAPPED
