# SPDX-License-Identifier: MIT
"""Batches that others use in the middle of a call: signal handlers, other threads, the caller's own iterators."""

import array
import contextlib
import copy
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import lowsock
from lowsock import RecvBatch, SendBatch, recvmmsg
from lowsock._batch import recv_batch as _recv_batch
from lowsock._batch.inbox import Inbox
from lowsock._system.ffi import lib

RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]).tobytes())


@pytest.fixture
def dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.settimeout(10)
        yield a, b


@pytest.fixture
def on_alarm() -> Iterator:
    """Sets a handler for a signal that comes soon, when the call waits."""

    def set_handler(handler) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    yield set_handler
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


# ---- waiting for all ----


@pytest.mark.parametrize("family", (socket.AF_INET, socket.AF_UNIX))
@pytest.mark.parametrize("timeout", (None, 5))
def test_a_socket_that_was_shut_down_is_not_waited_for(family, timeout):
    """poll(2) says at once that it is readable, and a receive that does not wait says EAGAIN."""
    with socket.socket(family, socket.SOCK_DGRAM) as a, socket.socket(family, socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
        a.connect(b.getsockname())
        b.connect(a.getsockname())
        b.settimeout(timeout)
        a.send(b"x")
        b.shutdown(socket.SHUT_RD)
        begun = time.monotonic()
        assert [message[0] for message in recvmmsg(b, 4, 10, wait_all=True)] == [b"x"]
        assert time.monotonic() - begun < 4


def test_the_time_is_up_even_if_poll_goes_on_to_promise_more(dgrams, monkeypatch):
    a, b = dgrams
    b.settimeout(0.05)
    a.send(b"x")
    monkeypatch.setattr("lowsock._batch.inbox._wait_for_more", lambda fd, deadline: True)
    spent = time.process_time()
    assert len(recvmmsg(b, 4, 10, wait_all=True)) == 1
    assert time.process_time() - spent < 0.04, "it did not spin"


def test_what_has_come_is_not_lost_with_the_socket(dgrams, on_alarm):
    a, b = dgrams
    a.send(b"x")
    b.settimeout(10)
    on_alarm(b.close)
    assert [message[0] for message in recvmmsg(b, 4, 10, wait_all=True)] == [b"x"]


# ---- sending ----


def test_what_a_handler_appends_in_mid_send_is_kept(dgrams, on_alarm):
    a, b = dgrams
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            a.send(b"fill")
    a.settimeout(10)
    with SendBatch(4, 10) as batch:

        def handler() -> None:
            batch.append(b"late")
            recvmmsg(b, 1000, 10)

        batch.append(b"early")
        on_alarm(handler)
        assert batch.send(a) == 1
        assert len(batch) == 1
        assert batch.send(a) == 1
    assert [message[0] for message in recvmmsg(b, 1000, 10)][-2:] == [b"early", b"late"]


def test_an_iterator_of_control_messages_may_use_the_batch(dgrams):
    a, b = dgrams
    with SendBatch(4, 10, 64) as batch:

        def ancdata() -> Iterator:
            batch.append(b"inner")
            yield RIGHTS

        batch.append(b"outer", ancdata=ancdata())
        assert batch.send(a) == 2
    came = recvmmsg(b, 4, 10, 64)
    assert [(message[0], len(message[1])) for message in came] == [(b"inner", 0), (b"outer", 1)]
    os.close(array.array("i", came[1][1][0][2])[0])


@pytest.mark.parametrize("name", ("vlen", "bufsize"))
@pytest.mark.parametrize("kind", (SendBatch, RecvBatch))
def test_the_size_of_its_memory_cannot_be_changed(kind, name):
    with kind(4, 10) as batch:
        assert (batch.vlen, batch.bufsize) == (4, 10)
        with pytest.raises(AttributeError):
            setattr(batch, name, 1000)


def test_a_subclass_cannot_lie_about_it(dgrams):
    class Lying(SendBatch):
        bufsize = vlen = 1_000_000

    with Lying(2, 10) as batch, pytest.raises(ValueError, match="10 for a message"):
        batch.extend([b"x" * 11])


@pytest.mark.parametrize("kind", (SendBatch, RecvBatch))
def test_a_batch_cannot_be_copied(kind):
    with kind(4, 10) as batch, pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.copy(batch)


# ---- descriptors ----


def received_again(batch, sock, monkeypatch, name):
    """A signal handler receives with the batch just before it calls a function of C."""
    call = getattr(_recv_batch, name)

    def late(*args) -> int:
        monkeypatch.undo()
        batch.recv(sock)
        return call(*args)

    monkeypatch.setattr(_recv_batch, name, late)


def test_numbers_of_closed_descriptors_are_not_handed_out(dgrams, monkeypatch, open_fds):
    """A signal handler receives with the batch between the decoding and the handing over."""
    a, b = dgrams
    before = open_fds()
    with RecvBatch(4, 10, 64) as batch:
        for _ in range(2):
            lowsock.send_fds(a, [b"x"], [0])
        b.setblocking(False)
        assert batch.recv(b) == 2
        lowsock.send_fds(a, [b"x"], [0, 1])
        received_again(batch, b, monkeypatch, "_move_out")
        with pytest.raises(RuntimeError):
            batch.take_fds(0)
        assert len(open_fds() - before) == 2, "those that came last are the batch's"
        with batch.take_fds(0) as fds:
            assert open_fds() - before == set(fds)
    assert open_fds() == before


def test_numbers_of_closed_descriptors_are_not_lent(dgrams, monkeypatch):
    a, b = dgrams
    with RecvBatch(4, 10, 64) as batch:
        lowsock.send_fds(a, [b"x"], [0])
        assert batch.recv(b) == 1
        lowsock.send_fds(a, [b"x"], [0, 1])
        decode = Inbox.ancdata

        def late(*args):
            monkeypatch.undo()
            decoded = decode(*args)
            batch.recv(b)
            return decoded

        monkeypatch.setattr(Inbox, "ancdata", late)
        with pytest.raises(RuntimeError):
            batch.ancdata(0)
        assert len(batch.ancdata(0)[0][2]) == 8


def test_what_a_signal_handler_takes_is_not_given_back(dgrams, monkeypatch, open_fds):
    """It takes the descriptors of the message that is being taken: one of the two has them, and the batch has not."""
    a, b = dgrams
    before, taken = open_fds(), []
    with RecvBatch(4, 10, 64) as batch:
        lowsock.send_fds(a, [b"x"], [0, 1])
        batch.recv(b)
        move_out = _recv_batch._move_out

        def late(*args) -> int:
            monkeypatch.undo()
            taken.append(batch.take_fds(0))
            return move_out(*args)

        monkeypatch.setattr(_recv_batch, "_move_out", late)
        with pytest.raises(ValueError, match="the descriptors of message 0 have been taken"):
            batch.take_fds(0)
    with taken[0] as fds:
        assert open_fds() - before == set(fds)
        assert fds.left == 2


def test_of_two_threads_that_close_one_closes_the_descriptors(dgrams):
    """A number that is closed twice may be somebody else's by then."""
    a, b = dgrams
    stolen = 0
    for _ in range(60):
        with RecvBatch(4, 10, 2048) as batch:
            for _ in range(4):
                lowsock.send_fds(a, [b"x"], [0] * 250)
            batch.recv(b)
            struct, start = batch._memory.struct, threading.Barrier(2)

            def close(struct=struct, start=start) -> None:
                start.wait()
                lib.lowsock_inbox_close(struct)

            threads = [threading.Thread(target=close) for _ in range(2)]
            for thread in threads:
                thread.start()
            others = []
            while any(thread.is_alive() for thread in threads):
                if len(others) < 200:
                    others.append(os.dup(0))
            for thread in threads:
                thread.join()
            for fd in others:
                try:
                    os.close(fd)
                except OSError:
                    stolen += 1
    assert not stolen
