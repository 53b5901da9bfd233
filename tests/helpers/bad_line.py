# SPDX-License-Identifier: MIT
"""Datagrams in bulk over a bad line: it loses, doubles and reorders by a rule, and marks what may be marked.

Two network namespaces with a tun device each. What one hands to its device lies there until `Line.carry` takes it to the
other: so all happens in turn, and each run is the same. The devices join what they get (GRO), as a network card does.
"""

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable, NamedTuple

import pytest

TUNSETIFF, IFF_TUN, IFF_NAPI, IFF_NO_PI = 0x400454CA, 0x0001, 0x0010, 0x1000
JOIN_NS = 2_000_000  # how long the device keeps what could be joined with more
HOSTS = {4: ("10.9.0.1", "10.9.0.2"), 6: ("fd09::1", "fd09::2")}
PREFIX = {4: 24, 6: 64}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


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


class Lines(NamedTuple):
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
def lines(new_namespace: Callable[[], Any]) -> "Iterator[Lines]":
    with ExitStack() as stack:
        namespaces = [new_namespace(), new_namespace()]
        ends = []
        for i, namespace in enumerate(namespaces):
            ends.append(open_tun(namespace))
            stack.callback(os.close, ends[-1])
            namespace.ip("link", "set", "line", "mtu", "1500", "txqueuelen", "5000", "up")
            namespace.address("line", *(f"{HOSTS[v][i]}/{PREFIX[v]}" for v in (4, 6)))
            let_join(namespace)
        yield Lines(ends, namespaces, stack)
