# SPDX-License-Identifier: MIT
"""Batches in the middle of which something comes: signals, other threads, the end."""

import contextlib
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Callable

import pytest

import lowsock
from lowsock import RecvBatch, SendBatch

ROOM = 64  # bytes for control messages
PATIENCE = 60.0  # seconds that no test should need
THREADS, BATCHES, SIZE = 4, 200, 16


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
        into.recv(sock, wait_all=wait_all)
        return [data for data, _ in into.messages()]


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
    assert batch.recv(b) == 1
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
                    into.recv(b)
                    datas = [data for data, _ in into.messages()]
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
        thread = threading.Thread(target=batch.recv, args=(b,), daemon=True)
        thread.start()
        inbox = batch._memory
        while not inbox.struct.busy:
            select.select([], [], [], 0.001)
        with pytest.raises(RuntimeError, match="in use"):
            batch.recv(b)
        a.send(b"x")
        thread.join(PATIENCE)
        assert list(batch.messages()) == [(b"x", None)]
        a.send(b"y")
        assert batch.recv(b) == 1


def test_a_batch_closed_by_another_thread_in_a_call_keeps_its_memory(dgrams, open_fds):
    a, b = dgrams
    before = open_fds()
    batch = RecvBatch(4, 1000, ROOM)
    thread = threading.Thread(target=batch.recv, args=(b,), daemon=True)
    thread.start()
    inbox = batch._memory
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
