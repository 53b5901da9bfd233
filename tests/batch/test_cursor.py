# SPDX-License-Identifier: MIT
"""SendBatch with others at work in the middle of a call: nothing goes twice, nothing is lost without a word."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from lowsock import RecvBatch, SendBatch, constants, recvmmsg
from lowsock._batch import outbox as _outbox
from lowsock._batch import send_batch as _send_batch
from lowsock._system.ffi import lib

PIECES = lib.LOWSOCK_PIECES


@pytest.fixture
def dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        b.setblocking(False)
        yield a, b


def received(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(2**17))
        except BlockingIOError:
            return found


def again(batch: SendBatch, sock: socket.socket) -> None:
    batch.send(sock)
    batch.append(b"late")


def anew(batch: SendBatch, sock: socket.socket) -> None:
    batch.clear()
    batch.extend([b"new", b"newer"])


# What a handler does with a batch of b"1" and b"2": what the send that it came into returns, what that and the handler have
# sent by then, and what goes with the next send.
HANDLERS: dict[str, tuple[Callable[[SendBatch, socket.socket], Any], int, list[bytes], list[bytes]]] = {
    "clears": (lambda batch, sock: batch.clear(), 0, [], []),
    "clears and fills": (anew, 0, [], [b"new", b"newer"]),
    "sends": (lambda batch, sock: batch.send(sock), 0, [b"1", b"2"], []),
    "sends and appends": (again, 0, [b"1", b"2"], [b"late"]),
    "appends": (lambda batch, sock: batch.append(b"late"), 2, [b"1", b"2"], [b"late"]),
    "skips": (lambda batch, sock: batch.skip(), 1, [b"2"], []),
    "closes": (lambda batch, sock: batch.close(), 2, [b"1", b"2"], []),
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_before_the_system_call(dgrams, monkeypatch, kind):
    """`send` sends what waited when it began, without what the handler cleared or sent, and counts its own."""
    handler, returned, sent, rest = HANDLERS[kind]
    a, b = dgrams
    batch = SendBatch(4, 10)
    batch.extend([b"1", b"2"])
    offer = _send_batch.send_pieces

    def late(*args: Any) -> int:
        monkeypatch.setattr(_send_batch, "send_pieces", offer)
        handler(batch, a)
        return offer(*args)

    monkeypatch.setattr(_send_batch, "send_pieces", late)
    assert batch.send(a) == returned
    assert received(b) == sent
    if kind != "closes":
        assert len(batch) == len(rest)
        assert batch.send(a) == len(rest)
        assert received(b) == rest


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_after_the_system_call(dgrams, monkeypatch, kind):
    """What has gone has gone, whatever the handler does."""
    handler = HANDLERS[kind][0]
    rest = {"clears and fills": [b"new", b"newer"], "sends and appends": [b"late"], "appends": [b"late"]}.get(kind, [])
    a, b = dgrams
    batch = SendBatch(4, 10)
    batch.extend([b"1", b"2"])
    offer = _send_batch.send_pieces

    def early(*args: Any) -> int:
        monkeypatch.setattr(_send_batch, "send_pieces", offer)
        answer = offer(*args)
        if kind != "skips":
            handler(batch, a)
        return answer

    monkeypatch.setattr(_send_batch, "send_pieces", early)
    assert batch.send(a) == 2
    assert received(b) == [b"1", b"2"]
    if kind != "closes":
        assert len(batch) == len(rest)
        assert batch.send(a) == len(rest)
        assert received(b) == rest


@pytest.mark.parametrize("kind", ("clears", "clears and fills", "sends", "sends and appends"))
def test_a_handler_between_the_parts_of_a_large_batch(dgrams, monkeypatch, kind):
    """The first part has gone by the time it runs."""
    handler = HANDLERS[kind][0]
    a, b = dgrams
    a.setsockopt(socket.SOL_SOCKET, constants.SO_SNDBUFFORCE, 2**22)
    a.setblocking(False)
    pieces, arrived = [b"%d" % i for i in range(2 * PIECES)], []
    batch, offer = SendBatch(2 * PIECES, 10), _send_batch.send_pieces
    batch.extend(pieces)
    calls = 0

    def counted(*args: Any) -> int:
        nonlocal calls
        calls += 1
        arrived.extend(received(b))  # an AF_UNIX queue holds few
        if calls == 3:
            handler(batch, a)
        return offer(*args)

    monkeypatch.setattr(_send_batch, "send_pieces", counted)
    sent = 0
    while len(batch):
        try:
            sent += batch.send(a)
        except BlockingIOError:
            arrived.extend(received(b))
    arrived.extend(received(b))
    assert len(arrived) == len(set(arrived)), "nothing went twice"
    old = [piece for piece in arrived if piece in set(pieces)]
    assert old == pieces[: len(old)], "nothing was left out"
    assert kind.startswith("clears") or len(old) == len(pieces)


def test_a_batch_in_use_is_not_cleared(dgrams):
    """Another thread, in its system call, has the cursor."""
    a, b = dgrams
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    batch = SendBatch(PIECES, 1000)
    batch.extend([bytes(1000)] * PIECES)
    thread = threading.Thread(target=lambda: batch.send(a))
    thread.start()
    try:
        while not batch._memory.struct.busy:
            pass
        for use in (batch.clear, batch.skip, lambda: batch.send(a)):
            with pytest.raises(RuntimeError, match="in use"):
                use()
    finally:
        while thread.is_alive():
            received(b)
    thread.join()


# ---- data ----


@pytest.mark.parametrize("count", (1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000))
@pytest.mark.parametrize("size", (lambda i: 20, lambda i: i % 21, lambda i: 0))
def test_each_message_has_its_own_bytes_at_every_count(udp_pair, count, size):
    """Few are joined, many are handed over one by one, more than that go in parts; of one size or of many."""
    option = getattr(constants, "SO_RCVBUFFORCE", socket.SO_RCVBUF)
    udp_pair.b.setsockopt(socket.SOL_SOCKET, option, 2**24)
    pieces = [os.urandom(size(i)) for i in range(count)]
    with SendBatch(count, 20) as batch, RecvBatch(count, 20) as into:
        for _ in range(3):  # the third time by what was kept of the second
            batch.extend(pieces)
            assert batch.send(udp_pair.a) == count
            assert into.recv(udp_pair.b) == count
            assert [data for data, _ in into.messages()] == pieces
            assert [bytes(view) for view, _ in into] == pieces


def test_large_messages_are_not_joined(udp_pair):
    pieces = [bytes([i]) * (_outbox.JOIN_SIZE + 1) for i in range(3)]
    with SendBatch(3, len(pieces[0])) as batch:
        batch.extend(pieces)
        assert batch.send(udp_pair.a) == 3
    assert [message[0] for message in recvmmsg(udp_pair.b, 3, 2**16)] == pieces


def test_a_change_of_sizes_is_seen(udp_pair):
    """All of one size, then of another, then of several, then of the first again."""
    with SendBatch(3, 20) as batch, RecvBatch(3, 20) as into:
        for sizes in ([5, 5, 5], [5, 5, 5], [7, 7, 7], [7, 8, 7], [5, 5, 5], [5, 5], [5, 5, 5]):
            pieces = [os.urandom(size) for size in sizes]
            batch.extend(pieces)
            batch.send(udp_pair.a)
            into.recv(udp_pair.b)
            assert [data for data, _ in into.messages()] == pieces
            assert [bytes(view) for view, _ in into] == pieces


def test_an_empty_batch_keeps_nothing(udp_pair):
    """What was sent is the caller's alone again."""

    with SendBatch(4, 10) as batch:
        for fill in (lambda: batch.append(b"x"), lambda: batch.extend([b"x", b"y"])):
            fill()
            batch.send(udp_pair.a)
            assert batch._queue.pieces == []


# ---- addresses ----


@pytest.mark.parametrize("size", (127, 1000))
def test_an_address_that_is_too_long_is_named(size):
    """No more than a struct sockaddr_storage; it would run into the next one's place."""
    assert len(_outbox.encode_named(1, 77, (77, bytes(126)))) <= lib.LOWSOCK_SOCKADDR
    with pytest.raises(ValueError, match=r"messages\[1\] address .*is too long: \d+ bytes"):
        _outbox.encode_named(1, 77, (77, bytes(size)))


@pytest.mark.parametrize(
    ("family", "host", "other"), ((socket.AF_INET6, "127.0.0.1", "AF_INET"), (socket.AF_INET, "::1", "AF_INET6"))
)
def test_an_address_of_another_family_is_not_called_a_name(family, host, other):
    with socket.socket(family, socket.SOCK_DGRAM) as sock, SendBatch(1, 10) as batch:
        batch.append(b"x", address=(host, 9))
        with pytest.raises(ValueError, match=rf"of the socket's family, '{host}' is of {other}$"):
            batch.send(sock)


def test_an_address_does_not_outlive_its_queue(udp_pair, monkeypatch):
    """Placed, then cleared before it was sent: the same places are used by messages that have none."""
    with SendBatch(2, 10) as batch, socket.socket(udp_pair.family, socket.SOCK_DGRAM) as c:
        batch.extend([b"1", b"2"], address=udp_pair.b.getsockname())
        monkeypatch.setattr(_send_batch, "send_pieces", lambda *args: -errno.ENETDOWN)
        with pytest.raises(OSError, match="Network is down"):
            batch.send(c)
        monkeypatch.undo()
        batch.clear()
        batch.extend([b"3", b"4"])
        with pytest.raises(OSError, match="Destination address required"):
            batch.send(c)


# ---- what the kernel does ----


def test_a_peek_shows_the_first_message_each_time(dgrams):
    """The documentation says so; nothing is taken."""
    a, b = dgrams
    for data in (b"1", b"2"):
        a.send(data)
    assert [message[0] for message in recvmmsg(b, 3, 10, 0, socket.MSG_PEEK)] == [b"1"] * 3
    with RecvBatch(3, 10) as batch:
        assert batch.recv(b, flags=socket.MSG_PEEK) == 3
        assert [data for data, _ in batch.messages()] == [b"1"] * 3
    assert received(b) == [b"1", b"2"]


@pytest.mark.parametrize("end", ("shutdown", "close"))
def test_waiting_for_all_ends_with_the_peer(end):
    """Nothing more can come, and a call that would wait for it would wait for ever."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        b.settimeout(10)
        a.send(b"last")
        a.shutdown(socket.SHUT_WR) if end == "shutdown" else a.close()
        assert recvmmsg(b, 4, 10, wait_all=True)[0][0] == b"last"


# ---- the object ----


def test_a_batch_is_not_made_anew_over_its_descriptors():
    with RecvBatch(1, 10, 64) as batch:
        with pytest.raises(RuntimeError, match="made once"):
            batch.__init__(1, 10)  # type: ignore[misc]
        assert not batch.closed
