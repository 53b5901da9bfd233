# SPDX-License-Identifier: MIT
"""Fixtures for all tests: connected sockets of every kind, ways to pass one, and a watch over descriptors.

`soak` marks long runs: they do the share of the full count that ``--soak`` or ``LOWSOCK_SOAK`` says (0.01; 1 is all).
"""

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Callable, NamedTuple

import hypothesis  # noqa: F401 # before `light_collector` hides from its plugins who refers to what
import pytest
from places import TESTS

pytest_plugins = [
    "bad_line",
    "batching",
    "datagram_loops",
    "injecting",
    "loops",
    "namespaces",
    "owning",
    "silent_wire",
    "storming",
    "udp_sockets",
    "unix_streams",
    "waiting",
]  # of the folder helpers: fixtures that several files share

MARKERS = (
    "collecting: collects garbage again and again, and comes first where the reports of other tests make that longer",
    "integration: runs in .ci/run once more, where uvloop, aioquic, jeepney, anyio and a D-Bus daemon are installed",
    "measures_memory: limits or measures the memory of a process, which tells nothing under the sanitizers",
    "smoke: runs in .ci/run once more, on the wheel and in an empty directory",
    "soak: a long run, shortened to the share that --soak or LOWSOCK_SOAK says",
    "unsanitized: left out under the sanitizers: reaches no C of ours, or in other processes, or by calls tested elsewhere",
)
FOLDER_MARKERS = {  # of all tests in a folder
    "aio": ("integration", "unsanitized"),
    "cmsg": ("unsanitized",),
}
DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


def pytest_addoption(parser: pytest.Parser) -> None:
    share = os.environ.get("LOWSOCK_SOAK", "0.01")
    parser.addoption("--soak", type=float, default=float(share), help="share of the full count that a soak runs")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for name in FOLDER_MARKERS:
        if not (TESTS / name).is_dir():
            raise pytest.UsageError(f"FOLDER_MARKERS names {name}, and there is no such folder")


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):
        for marker in FOLDER_MARKERS.get(collector.path.resolve().relative_to(TESTS).parts[0], ()):
            collector.add_marker(marker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where reports cannot be left out of collections, which they make longer, those that collect most come first."""
    if not hasattr(gc, "freeze"):
        items.sort(key=lambda item: item.get_closest_marker("collecting") is None)


@pytest.fixture(autouse=True, scope="module")
def light_collector() -> None:
    """Leaves thousands of tests and their reports out of collections, which they make 200 ms longer. PyPy cannot."""
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()


@pytest.fixture
def soak_count(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Full count -> how many to do in this run."""
    share: float = request.config.getoption("--soak")
    return lambda full: max(1, int(full * share))


# ---- descriptors ----


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _open_fds() -> set[int]:
    return {fd for fd in map(int, os.listdir(DESCRIPTORS)) if _is_open(fd)}


@pytest.fixture
def open_fds() -> Callable[[], set[int]]:
    """A callable: the set of this process's open descriptors."""
    return _open_fds


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test leaves as many descriptors as it found."""
    before = _open_fds()
    yield
    for _ in range(4):  # PyPy finalizes in steps
        leaked = _open_fds() - before
        if not leaked:
            return
        gc.collect()
    leaked = _open_fds() - before
    assert not leaked, f"descriptors left open: {sorted(leaked)}"


@pytest.fixture(autouse=True)
def handlers_may_raise(request: pytest.FixtureRequest) -> Iterator[None]:
    """No callbacks of the collector: hypothesis leaves one there, and what a signal handler raises in it is lost."""
    callbacks = getattr(gc, "callbacks", [])  # PyPy has none
    if getattr(getattr(request, "function", None), "is_hypothesis_test", False):
        callbacks = []
    kept, callbacks[:] = callbacks[:], []
    yield
    callbacks[:] = kept


# ---- pairs ----


class Pair(NamedTuple):
    """Two sockets connected to each other."""

    kind: str
    family: int
    a: socket.socket
    b: socket.socket
    stream: bool


UNIX_TYPES = {
    "unix-stream": socket.SOCK_STREAM,
    "unix-dgram": socket.SOCK_DGRAM,
    "unix-seqpacket": getattr(socket, "SOCK_SEQPACKET", None),
}
FAMILIES = {"4": (socket.AF_INET, "127.0.0.1"), "6": (socket.AF_INET6, "::1")}

UNIX_KINDS = tuple(UNIX_TYPES)
TCP_KINDS = ("tcp4", "tcp6")
UDP_KINDS = ("udp4", "udp6")
KINDS = UNIX_KINDS + TCP_KINDS + UDP_KINDS
DGRAM_KINDS = ("unix-dgram", *UDP_KINDS)


def _unix(stack: ExitStack, kind: str) -> Pair:
    try:
        a, b = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, UNIX_TYPES[kind]))
    except (OSError, TypeError) as error:
        pytest.skip(f"this system has no {kind} sockets: {error}")
    return Pair(kind, socket.AF_UNIX, a, b, UNIX_TYPES[kind] == socket.SOCK_STREAM)


def _bound(stack: ExitStack, kind: str, type_: int) -> socket.socket:
    family, host = FAMILIES[kind[-1]]
    try:
        sock = stack.enter_context(socket.socket(family, type_))
        sock.bind((host, 0))
    except OSError as error:
        pytest.skip(f"{host} is not there to bind to: {error}")
    return sock


def _tcp(stack: ExitStack, kind: str) -> Pair:
    with ExitStack() as own, _bound(own, kind, socket.SOCK_STREAM) as listener:
        listener.listen(1)
        a = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        b = stack.enter_context(listener.accept()[0])
    for sock in (a, b):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Pair(kind, a.family, a, b, True)


def _udp(stack: ExitStack, kind: str) -> Pair:
    a, b = (_bound(stack, kind, socket.SOCK_DGRAM) for _ in range(2))
    a.connect(b.getsockname())
    b.connect(a.getsockname())
    return Pair(kind, a.family, a, b, False)


MAKERS = {**dict.fromkeys(UNIX_KINDS, _unix), **dict.fromkeys(TCP_KINDS, _tcp), **dict.fromkeys(UDP_KINDS, _udp)}


def _connected(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield MAKERS[request.param](stack, request.param)


@pytest.fixture
def ipv6() -> None:
    """Skips where there is no IPv6 loopback."""
    with ExitStack() as stack:
        _bound(stack, "udp6", socket.SOCK_DGRAM)


pair = pytest.fixture(params=KINDS, name="pair")(_connected)
unix_pair = pytest.fixture(params=UNIX_KINDS, name="unix_pair")(_connected)
tcp_pair = pytest.fixture(params=TCP_KINDS, name="tcp_pair")(_connected)
udp_pair = pytest.fixture(params=UDP_KINDS, name="udp_pair")(_connected)
dgram_pair = pytest.fixture(params=DGRAM_KINDS, name="dgram_pair")(_connected)
stream_pair = pytest.fixture(params=("unix-stream", *TCP_KINDS), name="stream_pair")(_connected)
message_pair = pytest.fixture(params=("unix-seqpacket", *DGRAM_KINDS), name="message_pair")(_connected)


def _drain(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    taken = b""
    while True:
        try:
            data = sock.recv(2**20)
        except BlockingIOError:
            return taken
        if not data:
            return taken
        taken += data


@pytest.fixture
def drain() -> Callable[[socket.socket], bytes]:
    """A callable: what a socket has received, which does not block from then on."""
    return _drain


# ---- ways to pass a socket ----


class Subclass(socket.socket):
    """A socket that is no plain ``socket.socket``."""


class Plain:
    """Not a socket: all it has is ``fileno()``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture(params=("socket", "descriptor", "subclass", "fileno"))
def passed(request: pytest.FixtureRequest) -> Iterator[Callable[[socket.socket], object]]:
    """A callable that gives a socket in one of the ways that the calls take it."""
    copies = []

    def subclass(sock: socket.socket) -> socket.socket:
        copies.append(Subclass(fileno=os.dup(sock.fileno())))
        return copies[-1]

    ways = {
        "socket": lambda sock: sock,
        "descriptor": lambda sock: sock.fileno(),
        "subclass": subclass,
        "fileno": lambda sock: Plain(sock.fileno()),
    }
    yield ways[request.param]
    for copy in copies:
        copy.close()
