# SPDX-License-Identifier: MIT
"""Sends of an endpoint: what goes, in which datagrams, from where."""

import errno
import socket

import pytest
from udp_sockets import HOSTS, UNLEARNED, bound, cut, linux, numbered, receive

from lowsock import constants, udp

# ---- what goes ----

SEGMENTS = (1, 100, 1200)
MULTIPLES = (0, 1, 2, 63, 64, 65, 128, 129)


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("times", MULTIPLES)
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_every_length_goes_as_datagrams_of_one_size(pair4, gso, segment, times, more):
    size = segment * times + more
    if size < 0:
        size = 0
    a, b = pair4
    data = numbered(size)
    expected = cut(data, segment)
    assert udp.Endpoint(a, gso=gso).send(data, address=b.getsockname(), segment_size=segment) == len(data)
    assert receive(b, len(expected)) == expected


@pytest.mark.parametrize("size", [65506, 65507, 65508, 70000, 131014, 3_000_000])
def test_what_no_call_holds_goes_in_several(pair_of, size):
    a, b = pair_of
    data = numbered(size)
    expected = cut(data, 1300)
    assert udp.Endpoint(a).send(data, address=b.getsockname(), segment_size=1300) == len(data)
    assert receive(b, len(expected)) == expected


def test_a_connected_socket_needs_no_address(pair_of):
    a, b = pair_of
    a.connect(b.getsockname())
    assert udp.Endpoint(a).send(b"abcde", address=None, segment_size=2, ecn=2) == 5
    assert receive(b, 3) == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)).cast("H")])
@pytest.mark.parametrize("size", [500, 20000])
def test_any_contiguous_buffer_is_data(pair4, kind, size):
    a, b = pair4
    data = numbered(size)
    assert udp.Endpoint(a).send(kind(data), address=b.getsockname(), segment_size=400) == size
    assert receive(b, len(cut(data, 400))) == cut(data, 400)


def test_memory_is_let_go_after_a_send(pair4):
    a, b = pair4
    data = bytearray(20000)
    udp.Endpoint(a).send(data, address=b.getsockname(), segment_size=400)
    data += b"more"


@pytest.mark.parametrize("count", [1, 3, 1500])
def test_many_go_to_different_destinations(pair4, count):
    a, b = pair4
    with bound(*HOSTS["4"]) as c:
        datagrams = [(b"%d" % i, (b, c)[i % 2].getsockname()) for i in range(count)]
        assert udp.Endpoint(a).send_many(iter(datagrams), ecn=1, local="127.0.0.1") == count
        got = receive(b, (count + 1) // 2), receive(c, count // 2)
        assert got == ([b"%d" % i for i in range(0, count, 2)], [b"%d" % i for i in range(1, count, 2)])


def test_an_empty_batch_is_none(pair4):
    assert udp.Endpoint(pair4[0]).send_many([]) == 0


# ---- from where ----


@linux
@pytest.mark.parametrize("segment", [None, 2])
def test_an_answer_comes_from_the_address_that_was_asked(segment):
    with bound(socket.AF_INET, "0.0.0.0") as a, bound(socket.AF_INET, "127.0.0.1") as b:
        server, client = udp.Endpoint(a), udp.Endpoint(b)
        client.send(b"?", address=("127.0.0.77", a.getsockname()[1]))
        (asked,) = server.recv()
        assert asked.local == "127.0.0.77"
        server.send(b"abcd", address=asked.address, segment_size=segment, local=asked.local, ifindex=asked.ifindex)
        assert client.recv()[0].address == ("127.0.0.77", a.getsockname()[1])


@linux
@pytest.mark.parametrize("host", ["127.0.0.77", "::1"])
def test_a_dual_stack_socket_answers_in_the_family_of_the_destination(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as a, bound(family, "::1" if ":" in host else "127.0.0.1") as b:
        a.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        a.bind(("::", 0))
        a.settimeout(10)
        server, client = udp.Endpoint(a), udp.Endpoint(b)
        client.send(b"?", address=(host, a.getsockname()[1]))
        (asked,) = server.recv()
        server.send(b"abcd", address=asked.address, segment_size=2, local=asked.local, ifindex=asked.ifindex, ecn=2)
        got = client.recv()[0]
        assert (got.address[0], got.ecn) == (host, 2)


@linux
def test_a_connected_dual_stack_socket_knows_its_peers_family(pair4):
    _, b = pair4
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as a:
        a.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one, other = udp.Endpoint(a), udp.Endpoint(b)
        a.connect(("::ffff:127.0.0.1", b.getsockname()[1]))
        one.send(b"abcd", address=None, segment_size=2, ecn=3)
        assert {each.ecn for each in other.recv()} == {3}


# ---- bad input ----

BAD = [
    ({"data": "text"}, TypeError, "data"),
    ({"data": memoryview(b"abcd")[::2]}, BufferError, "data"),
    ({"segment_size": 0}, ValueError, "segment_size"),
    ({"segment_size": -1}, ValueError, "segment_size"),
    ({"segment_size": 65536}, OverflowError, "segment_size"),
    ({"segment_size": 2.0}, TypeError, "segment_size"),
    ({"ecn": 4}, OverflowError, "ecn"),
    ({"ecn": "CE"}, TypeError, "ecn"),
    ({"local": "localhost"}, ValueError, "local"),
    ({"local": 5}, TypeError, "local"),
    ({"local": "::1"}, ValueError, "local"),
    ({"ifindex": -1}, ValueError, "ifindex"),
    ({"txtime_ns": -1}, ValueError, "txtime_ns"),
    ({"flags": "0"}, TypeError, "flags"),
    ({"address": ("localhost", 9)}, ValueError, "address"),
    ({"address": ("127.0.0.1", 70000)}, OverflowError, "address port"),
    ({"address": "127.0.0.1"}, TypeError, "address"),
]


@pytest.mark.parametrize(("given", "error", "name"), BAD)
def test_bad_input_is_named_and_nothing_is_sent(pair4, given, error, name):
    a, b = pair4
    arguments = {"data": b"abcd", "address": b.getsockname(), **given}
    with pytest.raises(error, match=name):
        udp.Endpoint(a).send(arguments.pop("data"), address=arguments.pop("address"), **arguments)
    assert receive(b, 0) == []


@pytest.mark.parametrize(
    ("item", "error", "name"),
    [
        (b"data", TypeError, "datagrams.1. must be a tuple"),
        (("text", ("127.0.0.1", 9)), TypeError, "datagrams.1. data"),
        ((b"x", ("localhost", 9)), ValueError, "datagrams.1. address"),
        ((b"x", ("127.0.0.1", -1)), OverflowError, "datagrams.1. address port"),
    ],
)
def test_a_bad_datagram_is_named_by_its_number_and_nothing_is_sent(pair4, item, error, name):
    a, b = pair4
    with pytest.raises(error, match=name):
        udp.Endpoint(a).send_many([(b"good", b.getsockname()), item])
    assert receive(b, 0) == []


def test_a_send_on_a_closed_socket_is_an_os_error(pair4):
    a, b = pair4
    one = udp.Endpoint(a)
    a.close()
    with pytest.raises(OSError) as info:
        one.send(b"abcd", address=b.getsockname(), segment_size=2)
    assert info.value.errno == errno.EBADF


def test_a_datagram_that_is_too_long_is_the_kernels_error(pair4):
    a, b = pair4
    one = udp.Endpoint(a)
    for segment in (None, 65535):
        with pytest.raises(OSError) as info:
            one.send(bytes(70000), address=b.getsockname(), segment_size=segment)
        assert info.value.errno == errno.EMSGSIZE
    assert one.fallbacks == UNLEARNED


# ---- MSG_ZEROCOPY ----


@linux
@pytest.mark.parametrize("size", [100, 30_000, 200_000])
def test_large_sends_go_by_zero_copy(pair_of, size):
    a, b = pair_of
    with udp.Endpoint(a, zerocopy=True) as one:
        assert one.zerocopy
        expected = cut(numbered(size), 1200)
        assert one.send(numbered(size), address=b.getsockname(), segment_size=1200, ecn=1) == size
        assert receive(b, len(expected)) == expected
        assert one._zerocopy.wait(5)
        assert bool(one._zerocopy.read()) == (size > 10_000)


@linux
def test_zero_copy_falls_back_as_the_rest(pair4):
    a, b = pair4
    with udp.Endpoint(a, zerocopy=True) as one:
        a.setsockopt(constants.SOL_SOCKET, constants.SO_NO_CHECK, 1)
        expected = cut(numbered(100_000), 1000)
        assert one.send(numbered(100_000), address=b.getsockname(), segment_size=1000) == 100_000
        assert receive(b, len(expected)) == expected
        assert one.fallbacks.offload == errno.EINVAL
