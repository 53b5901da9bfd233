# SPDX-License-Identifier: MIT
"""Batches on streams, which may take a part of a message: no byte goes twice, none is left out."""

import array
import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

import lowsock

PIECES = [bytes([i]) * 20_000 for i in range(1, 60)]
MESSAGES = [([piece],) for piece in PIECES]
WHOLE = b"".join(PIECES)


@pytest.fixture
def stream() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        yield a, b


class Reader(threading.Thread):
    """Reads to the end of a stream."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self.data = b""
        self.start()

    def run(self) -> None:
        while piece := self._sock.recv(50_000):
            self.data += piece

    def all(self) -> bytes:
        self.join(60)
        return self.data


def lying(sock: socket.socket) -> socket.socket:
    """A socket object that calls a stream a datagram socket."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, os.dup(sock.fileno()))


def send_all(sock: socket.socket, messages: list) -> None:
    """Only the first message of a call is waited for."""
    while messages:
        sent = lowsock.sendmmsg(sock, messages)
        assert sent > 0
        messages = messages[sent:]


@pytest.mark.parametrize("timeout", (None, 30.0), ids=("blocking", "timeout"))
@pytest.mark.parametrize("honest", (True, False), ids=("honest", "lying"))
def test_a_stream_is_sent_whole(stream, timeout, honest):
    a, b = stream
    reader = Reader(b)
    sock = a if honest else lying(a)
    sock.settimeout(timeout)
    send_all(sock, MESSAGES)
    if not honest:
        sock.close()
    a.shutdown(socket.SHUT_WR)
    assert reader.all() == WHOLE


def drained(sock: socket.socket) -> bytes:
    found = b""
    while True:
        try:
            found += sock.recv(2**20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found


@pytest.mark.parametrize("timeout", (0.0, 0.01), ids=("non-blocking", "timeout"))
def test_bytes_that_went_before_a_failure_are_counted(stream, timeout):
    """Where a part of a message has gone and no more can go, no count of messages would tell."""
    a, b = stream
    a.settimeout(timeout)
    gone, left = 0, [([bytearray(WHOLE[:5_000])], [], None), ([WHOLE[5_000:60_000], bytearray(WHOLE[60_000:])],)]
    with pytest.raises((BlockingIOError, socket.timeout)) as caught:
        lowsock.sendmmsg(a, left)
    gone = caught.value.characters_written
    assert 5_000 < gone < len(WHOLE)
    assert drained(b) == WHOLE[:gone]


def test_a_failure_with_nothing_gone_counts_no_bytes(stream):
    a, b = stream
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            lowsock.sendmmsg(a, [([bytes(1)],)] * 10)
    with pytest.raises(BlockingIOError) as caught:
        lowsock.sendmmsg(a, [([bytes(1)],)] * 10)
    with pytest.raises(AttributeError):
        caught.value.characters_written  # noqa: B018


def test_descriptors_go_with_the_first_byte_and_not_again(stream, open_fds):
    a, b = stream
    before = open_fds()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [a.fileno()]))]
    sender = threading.Thread(target=send_all, args=(a, [([WHOLE], rights), ([b"end"], rights)]))
    for sock in stream:
        sock.settimeout(30)
    sender.start()
    data, fds = b"", []
    while not data.endswith(b"end"):
        piece, some, _, _ = lowsock.recv_fds(b, 50_000, 4)
        data += piece
        fds += some
    sender.join(30)
    for fd in fds:
        os.close(fd)
    assert data == WHOLE + b"end"
    assert len(fds) == 2
    assert open_fds() == before


def test_a_batch_keeps_its_place_within_a_message(stream):
    a, b = stream
    a.setblocking(False)
    received = b""
    with lowsock.SendBatch(len(PIECES), len(PIECES[0])) as batch:
        batch.extend(PIECES)
        while len(batch):
            try:
                batch.send(a)
            except BlockingIOError:
                received += drained(b)
        assert received + drained(b) == WHOLE


def test_a_message_of_which_a_part_has_gone_is_not_skipped(stream):
    a, b = stream
    a.setblocking(False)
    with lowsock.SendBatch(1, len(WHOLE)) as batch:
        batch.append(WHOLE)
        with pytest.raises(BlockingIOError):
            batch.send(a)
        with pytest.raises(ValueError, match="a stream has taken"):
            batch.skip()
        batch.clear()
        drained(b)
        batch.append(b"anew")
        assert batch.send(a) == 1
        assert drained(b) == b"anew"


def test_messages_of_a_stream_are_received_as_they_lie(stream):
    a, b = stream
    a.sendall(b"0123456789")
    assert [message[0] for message in lowsock.recvmmsg(b, 3, 4)] == [b"0123", b"4567", b"89"]


def test_the_end_of_a_stream_fills_the_batch(stream):
    a, b = stream
    a.sendall(b"last")
    a.close()
    assert [message[0] for message in lowsock.recvmmsg(b, 3, 10)] == [b"last", b"", b""]
