# SPDX-License-Identifier: MIT
"""The cases of batches. As in the other cases, the stdlib sends a datagram and receives it, so many times."""

from typing import Any, Callable

from cases import ROOM, Case
from sockets import Loop, checked, udp_pair

import lowsock

COUNT, SIZE = 64, 1200


def _case(lib: Any, make: Callable[[Any, Any, list[bytes]], Loop], count: int = COUNT) -> Case:
    a, b = udp_pair()
    pieces = [bytes([i & 255]) * SIZE for i in range(count)]

    def stdlib(n: int) -> None:
        for _ in range(n):
            for piece in pieces:
                a.sendmsg([piece])
                b.recvmsg(ROOM)

    def c(n: int) -> None:
        checked(lib.loop_batch(a.fileno(), b.fileno(), SIZE, count, n))

    return Case({"stdlib": stdlib, "lowsock": make(a, b, pieces), "C": c}, messages=count)


def _functions(a: Any, b: Any, pieces: list[bytes]) -> Loop:
    def loop(n: int) -> None:
        sendmmsg, recvmmsg, count = lowsock.sendmmsg, lowsock.recvmmsg, len(pieces)
        messages = [([piece],) for piece in pieces]
        for _ in range(n):
            sendmmsg(a, messages)
            for _data, _ancdata, _flags, _address in recvmmsg(b, count, ROOM):
                pass

    return loop


def _reused(a: Any, b: Any, pieces: list[bytes], fill: Any, look: Any) -> Loop:
    out, into = lowsock.SendBatch(len(pieces), SIZE), lowsock.RecvBatch(len(pieces), ROOM)

    def loop(n: int) -> None:
        for _ in range(n):
            fill(out)
            out.send(a)
            into.recv(b)
            for _data, _address in look(into):
                pass

    return loop


def batch(ffi: Any, lib: Any) -> Case:
    """sendmmsg and recvmmsg of 64 UDP datagrams of 1200 bytes."""
    return _case(lib, _functions)


def batch_reused(ffi: Any, lib: Any) -> Case:
    """The same with a SendBatch that is filled each time and a RecvBatch whose datagrams are taken out as bytes."""
    return _case(
        lib, lambda a, b, pieces: _reused(a, b, pieces, lambda out: out.extend(pieces), lambda into: into.messages())
    )


def batch_views(ffi: Any, lib: Any) -> Case:
    """The same, the datagrams looked at where they are."""
    return _case(lib, lambda a, b, pieces: _reused(a, b, pieces, lambda out: out.extend(pieces), lambda into: into))


def batch_append(ffi: Any, lib: Any) -> Case:
    """The same, filled one by one."""

    def make(a: Any, b: Any, pieces: list[bytes]) -> Loop:
        def fill(out: Any) -> None:
            append = out.append
            for piece in pieces:
                append(piece)

        return _reused(a, b, pieces, fill, lambda into: into.messages())

    return _case(lib, make)


def batch_addresses(ffi: Any, lib: Any) -> Case:
    """sendmmsg with an address for each of 64 datagrams, and recvmmsg."""

    def make(a: Any, b: Any, pieces: list[bytes]) -> Loop:
        address = b.getsockname()

        def loop(n: int) -> None:
            messages = [([piece], (), address) for piece in pieces]
            for _ in range(n):
                lowsock.sendmmsg(a, messages)
                lowsock.recvmmsg(b, len(pieces), ROOM)

        return loop

    return _case(lib, make)


def batch_of_1(ffi: Any, lib: Any) -> Case:
    """sendmmsg and recvmmsg of one datagram: what a batch costs that is none."""
    return _case(lib, _functions, 1)


def batch_of_4(ffi: Any, lib: Any) -> Case:
    """sendmmsg and recvmmsg of four datagrams."""
    return _case(lib, _functions, 4)


BATCHES: list[Callable[[Any, Any], Case]] = [
    batch,
    batch_reused,
    batch_views,
    batch_append,
    batch_addresses,
    batch_of_1,
    batch_of_4,
]
