# SPDX-License-Identifier: MIT
"""The cases of `lowsock.udp`. The stdlib sends and receives each datagram by sendto and recvfrom, on sockets of its own."""

from typing import Any, Callable

from cases import ROOM, Case
from sockets import Loop, checked, sockaddr, udp_pair

from lowsock import udp

COUNT, SIZE = 54, 1200


def endpoints(**options: Any) -> tuple[udp.Endpoint, udp.Endpoint, Any]:
    """A sender, a receiver and the receiver's address."""
    a, b = udp_pair(connected=False)
    return udp.Endpoint(a, **options), udp.Endpoint(b, **options), b.getsockname()


def stdlib_loop(size: int, count: int) -> Loop:
    a, b = udp_pair(connected=False)
    address = b.getsockname()
    pieces, room = [bytes([i & 255]) * size for i in range(count)], max(size, ROOM)

    def stdlib(n: int) -> None:
        for _ in range(n):
            for piece in pieces:
                a.sendto(piece, address)
                b.recvfrom(room)

    return stdlib


def c_loop(ffi: Any, lib: Any, size: int, count: int) -> Loop:
    a, b = udp_pair(connected=False)
    udp.Endpoint(b)  # sets the same options
    name = sockaddr(ffi, b)

    def c(n: int) -> None:
        checked(lib.loop_offload(a.fileno(), b.fileno(), size, count, name, len(name) - 1, n))

    return c


def bulk_loop(receive: str, size: int, count: int, **options: Any) -> Loop:
    """One `Endpoint.send` of ``count`` datagrams, and as many calls of ``receive`` as it takes to get them."""
    a, b, address = endpoints(**options)
    data, length = b"x" * size * count, size * count

    def whole(n: int) -> None:
        recv = b.recv
        for _ in range(n):
            a.send(data, address=address, segment_size=size)
            left = count
            while left > 0:
                left -= len(recv())

    def coalesced(n: int) -> None:
        recv = b.recv_coalesced
        for _ in range(n):
            a.send(data, address=address, segment_size=size)
            left = length
            while left > 0:
                left -= len(recv().data)

    def into(n: int) -> None:
        recv, buffers = b.recv_into, [bytearray(1 << 16)]
        for _ in range(n):
            a.send(data, address=address, segment_size=size)
            left = length
            while left > 0:
                left -= recv(buffers).nbytes

    return {"recv": whole, "recv_coalesced": coalesced, "recv_into": into}[receive]


def _case(ffi: Any, lib: Any, ours: Loop) -> Case:
    return Case({"stdlib": stdlib_loop(SIZE, COUNT), "lowsock": ours, "C": c_loop(ffi, lib, SIZE, COUNT)}, messages=COUNT)


def offload(ffi: Any, lib: Any) -> Case:
    """54 datagrams of 1200 bytes by one Endpoint.send, received by Endpoint.recv as 54 datagrams."""
    return _case(ffi, lib, bulk_loop("recv", SIZE, COUNT))


def offload_joined(ffi: Any, lib: Any) -> Case:
    """The same, received as one by recv_coalesced."""
    return _case(ffi, lib, bulk_loop("recv_coalesced", SIZE, COUNT))


def offload_into(ffi: Any, lib: Any) -> Case:
    """The same, received by recv_into a buffer of the caller."""
    return _case(ffi, lib, bulk_loop("recv_into", SIZE, COUNT))


def offload_none(ffi: Any, lib: Any) -> Case:
    """The first without offload on either side, as where the kernel or the device has none."""
    return _case(ffi, lib, bulk_loop("recv", SIZE, COUNT, gso=False, gro=False))


def bulk_many(ffi: Any, lib: Any) -> Case:
    """54 datagrams by Endpoint.send_many, each with its address, received by Endpoint.recv."""
    a, b, address = endpoints()
    datagrams = [(bytes([i]) * SIZE, address) for i in range(COUNT)]

    def ours(n: int) -> None:
        for _ in range(n):
            a.send_many(datagrams)
            left = COUNT
            while left > 0:
                left -= len(b.recv())

    return _case(ffi, lib, ours)


OFFLOAD: list[Callable[[Any, Any], Case]] = [offload, offload_joined, offload_into, offload_none, bulk_many]
