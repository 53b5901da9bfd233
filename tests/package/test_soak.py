# SPDX-License-Identifier: MIT
"""Long runs: memory, descriptors and caches stay where they were; a storm of raising signal handlers loses nothing."""

import gc
import os
import resource
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import pytest
from storming import Storm, may_lose, place

import lowsock
from lowsock import constants
from lowsock._memory import address as _address
from lowsock._system.layouts import LAYOUTS

pytestmark = [pytest.mark.soak, pytest.mark.collecting]

PYPY = sys.implementation.name == "pypy"
PACKAGE = os.path.dirname(lowsock.__file__)
ROUNDS = 4
TOLERANCE = (8 if PYPY else 1) * 2**20  # bytes that memory may grow by in a round
CACHED = 5000  # entries that a cache may have
ROOM = 256  # bytes for control messages


def resident() -> int:
    """Bytes of memory that this process occupies."""
    for _ in range(3):
        gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.fixture
def dgrams() -> Iterator[list[socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield [a, b]


@pytest.fixture
def inet() -> Iterator[list[socket.socket]]:
    """A socket that sends and one that receives, on every address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("", 0))
        yield [a, b]


# ---- memory ----


def with_one_buffer(a: socket.socket, b: socket.socket) -> None:
    lowsock.sendmsg(a, [b"data"])
    assert lowsock.recvmsg(b, 100)[0] == b"data"


def gathered_and_scattered(a: socket.socket, b: socket.socket) -> None:
    lowsock.sendmsg(a, [bytearray(5000), bytes(15_000), b"x"])
    assert lowsock.recvmsg_into(b, [bytearray(10_000), bytearray(20_000)])[0] == 20_001


def with_control_messages(a: socket.socket, b: socket.socket) -> None:
    b.setsockopt(socket.SOL_SOCKET, constants.SO_PASSCRED, 1)
    lowsock.send1msg(a, bytearray(b"data"))
    assert lowsock.recv1msg(b)[2]


def with_an_error(a: socket.socket, b: socket.socket) -> None:
    for call in (lambda: lowsock.recvmsg(b.fileno(), 10, ROOM, socket.MSG_DONTWAIT), lambda: lowsock.sendmsg(a, [5])):
        with pytest.raises((BlockingIOError, TypeError)):
            call()


def with_large_rooms(a: socket.socket, b: socket.socket) -> None:
    lowsock.sendmsg(a, [b"data"])
    assert lowsock.recvmsg(b, 2**19, 2**14)[0] == b"data"


TRIPS = (with_one_buffer, gathered_and_scattered, with_control_messages, with_an_error, with_large_rooms)


@pytest.mark.measures_memory
@pytest.mark.parametrize("trip", TRIPS)
def test_a_million_round_trips_take_no_memory(
    trip: Callable[[socket.socket, socket.socket], None], dgrams: list[socket.socket], soak_count: Callable[[int], int]
) -> None:
    sizes = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        for _ in range(soak_count(1_000_000 // len(TRIPS) // ROUNDS)):
            trip(*dgrams)
        sizes.append(resident())
    growths = [after - before for before, after in zip(sizes, sizes[1:])]
    assert min(growths) < TOLERANCE, growths  # a collector may take more now and then; a leak takes it every time


# ---- batches ----


def with_functions(a: socket.socket, b: socket.socket) -> None:
    assert lowsock.sendmmsg(a, [([b"data"],), ((bytearray(b"more"), b"data"), [])]) == 2
    assert len(lowsock.recvmmsg(b, 4, 100, ROOM)) == 2


def with_descriptors(a: socket.socket, b: socket.socket) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))]
    with lowsock.SendBatch(4, 100, ROOM) as out, lowsock.RecvBatch(4, 100, ROOM) as into:
        out.append(b"data", ancdata=rights)
        out.append(b"data", ancdata=rights)
        assert out.send(a) == into.recv(b) == 2
        os.close(into.take_fds(1).take())  # the other is the batch's to close


class Reused:
    """A pair of batches for all round trips."""

    def __init__(self) -> None:
        self.out, self.into = lowsock.SendBatch(8, 100, ROOM), lowsock.RecvBatch(8, 100, ROOM)

    def __call__(self, a: socket.socket, b: socket.socket) -> None:
        self.out.extend([b"data"] * 4)
        self.out.append(bytearray(b"more"), ancdata=[(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")])
        assert self.out.send(a) == self.into.recv(b) == 5
        assert [data for data, _ in self.into.messages()] == [b"data"] * 4 + [b"more"]
        assert len([bytes(view) for view, _ in self.into]) == 5


@pytest.mark.measures_memory
@pytest.mark.parametrize("make", (lambda: with_functions, lambda: with_descriptors, Reused), ids=("calls", "fds", "reused"))
def test_a_million_batches_take_no_memory(
    make: Callable[[], Any], dgrams: list[socket.socket], soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    trip, sizes, before = make(), [], open_fds()
    for _ in range(ROUNDS + 1):  # the first one warms up
        for _ in range(soak_count(1_000_000 // 3 // ROUNDS)):
            trip(*dgrams)
        sizes.append(resident())
    growths = [after - before for before, after in zip(sizes, sizes[1:])]
    assert min(growths) < TOLERANCE, growths
    assert open_fds() == before


# ---- descriptors ----


def test_100_000_descriptors_passed_leave_none_behind(
    soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    a, b = socket.socketpair()
    with a, b:
        before = open_fds()
        for _ in range(soak_count(100_000) // 10):
            lowsock.send_fds(a, [b"x"], [0] * 10)
            fds = lowsock.recv_fds(b, 1, 8)[1]  # two too many each time
            for fd in fds:
                os.close(fd)
            assert len(fds) == 8
        assert open_fds() == before


# ---- addresses ----


def largest_cache() -> int:
    caches = [value for value in vars(_address).values() if isinstance(value, dict)]
    caches += [inner for cache in caches for inner in cache.values() if isinstance(inner, dict)]
    return max(map(len, caches))


def loopback(number: int) -> str:
    return f"127.{1 + (number >> 16) % 254}.{number >> 8 & 255}.{number & 255 or 1}"


def test_100_000_sources_leave_small_caches(inet: list[socket.socket], soak_count: Callable[[int], int]) -> None:
    port = inet[1].getsockname()[1]
    for number in range(max(2 * CACHED, soak_count(100_000))):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            source.bind((loopback(number), 0))
            source.sendto(b"x", ("127.0.0.1", port))
            assert lowsock.recvmsg(inet[1], 1)[3] == source.getsockname()
    assert largest_cache() < CACHED


def test_100_000_destinations_leave_small_caches(inet: list[socket.socket], soak_count: Callable[[int], int]) -> None:
    port = inet[1].getsockname()[1]
    for number in range(max(2 * CACHED, soak_count(100_000))):
        lowsock.sendmsg(inet[0], [b"x"], [], 0, (loopback(number), port))
        assert lowsock.recvmsg(inet[1], 1)[0] == b"x"
    assert largest_cache() < CACHED


def test_100_000_sources_of_ipv6_leave_small_caches(soak_count: Callable[[int], int]) -> None:
    layout = LAYOUTS["sockaddr_in6"]
    for number in range(max(2 * CACHED, soak_count(100_000))):
        host = number.to_bytes(16, "big")
        name = layout.pack(socket.AF_INET6, bytes(2), bytes(4), host, 0)
        assert _address.decode_name(name) == (socket.inet_ntop(socket.AF_INET6, host), 0, 0, 0)
    assert largest_cache() < CACHED


# ---- a storm of signals ----


RECEIVES: dict[str, Callable[[socket.socket], Any]] = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 10, ROOM),
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(10)], ROOM),
    "recv1msg": lambda sock: lowsock.recv1msg(sock),
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 10, 2),
    "recvmmsg": lambda sock: lowsock.recvmmsg(sock, 4, 10, ROOM),
}


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=list(RECEIVES))
def test_handlers_that_raise_through_20_000_receives_lose_no_descriptor(
    receive: Callable[[socket.socket], Any], storm: Storm, soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    """Where one is lost, the call had come to its `return`, or was over."""
    lost = []
    before = open_fds()
    for _ in range(soak_count(20_000)):
        a, b = socket.socketpair()
        with a, b:
            lowsock.send_fds(a, [b"x"], [0, 1])
            raised = storm.over(partial(receive, b))
        left = open_fds() - before
        for fd in left:
            os.close(fd)
        if raised is not None and left and not may_lose(raised):
            lost.append(place(raised))
    assert not lost
