# SPDX-License-Identifier: MIT
"""One spelling for all families and systems: the questions, who answers them, and what the answers say together."""

import ipaddress
import socket
import struct
import sys
from contextlib import ExitStack

import pytest

from lowsock import constants, recvmsg, sendmsg
from lowsock.cmsg import (
    ECN,
    Arrival,
    ControlMessage,
    HopCount,
    LocalAddress,
    OriginalDestination,
    ReceiveTime,
    TrafficClass,
    arrival,
    decode,
    enable,
    space,
    towards,
)
from lowsock.cmsg import _portable as portable
from lowsock.cmsg._ip import TOS, TTL, DstAddr, FragSize, OrigDstAddr, PktInfo, RecvIf
from lowsock.cmsg._ipv6 import HopLimit, OrigDstAddr6, PktInfo6, TClass

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the classes are those that Linux has")
IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
INET, INET6 = socket.AF_INET, socket.AF_INET6

# A question, and the classes that answer it on Linux for either family.
ANSWERS = {
    LocalAddress: (PktInfo, PktInfo6),
    HopCount: (TTL, HopLimit),
    TrafficClass: (TOS, TClass),
    OriginalDestination: (OrigDstAddr, OrigDstAddr6),
}
questions = pytest.mark.parametrize("question", ANSWERS)


# ---- who answers ----


@linux
@questions
def test_each_family_has_its_answer(question):
    for family, cls in zip((INET, INET6), ANSWERS[question]):
        assert portable.answers(question, family) == (cls,)
        assert issubclass(cls, question)


@linux
@questions
def test_the_answers_of_all_families_together(question):
    assert portable.all_answers(question) == ANSWERS[question]
    assert space(question) == space(*ANSWERS[question])


@questions
def test_other_families_have_none(question):
    with pytest.raises(ValueError, match=f"^{question.__name__} is a question to AF_INET and AF_INET6 sockets"):
        portable.answers(question, socket.AF_UNIX)


@pytest.mark.parametrize("family", [INET, INET6, socket.AF_UNIX])
def test_sockets_of_every_family_tell_the_time(family):
    (cls,) = portable.answers(ReceiveTime, family)
    assert issubclass(cls, ReceiveTime)


@pytest.mark.parametrize("cls", [PktInfo, TClass, FragSize])
def test_what_is_no_question_answers_for_itself(cls):
    assert not portable.is_question(cls)
    assert portable.answers(cls, socket.AF_UNIX) == portable.all_answers(cls) == (cls,)


def lacking(monkeypatch, cls, pairs):
    monkeypatch.setattr(cls, "_row", cls._row._replace(pairs=pairs))


def test_where_there_is_no_packet_info_two_messages_answer(monkeypatch):
    """As on FreeBSD."""
    lacking(monkeypatch, PktInfo, ())
    lacking(monkeypatch, DstAddr, ((IP, 7),))
    lacking(monkeypatch, RecvIf, ((IP, 20),))
    assert portable.answers(LocalAddress, INET) == (DstAddr, RecvIf)
    message = towards("10.0.0.1", LocalAddress, local="10.0.0.2")
    assert (type(message), message) == (DstAddr, (IP, 7, socket.inet_aton("10.0.0.2")))


@linux
@questions
@pytest.mark.parametrize(("family", "only", "asked"), [(INET, None, (0,)), (INET6, 1, (1,)), (INET6, 0, (1, 0))])
def test_a_dual_stack_socket_is_asked_for_both_families(ipv6, question, family, only, asked):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if only is not None:
            sock.setsockopt(IPV6, socket.IPV6_V6ONLY, only)
        enable(sock, question)
        for place, cls in enumerate(ANSWERS[question]):
            if (place, family) != (1, INET):  # an IPv4 socket has no options of IPv6
                level, option = (IP, IPV6)[place], getattr(constants, cls._row.option)
                assert sock.getsockopt(level, option) == (place in asked)


# ---- towards ----

DESTINATIONS = [
    ("10.0.0.1", 0),
    (("10.0.0.1", 80), 0),
    (ipaddress.ip_address("10.0.0.1"), 0),
    ("::ffff:10.0.0.1", 0),
    ("::FFFF:a00:1", 0),
    (("::ffff:10.0.0.1", 80, 0, 0), 0),
    (ipaddress.ip_address("::ffff:a00:1"), 0),
    ("::1", 1),
    ("::10.0.0.1", 1),
    (("2001:db8::1", 80), 1),
    (("fe80::1", 80, 0, 3), 1),
    (("fe80::1%eth0", 80), 1),
    (ipaddress.ip_address("fe80::1%2"), 1),
]


@linux
@pytest.mark.parametrize(("destination", "place"), DESTINATIONS)
def test_the_destination_decides(destination, place):
    hops = towards(destination, HopCount, hops=9)
    assert (type(hops), hops.hops) == ((TTL, HopLimit)[place], 9)
    kind = towards(destination, TrafficClass, dscp=46, ecn=ECN.CE)
    assert (type(kind), kind.dscp, kind.ecn) == ((TOS, TClass)[place], 46, ECN.CE)


@linux
@pytest.mark.parametrize("local", ["10.0.0.2", "::ffff:10.0.0.2", "::FFFF:0A00:2", ipaddress.ip_address("::ffff:a00:2")])
def test_a_mapped_source_is_taken_as_ipv4s(local):
    assert towards(("::ffff:10.0.0.1", 1), LocalAddress, local=local, ifindex=3) == PktInfo(local="10.0.0.2", ifindex=3)


@linux
def test_fields_that_are_none_are_not_given():
    assert towards("10.0.0.1", LocalAddress, local=None, ifindex=None) == PktInfo()
    assert towards("::1", LocalAddress, local=None, ifindex=2) == PktInfo6(ifindex=2)


@linux
def test_a_class_is_its_own_answer_towards_anything():
    assert towards("::1", TTL, hops=3) == TTL(hops=3)


BAD = [
    (lambda: towards("example.org", HopCount, hops=1), ValueError, "destination must be a numeric"),
    (lambda: towards("", HopCount, hops=1), ValueError, "destination must be a numeric"),
    (lambda: towards("10.0.0.1\0", HopCount, hops=1), ValueError, "destination must be a numeric"),
    (lambda: towards(("1:2", 1), HopCount, hops=1), ValueError, "destination must be a numeric"),
    (lambda: towards(None, HopCount, hops=1), TypeError, "destination must be an address"),
    (lambda: towards((), HopCount, hops=1), TypeError, "destination must be an address"),
    (lambda: towards((b"10.0.0.1", 1), HopCount, hops=1), TypeError, "destination must be an address"),
    (lambda: towards("10.0.0.1", LocalAddress, local=5), TypeError, "local must be an address"),
    (lambda: towards("10.0.0.1", LocalAddress, local="::1"), ValueError, "local must be a numeric IPv4"),
    (lambda: towards("::1", LocalAddress, local="10.0.0.1"), ValueError, "local must be a numeric IPv6"),
    (lambda: towards("::1", LocalAddress, local="fe80::1%1"), ValueError, "local must have no scope"),
    (lambda: towards("10.0.0.1", HopCount, hops=256), OverflowError, "hops"),
    (lambda: towards("10.0.0.1", HopCount, ttl=1), TypeError, ".*ttl"),
    (lambda: towards("10.0.0.1", 5, hops=1), TypeError, "question must be a class of control messages"),
    (lambda: towards("10.0.0.1", tuple), TypeError, "question must be a class of control messages"),
]


@linux
@pytest.mark.parametrize(("call", "error", "says"), BAD)
def test_what_is_wrong_is_named(call, error, says):
    with pytest.raises(error, match=f"^{says}"):
        call()


# ---- arrival ----


def foreign(cls, data):
    """A message of a class that this platform may lack, of a type that nobody has."""
    return tuple.__new__(cls, (IP, 1234, data))


@linux
def test_an_arrival_has_what_the_messages_tell():
    messages = [
        PktInfo(local="10.0.0.1", ifindex=2, destination="10.0.0.255"),
        TTL(hops=61),
        (IP, 1, b"\xbb"),  # TOS in one byte, as Linux gives it
        OrigDstAddr(address=("192.0.2.1", 80)),
    ]
    assert arrival(messages) == Arrival(
        local="10.0.0.1",
        ifindex=2,
        hops=61,
        dscp=46,
        ecn=ECN.CE,
        original=("192.0.2.1", 80),
        destination="10.0.0.255",
    )


@linux
def test_an_arrival_by_ipv6():
    messages = [PktInfo6(local="2001:db8::1", ifindex=2), HopLimit(hops=255), TClass(), OrigDstAddr6(address=("::1", 5))]
    assert arrival(tuple(message) for message in messages) == Arrival(
        local="2001:db8::1",
        ifindex=2,
        hops=255,
        dscp=0,
        ecn=ECN.NOT_ECT,
        original=("::1", 5, 0, 0),
        destination="2001:db8::1",
    )


@pytest.mark.parametrize("ancdata", [[], [(1000, 1, b"data")], [(IP, 2, b"odd")], [ControlMessage(IP, 1234, b"")]])
def test_what_nobody_tells_is_none(ancdata):
    assert arrival(ancdata) == Arrival() == (None,) * 8


@linux
@pytest.mark.parametrize("order", [1, -1])
def test_of_two_packet_infos_ipv4s_own_counts(order):
    """A dual-stack socket gets both, and IPv6's does not know our address behind a broadcast."""
    both = [PktInfo6(local="::ffff:10.0.0.255", ifindex=2), PktInfo(local="10.0.0.1", ifindex=2, destination="10.0.0.255")]
    assert arrival(both[::order]) == Arrival(local="10.0.0.1", ifindex=2, destination="10.0.0.255")


@linux
@pytest.mark.parametrize(
    ("told", "local", "destination"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("::ffff:224.0.0.1", None, "224.0.0.1"),
        ("::ffff:239.255.255.255", None, "239.255.255.255"),
        ("ff02::1", None, "ff02::1"),
        ("fe80::1", "fe80::1", "fe80::1"),
    ],
)
def test_an_address_to_answer_from_or_none(told, local, destination):
    assert arrival([PktInfo6(local=told, ifindex=1)]) == Arrival(local=local, ifindex=1, destination=destination)


@pytest.mark.parametrize(("told", "local"), [("10.0.0.1", "10.0.0.1"), ("224.0.0.1", None), ("240.0.0.1", "240.0.0.1")])
def test_two_messages_of_bsd_are_one_arrival(monkeypatch, told, local):
    monkeypatch.setattr("lowsock.cmsg._ip._sdl_index", struct.Struct("=2xH").unpack_from)
    messages = [foreign(RecvIf, struct.pack("=BBH4x", 8, 18, 5)), foreign(DstAddr, socket.inet_aton(told))]
    for both in (messages, messages[::-1]):
        assert arrival(both) == Arrival(local=local, ifindex=5, destination=told)


class Clock(ReceiveTime):
    """A time of our own."""

    @property
    def timestamp_ns(self):
        return self.data[0] or None


def test_the_first_time_that_is_told_counts():
    times = [foreign(Clock, bytes([value])) for value in (0, 7, 9)]
    assert arrival(times).timestamp_ns == 7


@pytest.mark.parametrize("ancdata", [None, [1], [(1, 2)], [(1, 2, "text")]])
def test_what_is_no_ancillary_data_is_a_type_error(ancdata):
    with pytest.raises(TypeError):
        arrival(ancdata)


def test_a_question_by_itself_tells_nothing():
    for question, attributes in ((LocalAddress, "local ifindex destination"), (ReceiveTime, "timestamp_ns")):
        assert [getattr(foreign(question, b""), name) for name in attributes.split()] == [None] * len(attributes.split())
    assert foreign(OriginalDestination, b"").address is None


# ---- on the kernel ----

# Who asks whom: the client's family and the host that it asks; the server's family and the address that it is bound to.
PATHS = {
    "IPv4": (INET, "127.0.0.2", INET, "0.0.0.0"),
    "IPv6": (INET6, "::1", INET6, "::"),
    "IPv4 to a dual-stack server": (INET, "127.0.0.2", INET6, "::"),
    "v4-mapped to an IPv4 server": (INET6, "::ffff:127.0.0.2", INET, "0.0.0.0"),
    "v4-mapped to a dual-stack server": (INET6, "::ffff:127.0.0.2", INET6, "::"),
}
ASKED = (LocalAddress, HopCount, TrafficClass, OriginalDestination)


@pytest.fixture
def stack(ipv6):
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=PATHS)
def path(request, stack):
    """A client, a server that asks all questions, the room for the answers, and the client's address for the server."""

    def udp(family, host):
        sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.settimeout(2)
        if family == INET6:
            sock.setsockopt(IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, 0))
        return sock

    family, host, family_of_server, any_address = PATHS[request.param]
    client, server = udp(family, ("::" if family == INET6 else "0.0.0.0")), udp(family_of_server, any_address)
    return client, server, enable(server, *ASKED), (host, server.getsockname()[1])


def take(server, ancbufsize):
    data, ancdata, msg_flags, source = recvmsg(server, 100, ancbufsize)
    assert not msg_flags & socket.MSG_CTRUNC
    return arrival(ancdata), source


@linux
def test_how_a_datagram_came_is_told_alike_on_every_path(path):
    client, server, ancbufsize, there = path
    plain = there[0].replace("::ffff:", "")
    sent = [towards(there, HopCount, hops=33), towards(there, TrafficClass, dscp=46, ecn=ECN.ECT_0)]
    sendmsg(client, [b"x"], sent, 0, there)
    how, _ = take(server, ancbufsize)
    assert how._replace(original=how.original[:2]) == Arrival(
        local=plain, ifindex=1, hops=33, dscp=46, ecn=ECN.ECT_0, original=(plain, there[1]), destination=plain
    )


@linux
def test_the_answer_comes_from_the_address_that_was_asked(path):
    client, server, ancbufsize, there = path
    client.connect(there)
    client.send(b"x")
    how, source = take(server, ancbufsize)
    answer = [towards(source, LocalAddress, local=how.local, ifindex=how.ifindex), towards(source, HopCount, hops=7)]
    enable(client, HopCount)
    sendmsg(server, [b"y"], answer, 0, source)
    assert take(client, 1024)[0].hops == 7


@linux
def test_every_codepoint_and_class_on_every_path(path):
    client, server, ancbufsize, there = path
    for octet in range(256):
        dscp, ecn = octet >> 2, ECN(octet & 3)
        sendmsg(client, [b"x"], [towards(there, TrafficClass, dscp=dscp, ecn=ecn)], 0, there)
        how, _ = take(server, ancbufsize)
        assert (how.dscp, how.ecn) == (dscp, ecn)


@linux
def test_the_family_of_the_socket_gives_no_right_to_send_its_messages_elsewhere(stack):
    """IPv6's messages have no effect on IPv4 datagrams of the same socket, and the other way round."""
    sock = stack.enter_context(socket.socket(INET6, socket.SOCK_DGRAM))
    sock.settimeout(2)
    sock.setsockopt(IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    room = enable(sock, HopCount, TrafficClass)
    port = sock.getsockname()[1]
    ours, theirs = [TTL(hops=9), TOS(dscp=9)], [HopLimit(hops=9), TClass(dscp=9)]
    for host, right, wrong in (("::ffff:127.0.0.1", ours, theirs), ("::1", theirs, ours)):
        for sent, expected in ((right, (9, 9)), (wrong, (64, 0))):
            sendmsg(sock, [b"x"], sent, 0, (host, port))
            how, _ = take(sock, room)
            assert (how.hops, how.dscp) == expected


@linux
def test_on_a_dual_stack_socket_ipv6s_packet_info_alone_tells_a_mapped_address(stack):
    server = stack.enter_context(socket.socket(INET6, socket.SOCK_DGRAM))
    server.settimeout(2)
    server.setsockopt(IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", 0))
    room = enable(server, PktInfo6, HopLimit, TClass, OrigDstAddr6)
    client = stack.enter_context(socket.socket(INET, socket.SOCK_DGRAM))
    client.settimeout(2)
    client.connect(("127.0.0.2", server.getsockname()[1]))
    client.send(b"x")
    data, ancdata, _, source = recvmsg(server, 100, room)
    (info,) = decode(ancdata)
    assert (type(info), info.local) == (PktInfo6, "::ffff:127.0.0.2")
    sendmsg(server, [b"y"], [info], 0, source)  # Linux takes it for IPv4 too
    assert client.recv(10) == b"y"
    with pytest.raises(OSError, match="Invalid argument"):
        sendmsg(server, [b"y"], [PktInfo6()], 0, source)
