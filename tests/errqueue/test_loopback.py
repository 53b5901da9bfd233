# SPDX-License-Identifier: MIT
"""Error queues on the loopback: errors, transmit timestamps, and sockets that have none."""

import errno
import os
import select
import socket
import struct
import sys
import time

import pytest

import lowsock
from lowsock import constants, errqueue
from lowsock.cmsg._errors import Origin, PacketTxTimestamp, RecvErr6
from lowsock.errqueue import (
    IcmpError,
    LocalError,
    Stage,
    TransmitTimestamp,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="error queues are Linux's")

LOOPBACK = 1  # the number of its interface, in every namespace
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, constants.IP_RECVERR),
    socket.AF_INET6: (socket.IPPROTO_IPV6, constants.IPV6_RECVERR),
}
both_families = pytest.mark.parametrize("family", HOSTS, ids=["IPv4", "IPv6"])


# ---- errors on the loopback ----


@pytest.fixture
def closed_port(ipv6):
    """A callable: an address where nobody listens."""

    def address(family):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((HOSTS[family], 0))
            return sock.getsockname()

    return address


@pytest.fixture
def asking():
    """A callable: a UDP socket that is told of errors."""
    made = []

    def make(family, *options):
        made.append(socket.socket(family, socket.SOCK_DGRAM))
        for option in options or (RECVERR[family],):
            made[-1].setsockopt(*option, 1)
        return made[-1]

    yield make
    for sock in made:
        sock.close()


def polled(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return [event for _, event in poll.poll(0)]


@both_families
def test_a_closed_port_answers(asking, closed_port, passed, family):
    sock, address = asking(family), closed_port(family)
    lowsock.sendmsg(sock, [b"who is there?"], (), 0, address)
    (event,) = errqueue.read(passed(sock))
    origin, kind, code = (Origin.ICMP, 3, 3) if family == socket.AF_INET else (Origin.ICMP6, 1, 4)
    assert event[:5] == (errno.ECONNREFUSED, origin, kind, code, None)
    assert event.offender[0] == HOSTS[family]
    assert (event.destination, event.data) == (address, b"who is there?")


@both_families
def test_after_reading_the_socket_is_quiet(asking, closed_port, family):
    sock, address = asking(family), closed_port(family)
    sock.sendto(b"x", address)
    assert polled(sock) == [select.POLLERR]
    assert len(errqueue.read(sock)) == 1
    assert (polled(sock), errqueue.read(sock)) == ([], [])


@both_families
def test_reading_clears_the_pending_error(asking, closed_port, family):
    sock, address = asking(family), closed_port(family)
    sock.sendto(b"x", address)
    errqueue.read(sock)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert sock.sendto(b"y", address) == 1


@both_families
def test_a_pending_error_fails_the_next_send_and_leaves_the_event(asking, closed_port, family):
    sock, address = asking(family), closed_port(family)
    sock.sendto(b"x", address)
    with pytest.raises(ConnectionRefusedError):
        lowsock.sendmsg(sock, [b"not sent"], (), 0, address)
    assert [event.data for event in errqueue.read(sock)] == [b"x"]


@both_families
def test_if_an_event_is_left_its_error_is_pending(asking, closed_port, family):
    sock, address = asking(family), closed_port(family)
    sock.sendto(b"x", address)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.sendto(b"y", address)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert [event.data for event in errqueue.read(sock, 1)] == [b"x"]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert [event.data for event in errqueue.read(sock, limit=5)] == [b"y"]


def test_events_come_in_order_and_no_more_than_the_limit(asking, closed_port):
    sock, address = asking(socket.AF_INET), closed_port(socket.AF_INET)
    sent = []
    while len(sent) < 7:
        sent.append(str(len(sent)).encode())
        sock.sendto(sent[-1], address)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    got = [[event.data for event in errqueue.read(sock, limit)] for limit in (3, 1, 100, 1)]
    assert got == [sent[:3], sent[3:4], sent[4:], []]


@pytest.mark.parametrize("timeout", [None, 0, 30])
def test_an_empty_queue_does_not_make_it_wait(asking, timeout):
    sock = asking(socket.AF_INET)
    sock.settimeout(timeout)
    assert errqueue.read(sock) == []


@both_families
def test_a_datagram_too_long_is_refused_here(asking, closed_port, family):
    sock = asking(family)
    level, option, do = {
        socket.AF_INET: (socket.IPPROTO_IP, constants.IP_MTU_DISCOVER, constants.IP_PMTUDISC_DO),
        socket.AF_INET6: (socket.IPPROTO_IPV6, constants.IPV6_MTU_DISCOVER, constants.IPV6_PMTUDISC_DO),
    }[family]
    sock.setsockopt(level, option, do)
    address = closed_port(family)
    sock.connect(address)
    with pytest.raises(OSError) as caught:
        sock.send(bytes(65530))
    assert caught.value.errno == errno.EMSGSIZE
    (event,) = errqueue.read(sock)
    assert type(event) is LocalError
    assert event[:2] == (errno.EMSGSIZE, sock.getsockopt(level, {socket.AF_INET: 14, socket.AF_INET6: 24}[family]))
    assert event.destination[0] == HOSTS[family]


DUAL = {  # the options set: what comes of ::ffff:127.0.0.1, and of ::1
    "none": ([], [[], []]),
    "IP_RECVERR": ([socket.AF_INET], [[Origin.ICMP], []]),
    "IPV6_RECVERR": ([socket.AF_INET6], [[], [Origin.ICMP6]]),
    "both": ([socket.AF_INET, socket.AF_INET6], [[Origin.ICMP], [Origin.ICMP6]]),
}


@pytest.mark.parametrize(("options", "origins"), DUAL.values(), ids=DUAL)
def test_on_a_dual_stack_socket_each_family_has_its_option_and_ipv6_its_message(asking, closed_port, options, origins):
    v4, v6 = closed_port(socket.AF_INET), closed_port(socket.AF_INET6)
    sock = asking(socket.AF_INET6, (socket.SOL_SOCKET, socket.SO_REUSEADDR), *(RECVERR[family] for family in options))
    came = []
    for address in (("::ffff:127.0.0.1", v4[1], 0, 0), v6):
        sock.sendto(b"x", address)
        came.append(errqueue.read(sock))
        assert [event.destination for event in came[-1]] == [address] * len(came[-1])
        assert [event.offender[0] for event in came[-1]] == [address[0]] * len(came[-1])
    assert [[event.origin for event in events] for events in came] == origins
    assert {type(event.ancdata[0]) for events in came for event in events} <= {RecvErr6}


# ---- transmit timestamps ----


def flags(*names):
    return sum(getattr(constants, f"SOF_TIMESTAMPING_{name}") for name in ("SOFTWARE", *names))


def until(sock, count):
    """The first so many events."""
    events, poll = [], select.poll()
    poll.register(sock, 0)
    while len(events) < count:
        assert poll.poll(5000), f"only {events} came"
        events += errqueue.read(sock, count - len(events))
    return events


def test_datagrams_are_stamped_with_their_keys(udp_pair):
    asked = flags("OPT_ID", "TX_SCHED", "TX_SOFTWARE")
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, asked)
    begin = time.time_ns()
    for data in (b"first", b"second"):
        udp_pair.a.send(data)
    events = until(udp_pair.a, 4)
    order = [(0, Stage.SCHEDULED), (0, Stage.SENT), (1, Stage.SCHEDULED), (1, Stage.SENT)]
    assert [(event.key, event.stage) for event in events] == order
    assert [event.data.endswith(data) for event, data in zip(events, [b"first"] * 2 + [b"second"] * 2)] == [True] * 4
    times = [event.software_ns for event in events]
    assert begin <= times[0] <= times[1] <= times[2] <= times[3] <= time.time_ns()
    assert {event.hardware_ns for event in events} == {None}
    assert polled(udp_pair.a) == []


def test_without_the_data_if_only_the_time_is_wanted(udp_pair):
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_ID", "OPT_TSONLY", "TX_SOFTWARE"))
    udp_pair.a.send(b"data")
    (event,) = until(udp_pair.a, 1)
    assert (event.key, event.stage, event.data, event.software_ns is None) == (0, Stage.SENT, b"", False)


def test_the_interface_is_told_if_asked(udp_pair):
    level, option = {
        socket.AF_INET: (socket.IPPROTO_IP, constants.IP_PKTINFO),
        socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
    }[udp_pair.family]
    udp_pair.a.setsockopt(level, option, 1)
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_CMSG", "TX_SOFTWARE"))
    udp_pair.a.send(b"data")
    (event,) = until(udp_pair.a, 1)
    assert (len(event.ancdata), event.ifindex) == (3, LOOPBACK)


@pytest.mark.parametrize("keys", [("OPT_ID",), ("OPT_ID", "OPT_ID_TCP")], ids="-".join)
def test_a_stream_is_stamped_at_all_its_stages(tcp_pair, keys):
    """The key is the number of the last byte that was sent."""
    asked = flags(*keys, "OPT_TSONLY", "TX_SCHED", "TX_SOFTWARE", "TX_ACK")
    tcp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, asked)
    stages = (Stage.SCHEDULED, Stage.SENT, Stage.ACKNOWLEDGED)
    for size, key in ((10, 9), (5, 14)):
        tcp_pair.a.send(bytes(size))
        tcp_pair.b.recv(100)
        events = until(tcp_pair.a, 3)
        assert sorted((event.stage, event.key) for event in events) == sorted((stage, key) for stage in stages)
        joined = {event.stage: event.software_ns for event in events}
        assert joined[Stage.SCHEDULED] <= joined[Stage.SENT] <= joined[Stage.ACKNOWLEDGED]


def test_one_message_may_ask(udp_pair):
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_ID"))
    wanted = struct.pack("=I", constants.SOF_TIMESTAMPING_TX_SOFTWARE)
    lowsock.sendmsg(udp_pair.a, [b"no"])
    lowsock.sendmsg(udp_pair.a, [b"yes"], [(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, wanted)])
    (event,) = until(udp_pair.a, 1)
    assert (event.data[-3:], event.key) == (b"yes", 0)  # who does not ask is not counted


def test_a_device_may_tell_of_its_completion(udp_pair):
    """Linux 6.15. The loopback tells nothing: the flag alone brings no event of that stage."""
    try:
        udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_ID", "TX_COMPLETION", "TX_SCHED"))
    except OSError as error:
        pytest.skip(f"SOF_TIMESTAMPING_TX_COMPLETION: {error}")
    udp_pair.a.send(b"x")
    assert [event.stage for event in until(udp_pair.a, 1)] == [Stage.SCHEDULED]


def test_a_packet_socket_is_stamped_too():
    try:
        sock = socket.socket(constants.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        pytest.skip("packet sockets want CAP_NET_RAW")
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_ID", "TX_SOFTWARE"))
        lowsock.sendmsg(sock, [bytes(12) + b"\x88\xb5" + bytes(50)], (), 0, ("lo", 0x88B5))
        (event,) = until(sock, 1)
    assert (type(event), event.stage, event.key) == (TransmitTimestamp, Stage.SENT, 0)
    assert type(event.ancdata[-1]) is PacketTxTimestamp


def test_events_of_different_kinds_stand_in_one_queue(asking, closed_port):
    sock, address = asking(socket.AF_INET), closed_port(socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags("OPT_ID", "TX_SOFTWARE"))
    sock.sendto(b"x", address)
    assert [type(event) for event in until(sock, 2)] == [TransmitTimestamp, IcmpError]


# ---- sockets that are none ----


def test_a_socket_without_an_error_queue_keeps_its_data_and_descriptors(unix_pair, open_fds):
    lowsock.send_fds(unix_pair.a, [b"data"], [0, 1])
    before = open_fds()
    assert errqueue.read(unix_pair.b) == []
    assert open_fds() == before
    data, fds, _, _ = lowsock.recv_fds(unix_pair.b, 10, 5)
    for fd in fds:
        os.close(fd)
    assert (data, len(fds)) == (b"data", 2)


def test_data_is_left_where_it_is(pair):
    pair.a.send(b"data")
    assert errqueue.read(pair.b) == []
    assert pair.b.recv(10) == b"data"


def test_a_closed_socket_is_refused():
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError) as caught:
        errqueue.read(sock)
    assert caught.value.errno == errno.EBADF


def test_what_is_no_socket_is_refused():
    reading, writing = os.pipe()
    with pytest.raises(OSError) as caught:
        errqueue.read(reading)
    os.close(reading)
    os.close(writing)
    assert caught.value.errno == errno.ENOTSOCK


@pytest.mark.parametrize(("limit", "error"), [(0, OverflowError), (-1, ValueError), ("1", TypeError)])
def test_a_wrong_limit_is_named(limit, error):
    with socket.socket() as sock, pytest.raises(error, match="limit"):
        errqueue.read(sock, limit)
