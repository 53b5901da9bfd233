# SPDX-License-Identifier: MIT
"""Receives of an endpoint: what a datagram tells, how runs are cut, into memory, and waiting."""

import errno
import os
import signal
import socket
import threading
import time

import pytest
from udp_sockets import linux

import lowsock
from lowsock import cmsg, constants, udp

# ---- receiving ----


def test_a_datagram_tells_how_it_came(two):
    one, other = udp.Endpoint(two.a), udp.Endpoint(two.b, recv_timestamps=True)
    before = time.time_ns()
    one.send(b"data", address=two.to)
    (got,) = other.recv()
    assert got.data == b"data"
    assert got.address[:2] == (two.host, two.a.getsockname()[1])
    assert got.local == two.host.replace("::ffff:", "")
    assert got.ifindex > 0
    assert got.ecn is cmsg.ECN.NOT_ECT
    assert before - 10**9 <= got.timestamp_ns <= time.time_ns() + 10**9


def test_what_was_not_asked_for_is_none(two):
    two.a.sendto(b"data", two.to)
    (got,) = udp.Endpoint(two.b, recv_ecn=False, recv_pktinfo=False).recv()
    assert got[2:] == (None, None, None, None, 0)


@pytest.mark.parametrize("ecn", cmsg.ECN)
def test_ecn_goes_and_comes(two, ecn):
    one, other = udp.Endpoint(two.a), udp.Endpoint(two.b)
    assert one.send(b"abcd", address=two.to, segment_size=2, ecn=ecn) == 4
    assert [(each.data, each.ecn) for each in other.recv()] == [(b"ab", ecn), (b"cd", ecn)]


def test_news_in_control_messages_are_seen_in_each_receive(two):
    one, other = udp.Endpoint(two.a), udp.Endpoint(two.b)
    for ecn in [*cmsg.ECN, *cmsg.ECN]:
        one.send(b"x", address=two.to, ecn=ecn)
    assert [each.ecn for each in receive(other, 8)] == [*cmsg.ECN, *cmsg.ECN]


def test_the_sockets_own_dscp_stays_beside_ecn(two4):
    two4.a.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
    cmsg.enable(two4.b, cmsg.TOS)
    udp.Endpoint(two4.a).send(b"x", address=two4.to, ecn=cmsg.ECN.CE)
    ancdata = lowsock.recvmsg(two4.b, 10, 100)[1]
    assert cmsg.arrival(ancdata)[3:5] == (46, cmsg.ECN.CE)


def test_sources_that_alternate_are_told_apart(two):
    others = [socket.socket(two.a.family, socket.SOCK_DGRAM) for _ in range(3)]
    receiver = udp.Endpoint(two.b)
    try:
        for other in others * 3:
            other.sendto(b"x", two.to)
        ports = [each.address[1] for each in receive(receiver, 9)]
        assert ports == [other.getsockname()[1] for other in others] * 3
    finally:
        for other in others:
            other.close()


@linux
@pytest.mark.parametrize("segment", [1, 7, 1200, 1472])
@pytest.mark.parametrize("more", [0, 1, -1])
def test_a_run_is_cut_at_the_kernels_segment_size(two4, segment, more):
    data, other = bytes(i % 251 for i in range(segment * 5 + more)), udp.Endpoint(two4.b)
    udp.Endpoint(two4.a).send(data, address=two4.to, segment_size=segment)
    got = other.recv_coalesced()
    assert got.data == data
    assert b"".join(each.data for each in got.split()) == got.data
    assert {len(each.data) for each in got.split()[:-1]} == {segment}


def test_a_format_for_cutting_gives_what_slices_give(two4):
    """The first of a shape is cut by slices, the third by a format."""
    one, other = udp.Endpoint(two4.a), udp.Endpoint(two4.b)
    data = os.urandom(1000)
    for _ in range(4):
        one.send(data, address=two4.to, segment_size=300)
        assert [each.data for each in receive(other, 4)] == [data[at : at + 300] for at in range(0, 1000, 300)]


def receive(endpoint, count):
    got = []
    while len(got) < count:
        got += endpoint.recv()
    return got


@linux
def test_without_gro_each_datagram_comes_alone(two):
    udp.Endpoint(two.a).send(b"abcdef", address=two.to, segment_size=2)
    receiver = udp.Endpoint(two.b, gro=False)
    assert [receiver.recv_coalesced().data for _ in range(3)] == [b"ab", b"cd", b"ef"]


def test_an_empty_datagram_is_one(two):
    one, other = udp.Endpoint(two.a), udp.Endpoint(two.b)
    assert one.send(b"", address=two.to) == 0
    assert one.send(b"", address=two.to, segment_size=10) == 0
    assert [each.data for each in other.recv()] == [b""]
    got = other.recv_coalesced()
    assert one.send(got.data, address=two.to, segment_size=got.segment_size) == len(got.data), (
        "what came can be passed on as it is told"
    )
    assert (got.data, got.segment_size, [each.data for each in got.split()]) == (b"", 1, [b""])


@pytest.mark.parametrize("size", [65507, 65000])
def test_the_longest_datagram_comes_whole(two, size):
    data = os.urandom(size)
    udp.Endpoint(two.a).send(data, address=two.to)
    assert [each.data for each in udp.Endpoint(two.b).recv()] == [data]


def test_flags_are_passed(two4):
    one, other = udp.Endpoint(two4.a), udp.Endpoint(two4.b)
    one.send(b"x", address=two4.to)
    assert other.recv(flags=socket.MSG_PEEK) == other.recv(flags=socket.MSG_DONTWAIT)
    two4.b.settimeout(None)
    with pytest.raises(BlockingIOError):
        other.recv(flags=socket.MSG_DONTWAIT)


def test_more_control_data_than_anyone_asked_for(two4):
    for name in ("SO_TIMESTAMPNS", "SO_RXQ_OVFL"):
        two4.b.setsockopt(constants.SOL_SOCKET, getattr(constants, name), 1)
    for name in ("IP_RECVTTL", "IP_RECVORIGDSTADDR"):
        two4.b.setsockopt(constants.IPPROTO_IP, getattr(constants, name), 1)
    other = udp.Endpoint(two4.b, recv_timestamps=True)
    udp.Endpoint(two4.a).send(b"abcd", address=two4.to, segment_size=2, ecn=1)
    got = receive(other, 2)
    assert [(each.data, each.local, each.ecn) for each in got] == [(b"ab", "127.0.0.1", 1), (b"cd", "127.0.0.1", 1)]
    assert got[0].timestamp_ns == got[1].timestamp_ns > 0


# ---- into the caller's memory ----


@linux
def test_a_run_can_be_received_into_memory(two):
    data, other = os.urandom(1000), udp.Endpoint(two.b)
    udp.Endpoint(two.a).send(data, address=two.to, segment_size=300, ecn=2)
    first, second = bytearray(100), bytearray(65436)
    got = other.recv_into([first, second])
    assert bytes(first + second)[:1000] == data
    assert (got.nbytes, got.segment_size, got.address[:2], got.msg_flags) == (1000, 300, two.back[:2], 0)
    assert (got.local, got.ecn) == (two.host.replace("::ffff:", ""), 2)


@pytest.mark.parametrize("flags", [0, socket.MSG_TRUNC])
def test_what_does_not_fit_is_told_and_nothing_is_written_past_the_end(two4, flags):
    two4.a.sendto(b"x" * 100, two4.to)
    memory = bytearray(b"-" * 50)
    got = udp.Endpoint(two4.b).recv_into([memoryview(memory)[:10]], flags=flags)
    assert (got.nbytes, got.segment_size, got.msg_flags & socket.MSG_TRUNC) == (10, 10, socket.MSG_TRUNC)
    assert memory == b"x" * 10 + b"-" * 40


@pytest.mark.parametrize("buffers", [[b"constant"], bytearray(9), [5], [memoryview(bytearray(9))[::2]]])
def test_bad_buffers_are_named_and_nothing_is_received(two4, buffers):
    two4.a.sendto(b"x", two4.to)
    other = udp.Endpoint(two4.b)
    with pytest.raises((TypeError, BufferError), match="buffers"):
        other.recv_into(buffers)
    assert [each.data for each in other.recv()] == [b"x"]


# ---- waiting ----

WAYS = {"recv": lambda endpoint: endpoint.recv(), "recv_coalesced": lambda endpoint: endpoint.recv_coalesced(),
        "recv_into": lambda endpoint: endpoint.recv_into([bytearray(10)])}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_receive_keeps_to_the_timeout(two4, way):
    two4.b.settimeout(0.02)
    with pytest.raises(socket.timeout):
        WAYS[way](udp.Endpoint(two4.b))


@pytest.mark.parametrize("way", WAYS)
def test_a_receive_of_a_non_blocking_socket_does_not_wait(two4, way):
    two4.b.setblocking(False)
    with pytest.raises(BlockingIOError):
        WAYS[way](udp.Endpoint(two4.b))


@pytest.mark.parametrize("way", WAYS)
def test_a_receive_waits_for_what_comes_later(two4, way):
    timer = threading.Timer(0.05, two4.a.sendto, (b"later", two4.to))
    timer.start()
    got = WAYS[way](udp.Endpoint(two4.b))
    timer.join()
    assert (got[0].data if way == "recv" else bytes(got.data) if way == "recv_coalesced" else got.nbytes) in (b"later", 5)


@pytest.mark.parametrize("way", WAYS)
def test_a_receive_of_a_closed_socket_is_an_os_error(two4, way):
    other = udp.Endpoint(two4.b)
    two4.b.close()
    with pytest.raises(OSError) as info:
        WAYS[way](other)
    assert info.value.errno == errno.EBADF


class Interrupted(Exception):
    """What the handler raises."""


@pytest.mark.parametrize("raising", [True, False])
def test_a_signal_while_a_receive_waits(two4, raising):
    """What the handler raises comes out as it is; if it raises nothing, the receive goes on."""
    two4.b.settimeout(None)
    other = udp.Endpoint(two4.b)

    def handler(*_):
        two4.a.sendto(b"from the handler", two4.to)
        if raising:
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        if raising:
            with pytest.raises(Interrupted):
                other.recv()
        assert [each.data for each in other.recv()] == [b"from the handler"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
