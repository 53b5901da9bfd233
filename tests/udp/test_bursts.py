# SPDX-License-Identifier: MIT
"""Where datagrams come alone, `Endpoint.recv` takes many by one call: what comes is what one after the other would bring."""

import errno
import os
import random
import select
import signal
import socket
import sys
import threading
import time

import pytest

from lowsock import cmsg, constants, udp
from lowsock._system.ffi import lib
from lowsock.udp import _receiving as receiving

LINUX = sys.platform.startswith("linux")
linux = pytest.mark.skipif(not LINUX, reason="GRO and these options are Linux's")
SO_RCVBUFFORCE = 33  # older socket modules lack it
HOSTS = {"4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"), "6": (socket.AF_INET6, "::1", "::1"),
         "mapped": (socket.AF_INET6, "::", "::ffff:127.0.0.1")}  # fmt: skip


@pytest.fixture(params=HOSTS)
def socks(request):
    """Three senders, a receiver, and the receiver's address."""
    family, bound, host = HOSTS[request.param]
    made = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(4)]
    for sock in made:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((bound, 0))
        sock.settimeout(10)
    made[3].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE if LINUX else socket.SO_RCVBUF, 1 << 24)
    yield [udp.Endpoint(sock) for sock in made[:3]], made[3], (host, made[3].getsockname()[1])
    for sock in made:
        sock.close()


def eager(sock, **options):
    """An endpoint that begins with a burst, on PyPy as well."""
    endpoint = udp.Endpoint(sock, **options)
    endpoint._receiver._countdown = 0
    return endpoint


def forced(endpoint):
    endpoint._receiver._countdown = 0
    return endpoint.recv()


def all_of(endpoint, receive=lambda endpoint: endpoint.recv()):
    """Calls until there is nothing left; the lists that they returned."""
    endpoint._receiver.sock.setblocking(False)
    lists = []
    while True:
        try:
            lists.append(receive(endpoint))
        except BlockingIOError:
            return lists


# ---- what comes ----


def test_what_came_alone_comes_together(socks):
    senders, sock, to = socks
    receiver = eager(sock)
    for i in range(10):
        senders[0].send(b"%d" % i, address=to)
    assert [each.data for each in receiver.recv()] == [b"%d" % i for i in range(10)]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_a_burst_has_64_at_most_and_the_rest_is_next(socks, count):
    senders, sock, to = socks
    receiver = eager(sock)
    for i in range(count):
        senders[0].send(b"%03d" % i, address=to)
    lists = all_of(receiver, forced)
    assert [len(each) for each in lists] == [64] * (count // 64) + [count % 64] * (count % 64 > 0)
    assert [each.data for found in lists for each in found] == [b"%03d" % i for i in range(count)]


SIZES = (0, 1, 5, 100, 1200, 1200, 1200, 1472, 9000, 65000)


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("gro", [False, True])
def test_it_is_what_one_call_after_the_other_brings(socks, gro, timestamps):
    """Of many sizes, from several sources, with several marks, joined or not: the same datagrams told in the same way."""
    senders, sock, to = socks
    chance = random.Random(7)
    receiver = eager(sock, gro=gro, recv_timestamps=timestamps)
    for turn in range(60):
        expected = []
        begun = time.time_ns()
        for _ in range(chance.choice([1, 2, 5, 70])):
            sender = chance.choice(senders if turn % 2 else senders[:1])
            size, count, ecn = chance.choice(SIZES), chance.choice([1, 1, 1, 3]), chance.choice([None, 1, 2])
            data = os.urandom(size * count if size < 2000 else size)
            step = size if 0 < size < 2000 else max(size, 1)
            sender.send(data, address=to, segment_size=step, ecn=ecn)
            pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
            expected += [(piece, sender._sock.getsockname()[1], cmsg.ECN(ecn or 0)) for piece in pieces]
        got = [each for found in all_of(receiver, chance.choice([forced, lambda each: each.recv()])) for each in found]
        assert [(each.data, each.address[1], each.ecn) for each in got] == expected
        assert {(each.address[0], each.local, each.msg_flags) for each in got} == {(to[0], to[0].replace("::ffff:", ""), 0)}
        assert all(begun - 10**9 <= each.timestamp_ns <= time.time_ns() + 10**9 if timestamps else each.timestamp_ns is None
                   for each in got)  # fmt: skip


def test_one_shape_again_and_again(socks):
    """The first is cut by slices, the third by a format, and the fourth has another content."""
    senders, sock, to = socks
    receiver = eager(sock)
    for _ in range(4):
        pieces = [os.urandom(300) for _ in range(20)]
        for piece in pieces:
            senders[0].send(piece, address=to)
        assert [each.data for each in forced(receiver)] == pieces


@linux
def test_a_burst_leaves_the_other_receives_their_news(socks):
    """What a burst learned of the source, the calls that receive one know, and the other way round."""
    senders, sock, to = socks
    receiver = eager(sock)
    ports = [sender._sock.getsockname()[1] for sender in senders]
    for order in ([0, 1, 2], [2, 2, 2], [0, 0, 1]):
        for i in order:
            senders[i].send(b"x" * 9, address=to)
        assert [each.address[1] for each in forced(receiver)] == [ports[i] for i in order]
        senders[order[-1]].send(b"y", address=to)
        assert receiver.recv_coalesced().address[1] == ports[order[-1]]
        senders[order[0]].send(b"y", address=to)
        assert receiver.recv_into([bytearray(9)]).address[1] == ports[order[0]]


# ---- when ----


@pytest.mark.skipif(receiving.PYPY, reason="PyPy gains nothing by bursts")
def test_the_first_that_comes_alone_makes_the_next_call_a_burst(socks):
    senders, sock, to = socks
    receiver = udp.Endpoint(sock)
    for i in range(5):
        senders[0].send(b"%d" % i, address=to)
    assert [len(each) for each in all_of(receiver)] == [1, 4]


@linux
def test_joined_ones_make_the_next_call_a_single_receive(socks):
    senders, sock, to = socks
    receiver = eager(sock)
    for _ in range(3):
        senders[0].send(b"abcdef", address=to, segment_size=2)
    assert len(receiver.recv()) == 9
    for _ in range(3):
        senders[0].send(b"abcdef", address=to, segment_size=2)
    assert [len(each) for each in all_of(receiver)] == [3, 3, 3]


def test_who_asks_and_is_answered_receives_singly(socks, monkeypatch):
    """A burst that brought one is not tried again at once."""
    senders, sock, to = socks
    receiver, bursts = eager(sock), []
    monkeypatch.setattr(receiving, "_recv_burst", lambda *all: bursts.append(1) or lib.lowsock_udp_recv_burst(*all))
    for _ in range(1 + receiving._BURST_RETRY):
        senders[0].send(b"?", address=to)
        assert len(receiver.recv()) == 1
    assert len(bursts) == 1


@pytest.mark.parametrize("flags", [socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_PEEK | socket.MSG_DONTWAIT])
def test_other_flags_receive_one(socks, flags):
    senders, sock, to = socks
    receiver = eager(sock)
    for data in (b"1", b"2"):
        senders[0].send(data, address=to)
    assert [each.data for each in receiver.recv(flags=flags)] == [b"1"]
    assert [each.data for each in forced(receiver)] == ([b"1", b"2"] if flags & socket.MSG_PEEK else [b"2"])


# ---- waiting, errors ----


@pytest.mark.parametrize("timeout", [0.02, 0])
def test_a_burst_keeps_to_the_timeout_and_its_memory(socks, timeout):
    receiver = eager(socks[1])
    socks[1].settimeout(timeout)
    for _ in range(3):
        with pytest.raises(socket.timeout if timeout else BlockingIOError):
            forced(receiver)
    assert len(receiver._receiver._free) == 1


def test_flags_of_a_burst_are_checked(socks):
    receiver = eager(socks[1])
    socks[1].settimeout(None)
    with pytest.raises(TypeError, match="flags"):
        receiver.recv(flags=float(socket.MSG_DONTWAIT))
    with pytest.raises(BlockingIOError):
        receiver.recv(flags=socket.MSG_DONTWAIT)


def test_a_burst_of_a_blocking_socket_waits_for_the_first_only(socks):
    senders, sock, to = socks
    sock.settimeout(None)
    receiver = eager(sock)
    timer = threading.Timer(0.05, senders[0].send, (b"later",), {"address": to})
    timer.start()
    assert [each.data for each in receiver.recv()] == [b"later"]
    timer.join()


def test_a_burst_on_a_closed_socket_is_an_os_error(socks):
    receiver = eager(socks[1])
    socks[1].close()
    with pytest.raises(OSError) as info:
        receiver.recv()
    assert info.value.errno == errno.EBADF


@linux
def test_an_error_is_raised_by_itself_and_costs_no_datagram():
    """A connected socket whose peer was away for a moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        a.connect(b.getsockname())
        a.settimeout(5)
        to, name = a.getsockname(), b.getsockname()
        b.close()
        a.send(b"is anybody there")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
            c.bind(name)
            for i in range(3):
                c.sendto(b"%d" % i, to)
            select.select([a], [], [], 5)
            receiver = eager(a)
            with pytest.raises(ConnectionRefusedError):
                receiver.recv()
            assert [each.data for each in receiver.recv()] == [b"0", b"1", b"2"]


class Interrupted(Exception):
    """What the handler raises."""


@pytest.mark.parametrize("raising", [True, False])
@pytest.mark.parametrize("timeout", [None, 10])
def test_a_signal_while_a_burst_waits(socks, raising, timeout):
    """What the handler raises comes out as it is; if it raises nothing, the receive goes on."""
    senders, sock, to = socks
    sock.settimeout(timeout)
    receiver = eager(sock)

    def handler(*_):
        senders[0].send(b"from the handler", address=to)
        if raising:
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        if raising:
            with pytest.raises(Interrupted):
                receiver.recv()
        assert [each.data for each in receiver.recv()] == [b"from the handler"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_memory_whose_news_were_not_learned_is_not_used_again(socks, monkeypatch):
    senders, sock, to = socks
    receiver = eager(sock)
    senders[0].send(b"0", address=to)
    forced(receiver)
    for sender in senders[:2]:
        sender.send(b"1", address=to)
    with monkeypatch.context() as patch:
        patch.setattr(receiving.Burst, "rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forced(receiver)
    senders[1].send(b"2", address=to)
    (got,) = forced(receiver)
    assert (got.data, got.address[1]) == (b"2", senders[1]._sock.getsockname()[1])


def test_threads_share_an_endpoint_that_takes_bursts(socks):
    """Each datagram is received once, whole, by one of them."""
    senders, sock, to = socks
    receiver = eager(sock)
    sock.settimeout(0.5)
    got = []

    def take():
        while True:
            try:
                got.extend((each.data, each.address[1]) for each in forced(receiver))
            except socket.timeout:
                return

    def give(sender):
        for i in range(300):
            sender.send(b"%03d" % i * 50, address=to)

    threads = [threading.Thread(target=take) for _ in range(3)]
    threads += [threading.Thread(target=give, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ports = [sender._sock.getsockname()[1] for sender in senders]
    assert sorted(got) == sorted((b"%03d" % i * 50, port) for i in range(300) for port in ports)


# ---- flags ----

WAYS = {
    "recv": lambda endpoint: endpoint.recv()[0],
    "burst": lambda endpoint: forced(endpoint)[0],
    "recv_coalesced": lambda endpoint: endpoint.recv_coalesced(),
    "recv_into": lambda endpoint: endpoint.recv_into([bytearray(100)]),
}


@linux
@pytest.mark.parametrize("way", WAYS)
def test_control_messages_that_find_no_room_are_told(new_namespace, way):
    """Only headers of IPv6 can be so long: two extension headers of 520 bytes, of options that are skipped."""
    with new_namespace():
        a, b = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
    with a, b:
        b.bind(("::1", 0))
        b.settimeout(10)
        for name in ("IPV6_RECVHOPOPTS", "IPV6_RECVDSTOPTS"):
            b.setsockopt(socket.IPPROTO_IPV6, getattr(constants, name), 1)
        receiver = udp.Endpoint(b)
        header = b"\x00\x40" + (b"\x1e\xfd" + bytes(253)) * 2 + b"\x1e\x06" + bytes(6)
        for name in ("IPV6_HOPOPTS", "IPV6_DSTOPTS"):
            a.setsockopt(socket.IPPROTO_IPV6, getattr(constants, name), header)
        a.sendto(b"x", b.getsockname())
        got = WAYS[way](receiver)
        assert got.msg_flags == socket.MSG_CTRUNC
        for name in ("IPV6_HOPOPTS", "IPV6_DSTOPTS"):
            a.setsockopt(socket.IPPROTO_IPV6, getattr(constants, name), b"")
        a.sendto(b"x", b.getsockname())
        assert WAYS[way](receiver).msg_flags == 0


@pytest.mark.parametrize("way", ["recv", "burst", "recv_coalesced", "recv_into"])
def test_the_error_queue_is_not_read_by_a_receive(socks, way):
    senders, sock, to = socks
    receiver = eager(sock) if way == "burst" else udp.Endpoint(sock)
    call = {
        "recv_coalesced": receiver.recv_coalesced,
        "recv_into": lambda flags: receiver.recv_into([bytearray(9)], flags=flags),
    }
    with pytest.raises(ValueError, match="MSG_ERRQUEUE: read_errors"):
        call.get(way, receiver.recv)(flags=constants.MSG_ERRQUEUE)
    senders[0].send(b"x", address=to)
    assert [each.data for each in receiver.recv()] == [b"x"]


@pytest.mark.parametrize("flags", [0, socket.MSG_DONTWAIT])
def test_recv_into_that_has_nothing_costs_no_memory(socks, flags):
    receiver = udp.Endpoint(socks[1])
    socks[1].setblocking(False)
    boxes = []
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            receiver.recv_into([bytearray(10)], flags=flags)
        boxes.append([id(each) for each in receiver._receiver._free])
    assert boxes == [boxes[0]] * 3
    assert len(boxes[0]) == 1
