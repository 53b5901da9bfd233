# SPDX-License-Identifier: MIT
"""Addresses through the calls: to unconnected sockets and from them, as the socket module has them."""

import contextlib
import os
import socket
import sys

import pytest

import lowsock
from lowsock import constants
from lowsock._memory import address as _address

ABSTRACT = sys.platform.startswith("linux")
DGRAM = socket.SOCK_DGRAM
SOURCES = {
    "IPv4": (socket.AF_INET, ("127.0.0.1", 0)),
    "IPv4 of another host": (socket.AF_INET, ("127.1.2.3", 0)),
    "IPv6": (socket.AF_INET6, ("::1", 0)),
    "unix path": (socket.AF_UNIX, "source"),
    "unix path that is not UTF-8": (socket.AF_UNIX, b"source\xff"),
    "unix longest path": (socket.AF_UNIX, "p" * (107 if ABSTRACT else 103)),
    "unix unnamed": (socket.AF_UNIX, None),
    "unix abstract": (socket.AF_UNIX, b"\0lowsock\0\xff"),
}
TARGETS = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: "target"}


@pytest.fixture(params=SOURCES)
def route(request, tmp_path, monkeypatch):
    """Two unconnected datagram sockets (source, target), both bound."""
    family, address = SOURCES[request.param]
    if address == SOURCES["unix abstract"][1] and not ABSTRACT:
        pytest.skip("abstract names are Linux's")
    monkeypatch.chdir(tmp_path)
    with socket.socket(family, DGRAM) as source, socket.socket(family, DGRAM) as target:
        try:
            if address is not None:
                source.bind(address)
            target.bind(TARGETS[family])
        except OSError as error:
            pytest.skip(f"cannot be bound: {error}")
        yield source, target


RECEIVES = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 100)[3],
    "recvmsg with room": lambda sock: lowsock.recvmsg(sock, 100, 100)[3],
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(100)])[3],
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 100, 1)[3],
}


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_the_source_is_what_the_socket_module_says(route, receive):
    source, target = route
    source.sendto(b"x", target.getsockname())
    theirs = target.recvfrom(100, socket.MSG_PEEK)[1]
    ours = receive(target)
    assert (ours, type(ours)) == (theirs, type(theirs))


SENDS = {
    "sendmsg": lambda sock, data, address: lowsock.sendmsg(sock, [data], address=address),
    "sendmsg, gathered": lambda sock, data, address: lowsock.sendmsg(sock, [data[:1], data[1:]], (), 0, address),
    "sendmsg by descriptor": lambda sock, data, address: lowsock.sendmsg(sock.fileno(), [data], (), 0, address),
    "send_fds": lambda sock, data, address: lowsock.send_fds(sock, [data], [], 0, address),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_the_address_is_where_it_goes(route, send):
    source, target = route
    for data in (b"first", b"again"):
        assert send(source, data, target.getsockname()) == len(data)
        assert target.recv(100) == data


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reply_reaches_the_address_that_was_received(route, blocking):
    source, target = route
    if not source.getsockname():
        pytest.skip("an unnamed socket cannot be replied to")
    source.setblocking(blocking)
    lowsock.sendmsg(source, [b"ping"], [], 0, target.getsockname())
    lowsock.sendmsg(target, [b"pong"], [], 0, lowsock.recvmsg(target, 100)[3])
    assert lowsock.recvmsg(source, 100)[0] == b"pong"


def test_ipv4_through_an_ipv6_socket_shows_mapped(ipv6):
    with socket.socket(socket.AF_INET6, DGRAM) as six, socket.socket(socket.AF_INET, DGRAM) as four:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        six.bind(("::", 0))
        four.bind(("127.0.0.1", 0))
        lowsock.sendmsg(four, [b"x"], address=("127.0.0.1", six.getsockname()[1]))
        mapped = lowsock.recvmsg(six, 10)[3]
        assert mapped == ("::ffff:127.0.0.1", four.getsockname()[1], 0, 0)
        lowsock.sendmsg(six, [b"y"], address=mapped)
        assert four.recv(10) == b"y"


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="AF_NETLINK is Linux's")
def test_netlink_both_ways():
    usersock = (socket.AF_NETLINK, socket.SOCK_RAW, 2)
    with socket.socket(*usersock) as a, socket.socket(*usersock) as b:
        for sock in (a, b):
            sock.bind((0, 0))
        assert lowsock.sendmsg(a, [b"x" * 16], address=b.getsockname()) == 16
        assert lowsock.recvmsg(b, 100) == (b"x" * 16, [], 0, a.getsockname())


@pytest.fixture
def packet_pair():
    """Two AF_PACKET sockets on the loopback interface, for an experimental protocol."""
    if not hasattr(socket, "AF_PACKET"):
        pytest.skip("AF_PACKET is Linux's")
    try:
        a, b = (socket.socket(socket.AF_PACKET, DGRAM, 0) for _ in range(2))
    except PermissionError as error:
        pytest.skip(f"AF_PACKET takes root: {error}")
    with a, b:
        b.bind(("lo", 0x88B5))
        yield a, b


@pytest.mark.parametrize("shape", [2, 3, 4, 5])
def test_packet_both_ways(packet_pair, shape):
    a, b = packet_pair
    address = ("lo", 0x88B5, 0, 0, b"\0" * 6)[:shape]
    assert lowsock.sendmsg(a, [b"x" * 50], address=address) == 50
    theirs = b.recvfrom(100, socket.MSG_PEEK)[1]
    assert lowsock.recvmsg(b, 100) == (b"x" * 50, [], 0, theirs)
    assert theirs[:2] == ("lo", 0x88B5)


def test_an_address_of_another_family_goes_as_its_bytes(monkeypatch):
    """Seen by the kernel as it is: an IPv4 address said as (family, bytes) by a socket whose family has no row."""
    monkeypatch.setattr(_address, "_ROWS", {})
    monkeypatch.setattr(_address, "_FAMILIES", _address._Families())
    with socket.socket(socket.AF_INET, DGRAM) as a, socket.socket(socket.AF_INET, DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        raw = b.getsockname()[1].to_bytes(2, "big") + b"\x7f\0\0\1" + bytes(8)
        lowsock.sendmsg(a.fileno(), [b"x"], address=(socket.AF_INET, raw))
        assert b.recv(10) == b"x"


# ---- the cache ----


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize(("host", "place"), [("127.0.0.1", 1), ("::1", 1), ("::1", 2), ("::1", 3)])
def test_what_is_no_int_is_refused_though_an_equal_address_is_remembered(request, host, place, kind):
    if ":" in host:
        request.getfixturevalue("ipv6")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, DGRAM) as sock, socket.socket(family, DGRAM) as target:
        target.bind((host, 0))
        good = target.getsockname()
        equal = (*good[:place], kind(good[place]), *good[place + 1 :])
        lowsock.sendmsg(sock, [b"x"], address=good)
        with pytest.raises(TypeError, match="address"):
            lowsock.sendmsg(sock, [b"x"], address=equal)


def test_true_is_port_one_though_it_equals_a_remembered_one():
    assert _address.encode(socket.AF_INET, ("127.0.0.1", True)) == _address.encode(socket.AF_INET, ("127.0.0.1", 1))


def remembered():
    """How many entries each dictionary of the module has, those inside others included."""
    found = [value for value in vars(_address).values() if type(value) is dict]
    found += [inner for outer in found for inner in outer.values() if type(inner) is dict]
    return [len(cache) for cache in found]


def spoofed(number):
    """A control message that has the kernel send from 127.x.y.z."""
    host = (0x7F000001 + number).to_bytes(4, "big")
    return socket.inet_ntoa(host), (socket.IPPROTO_IP, constants.IP_PKTINFO, bytes(4) + host + bytes(4))


@pytest.mark.skipif(not ABSTRACT, reason="IP_PKTINFO for sending is Linux's")
def test_many_sources_are_told_apart_in_bounded_memory(soak_count):
    with socket.socket(socket.AF_INET, DGRAM) as a, socket.socket(socket.AF_INET, DGRAM) as b:
        a.bind(("0.0.0.0", 0))
        b.bind(("127.0.0.1", 0))
        port, target = a.getsockname()[1], b.getsockname()
        for number in range(max(3 * _address.CACHE_SIZE, soak_count(100_000))):
            host, message = spoofed(number)
            lowsock.sendmsg(a, [b"x"], [message], 0, target)
            assert lowsock.recvmsg(b, 10)[3] == (host, port)
    assert max(remembered()) <= _address.CACHE_SIZE


def test_many_targets_are_told_apart_in_bounded_memory():
    with socket.socket(socket.AF_INET, DGRAM) as a, socket.socket(socket.AF_INET, DGRAM) as b:
        b.bind(("0.0.0.0", 0))
        b.setsockopt(socket.IPPROTO_IP, constants.IP_PKTINFO, 1)
        for number in range(2 * _address.CACHE_SIZE):
            host, _ = spoofed(number)
            lowsock.sendmsg(a, [b"x"], address=(host, b.getsockname()[1]))
            ((_, _, info),) = lowsock.recvmsg(b, 10, 100)[1]
            assert socket.inet_ntoa(info[8:12]) == host
    assert max(remembered()) <= _address.CACHE_SIZE


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
@pytest.mark.parametrize("data", [b"", b"data"])
def test_sources_that_take_turns_are_told_apart(receive, data):
    with contextlib.ExitStack() as stack:
        target, *senders = (stack.enter_context(socket.socket(socket.AF_INET, DGRAM)) for _ in range(4))
        for number, sock in enumerate((target, *senders)):
            sock.bind((f"127.0.0.{number + 1}", 0))
        for turn in "00000000000000000000000000000001010110222222222222222222222222201202102":
            sender = senders[int(turn)]
            sender.sendto(data, target.getsockname())
            assert receive(target) == sender.getsockname()


def test_ipv6_sources_are_told_apart(ipv6):
    with socket.socket(socket.AF_INET6, DGRAM) as b:
        b.bind(("::1", 0))
        for _ in range(50):
            with socket.socket(socket.AF_INET6, DGRAM) as a:
                a.bind(("::1", 0))
                lowsock.sendmsg(a, [b"x"], address=b.getsockname())
                assert lowsock.recvmsg(b, 10)[3] == a.getsockname()


def test_paths_are_never_remembered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sum(remembered())
    with socket.socket(socket.AF_UNIX, DGRAM) as a, socket.socket(socket.AF_UNIX, DGRAM) as b:
        b.bind("b")
        a.bind("a")
        lowsock.sendmsg(a, [b"x"], address="b")
        assert lowsock.recvmsg(b, 10)[3] == "a"
    assert sum(remembered()) == before
    assert sorted(os.listdir(".")) == ["a", "b"]
