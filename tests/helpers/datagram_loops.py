# SPDX-License-Identifier: MIT
"""Loops of asyncio, protocols that write down what a datagram transport calls them with, and sockets beside it."""

import asyncio
import errno
import itertools
import os
import socket
import time
from collections.abc import Iterator
from types import FunctionType
from typing import Any, Callable

import pytest

from lowsock import aio, udp
from lowsock._system.ffi import ffi

NUMBERS = itertools.count()
NUMBERED = [b"%04d" % i for i in range(40)]
HOSTS = {"ipv4": "127.0.0.1", "ipv6": "::1"}


def of_lowsock(function: Any) -> Any:
    """A function whose exceptions are not taken for a signal handler's: it stands in for one of lowsock's own."""
    names = {**function.__globals__, "__name__": "lowsock.test"}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


class Full:
    """A kernel that takes single datagrams while there is room, and has ``refill`` more after each EAGAIN. Stands in for
    ``lowsock_udp_send_each``; `sent` has what it took,
    `controls` the control buffers."""

    def __init__(self, room: int, refill: int = 0) -> None:
        self.room, self.refill = room, refill
        self.sent: list[bytes] = []
        self.controls: set[bytes] = set()

    def each(self, fd: int, data: Any, size: int, segment: int, control: bytes, *_: object) -> int:
        self.controls.add(control)
        pieces = [bytes(ffi.buffer(data + at, min(segment, size - at))) for at in range(0, size, segment)][: self.room]
        self.sent += pieces
        self.room += -len(pieces) if pieces else self.refill
        return len(pieces) or -errno.EAGAIN


# ---- loops and protocols ----


class Loop:
    """Runs coroutines on an asyncio loop in debug mode. What its exception handler was told is in `failures`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures: list[dict[str, Any]] = []
        self._new = asyncio.SelectorEventLoop if name == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def run(self, main: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = self._new()
        loop.set_debug(True)
        loop.set_exception_handler(lambda _, context: self.failures.append(context))
        before = self._watched(loop)
        try:
            result = loop.run_until_complete(asyncio.wait_for(main(*args, **options), 60))
            assert self._watched(loop) == before, "a reader or writer is left"
            return result
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _watched(self, loop: Any) -> int:
        return len(loop._selector.get_map()) if self.name == "asyncio" else 0


class Recorder(asyncio.DatagramProtocol):
    """Writes down what a transport calls it with, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.log.append(("made",))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.log.append(("data", data, addr))

    def error_received(self, exc: Exception) -> None:
        self.log.append(("error", type(exc), getattr(exc, "errno", None)))

    def pause_writing(self) -> None:
        self.log.append(("pause",))

    def resume_writing(self) -> None:
        self.log.append(("resume",))

    def connection_lost(self, exc: Any) -> None:
        self.log.append(("lost", exc))

    def told(self, kind: str) -> list[Any]:
        """What came of one kind: the first thing beside its name."""
        return [row[1] if len(row) > 1 else None for row in self.log if row[0] == kind]

    async def until(self, condition: Callable[[], object]) -> None:
        """Lets the loop run until a condition holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"it did not come: {self.log[-5:]}"
            await asyncio.sleep(0)

    async def has(self, kind: str, count: int = 1) -> list[Any]:
        """Waits for so many of one kind."""
        await self.until(lambda: len(self.told(kind)) >= count)
        return self.told(kind)

    async def closed(self) -> None:
        """Closes the transport and waits for the end."""
        self.transport.close()
        await self.has("lost")


class Whole:
    """A protocol that asks for all of what is known of datagrams."""

    def __init__(self):
        self.batches, self.events, self.log = [], [], []

    def connection_made(self, transport):
        self.transport = transport

    def datagrams_received(self, datagrams):
        self.batches.append(datagrams)

    def errors_received(self, events):
        self.events += events

    def error_received(self, exc):
        self.log.append(exc)

    def connection_lost(self, exc):
        self.log.append("lost")

    @property
    def datagrams(self):
        return [datagram for batch in self.batches for datagram in batch]

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, (self.batches, self.events, self.log)
            await asyncio.sleep(0)

    async def closed(self):
        self.transport.close()
        await self.until(lambda: "lost" in self.log)


# ---- fixtures ----


@pytest.fixture
def recorder() -> type[Recorder]:
    """The class of a protocol that writes down what happens to it."""
    return Recorder


@pytest.fixture(params=("asyncio", "uvloop"))
def asyncio_loop(request: pytest.FixtureRequest, libuv_ready: None) -> Iterator[Loop]:
    """asyncio's own loop and uvloop in turn. Nothing may have failed in it that the test did not take from `failures`."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed (there is none for PyPy)")
    loop = Loop(request.param)
    yield loop
    assert not loop.failures


@pytest.fixture(params=HOSTS)
def host(request, ipv6):
    """A loopback address of each family."""
    return HOSTS[request.param]


@pytest.fixture
def alike(asyncio_loop, recorder):
    """A callable: runs a scenario on both; what it returned, which was the same. Loops named by ``but`` do
    something else with their own endpoints, which are left out."""

    def compare(scenario, *args, but=()):
        ours = asyncio_loop.run(scenario, aio.create_datagram_endpoint, recorder, *args)
        if asyncio_loop.name not in but:
            assert ours == asyncio_loop.run(scenario, own, recorder, *args)
        return ours

    return compare


def own(*args, **options):
    return asyncio.get_running_loop().create_datagram_endpoint(*args, **options)


async def opened(make, recorder, **options):
    transport, protocol = await make(recorder, **options)
    assert protocol.transport is transport
    return transport, protocol


async def closed(*protocols):
    for protocol in protocols:
        await protocol.closed()


# ---- sockets beside a transport ----


def named_pair():
    """Unix sockets connected to each other: with those of socketpair(2), which have no names, the stock loop cannot send."""
    names = [f"\0lowsock-{os.getpid()}-{next(NUMBERS)}" for _ in range(2)]
    pair = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in names]
    for sock, name in zip(pair, names):
        sock.bind(name)
    for sock, name in zip(pair, reversed(names)):
        sock.connect(name)
    return pair


def readable(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


def sending_to(transport, host="127.0.0.1"):
    """A plain socket connected to a transport."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, transport.get_extra_info("sockname")[1]))
    return sock


def send_together(sock, pieces):
    """By one call, so that the kernel can hand them out by one as well."""
    assert udp.Endpoint(sock, gro=False).send(b"".join(pieces), address=None, segment_size=len(pieces[0])) == len(
        b"".join(pieces)
    )


def nobody(host="127.0.0.1"):
    """An address that answers with an ICMP error."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[:2]


async def connected(recorder, **options):
    """A transport connected to a blocking socket with a timeout; the protocol, and the socket."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(20)
    transport, protocol = await aio.create_datagram_endpoint(recorder, remote_addr=peer.getsockname(), **options)
    return transport, protocol, peer


# ---- what a transport calls ----


def counted(transport):
    """Counts the attempts to receive."""
    transport._expect_batches()
    calls, receive = [], transport._recv

    @of_lowsock
    def recv():
        calls.append(1)
        return receive()

    transport._recv = recv
    return calls


class Watched:
    """The calls that a transport's backend gets, which go through."""

    def __init__(self, transport):
        self.calls = []
        backend = transport._backend
        for name in ("send_one", "send_run", "send_many", "send_with_control"):
            setattr(backend, name, self._watched(name, getattr(backend, name)))

    def _watched(self, name, call):
        @of_lowsock
        def watched(first, *rest):
            self.calls.append((name, 1 if name == "send_one" else len(first)))
            return call(first, *rest)

        return watched
