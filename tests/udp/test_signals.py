# SPDX-License-Identifier: MIT
"""Signals in the midst of sends that have to wait: nothing goes twice, and nothing that was counted is missing."""

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict

import pytest

from lowsock import cmsg, udp

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's")

SIZE, COUNT = 1000, 120
TURNS, MOST_TURNS = 20, 500  # as many more as it takes until handlers came in time and did not
HEAD = struct.Struct(">II")


class Interrupted(Exception):
    """What the handler raises."""


@pytest.fixture
def slow(new_namespace):
    """A sender behind a line of 60 megabits, of which little fits into its socket, and a receiver."""
    if not shutil.which("tc"):
        pytest.skip("tc(8) is not there")
    space, other = new_namespace(), new_namespace()
    space.link("cable", other)
    space.address("cable", "10.8.0.1/24")
    other.address("cable", "10.8.0.2/24")
    shape = ["tc", "-n", space.name, "qdisc", "add", "dev", "cable", "root", "tbf"]
    try:
        subprocess.run([*shape, "rate", "60mbit", "burst", "20kb", "latency", "1s"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no queueing discipline can be had: {error.stderr!r}")
    with space:
        a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other:
        b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        b.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 1 << 26)
        b.bind(("10.8.0.2", 0))
        a.connect(b.getsockname())
        a.send(b"")  # ARP
        b.settimeout(10)
        assert b.recv(10) == b""
        cmsg.enable(b, cmsg.Gro)  # before anything is under way
        yield a, b


def marked(turn):
    return b"".join(HEAD.pack(turn, i) + bytes(SIZE - HEAD.size) for i in range(COUNT))


def collect(sock, turn, came):
    """Notes the numbers of datagrams under their turns, until one of the next turn comes. Some may be overtaken by that:
    the line ends on whichever processor is at work."""
    endpoint, over = udp.Endpoint(sock), False
    while not over:
        for each in endpoint.recv():
            seen, number = HEAD.unpack_from(each.data)
            over = over or seen > turn
            if seen <= turn:
                came[seen].append(number)


WAYS = {
    "offload": ({}, {"segment_size": SIZE}),
    "without": ({"gso": False}, {"segment_size": SIZE}),
    "zerocopy": ({"zerocopy": True}, {"segment_size": SIZE}),
    "ecn": ({"gso": False}, {"segment_size": SIZE, "ecn": 1}),
}


@pytest.mark.parametrize("by", ["timer", "thread"])
@pytest.mark.parametrize("timeout", [None, 10])
@pytest.mark.parametrize("way", WAYS)
def test_what_an_interrupted_send_sent_went_once_and_without_gaps(slow, way, timeout, by):
    """Whether the handler raises or not, and whenever it comes. If the send returns, it counted what went."""
    a, b = slow
    a.settimeout(timeout)
    options, more = WAYS[way]
    chance, raised, returned, armed = random.Random(3), 0, 0, []
    counted, came = [], defaultdict(list)

    def handler(*_):
        if armed and chance.random() < 0.2:
            armed.clear()
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    with udp.Endpoint(a, **options) as one:
        try:
            for turn in range(MOST_TURNS):
                if turn >= TURNS and raised > 3 and returned > 3:
                    break
                went: list[int] = []
                stop = started(by, chance.uniform(0.0001, 0.008))
                try:
                    armed.append(True)
                    send_all(one, marked(turn), more, went)
                    returned += 1
                    armed.clear()
                except Interrupted:
                    raised += 1
                stop()
                counted.append(sum(went))
                send_all(one, HEAD.pack(turn + 1, 0), {}, [])
                collect(b, turn, came)
            send_all(one, HEAD.pack(turn + 2, 0), {}, [])
            collect(b, turn + 1, came)
        finally:
            signal.signal(signal.SIGALRM, before)
    for turn, count in enumerate(counted):
        assert sorted(came[turn]) == list(range(len(came[turn]))), f"turn {turn}"
        assert count <= len(came[turn]) <= COUNT
    assert raised > 3, "no handler came in time"
    assert returned > 3, "a handler always came in time"


def send_all(endpoint, data, more, went):
    """In as many sends as it takes; ``went`` gets what each of them returned."""
    while data:
        sent = endpoint.send(data, address=None, **more)
        went.append(-(-sent // SIZE))
        data = data[sent:]


def started(by, after):
    """Signals, the first ``after`` some seconds; returns what stops them."""
    if by == "timer":
        signal.setitimer(signal.ITIMER_REAL, after, after)
        return lambda: signal.setitimer(signal.ITIMER_REAL, 0)
    done, main = threading.Event(), threading.main_thread().ident

    def disturb():
        while not done.wait(after):
            signal.pthread_kill(main, signal.SIGALRM)

    thread = threading.Thread(target=disturb)
    thread.start()

    def stop():
        done.set()
        thread.join()

    return stop


def send_for_ever(endpoint):
    while True:
        endpoint.send(marked(0), address=None, segment_size=SIZE)


def test_a_closing_handler_ends_a_send_that_waits(slow):
    """The descriptor is asked for again: its number may be another's by then."""
    a, _ = slow
    os.set_blocking(a.fileno(), True)
    a.settimeout(None)
    one = udp.Endpoint(a, gso=False)
    before = signal.signal(signal.SIGALRM, lambda *_: a.close())
    signal.setitimer(signal.ITIMER_REAL, 0.003)
    try:
        with pytest.raises(OSError):
            send_for_ever(one)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
