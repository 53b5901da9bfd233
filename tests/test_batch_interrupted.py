# SPDX-License-Identifier: MIT
"""Batches in the middle of which something comes: an exception at any bytecode, signals, other threads, the end."""

import array
import contextlib
import importlib.util
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest

import lowsock
from lowsock import RecvBatch, SendBatch, _inbox
from lowsock._ffi import lib

# pytest imports no test module for another one
_SPEC = importlib.util.spec_from_file_location("injection", pathlib.Path(__file__).with_name("test_injection.py"))
injection: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["injection"] = injection
_SPEC.loader.exec_module(injection)
Raised, World, at_every_step = injection.Raised, injection.World, injection.at_every_step

ROOM = 64  # bytes for control messages
PATIENCE = 60.0  # seconds that no test should need
THREADS, BATCHES, SIZE = 4, 200, 16
RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))


class Dgrams(World):
    """A pair with three messages under way, each with descriptors, and a batch of each kind."""

    def __init__(self, fds: list[int], timeout: Optional[float] = None) -> None:
        self.a, self.b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.a.settimeout(timeout)
        self.b.settimeout(timeout)
        self.buffer = bytearray(20_000)
        self.into, self.out = RecvBatch(4, 10, ROOM), SendBatch(4, 10, ROOM)
        for i in range(3):
            lowsock.send_fds(self.a, [b"%d" % i], fds)

    def close(self) -> None:
        super().close()
        self.into.close()
        self.out.close()
        del self.into, self.out  # whose end is then not in the middle of another run


@pytest.fixture
def fds() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        os.close(fd)


def receive_and_look(world: Dgrams) -> None:
    world.into.receive(world.b)
    for i in range(len(world.into)):
        world.taken.append(world.into.ancdata(i))


RECEIVES: dict[str, Callable[[Any], Any]] = {
    "recvmmsg": lambda world: lowsock.recvmmsg(world.b, 4, 10, ROOM),
    "recvmmsg, large": lambda world: lowsock.recvmmsg(world.b, 2000, 1000, ROOM),
    "recvmmsg, all": lambda world: lowsock.recvmmsg(world.b, 3, 10, ROOM, wait_all=True),
}


def drain(sock: socket.socket) -> None:
    while select.select([sock], [], [], 0)[0]:
        sock.recv(10)


def numbers(ancdata: list) -> list[int]:
    return array.array("i", b"".join(data for _, _, data in ancdata)).tolist()


@pytest.mark.parametrize("timeout", (None, 30.0), ids=("blocking", "timeout"))
@pytest.mark.parametrize("call", RECEIVES)
def test_received_descriptors_are_closed_wherever_an_exception_comes(call, timeout, fds, open_fds):
    lost, before = [], set()

    def make_world() -> Dgrams:
        world = Dgrams(fds, timeout)
        before.clear()
        before.update(open_fds())
        return world

    for world, _, (point, _) in at_every_step(RECEIVES[call], KeyboardInterrupt, make_world):
        drain(world.b)
        left = open_fds() - before
        for fd in left:
            os.close(fd)
        if left and point is not None and not point.is_return():
            lost.append(point)
    assert left, "the run that got through has descriptors"
    assert not lost


def test_a_batch_owns_its_descriptors_until_they_are_handed_out(fds, open_fds):
    """Whatever is raised, a descriptor is in a list that the caller has, or closed with the batch."""
    before: set[int] = set()

    def make_world() -> Dgrams:
        before.clear()
        before.update(open_fds())
        world = Dgrams(fds)
        world.taken = []
        return world

    wrong = []
    for world, _, (point, raised) in at_every_step(receive_and_look, KeyboardInterrupt, make_world):
        if raised is not None:
            raised.__traceback__ = None  # which holds the batch
        for owner in (world.a, world.b, world.into):
            owner.close()
        taken = {fd for ancdata in world.taken for fd in numbers(ancdata)}
        left = open_fds() - before
        for fd in left:
            os.close(fd)
        if left != taken and point is not None and not point.is_return():
            wrong.append((point, left, taken))
    assert len(taken) == 6
    assert not wrong


class Somebody:
    """Another caller, in the middle of a batch: a descriptor has come into the inbox that it took."""

    def receive(self) -> None:
        self.inbox = _inbox.take(4, 10, ROOM)
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b:
            lowsock.send_fds(a, [b"x"], [0])
            lib.lowsock_recvmmsg(self.inbox.struct, b.fileno(), 0, 4, 10, ROOM, 0)

    def still_has_it(self) -> bool:
        fd = numbers(self.inbox.ancdata(0, 1)[0])
        lib.lowsock_inbox_close(self.inbox.struct)
        return len(fd) == 1


@pytest.mark.parametrize("call", ("recvmmsg", "recvmmsg, all"))
def test_an_inbox_given_back_is_left_alone(call):
    somebody, robbed = Somebody(), []
    for _, _, (point, _) in at_every_step(RECEIVES[call], KeyboardInterrupt, lambda: Dgrams([]), somebody.receive):
        if point is not None and not somebody.still_has_it():
            robbed.append(point)
    assert not robbed


def filled(world: Dgrams) -> None:
    world.out.append(b"a", [RIGHTS])
    world.out.extend([b"b", b"c"])
    world.out.send(world.a)


CALLS: dict[str, Callable[[Any], Any]] = {
    **RECEIVES,
    "sendmmsg": lambda world: lowsock.sendmmsg(world.a, [([b"x"],)] * 2),
    "sendmmsg, control": lambda world: lowsock.sendmmsg(world.a, iter([([b"x"], [RIGHTS]), ((b"y", world.buffer),)])),
    "batches": lambda world: (filled(world), world.into.receive(world.b), iter(world.into), world.into.datagrams()),
}


@pytest.mark.parametrize("timeout", (None, 30.0), ids=("blocking", "timeout"))
@pytest.mark.parametrize("call", CALLS)
def test_what_was_raised_comes_out(call, timeout):
    changed = []
    for world, error, (point, raised) in at_every_step(CALLS[call], Raised, lambda: Dgrams([], timeout)):
        if point is not None and raised is not error:
            changed.append((point, repr(raised)))
        if raised is not None:
            raised.__traceback__ = None
        world.buffer.append(1)  # not held
    assert not changed


def test_a_batch_sends_nothing_twice_and_leaves_nothing_out_whatever_is_raised():
    """An exception anywhere in `send`; the next call goes on where the kernel stopped."""
    pieces = [b"1", b"2", b"3"]

    class Filled(Dgrams):
        def __init__(self) -> None:
            super().__init__([])
            drain(self.b)
            self.out.extend(pieces)

    wrong = []
    for world, _, (point, _) in at_every_step(lambda world: world.out.send(world.a), KeyboardInterrupt, Filled):
        while len(world.out):
            world.out.send(world.a)
        world.out.append(b"next")
        world.out.send(world.a)
        came = [message[0] for message in lowsock.recvmmsg(world.b, 10, 10)]
        if came != [*pieces, b"next"]:
            wrong.append((point, came))
    assert not wrong


@pytest.mark.parametrize("fill", (lambda out: out.append(b"x", [RIGHTS]), lambda out: out.extend([b"x", b"y"])))
def test_an_exception_while_it_is_filled_leaves_a_batch_that_works(fill):
    wrong = []
    for world, _, (point, _) in at_every_step(lambda world: fill(world.out), KeyboardInterrupt, lambda: Dgrams([])):
        drain(world.b)
        waiting = len(world.out)
        world.out.append(b"next")
        sent = world.out.send(world.a)
        came = [message[0] for message in lowsock.recvmmsg(world.b, 10, 10)]
        if sent != waiting + 1 or len(came) != sent or came[-1] != b"next" or waiting not in (0, 1, 2):
            wrong.append((point, waiting, came))
    assert not wrong


# ---- signals ----


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    before = signal.getsignal(signal.SIGALRM)

    def arm(action: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: action())
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b


def receive(sock: socket.socket, wait_all: bool, batch: bool) -> list[bytes]:
    if not batch:
        return [message[0] for message in lowsock.recvmmsg(sock, 3, 10, wait_all=wait_all)]
    with RecvBatch(3, 10) as into:
        into.receive(sock, wait_all=wait_all)
        return [data for data, _ in into.datagrams()]


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
@pytest.mark.parametrize("batch", (False, True), ids=("recvmmsg", "RecvBatch"))
@pytest.mark.parametrize("wait_all", (False, True))
def test_a_handler_that_returns_lets_a_receive_go_on(dgrams, alarm, timeout, batch, wait_all):
    """Also in the middle of a batch, of which every message counts."""
    a, b = dgrams
    b.settimeout(timeout)
    seen = []

    def handler() -> None:
        seen.append(1)
        if len(seen) >= 3:
            a.send(b"x", socket.MSG_DONTWAIT)

    alarm(handler)
    came = receive(b, wait_all, batch)
    assert len(came) == (3 if wait_all else 1)
    assert len(seen) >= 3


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
@pytest.mark.parametrize("kind", (KeyboardInterrupt, IndexError, OSError, BlockingIOError, ValueError))
@pytest.mark.parametrize("call", ("receive", "send"))
def test_a_handler_that_raises_wins(dgrams, alarm, timeout, kind, call):
    a, b = dgrams
    for sock in dgrams:
        sock.settimeout(timeout)
    error = kind("from the handler")

    def handler() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise error

    with pytest.raises(kind) as caught:  # noqa: PT012 - the signal may come early
        alarm(handler)
        if call == "receive":
            receive(b, True, True)
        while True:
            lowsock.sendmmsg(a, [([bytes(1000)],)] * 100)
    assert caught.value is error


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
def test_a_send_that_is_interrupted_counts_what_went(dgrams, alarm, timeout):
    """A blocking batch that has no room for all: the handler makes room, and every message arrives once."""
    a, b = dgrams
    a.settimeout(timeout)
    came: list[bytes] = []

    def handler() -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(50):
                came.append(b.recv(10, socket.MSG_DONTWAIT))

    alarm(handler)
    with SendBatch(2000, 10) as batch:
        batch.extend([struct.pack("i", i) for i in range(2000)])
        while len(batch):
            assert batch.send(a) > 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(BlockingIOError):
        while True:
            came.append(b.recv(10, socket.MSG_DONTWAIT))
    assert came == [struct.pack("i", i) for i in range(2000)]


@pytest.mark.parametrize("call", ("receive", "send"))
def test_a_handler_that_closes_the_socket_ends_the_call(dgrams, alarm, call):
    a, b = dgrams
    with pytest.raises(OSError, match="Bad file descriptor"):  # noqa: PT012 - the signal may come early
        alarm((b if call == "receive" else a).close)
        if call == "receive":
            lowsock.recvmmsg(b, 4, 10)
        while True:
            lowsock.sendmmsg(a, [([b"x"],)] * 100)


def test_a_handler_that_closes_the_batch_ends_it(dgrams, alarm, open_fds):
    """The descriptors that come then are nobody's: they are closed."""
    a, b = dgrams
    before = open_fds()
    batch = RecvBatch(4, 10, ROOM)

    def handler() -> None:
        if not batch.closed:
            batch.close()
        else:
            lowsock.send_fds(a, [b"x"], [0], socket.MSG_DONTWAIT)
            signal.setitimer(signal.ITIMER_REAL, 0)

    alarm(handler)
    assert batch.receive(b) == 1
    assert open_fds() == before
    with pytest.raises(ValueError, match="closed"):
        len(batch)


# ---- threads ----


def together(*works: Callable[[], None]) -> None:
    """Runs them in a thread each; raises what one of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a call hangs"
    for error in errors:
        raise error


@pytest.mark.parametrize("reused", (False, True), ids=("functions", "batches"))
def test_threads_share_a_socket_with_a_batch_each(reused):
    """Every message comes once, whole, whoever sends and whoever receives it."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    came: list[bytes] = []

    def send(number: int) -> None:
        with SendBatch(SIZE, 8) as out:
            for turn in range(BATCHES):
                left = [struct.pack("ii", number, turn * SIZE + i) for i in range(SIZE)]
                if reused:
                    out.extend(left)
                    while len(out):
                        out.send(a)
                while left and not reused:
                    left = left[lowsock.sendmmsg(a, [([piece],) for piece in left]) :]

    def receive() -> None:
        with RecvBatch(SIZE, 8) as into:
            while True:
                if reused:
                    into.receive(b)
                    datas = [data for data, _ in into.datagrams()]
                else:
                    datas = [message[0] for message in lowsock.recvmmsg(b, SIZE, 8)]
                came.extend(data for data in datas if data)
                if b"" in datas:
                    return

    def send_all() -> None:
        together(*(lambda number=number: send(number) for number in range(THREADS)))
        a.shutdown(socket.SHUT_WR)

    with a, b:
        together(send_all, *[receive] * THREADS)
    expected = [struct.pack("ii", number, i) for number in range(THREADS) for i in range(BATCHES * SIZE)]
    assert sorted(came) == sorted(expected)


def test_two_calls_with_one_batch_are_refused(dgrams):
    """The second of them, while the first is in its system call."""
    a, b = dgrams
    b.settimeout(None)
    with RecvBatch(4, 10) as batch:
        thread = threading.Thread(target=batch.receive, args=(b,), daemon=True)
        thread.start()
        inbox = batch._inbox
        while not inbox.struct.busy:
            select.select([], [], [], 0.001)
        with pytest.raises(RuntimeError, match="in use"):
            batch.receive(b)
        a.send(b"x")
        thread.join(PATIENCE)
        assert list(batch.datagrams()) == [(b"x", None)]
        a.send(b"y")
        assert batch.receive(b) == 1


def test_a_batch_closed_by_another_thread_in_a_call_keeps_its_memory(dgrams, open_fds):
    a, b = dgrams
    before = open_fds()
    batch = RecvBatch(4, 1000, ROOM)
    thread = threading.Thread(target=batch.receive, args=(b,), daemon=True)
    thread.start()
    inbox = batch._inbox
    while not inbox.struct.busy:
        select.select([], [], [], 0.001)
    del inbox
    batch.close()
    churned = [bytearray(b"\xff" * 4000) for _ in range(100)]
    lowsock.send_fds(a, [bytes(1000)], [0])
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert all(piece == b"\xff" * 4000 for piece in churned)
    assert open_fds() == before


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy locks no buffer: there a copy was sent")
def test_a_buffer_is_held_while_it_is_sent_and_let_go_after():
    a, b = socket.socketpair()
    buffer = bytearray(2_000_000)
    with a, b:
        thread = threading.Thread(target=lowsock.sendmmsg, args=(a, [([buffer],)]), daemon=True)
        thread.start()
        assert select.select([b], [], [], PATIENCE)[0]
        with pytest.raises(BufferError):
            buffer.append(1)
        left = len(buffer)
        while left:
            left -= len(b.recv(left))
        thread.join(PATIENCE)
        buffer.append(1)
