# SPDX-License-Identifier: MIT
"""Datagrams in bulk over a bad line: it loses, doubles and reorders by a rule, and marks what may be marked.

Two network namespaces with a tun device each. What one hands to its device lies there until `Line.carry` takes it to the
other: so all happens in turn, and each run is the same. The devices join what they get (GRO), as a network card does.
"""

import fcntl
import importlib.util
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

import lowsock
from lowsock import cmsg, udp

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tun devices and namespaces are Linux's")

TUNSETIFF, IFF_TUN, IFF_NAPI, IFF_NO_PI = 0x400454CA, 0x0001, 0x0010, 0x1000
JOIN_NS = 2_000_000  # how long the device keeps what could be joined with more
HOSTS = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}
PREFIX = {4: 24, 6: 64}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
NUMBER = struct.Struct("!I")
SIZE, COUNT = 1200, 400
Call = Callable[[], "list[bytes]"]


# ---- packets ----


class Packet(NamedTuple):
    """An IP packet that carries a UDP datagram."""

    data: bytes
    version: int

    @property
    def payload(self) -> bytes:
        return self.data[self._header() + 8 :]

    @property
    def ecn(self) -> int:
        return (self.data[1] if self.version == 4 else self.data[1] >> 4) & 3

    def _header(self) -> int:
        return (self.data[0] & 15) * 4 if self.version == 4 else 40

    def marked(self) -> "Packet":
        """The same with the mark of congestion."""
        data = bytearray(self.data)
        data[1] |= 3 if self.version == 4 else 3 << 4
        if self.version == 4:
            data[10:12] = bytes(2)
            data[10:12] = (~ones_sum(bytes(data[: self._header()])) & 0xFFFF).to_bytes(2, "big")
        return self._replace(data=bytes(data))


def ones_sum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def parsed(data: bytes) -> "Packet | None":
    """None for what is not UDP: the systems look for routers by themselves."""
    version = data[0] >> 4
    protocol = data[9] if version == 4 else data[6]
    return Packet(data, version) if protocol == socket.IPPROTO_UDP else None


# ---- the line ----


class Rule(NamedTuple):
    """Shares of packets to which something happens."""

    lost: float = 0.0
    doubled: float = 0.0
    held_back: float = 0.0  # each goes behind the next one
    marked: float = 0.0  # of those that may be


BAD = Rule(lost=0.03, doubled=0.03, held_back=0.03)


class Line:
    """Carries packets between two tun devices as a rule says, and keeps a list of what it delivered."""

    def __init__(self, ends: "list[int]", rule: Rule, seed: int) -> None:
        self.ends, self.rule, self.chance = ends, rule, random.Random(seed)
        self.delivered: list[Packet] = []
        self.lost = self.doubled = self.reordered = 0

    def carry(self) -> None:
        """Takes all over that lies at either end."""
        for source, sink in (self.ends, self.ends[::-1]):
            held: list[Packet] = []
            for packet in self._waiting(source):
                for each in self._fate(packet, held):
                    os.write(sink, each.data)
                    self.delivered.append(each)
            for each in held:
                os.write(sink, each.data)
                self.delivered.append(each)

    def _waiting(self, source: int) -> "Iterator[Packet]":
        while True:
            try:
                packet = parsed(os.read(source, 1 << 16))
            except BlockingIOError:
                return
            if packet:
                yield packet

    def _fate(self, packet: Packet, held: "list[Packet]") -> "list[Packet]":
        roll, rule = self.chance.random(), self.rule
        if packet.ecn and self.chance.random() < rule.marked:
            packet = packet.marked()
        if roll < rule.lost:
            self.lost += 1
            return []
        if roll < rule.lost + rule.held_back:
            self.reordered += 1
            held.append(packet)
            return []
        behind, held[:] = held[:], []
        if roll > 1 - rule.doubled:
            self.doubled += 1
            return [packet, packet, *behind]
        return [packet, *behind]

    def serve(self, running: threading.Event) -> None:
        poll = select.poll()
        for end in self.ends:
            poll.register(end, select.POLLIN)
        while running.is_set():
            poll.poll(20)
            self.carry()


def open_tun(namespace: Any) -> int:
    with namespace:  # the device belongs where the file was opened
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            pytest.skip(f"no tun device can be had: {error}")
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"line", IFF_TUN | IFF_NAPI | IFF_NO_PI))
    return fd


def let_join(namespace: Any) -> None:
    """The device waits a moment for more to join with what it has."""
    settings = "/sys/class/net/line"
    script = f"echo {JOIN_NS} > {settings}/gro_flush_timeout; echo 100 > {settings}/napi_defer_hard_irqs"
    subprocess.run(["ip", "netns", "exec", namespace.name, "sh", "-c", script], check=True, capture_output=True)


class Setup(NamedTuple):
    """Makes lines, and sockets in either namespace."""

    ends: "list[int]"
    namespaces: "list[Any]"
    stack: ExitStack

    def line(self, rule: Rule, seed: int = 1) -> Line:
        return Line(self.ends, rule, seed)

    def socket(self, end: int, version: int) -> socket.socket:
        with self.namespaces[end]:
            sock = self.stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 1 << 24)
        sock.settimeout(10)
        sock.bind((HOSTS[version][end], 0))
        return sock

    def connected(self, version: int) -> "tuple[socket.socket, socket.socket]":
        pair = self.socket(0, version), self.socket(1, version)
        pair[0].connect(pair[1].getsockname())
        pair[1].connect(pair[0].getsockname())
        return pair


@pytest.fixture
def setup(new_namespace: Callable[[], Any]) -> "Iterator[Setup]":
    with ExitStack() as stack:
        namespaces = [new_namespace(), new_namespace()]
        ends = []
        for i, namespace in enumerate(namespaces):
            ends.append(open_tun(namespace))
            stack.callback(os.close, ends[-1])
            namespace.ip("link", "set", "line", "mtu", "1500", "txqueuelen", "5000", "up")
            namespace.address("line", *(f"{HOSTS[v][i]}/{PREFIX[v]}" for v in (4, 6)))
            let_join(namespace)
        yield Setup(ends, namespaces, stack)


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
        assert endpoint.send(b"".join(block), segment_size=len(block[0])) == len(block)


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
        assert len(came.datagrams) == came.segments
        return [datagram.data for datagram in came.datagrams]

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
        batch.receive(sock)
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


def over_the_line(setup: Setup, line: Line, version: int, row: str, sender: str, receiver: str) -> "list[bytes]":
    a, b = setup.connected(version)
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
def test_what_the_line_delivers_arrives_as_it_was_sent(setup, version, row, sender):
    """Nothing else, nothing altered, nothing cut in two or joined, as often and in the order that the line delivered it."""
    for receiver in RECEIVERS:
        line = setup.line(BAD)
        got = over_the_line(setup, line, version, row, sender, receiver)
        assert got == [packet.payload for packet in line.delivered], receiver
        assert {*got} <= {*ROWS[row][0]}
        assert min(line.lost, line.doubled, line.reordered) > 0, "the line was a good one"


@pytest.mark.parametrize("version", (4, 6))
def test_offload_on_both_sides(setup, version):
    """The kernel cuts what is sent for a device that cannot, and joins what the device brings."""
    a, b = setup.connected(version)
    sender, receiver, line = udp.Endpoint(a), udp.Endpoint(b), setup.line(Rule())
    assert sender.send(b"".join(ALIKE[:40]), segment_size=SIZE) == 40
    line.carry()
    assert sender.max_gso_segments > 1, "this device was refused"
    assert [packet.payload for packet in line.delivered] == ALIKE[:40]
    pieces: list[int] = []
    while sum(pieces) < 40:
        pieces.append(receiver.recv_coalesced().segments)
    assert len(pieces) < 40, "nothing was joined"


@pytest.mark.parametrize("receiver", ("recv", "recv_coalesced", "recv_into"))
def test_bursts_of_one_shape(setup, receiver):
    """A short datagram ends what can be joined, and is there each time."""
    a, b = setup.connected(4)
    line, burst, call = setup.line(Rule()), [*ALIKE[:4], content(4, 300)], RECEIVERS[receiver](b)
    for _ in range(8):
        udp.Endpoint(a).send(b"".join(burst), segment_size=SIZE)
    line.carry()
    assert receive(call, 40) == burst * 8


@pytest.mark.parametrize("gro", (True, False))
@pytest.mark.parametrize("version", (4, 6))
def test_each_datagram_has_its_own_mark(setup, version, gro):
    """One that a router marked is not joined with those that it left alone."""
    a, b = setup.connected(version)
    sender, receiver, line = udp.Endpoint(a), udp.Endpoint(b, gro=gro), setup.line(BAD._replace(marked=0.2))
    for i in range(0, COUNT, 40):
        sender.send(b"".join(ALIKE[i : i + 40]), segment_size=SIZE, ecn=cmsg.ECN.ECT_0)
    line.carry()
    got: list[udp.Datagram] = []
    while len(got) < len(line.delivered):
        got += receiver.recv()
    assert [(datagram.data, datagram.ecn) for datagram in got] == [(packet.payload, packet.ecn) for packet in line.delivered]
    assert Counter(packet.ecn for packet in line.delivered).keys() == {cmsg.ECN.ECT_0, cmsg.ECN.CE}


@pytest.mark.parametrize("version", (4, 6))
def test_both_ways_at_once(setup, version):
    """What one side answers, by whole bursts, comes back to the other."""
    a, b = setup.connected(version)
    asking, answering, line = udp.Endpoint(a), udp.Endpoint(b), setup.line(BAD)
    asking.send(b"".join(ALIKE[:40]), segment_size=SIZE)
    line.carry()
    there = len(line.delivered)
    left = there
    while left:
        came = answering.recv_coalesced()
        left -= answering.send(came.data, segment_size=came.segment_size)
    line.carry()
    back = line.delivered[there:]
    got: list[bytes] = []
    while len(got) < len(back):
        got += [datagram.data for datagram in asking.recv()]
    assert got == [packet.payload for packet in back]
    assert {*got} <= {*ALIKE[:40]}


@pytest.mark.parametrize("gso", (True, False))
@pytest.mark.parametrize("version", (4, 6))
def test_the_file_transfer_of_the_docs_gets_through(setup, version, gso):
    transfer = load_listing("file_transfer")
    data = random.Random(3).getrandbits(8 * 300_000).to_bytes(300_000, "big")
    a, b = setup.connected(version)
    a.settimeout(0.02)
    b.settimeout(1)
    line, running, results = setup.line(BAD._replace(marked=0.02)), threading.Event(), []
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
    path = Path(__file__).parent.parent / "docs" / "listings" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
