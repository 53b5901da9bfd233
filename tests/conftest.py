# SPDX-License-Identifier: MIT
"""Fixtures for all tests: connected sockets of every kind, ways to pass one, and a watch over descriptors.

`soak` marks long runs: they do the share of the full count that ``--soak`` or ``LOWSOCK_SOAK`` says (0.01; 1 is all).
"""

import asyncio
import ctypes
import gc
import importlib
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Callable, NamedTuple

import hypothesis  # noqa: F401 # before `light_collector` hides from its plugins who refers to what
import pytest

from lowsock import aio

pytest_plugins = [
    "bad_line",
    "batching",
    "datagram_loops",
    "injecting",
    "owning",
    "silent_wire",
    "storming",
    "udp_sockets",
]  # of the folder helpers: fixtures that several files share

COLLECTING = {"test_owned_ends.py", "test_rights_injection.py", "test_rights_soak.py", "test_soak.py"}
DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


def pytest_addoption(parser: pytest.Parser) -> None:
    share = os.environ.get("LOWSOCK_SOAK", "0.01")
    parser.addoption("--soak", type=float, default=float(share), help="share of the full count that a soak runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: a long run, shortened to the share that --soak or LOWSOCK_SOAK says")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where reports cannot be left out of collections, which they make longer, the files that collect most come first."""
    if not hasattr(gc, "freeze"):
        items.sort(key=lambda item: item.path.name not in COLLECTING)


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


# ---- network namespaces ----

CLONE_NEWNET = 0x40000000
NUMBERS = itertools.count()
# ip(8) does not get through under a sanitizer's library, which is there for the C source alone
OUTSIDE = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


class Namespace:
    """A network namespace with its loopback up; what is made in a ``with`` block of it stays in it."""

    def __init__(self) -> None:
        self.name = f"lowsock-{os.getpid()}-{next(NUMBERS)}"
        self._outside: list[int] = []
        subprocess.run(["ip", "netns", "add", self.name], check=True, capture_output=True, env=OUTSIDE)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """What ip(8) says in here."""
        command = ["ip", "-n", self.name, *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=OUTSIDE).stdout

    def index(self, interface: str) -> int:
        return int(self.ip("-oneline", "link", "show", "dev", interface).split(":")[0])

    def link(self, name: str, peer: "Namespace", mtu: int = 1500) -> None:
        """A cable to another namespace: on both ends an interface called ``name``, up, whose addresses need no probing."""
        self.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", peer.name)
        for end in (self, peer):
            end.sysctl(f"ipv6/conf/{name}/accept_dad", "0")
            end.ip("link", "set", name, "mtu", str(mtu), "up")

    def address(self, interface: str, *addresses: str) -> None:
        """Gives ``interface`` addresses, each with its prefix length, that can be used from now on."""
        for address in addresses:
            self.ip("addr", "add", address, "dev", interface, *(("nodad",) if ":" in address else ("brd", "+")))
        for address in addresses:
            self._settle(address.split("/")[0])

    def _settle(self, host: str) -> None:
        """Waits for the route to an IPv6 address of ours, which the kernel makes later, in a worker of its own."""
        deadline = time.monotonic() + 10
        while ":" in host and not self.ip("-6", "route", "show", "table", "local", host):
            assert time.monotonic() < deadline, f"{host} cannot be used yet"

    def sysctl(self, name: str, value: str) -> None:
        with self, open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
            file.write(value)

    def __enter__(self) -> "Namespace":
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        _set_namespace(fd)
        os.close(fd)
        return self

    def __exit__(self, *exc: object) -> None:
        outside = self._outside.pop()
        _set_namespace(outside)
        os.close(outside)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, env=OUTSIDE)


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def new_namespace() -> Iterator[Callable[[], Namespace]]:
    """A callable that makes a `Namespace`; skips where that is not allowed."""
    made: list[Namespace] = []

    def make() -> Namespace:
        if os.geteuid() or not shutil.which("ip"):
            pytest.skip("network namespaces want root and ip(8)")
        try:
            made.append(Namespace())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made: {error.stderr!r}")
        return made[-1]

    yield make
    for namespace in made:
        namespace.remove()


# ---- awaitables ----


class AsyncioBackend:
    """A loop of asyncio, or one that is like it. `run` makes one, runs a coroutine function in it and closes it."""

    def __init__(self, name: str) -> None:
        self.name, self._debug = name, name.endswith("debug")
        self._module = importlib.import_module(name.partition("-")[0])

    def run(self, function, *args):
        self.loop = self._module.new_event_loop()
        self.loop.set_debug(self._debug)
        try:
            return self.loop.run_until_complete(asyncio.wait_for(function(*args), 10))
        finally:
            self.loop.close()

    def start(self, function, *args):
        return AsyncioTask(self.loop.create_task(function(*args)))

    async def settle(self) -> None:
        """Lets all tasks run until they wait, and what is ready be heard of."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def step(self) -> None:
        """Lets others run, once."""
        await asyncio.sleep(0)

    def is_watched(self, fd: int) -> bool:
        return any([self.loop.remove_reader(fd), self.loop.remove_writer(fd)])


class AsyncioTask:
    def __init__(self, task) -> None:
        self._task = task
        self.cancel, self.done = task.cancel, task.done

    async def outcome(self):
        """The result, the exception, or "cancelled"."""
        await asyncio.wait({self._task})
        return "cancelled" if self._task.cancelled() else self._task.exception() or self._task.result()


class TrioBackend:
    """The same of trio."""

    name = "trio"

    def __init__(self) -> None:
        self._trio = importlib.import_module("trio")
        importlib.import_module("trio.testing")

    def run(self, function, *args):
        async def main():
            with self._trio.fail_after(10):
                async with self._trio.open_nursery() as self._nursery:
                    await self.settle()
                    self._watched = self._count()
                    try:
                        return await function(*args), None
                    except Exception as error:  # past the nursery, which would put it into a group
                        self._nursery.cancel_scope.cancel()
                        return None, error

        value, error = self._trio.run(main)
        if error is not None:
            raise error
        return value

    def start(self, function, *args):
        task = TrioTask(self._trio)
        self._nursery.start_soon(task.run, function, args)
        return task

    async def settle(self) -> None:
        await self._trio.testing.wait_all_tasks_blocked(0.002)

    async def step(self) -> None:
        await self._trio.lowlevel.checkpoint()

    def is_watched(self, fd: int) -> bool:
        return self._count() > self._watched

    def _count(self) -> int:
        statistics = self._trio.lowlevel.current_statistics().io_statistics
        return statistics.tasks_waiting_read + statistics.tasks_waiting_write


class TrioTask:
    def __init__(self, trio) -> None:
        self._scope, self._event = trio.CancelScope(), trio.Event()
        self.cancel, self.done = self._scope.cancel, self._event.is_set

    async def run(self, function, args):
        with self._scope:
            try:
                self._value = await function(*args)
            except Exception as error:
                self._value = error
        self._event.set()

    async def outcome(self):
        await self._event.wait()
        return "cancelled" if self._scope.cancelled_caught else self._value


@pytest.fixture(scope="session")
def libuv_ready() -> None:
    """libuv opens a pipe with its first loop, and keeps it."""
    try:
        importlib.import_module("uvloop").new_event_loop().close()
    except ImportError:
        pass


@pytest.fixture(params=("asyncio", "asyncio-debug", "uvloop", "trio"))
def backend(request: pytest.FixtureRequest, libuv_ready: None):
    """Each framework that `lowsock.aio` waits with: ``run(function, *args)`` runs a coroutine function in it."""
    pytest.importorskip(request.param.partition("-")[0], reason=f"{request.param} is not installed")
    return TrioBackend() if request.param == "trio" else AsyncioBackend(request.param)


class Loops:
    """A backend, and ways to do several things in it."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.run = backend.run

    async def together(self, *functions):
        """Calls all of them at once; a list of their results. The first exception is raised, after all have ended."""
        tasks = [self._backend.start(function) for function in functions]
        results = [await task.outcome() for task in tasks]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def tick(self, count=1) -> None:
        """Lets others run, so many times."""
        for _ in range(count):
            await self._backend.step()

    async def cancelled(self, ticks, function, *args):
        """Calls ``function`` and cancels it so many ticks later: whether it had finished, and its result."""
        task = self._backend.start(function, *args)
        await self.tick(ticks)
        task.cancel()
        result = await task.outcome()
        if isinstance(result, BaseException):
            raise result
        return (False, None) if result == "cancelled" else (True, result)


@pytest.fixture
def socks() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ``AF_UNIX`` streams connected to each other that do not block."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def streams(socks):
    """An `aio.UnixStream` around each of `socks`."""
    with aio.UnixStream(socks[0]) as a, aio.UnixStream(socks[1]) as b:
        yield a, b


@pytest.fixture
def loops(backend) -> Loops:
    """`backend`, with `Loops.together`, `Loops.tick` and `Loops.cancelled`."""
    return Loops(backend)
