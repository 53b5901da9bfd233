# SPDX-License-Identifier: MIT
"""Zero-copy sends that wait, hundreds in flight, threads, and signal handlers that raise: nothing is lost."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import types

import pytest

from lowsock import constants
from lowsock.errqueue import ZeroCopySender
from lowsock.errqueue._lock import ReleaseGuard

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


# ---- a full stream ----


@pytest.fixture
def ends():
    """Two TCP sockets, connected over IPv4."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    with a, b:
        yield a, b


# ---- waiting for room ----


def fill(sender, data=b"x" * 50_000):
    """Sends until there is no room; how many sends, and the bytes."""
    sizes = []
    while True:
        try:
            sizes.append(sender.send(data, flags=socket.MSG_DONTWAIT))
        except BlockingIOError:
            return len(sizes), sum(sizes)


def send_for_ever(sender, counts, begins=None):
    """The kernel enlarges the buffer of a stream that is busy, so a full one may have room again."""
    while True:
        counts.append(sender.next_key)
        if begins is not None:
            begins.append(time.monotonic())
        sender.send(b"x" * 10**6)


def test_a_full_stream_is_not_waited_for_if_told(ends, drain):
    a, b = ends
    with ZeroCopySender(a) as sender:
        count, size = fill(sender)
        assert sender.next_key == count
        a.setblocking(False)
        with pytest.raises(BlockingIOError):
            sender.send(b"x")
        while len(drain(b)) < 1 or not sender.wait(0.01):
            pass
        assert count > 1


def test_the_timeout_of_the_socket_holds(ends, drain):
    a, b = ends
    with ZeroCopySender(a) as sender:
        fill(sender)
        a.settimeout(0.05)
        begins = []
        with pytest.raises(socket.timeout):
            send_for_ever(sender, [], begins)
        assert 0.05 <= time.monotonic() - begins[-1] < 5
        drain_until_complete(sender, b, drain)


def drain_until_complete(sender, sock, drain):
    while not sender.wait(0.01):
        drain(sock)


@pytest.mark.parametrize("as_number", [False, True])
def test_a_blocking_send_waits_for_room(ends, as_number):
    a, b = ends
    received = []

    def receive():
        while len(data := b.recv(2**20)) > 0:
            received.append(len(data))

    with ZeroCopySender(a.fileno() if as_number else a) as sender:
        count, size = fill(sender)
        reader = threading.Thread(target=receive)
        reader.start()
        data, at = bytes(3_000_000), 0
        while at < len(data):
            at += sender.send(data[at:])
        assert sender.wait(10)
        a.shutdown(socket.SHUT_WR)
        reader.join()
    assert sum(received) == size + len(data)


def test_hundreds_in_flight_are_all_kept_until_their_completion(ends, drain):
    a, b = ends
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    with ZeroCopySender(a) as sender:
        pieces = []
        while sender.pending < 300 and len(pieces) < 3000:
            pieces.append(os.urandom(1000))
            assert sender.send(pieces[-1], flags=socket.MSG_DONTWAIT) == 1000
            sender.read()
        assert sender.pending >= 300
        assert sender.pending_bytes == 1000 * sender.pending
        taken = b""
        while not sender.wait(0.01):
            taken += drain(b)
        taken += drain(b)
    assert taken == b"".join(pieces)


# ---- threads and signals ----


def test_threads_share_a_sender(ends, drain):
    a, b = ends
    sizes, keys = [], []
    with ZeroCopySender(a) as sender:

        def work(letter):
            for _ in range(50):
                sent = sender.send(letter * 2000)
                sizes.append(int(sent))
                keys.append(sent.key)
                if letter == b"a":
                    sender.read()

        threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
        for thread in threads:
            thread.start()
        taken = 0
        poll = select.poll()
        poll.register(b, select.POLLIN)
        while any(thread.is_alive() for thread in threads) or taken < sum(sizes):
            poll.poll(10)
            taken += len(drain(b))
        for thread in threads:
            thread.join()
        assert sender.wait(5)
    assert sorted(key for key in keys if key is not None) == list(range(len([key for key in keys if key is not None])))
    assert taken == sum(sizes)


class Interrupted(Exception):
    pass


def raising(*_):
    raise Interrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyPy: a finalizer may swallow it
def test_handlers_that_raise_lose_no_piece_and_no_completion(udp_pair, drain):
    """After any number of interruptions each send that the kernel counted has been counted here, and is complete."""
    before = signal.signal(signal.SIGALRM, raising)
    hits = 0
    try:
        with ZeroCopySender(udp_pair.a) as sender:
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline and hits < 300:
                try:
                    signal.setitimer(
                        signal.ITIMER_REAL, 0.0001 + 0.000003 * (hits % 100), 0.5
                    )  # again: a finalizer may swallow it
                    while True:
                        sender.send(b"x" * 10)
                        sender.read()
                        drain(udp_pair.b)
                except Interrupted:
                    hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert sender.wait(5)
            key = sender.send(b"last").key
            assert sender.wait(5, key=key)
            assert sender.pending == 0
            assert not sender._in_flight.saw_foreign
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits > 10


def test_a_handler_interrupts_a_send_that_waits(ends, drain):
    a, b = ends
    before = signal.signal(signal.SIGALRM, raising)
    try:
        with ZeroCopySender(a) as sender:
            fill(sender)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            counts = []
            with pytest.raises(Interrupted):
                send_for_ever(sender, counts)
            assert sender.next_key == counts[-1]
            drain_until_complete(sender, b, drain)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_comes_back_in_is_refused(udp_pair, monkeypatch):
    errors = []
    with ZeroCopySender(udp_pair.a) as sender:

        def come_back(fd):
            for call in (lambda: sender.send(b"x"), sender.wait, sender.read, sender.close):
                with pytest.raises(RuntimeError, match="signal handler") as caught:
                    call()
                errors.append(caught.value)

        monkeypatch.setattr(sender, "_slot", types.SimpleNamespace(fill=come_back))
        assert sender.read() == []
        monkeypatch.undo()
        assert len(errors) == 4
        assert sender.send(b"x").key == 0


@pytest.mark.parametrize("raised", [None, KeyboardInterrupt])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_lock_whose_exit_was_left_out_is_let_go(count, raised):
    """As on CPython 3.9 and PyPy, where the exception comes before the exit: ``count`` holds are left behind."""
    lock = threading.RLock()
    with contextlib.suppress(KeyboardInterrupt), ReleaseGuard(lock):
        for _ in range(count):
            lock.acquire()
        if raised:
            raise raised
    assert not lock._is_owned()


def test_a_lock_within_itself_is_held_until_the_outer_end():
    lock = threading.RLock()
    with ReleaseGuard(lock), lock:
        with ReleaseGuard(lock), lock:
            pass
        assert lock._is_owned()
    assert not lock._is_owned()


@pytest.mark.parametrize("leave", [lambda sender: sender.close(10), lambda sender: left(sender)], ids=["close", "with"])
def test_what_a_handler_raises_comes_out_of_close_which_has_closed(ends, leave):
    """`TimeoutError` is an `OSError`, and is not taken for one that says that the socket is gone."""

    def late(*_):
        raise TimeoutError("the handler's")

    a, b = ends
    before = signal.signal(signal.SIGALRM, late)
    sender = ZeroCopySender(a)
    try:
        fill(sender)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.warns(ResourceWarning, match="are kept for good"), pytest.raises(TimeoutError, match="the handler's"):
            leave(sender)
        with pytest.raises(ValueError, match="this sender is closed"):
            sender.send(b"x")
        with ZeroCopySender(a) as following:
            assert following.next_key == sender.next_key
    finally:
        signal.signal(signal.SIGALRM, before)


def left(sender):
    with sender:
        pass


def test_a_drain_whose_time_is_up_says_so(ends, drain):
    a, b = ends
    with ZeroCopySender(a) as sender:
        fill(sender)
        assert not sender.drain(0.01)
        drain_until_complete(sender, b, drain)
        assert sender.drain(0)
