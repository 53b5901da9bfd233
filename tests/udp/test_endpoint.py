# SPDX-License-Identifier: MIT
"""Endpoints: which sockets they take, what they ask of them, what they say is there."""

import errno
import os
import select
import socket
import threading
import time

import pytest
from udp_sockets import linux

from lowsock import constants, udp


def option(sock, *names):
    return [
        sock.getsockopt(getattr(constants, name.split("/")[0]), getattr(constants, name.split("/")[1])) for name in names
    ]


# ---- which sockets ----


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, 0),
        (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
        (socket.AF_INET, socket.SOCK_DGRAM, 136),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
    ],
    ids=["tcp", "unix", "udplite", "raw"],
)
def test_what_is_no_udp_socket_is_refused(family, kind, protocol):
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        pytest.skip(f"no such socket here: {error}")
    with sock, pytest.raises(ValueError, match="sock must be a UDP socket"):
        udp.Endpoint(sock)


@pytest.mark.parametrize("sock", ["text", None, 1.5])
def test_what_is_no_socket_is_refused(sock):
    with pytest.raises(TypeError, match="sock must be"):
        udp.Endpoint(sock)


def test_a_closed_socket_is_an_os_error(two4):
    two4.a.close()
    with pytest.raises(OSError) as info:
        udp.Endpoint(two4.a)
    assert info.value.errno == errno.EBADF


@linux
def test_a_socket_that_cuts_all_it_sends_is_refused(two4):
    two4.a.setsockopt(constants.SOL_UDP, constants.UDP_SEGMENT, 500)
    with pytest.raises(ValueError, match="UDP_SEGMENT"):
        udp.Endpoint(two4.a)


def closable(given, sock):
    """What an endpoint can own."""
    if not isinstance(given, int) and not hasattr(given, "close"):
        given.close = sock.close
    return given


def test_every_way_to_pass_a_socket(two4, passed):
    one, other = (udp.Endpoint(closable(passed(sock), sock)) for sock in (two4.a, two4.b))
    assert one.fileno() > 0
    assert one.send(b"abcde", address=two4.to, segment_size=2) == 5
    assert [each.data for each in other.recv()] == [b"ab", b"cd", b"e"]


def test_it_passes_on_descriptor_and_timeout(two4):
    one = udp.Endpoint(two4.a)
    assert (one.fileno(), one.gettimeout()) == (two4.a.fileno(), 10)


# ---- options ----

ASKED = {
    "gso": ["SOL_UDP/UDP_SEGMENT"],
    "gro": ["SOL_UDP/UDP_GRO"],
    "recv_ecn": ["IPPROTO_IP/IP_RECVTOS"],
    "recv_pktinfo": ["IPPROTO_IP/IP_PKTINFO"],
    "recv_timestamps": ["SOL_SOCKET/SO_TIMESTAMPNS"],
    "recv_errors": ["IPPROTO_IP/IP_RECVERR"],
    "zerocopy": ["SOL_SOCKET/SO_ZEROCOPY"],
}
NOTHING = dict.fromkeys(ASKED, False)
ALL = [name for names in ASKED.values() for name in names]


@linux
def test_an_endpoint_that_asks_for_nothing_leaves_no_trace(two4):
    before = option(two4.a, *ALL)
    udp.Endpoint(two4.a, **NOTHING)
    assert option(two4.a, *ALL) == before == [0] * len(ALL)


@linux
@pytest.mark.parametrize("name", ASKED)
def test_it_sets_the_options_that_it_was_asked_for_and_no_others(two4, name):
    with udp.Endpoint(two4.a, **{**NOTHING, name: True}):
        expected = [int(each in ASKED[name] and name != "gso") for each in ALL]
        assert option(two4.a, *ALL) == expected


@linux
def test_the_probe_for_offload_leaves_no_trace(two4):
    assert udp.Endpoint(two4.a).max_gso_segments in (64, 128)
    assert option(two4.a, "SOL_UDP/UDP_SEGMENT") == [0]


def test_without_gso_there_is_one_segment(two4):
    assert udp.Endpoint(two4.a, gso=False).max_gso_segments == 1


@linux
@pytest.mark.parametrize("name", NOTHING)
def test_a_property_tells_what_is_there(two4, name):
    with udp.Endpoint(two4.a, **{**NOTHING, name: True}) as one:
        assert {each: getattr(one, each) for each in NOTHING} == {each: each == name for each in NOTHING}


@linux
def test_gro_that_somebody_else_has_set_is_told(two4):
    two4.a.setsockopt(constants.SOL_UDP, constants.UDP_GRO, 1)
    assert udp.Endpoint(two4.a, gro=False).gro


@linux
def test_the_clock_of_transmit_times_can_be_set(two4):
    one = udp.Endpoint(two4.a, txtime_clock=time.CLOCK_MONOTONIC)
    assert one.txtime_clock == time.CLOCK_MONOTONIC
    assert one.send(b"x" * 10, address=two4.to, segment_size=4, txtime_ns=time.monotonic_ns()) == 10
    assert udp.Endpoint(two4.b).txtime_clock is None


@linux
def test_to_set_the_clock_leaves_a_blocking_socket_blocking(two4):
    two4.a.settimeout(None)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        udp.Endpoint(two4.a, txtime_clock=time.CLOCK_MONOTONIC)
    finally:
        socket.setdefaulttimeout(before)
    assert os.get_blocking(two4.a.fileno())


@linux
def test_a_clock_that_is_none_is_the_kernels_error(two4):
    with pytest.raises(OSError) as info:
        udp.Endpoint(two4.a, txtime_clock=1000)
    assert info.value.errno == errno.EINVAL


@linux
def test_a_transmit_time_without_a_clock_is_the_kernels_error(two4):
    one = udp.Endpoint(two4.a)
    with pytest.raises(OSError) as info:
        one.send(b"x" * 10, address=two4.to, segment_size=4, txtime_ns=1)
    assert info.value.errno == errno.EINVAL
    assert one.fallbacks == udp.Fallbacks(None, None, {})


# ---- errors ----


@linux
def test_errors_are_told_by_the_queue(two4):
    one = udp.Endpoint(two4.a, recv_errors=True)
    two4.b.close()
    one.send(b"x", address=two4.to)
    select.select([two4.a], [], [], 5)
    (event,) = one.read_errors()
    assert event.errno == errno.ECONNREFUSED
    assert one.read_errors() == []


@linux
def test_a_pending_error_is_raised_by_one_send_and_the_next_goes(two4):
    one = udp.Endpoint(two4.a, recv_errors=True)
    two4.b.close()
    one.send(b"x", address=two4.to)
    select.select([two4.a], [], [], 5)
    with pytest.raises(ConnectionRefusedError):
        one.send(b"abcd", address=two4.back, segment_size=2)
    two4.a.settimeout(0)
    with pytest.raises(BlockingIOError):
        two4.a.recv(10)
    assert one.send(b"abcd", address=two4.back, segment_size=2) == 4
    assert one.fallbacks == udp.Fallbacks(None, None, {})


# ---- threads ----


def test_threads_share_an_endpoint(two4):
    """Each datagram is received once, whole, by one of them."""
    one, other = udp.Endpoint(two4.a), udp.Endpoint(two4.b)
    two4.b.settimeout(1)
    got = []

    def take():
        while True:
            try:
                found = other.recv()
            except socket.timeout:
                return
            got.extend(each.data for each in found)

    def give(mark):
        for i in range(20):
            one.send(
                b"".join(b"%c%c%02d" % (mark, mark, i) * 25 + b"%03d." % k for k in range(10)),
                address=two4.to,
                segment_size=104,
            )

    threads = [threading.Thread(target=take) for _ in range(3)]
    threads += [threading.Thread(target=give, args=(mark,)) for mark in b"abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [b"%c%c%02d" % (m, m, i) * 25 + b"%03d." % k for m in b"abc" for i in range(20) for k in range(10)]
    assert sorted(got) == sorted(expected)
