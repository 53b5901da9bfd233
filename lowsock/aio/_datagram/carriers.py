# SPDX-License-Identifier: MIT
"""What carries a transport's datagrams: an endpoint of `lowsock.udp`, or the calls of any other datagram socket."""

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
    Beside = tuple["int | None", "str | None"]  # ECN and source
    Pair = tuple[bytes, Address]

_LONGEST = 256 * 1024  # bytes of a datagram that is no UDP's: what the loops have room for
_AT_ONCE = 16
_NEVER = 1 << 30
_SEGMENT = 2**16 - 1  # bytes that the size of a segment can say
_TOLD = ("ecn", "local", "timestamps", "errors")
_MAPPED = bytes(10) + b"\xff\xff"


class _Carrier:
    """`one`, `run`, `many` and `beside` return how many datagrams went, or raise `OSError`."""

    joined = _NEVER  # datagrams in a row from which on `run` is better than `many`

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def one(self, data: bytes, address: Address) -> int:
        if address is None:
            self._sock.send(data)  # the shortest way for one datagram
        else:
            self._sock.sendto(data, address)
        return 1


class Bulk(_Carrier):
    """A UDP socket.

    If nothing is asked for but data and address, datagrams are received one by one at first, by the shortest way, and the
    kernel does not join them until `expect_many`.
    """

    def __init__(self, sock: socket.socket, gro: bool, **options: bool) -> None:
        super().__init__(sock)
        self.reads_errors = options["errors"]
        self._options = options
        self._joins = gro and not any(map(options.get, _TOLD))
        self._use(Endpoint(sock, gro=gro and not self._joins, **options))
        assert self.endpoint is not None
        if self.endpoint.max_gso_segments > 1:
            self.joined = 3
        one_by_one = not self.endpoint.gro and not any(map(options.get, _TOLD))
        self.recv_from = sock.recvfrom if one_by_one else None

    def _use(self, endpoint: Endpoint) -> None:
        self.endpoint: Endpoint | None = endpoint
        self.recv, self.many, self._send = endpoint.recv, endpoint.send_many, endpoint.send

    def expect_many(self) -> None:
        """`recv_from` is not called any more: what the kernel hands out can be joined from now on."""
        if self._joins:
            self._use(Endpoint(self._sock, gro=True, **self._options))

    def run(self, pieces: Sequence[bytes], address: Address) -> int:
        """Datagrams of one size, only the last of which may be shorter."""
        if len(pieces[0]) > _SEGMENT:  # the kernel is to say so
            return self.one(pieces[0], address)
        return self._send(b"".join(pieces), address, segment_size=len(pieces[0]))

    def beside(self, pieces: Sequence[bytes], address: Address, beside: Beside) -> int:
        """The same with ECN or a source."""
        ecn, source = beside
        if len(pieces[0]) > _SEGMENT:
            return self._send(pieces[0], address, ecn=ecn, source=source)
        return self._send(b"".join(pieces), address, segment_size=len(pieces[0]) or 1, ecn=ecn, source=source)

    def checked(self, address: Address, ecn: Any, source: Any) -> Beside:
        """Both as `beside` takes them. Raises what is wrong with them for a datagram to this address."""
        beside = checked(ecn, source, None, None)
        control_buffer(beside, self._sock.family == socket.AF_INET or _is_mapped(address), 0, 0)
        return beside.ecn, beside.source

    def read_errors(self) -> list[Event]:
        assert self.endpoint is not None
        return self.endpoint.read_errors()


class Plain(_Carrier):
    """A socket that is no UDP's: AF_UNIX and others."""

    endpoint = None
    recv_from = None
    reads_errors = False

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._batch = RecvBatch(_AT_ONCE, _LONGEST)

    def expect_many(self) -> None:
        pass

    def recv(self) -> list[Datagram]:
        self._batch.receive(self._sock)
        return list(starmap(Datagram, self._batch.datagrams()))

    def run(self, pieces: Sequence[bytes], address: Address) -> int:
        return self.many([(piece, address) for piece in pieces])

    def many(self, pairs: Sequence[Pair]) -> int:
        return sendmmsg(self._sock, [([data], (), address) for data, address in pairs])

    def checked(self, address: Address, ecn: Any, source: Any) -> Beside:
        raise ValueError("ecn and source take a UDP socket")

    def beside(self, pieces: Sequence[bytes], address: Address, beside: Beside) -> int:
        raise NotImplementedError  # nothing has passed `checked`

    def read_errors(self) -> list[Event]:
        return []


Carrier = Union[Bulk, Plain]


def carrier(sock: socket.socket, **options: bool) -> Carrier:
    """What carries the datagrams of a socket. Raises `ValueError` if it is no UDP's and the options ask for what only
    those have."""
    try:
        return Bulk(sock, **options)
    except ValueError:
        asked = [name for name in _TOLD if options[name]]
        if asked:
            raise
        return Plain(sock)


def cut(data: bytes, segment: int) -> list[bytes]:
    """The datagrams of ``segment`` bytes, the last of what is left; no data is one as well."""
    return [data[at : at + segment] for at in range(0, len(data), segment)] or [data]


def _is_mapped(address: Address) -> bool:
    """Whether an IPv6 address stands for one of IPv4."""
    if not address:
        return False
    return socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])[:12] == _MAPPED
