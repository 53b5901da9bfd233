# SPDX-License-Identifier: MIT
"""Sends of an endpoint by MSG_ZEROCOPY: they wait and fall back as all others do."""

import errno
import select
import socket
import struct
import sys
import threading

import pytest

from lowsock import constants, udp
from lowsock.udp import _sending as sending

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")


def numbered(size):
    return b"".join(struct.pack(">I", i) for i in range(size // 4 + 1))[:size]


@pytest.fixture
def pair():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        a.connect(b.getsockname())
        b.settimeout(10)
        yield a, b


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("segment", [None, 30_000, 10_000])
def test_ecn_that_is_refused_is_left_out_from_then_on(pair, monkeypatch, error, segment):
    """One datagram and many; what refuses are stand-ins, for the kernel of today takes it."""
    a, b = pair
    count = 3 if segment == 10_000 else 1
    by_zerocopy, by_copy, refusals = sending.Sending._send_zerocopy, sending._send_each, []

    def answer(control, call, *arguments):
        if struct.pack("ii", constants.IPPROTO_IP, constants.IP_TOS) not in control:
            return call(*arguments)
        refusals.append(call)
        return -error

    monkeypatch.setattr(sending.Sending, "_send_zerocopy", lambda *all: answer(all[2].buffer, by_zerocopy, *all))
    monkeypatch.setattr(sending, "_send_each", lambda *all: answer(all[4], by_copy, *all))
    with udp.Endpoint(a, zerocopy=True) as one:
        for _ in range(2):
            assert one.send(numbered(30_000), address=None, segment_size=segment, ecn=2) == 30_000
            assert b"".join(b.recv(65536) for _ in range(count)) == numbered(30_000)
        assert one.fallbacks == udp.Fallbacks(None, error, {})
        assert one._zerocopy.next_key == 1, "the second went by zero-copy"
    assert refusals == [by_zerocopy, by_copy]


@pytest.fixture
def stuck(new_namespace):
    """A namespace, and a socket that nothing leaves until `let_go` tells where its destination is."""
    space, other = new_namespace(), new_namespace()
    space.link("cable", other)
    space.address("cable", "10.8.0.1/24")
    with space:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    yield space, sock
    sock.close()


def let_go(space):
    space.ip("neigh", "replace", "10.8.0.2", "lladdr", "02:00:00:00:00:02", "dev", "cable")


@pytest.mark.parametrize("kind", ["zerocopy", "copied"])
def test_a_blocking_socket_waits_for_each_call(stuck, kind):
    """The first chunk fills the socket; the others want what it holds."""
    space, sock = stuck
    with udp.Endpoint(sock, zerocopy=kind == "zerocopy") as one:
        timer = threading.Timer(0.1, let_go, [space])
        timer.start()
        try:
            assert one.send(numbered(300_000), address=("10.8.0.2", 9), segment_size=1000) == 300_000
        finally:
            timer.join()


@pytest.mark.parametrize("way", ["flag", "non-blocking"])
def test_who_does_not_want_to_wait_gets_what_went(stuck, way):
    space, sock = stuck
    sock.setblocking(way == "flag")
    flags = socket.MSG_DONTWAIT if way == "flag" else 0
    with udp.Endpoint(sock, zerocopy=True) as one:
        sent = one.send(numbered(300_000), address=("10.8.0.2", 9), segment_size=1000, flags=flags)
        assert 0 < sent < 300_000
        with pytest.raises(BlockingIOError):
            one.send(numbered(300_000), address=("10.8.0.2", 9), segment_size=1000, flags=flags)
        let_go(space)
        select.select([], [sock], [], 5)


def test_a_timeout_is_for_the_first_datagram(stuck):
    space, sock = stuck
    sock.settimeout(0.05)
    with udp.Endpoint(sock, zerocopy=True) as one:
        assert 0 < one.send(numbered(300_000), address=("10.8.0.2", 9), segment_size=1000) < 300_000
        with pytest.raises(socket.timeout):
            one.send(numbered(300_000), address=("10.8.0.2", 9), segment_size=1000)
        let_go(space)
