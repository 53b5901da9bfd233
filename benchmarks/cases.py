# SPDX-License-Identifier: MIT
"""The cases: each makes its sockets and three functions of n that do the same with the stdlib, lowsock and C."""

import itertools
import os
import socket
import struct
from typing import Any, Callable, NamedTuple

from sockets import Loop, Pair, by_kind, checked, sockaddr, udp_pair, unix_pair

import lowsock
from lowsock import cmsg, constants

ROOM = 2048  # bytes of room for a datagram: more than it needs, as in programs


class Case(NamedTuple):
    """``messages`` are sent and received in one iteration of a loop."""

    loops: dict[str, Loop]
    messages: int = 1


def there_and_back(pair: Pair, size: int, lib: Any, control: int = 0, room: int = ROOM) -> Case:
    a, b = pair
    data = b"x" * size

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data])
            b.recvmsg(room, control)
            b.sendmsg([data])
            a.recvmsg(room, control)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            sendmsg, recvmsg = lowsock.sendmsg, lowsock.recvmsg
            for _ in range(n):
                sendmsg(a, [data])
                recvmsg(b, room, control)
                sendmsg(b, [data])
                recvmsg(a, room, control)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_plain(a.fileno(), b.fileno(), size, room, control, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c}, messages=2)


def unix_64(ffi: Any, lib: Any) -> Case:
    """One 64-byte AF_UNIX datagram there and back."""
    return there_and_back(unix_pair(socket.SOCK_DGRAM), 64, lib)


def udp_1200(ffi: Any, lib: Any) -> Case:
    """One 1200-byte UDP datagram there and back, connected."""
    return there_and_back(udp_pair(), 1200, lib)


def control_room(ffi: Any, lib: Any) -> Case:
    """64-byte AF_UNIX datagrams received with 256 bytes of control room, and nothing in it."""
    return there_and_back(unix_pair(socket.SOCK_DGRAM), 64, lib, control=256)


def udp_address(ffi: Any, lib: Any) -> Case:
    """One 1200-byte UDP datagram to an address, received with its source."""
    a, b = udp_pair(connected=False)
    data, address = b"x" * 1200, b.getsockname()
    name = sockaddr(ffi, b)

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data], (), 0, address)
            b.recvmsg(ROOM)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, [data], (), 0, address)
                lowsock.recvmsg(b, ROOM)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_address(a.fileno(), b.fileno(), 1200, ROOM, name, len(name) - 1, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def udp_sources(ffi: Any, lib: Any) -> Case:
    """One 1200-byte UDP datagram to an address, from 100,000 different sources in turn (by IP_PKTINFO)."""
    unbound, b = udp_pair(connected=False)
    unbound.close()
    a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    data, address, name = b"x" * 1200, b.getsockname(), sockaddr(ffi, b)
    hosts = [(0x7F010000 + i).to_bytes(4, "big") for i in range(100_000)]
    sources = [[(socket.IPPROTO_IP, constants.IP_PKTINFO, bytes(4) + host + bytes(4))] for host in hosts]
    sources_in_turn = itertools.cycle(sources)

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data], next(sources_in_turn), 0, address)
            b.recvmsg(ROOM)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, [data], next(sources_in_turn), 0, address)
                lowsock.recvmsg(b, ROOM)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_sources(a.fileno(), b.fileno(), 1200, ROOM, name, len(name) - 1, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def packet_info(ffi: Any, lib: Any) -> Case:
    """One 64-byte UDP datagram, received with packet info and a kernel timestamp."""
    a, b = udp_pair()
    b.setsockopt(socket.IPPROTO_IP, constants.IP_PKTINFO, 1)
    b.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPNS, 1)
    data = b"x" * 64

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data])
            b.recvmsg(ROOM, 256)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, [data])
                lowsock.recvmsg(b, ROOM, 256)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_one_way(a.fileno(), b.fileno(), 64, ROOM, 256, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


_PKTINFO, _TIMESPEC, _INT = struct.Struct("=i4s4s"), struct.Struct("@ll"), struct.Struct("@i")


def by_hand(ancdata: Any) -> Any:
    """Packet info, time and TTL as a program without `lowsock.cmsg` reads them."""
    local = ifindex = nanoseconds = hops = None
    for level, kind, data in ancdata:
        if level == socket.IPPROTO_IP and kind == constants.IP_PKTINFO:
            ifindex, address, _ = _PKTINFO.unpack(data)
            local = socket.inet_ntoa(address)
        elif level == socket.SOL_SOCKET and kind == constants.SCM_TIMESTAMPNS:
            seconds, rest = _TIMESPEC.unpack(data)
            nanoseconds = seconds * 10**9 + rest
        elif level == socket.IPPROTO_IP and kind == constants.IP_TTL:
            (hops,) = _INT.unpack(data)
    return local, ifindex, nanoseconds, hops


def typed(ffi: Any, lib: Any) -> Case:
    """One 64-byte UDP datagram, received with packet info, time and TTL, their fields read: by hand, by `lowsock.cmsg`.

    "received" is lowsock's receive alone: what lies between it and lowsock is the price of decoding and reading.
    """
    a, b = udp_pair()
    room = cmsg.enable(b, cmsg.TimestampNs, cmsg.PktInfo, cmsg.TTL)
    data = b"x" * 64

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data])
            by_hand(b.recvmsg(ROOM, room)[1])

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, [data])
                time, info, ttl = cmsg.decode(lowsock.recvmsg(b, ROOM, room)[1])
                _ = info.local, info.ifindex, time.timestamp_ns, ttl.hops

        return loop

    def received(n: int) -> None:
        for _ in range(n):
            lowsock.sendmsg(a, [data])
            _ = lowsock.recvmsg(b, ROOM, room)[1]

    def c(n: int) -> None:
        checked(lib.loop_one_way(a.fileno(), b.fileno(), 64, ROOM, room, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c, "received": received})


def gather(ffi: Any, lib: Any) -> Case:
    """One UDP datagram gathered from eight 128-byte buffers."""
    a, b = udp_pair()
    buffers = [bytes([i]) * 128 for i in range(8)]

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg(buffers)
            b.recvmsg(ROOM)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, buffers)
                lowsock.recvmsg(b, ROOM)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_gather(a.fileno(), b.fileno(), 8, 128, ROOM, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def scatter(ffi: Any, lib: Any) -> Case:
    """One 1200-byte UDP datagram scattered into a header of 12 bytes and a payload buffer."""
    a, b = udp_pair()
    data, buffers = b"x" * 1200, [bytearray(12), bytearray(ROOM)]

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data])
            b.recvmsg_into(buffers)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, [data])
                lowsock.recvmsg_into(b, buffers)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_scatter(a.fileno(), b.fileno(), 12, 1200, ROOM, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def short_way(ffi: Any, lib: Any) -> Case:
    """send1msg and recv1msg with their defaults, 64-byte AF_UNIX datagrams; the stdlib makes the same calls."""
    a, b = unix_pair(socket.SOCK_DGRAM)
    data, room = b"x" * 64, socket.CMSG_SPACE(4096)

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg([data])
            b.recvmsg(8192, room)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.send1msg(a, data)
                lowsock.recv1msg(b)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_one_way(a.fileno(), b.fileno(), 64, 8192, room, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def stream_pair() -> Pair:
    pair = unix_pair(socket.SOCK_STREAM)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return pair


def stream(ffi: Any, lib: Any) -> Case:
    """8 x 16 KiB gathered into an AF_UNIX stream and received into one buffer."""
    return vectors(lib, [bytearray(8 * 16384)])


def stream_scatter(ffi: Any, lib: Any) -> Case:
    """8 x 16 KiB gathered into an AF_UNIX stream and scattered from it into eight buffers."""
    return vectors(lib, [bytearray(16384) for _ in range(8)])


def vectors(lib: Any, into: list[bytearray]) -> Case:
    a, b = stream_pair()
    out = [bytes([i]) * 16384 for i in range(8)]

    def stdlib(n: int) -> None:
        for _ in range(n):
            a.sendmsg(out)
            b.recvmsg_into(into)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.sendmsg(a, out)
                lowsock.recvmsg_into(b, into)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_vectors(a.fileno(), b.fileno(), 8, 16384, len(into), n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c})


def stream_bytes(ffi: Any, lib: Any) -> Case:
    """8 x 16 KiB, a message each, through an AF_UNIX stream into bytes."""
    a, b = stream_pair()
    data = b"x" * 16384

    def stdlib(n: int) -> None:
        for _ in range(n):
            for _ in range(8):
                a.sendmsg([data])
            for _ in range(8):
                b.recvmsg(16384)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                for _ in range(8):
                    lowsock.sendmsg(a, [data])
                for _ in range(8):
                    lowsock.recvmsg(b, 16384)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_stream(a.fileno(), b.fileno(), 16384, 8, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c}, messages=8)


def descriptor(ffi: Any, lib: Any) -> Case:
    """One descriptor there, its copy back, both copies closed."""
    a, b = unix_pair(socket.SOCK_STREAM)
    fd = os.open(os.devnull, os.O_RDONLY)
    close = os.close

    def stdlib(n: int) -> None:
        for _ in range(n):
            socket.send_fds(a, [b"x"], [fd])
            copy = socket.recv_fds(b, 1, 1)[1][0]
            socket.send_fds(b, [b"x"], [copy])
            back = socket.recv_fds(a, 1, 1)[1][0]
            close(copy)
            close(back)

    def ours(a: Any, b: Any) -> Loop:
        def loop(n: int) -> None:
            for _ in range(n):
                lowsock.send_fds(a, [b"x"], [fd])
                copy = lowsock.recv_fds(b, 1, 1)[1][0]
                lowsock.send_fds(b, [b"x"], [copy])
                back = lowsock.recv_fds(a, 1, 1)[1][0]
                close(copy)
                close(back)

        return loop

    def c(n: int) -> None:
        checked(lib.loop_descriptor(a.fileno(), b.fileno(), fd, n))

    return Case({"stdlib": stdlib, **by_kind(ours, a, b), "C": c}, messages=2)


def timeout(ffi: Any, lib: Any) -> Case:
    """One 64-byte AF_UNIX datagram there and back, the sockets with a timeout, for which the stdlib polls first."""
    pair = unix_pair(socket.SOCK_DGRAM)
    for sock in pair:
        sock.settimeout(5)
    return there_and_back(pair, 64, lib)


def exact_room(ffi: Any, lib: Any) -> Case:
    """One 64-byte AF_UNIX datagram there and back, received with room for 64 bytes: the stdlib's best case."""
    return there_and_back(unix_pair(socket.SOCK_DGRAM), 64, lib, room=64)


CASES: list[Callable[[Any, Any], Case]] = [
    unix_64,
    udp_1200,
    udp_address,
    udp_sources,
    gather,
    scatter,
    control_room,
    packet_info,
    short_way,
    stream,
    descriptor,
]
EXTRA = [timeout, exact_room, stream_scatter, stream_bytes, typed]  # measured too, not in the mean
PLAIN = {"unix_64", "udp_1200"}
