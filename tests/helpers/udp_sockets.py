# SPDX-License-Identifier: MIT
"""Pairs of UDP sockets, and datagrams that say where they stand."""

import os
import socket
import struct

import pytest

from lowsock import cmsg, udp

LINUX = os.uname().sysname == "Linux"
linux = pytest.mark.skipif(not LINUX, reason="segmentation offload is Linux's")
HOSTS = {"4": (socket.AF_INET, "127.0.0.1"), "6": (socket.AF_INET6, "::1")}
UNLEARNED = udp.Fallbacks(None, None, {})
TWO = {**{kind: (*where, where[1]) for kind, where in HOSTS.items()}, "mapped": (socket.AF_INET6, "::", "::ffff:127.0.0.1")}


class Two:
    """Two sockets, of which ``b`` is bound; ``to`` is b's address."""

    def __init__(self, kind):
        family, bound, host = TWO[kind]
        self.host = host
        self.a, self.b = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.a, self.b):
            if kind == "mapped":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sock.bind((bound, 0))
            sock.settimeout(10)
        self.to, self.back = ((host, *sock.getsockname()[1:]) for sock in (self.b, self.a))

    def close(self):
        self.a.close()
        self.b.close()


@pytest.fixture(params=TWO)
def two(request):
    made = Two(request.param)
    yield made
    made.close()


@pytest.fixture
def two4():
    made = Two("4")
    yield made
    made.close()


class Stuck:
    """A socket whose datagrams stay in the kernel, because ARP finds nobody, until `let_go`."""

    to = ("10.8.0.2", 9)

    def __init__(self, space, other):
        self._space = space
        space.link("cable", other)
        space.address("cable", "10.8.0.1/24")
        with space:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def let_go(self):
        self._space.ip("neigh", "replace", "10.8.0.2", "lladdr", "02:00:00:00:00:02", "dev", "cable")


@pytest.fixture
def in_flight(new_namespace):
    """Where sends by MSG_ZEROCOPY stay in flight."""
    made = Stuck(new_namespace(), new_namespace())
    yield made
    made.sock.close()
    made.other.close()


def bound(family, host):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else socket.SO_RCVBUF, 1 << 24
    )
    sock.bind((host, 0))
    sock.settimeout(10)
    if LINUX:
        cmsg.enable(sock, cmsg.Gro)
    return sock


@pytest.fixture(params=HOSTS)
def pair_of(request):
    a, b = bound(*HOSTS[request.param]), bound(*HOSTS[request.param])
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def pair4():
    a, b = bound(*HOSTS["4"]), bound(*HOSTS["4"])
    yield a, b
    a.close()
    b.close()


def numbered(size):
    """Bytes of which every four say where they stand."""
    return b"".join(struct.pack(">I", i) for i in range(size // 4 + 1))[:size]


def cut(data, segment):
    return [data[at : at + segment] for at in range(0, len(data), segment)] or [b""]


def receive(sock, count):
    """So many datagrams, and a check that there are no more."""
    receiver = udp.Endpoint(sock)
    got = []
    while len(got) < count:
        got += [each.data for each in receiver.recv()]
    timeout = sock.gettimeout()
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        receiver.recv()
    sock.settimeout(timeout)
    return got
