# SPDX-License-Identifier: MIT
"""Datagrams in bulk over a bad line: what it delivers is what arrives."""

import importlib.util
import random
import socket
import struct
import sys
import threading
from collections import Counter
from functools import partial
from typing import Any, Callable

import pytest
from bad_line import BAD, Line, Lines, Rule
from places import LISTINGS

import lowsock
from lowsock import cmsg, udp

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tun devices and namespaces are Linux's")

NUMBER = struct.Struct("!I")
SIZE, COUNT = 1200, 400
Call = Callable[[], "list[bytes]"]


# ---- what is sent ----


def content(number: int, size: int) -> bytes:
    """The number, and bytes that only this number has."""
    noise = random.Random(number).getrandbits(8 * (size - NUMBER.size)).to_bytes(size - NUMBER.size, "big")
    return NUMBER.pack(number) + noise


ALIKE = [content(i, SIZE) for i in range(COUNT)]
SHORT_LAST = [content(i, SIZE if i % 40 != 39 else 300) for i in range(COUNT)]
MIXED = [content(i, random.Random(i).choice([5, 64, 700, 1200, 1400])) for i in range(COUNT)]


def send_bulk(sock: socket.socket, pieces: "list[bytes]", gso: bool = True) -> None:
    """40 in a call, of which the last may be shorter; by segmentation offload or without it."""
    endpoint = udp.Endpoint(sock, gso=gso)
    for i in range(0, len(pieces), 40):
        block = pieces[i : i + 40]
        assert endpoint.send(b"".join(block), address=None, segment_size=len(block[0])) == len(b"".join(block))


def send_each(sock: socket.socket, pieces: "list[bytes]") -> None:
    """A list with addresses; what did not go is sent again."""
    endpoint, to = udp.Endpoint(sock), sock.getpeername()
    rest = [(piece, to) for piece in pieces]
    while rest:
        rest = rest[endpoint.send_many(rest) :]


def send_messages(sock: socket.socket, pieces: "list[bytes]") -> None:
    messages = [([piece[:3], piece[3:]],) for piece in pieces]
    while messages:
        messages = messages[lowsock.sendmmsg(sock, messages) :]


def send_reused(sock: socket.socket, pieces: "list[bytes]") -> None:
    with lowsock.SendBatch(64, 1500) as batch:
        for i in range(0, len(pieces), 64):
            batch.extend(pieces[i : i + 64])
            while len(batch):
                batch.send(sock)


# ---- how it is received: by a callable that is there before anything comes, for GRO is a matter of the socket ----


def recv_split(sock: socket.socket, gro: bool = True) -> "Call":
    endpoint = udp.Endpoint(sock, gro=gro)
    return lambda: [datagram.data for datagram in endpoint.recv()]


def recv_joined(sock: socket.socket) -> "Call":
    endpoint = udp.Endpoint(sock)

    def call() -> "list[bytes]":
        came = endpoint.recv_coalesced()
        return [datagram.data for datagram in came.split()]

    return call


def recv_into(sock: socket.socket) -> "Call":
    endpoint, memory = udp.Endpoint(sock), bytearray(1 << 16)

    def call() -> "list[bytes]":
        came = endpoint.recv_into([memory])
        return [bytes(memory[i : min(i + came.segment_size, came.nbytes)]) for i in range(0, came.nbytes, came.segment_size)]

    return call


def recv_messages(sock: socket.socket) -> "Call":
    return lambda: [data for data, ancdata, flags, address in lowsock.recvmmsg(sock, 64, 2048)]


def recv_reused(sock: socket.socket) -> "Call":
    batch = lowsock.RecvBatch(64, 2048)

    def call() -> "list[bytes]":
        batch.recv(sock)
        return [bytes(view) for view, address in batch]

    return call


SENDERS: "dict[str, Any]" = {
    "offload": send_bulk,
    "no-gso": partial(send_bulk, gso=False),
    "many": send_each,
    "sendmmsg": send_messages,
    "SendBatch": send_reused,
}
RECEIVERS: "dict[str, Any]" = {
    "recv": recv_split,
    "recv_coalesced": recv_joined,
    "recv_into": recv_into,
    "no-gro": partial(recv_split, gro=False),
    "recvmmsg": recv_messages,
    "RecvBatch": recv_reused,
}
ROWS = {"alike": (ALIKE, SENDERS), "short-last": (SHORT_LAST, SENDERS), "mixed": (MIXED, ("many", "sendmmsg", "SendBatch"))}
CASES = [(row, sender) for row, (_, senders) in ROWS.items() for sender in senders]


def receive(call: Call, count: int) -> "list[bytes]":
    """Datagrams until there are ``count``."""
    got: list[bytes] = []
    while len(got) < count:
        got += call()
    return got


def over_the_line(lines: Lines, line: Line, version: int, row: str, sender: str, receiver: str) -> "list[bytes]":
    a, b = lines.connected(version)
    call = RECEIVERS[receiver](b)
    SENDERS[sender](a, ROWS[row][0])
    line.carry()
    got = receive(call, len(line.delivered))
    b.setblocking(False)
    with pytest.raises(BlockingIOError):
        call()
    return got


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize(("row", "sender"), CASES)
def test_what_the_line_delivers_arrives_as_it_was_sent(lines, version, row, sender):
    """Nothing else, nothing altered, nothing cut in two or joined, as often and in the order that the line delivered it."""
    for receiver in RECEIVERS:
        line = lines.line(BAD)
        got = over_the_line(lines, line, version, row, sender, receiver)
        assert got == [packet.payload for packet in line.delivered], receiver
        assert {*got} <= {*ROWS[row][0]}
        assert min(line.lost, line.doubled, line.reordered) > 0, "the line was a good one"


@pytest.mark.parametrize("version", (4, 6))
def test_offload_on_both_sides(lines, version):
    """The kernel cuts what is sent for a device that cannot, and joins what the device brings."""
    a, b = lines.connected(version)
    sender, receiver, line = udp.Endpoint(a), udp.Endpoint(b), lines.line(Rule())
    assert sender.send(b"".join(ALIKE[:40]), address=None, segment_size=SIZE) == 40 * SIZE
    line.carry()
    assert sender.max_gso_segments > 1, "this device was refused"
    assert [packet.payload for packet in line.delivered] == ALIKE[:40]
    pieces: list[int] = []
    while sum(pieces) < 40:
        pieces.append(len(receiver.recv_coalesced().split()))
    assert len(pieces) < 40, "nothing was joined"


@pytest.mark.parametrize("receiver", ("recv", "recv_coalesced", "recv_into"))
def test_bursts_of_one_shape(lines, receiver):
    """A short datagram ends what can be joined, and is there each time."""
    a, b = lines.connected(4)
    line, burst, call = lines.line(Rule()), [*ALIKE[:4], content(4, 300)], RECEIVERS[receiver](b)
    for _ in range(8):
        udp.Endpoint(a).send(b"".join(burst), address=None, segment_size=SIZE)
    line.carry()
    assert receive(call, 40) == burst * 8


@pytest.mark.parametrize("gro", (True, False))
@pytest.mark.parametrize("version", (4, 6))
def test_each_datagram_has_its_own_mark(lines, version, gro):
    """One that a router marked is not joined with those that it left alone."""
    a, b = lines.connected(version)
    sender, receiver, line = udp.Endpoint(a), udp.Endpoint(b, gro=gro), lines.line(BAD._replace(marked=0.2))
    for i in range(0, COUNT, 40):
        sender.send(b"".join(ALIKE[i : i + 40]), address=None, segment_size=SIZE, ecn=cmsg.ECN.ECT_0)
    line.carry()
    got: list[udp.Datagram] = []
    while len(got) < len(line.delivered):
        got += receiver.recv()
    assert [(datagram.data, datagram.ecn) for datagram in got] == [(packet.payload, packet.ecn) for packet in line.delivered]
    assert Counter(packet.ecn for packet in line.delivered).keys() == {cmsg.ECN.ECT_0, cmsg.ECN.CE}


@pytest.mark.parametrize("version", (4, 6))
def test_both_ways_at_once(lines, version):
    """What one side answers, by whole bursts, comes back to the other."""
    a, b = lines.connected(version)
    asking, answering, line = udp.Endpoint(a), udp.Endpoint(b), lines.line(BAD)
    asking.send(b"".join(ALIKE[:40]), address=None, segment_size=SIZE)
    line.carry()
    there = len(line.delivered)
    left = there
    while left:
        came = answering.recv_coalesced()
        assert answering.send(came.data, address=None, segment_size=came.segment_size) == len(came.data)
        left -= len(came.split())
    line.carry()
    back = line.delivered[there:]
    got: list[bytes] = []
    while len(got) < len(back):
        got += [datagram.data for datagram in asking.recv()]
    assert got == [packet.payload for packet in back]
    assert {*got} <= {*ALIKE[:40]}


@pytest.mark.parametrize("gso", (True, False))
@pytest.mark.parametrize("version", (4, 6))
def test_the_file_transfer_of_the_docs_gets_through(lines, version, gso):
    transfer = load_listing("file_transfer")
    data = random.Random(3).getrandbits(8 * 300_000).to_bytes(300_000, "big")
    a, b = lines.connected(version)
    a.settimeout(0.02)
    b.settimeout(1)
    line, running, results = lines.line(BAD._replace(marked=0.02)), threading.Event(), []
    running.set()
    carrier = threading.Thread(target=line.serve, args=(running,))
    sender = threading.Thread(target=lambda: results.append(transfer.send_file(udp.Endpoint(a, gso=gso), data)))
    carrier.start()
    sender.start()
    try:
        assert transfer.receive_file(udp.Endpoint(b)) == data
    finally:
        sender.join()
        running.clear()
        carrier.join()
    ((sent, marked),) = results
    assert sent > len(transfer.pieces(data))
    assert marked > 0
    assert line.lost > 0


def load_listing(name: str) -> Any:
    path = LISTINGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
