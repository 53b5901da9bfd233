# SPDX-License-Identifier: MIT
"""`Endpoint.send_many`: what goes beside each datagram of a batch, and how far a batch goes."""

import errno
import os
import socket
import struct
import sys

import pytest

from lowsock import cmsg, constants, udp
from lowsock._system.errors import fail
from lowsock._system.ffi import ffi
from lowsock.udp import _send_many as many

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is Linux's")
FAMILIES = {"4": (socket.AF_INET, "127.0.0.1"), "6": (socket.AF_INET6, "::1")}
BESIDE = {"nothing": {}, "ecn": {"ecn": 2}, "local": {"local": "127.0.0.1"}, "both": {"ecn": 1, "local": "127.0.0.1"}}


def bound(family, host):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(10)
    return sock


@pytest.fixture(params=FAMILIES)
def socks(request):
    """A sender and two receivers."""
    made = [bound(*FAMILIES[request.param]) for _ in range(3)]
    yield made
    for sock in made:
        sock.close()


@pytest.fixture
def dual():
    """A dual-stack sender, and a receiver for each family."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, bound(*FAMILIES["4"]) as v4, bound(*FAMILIES["6"]) as v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        yield sock, v4, v6


def drained(sock):
    """What came, as datagrams that are told with all that the kernel tells."""
    endpoint, found = udp.Endpoint(sock), []
    sock.setblocking(False)
    while True:
        try:
            found += endpoint.recv()
        except BlockingIOError:
            return found


@pytest.mark.parametrize("count", [1, 2, 63, 1024, 1025, 2500])
@pytest.mark.parametrize("ecn", [None, 2])
@pytest.mark.parametrize("to", ["one", "equal", "two"])
def test_every_length_goes_once_in_order_and_marked(socks, count, ecn, to):
    """To one address, to one that is told by equal tuples, and to two in turn."""
    sock, *others = socks
    endpoints = [udp.Endpoint(other) for other in others]
    expected = [], []
    got = [], []
    for first in range(0, count, 100):  # the queue of a socket is short
        part = range(first, min(first + 100, count))
        for i in part:
            expected[i % 2 if to == "two" else 0].append(b"%d" % i)
    names = [other.getsockname() for other in others]
    where = {"one": lambda i: names[0], "equal": lambda i: (*names[0],), "two": lambda i: names[i % 2]}[to]
    for sock_ in others:
        sock_.setsockopt(socket.SOL_SOCKET, 33 if sys.platform.startswith("linux") else socket.SO_RCVBUF, 1 << 24)
    assert udp.Endpoint(sock).send_many([(b"%d" % i, where(i)) for i in range(count)], ecn=ecn) == count
    for i, endpoint in enumerate(endpoints):
        while len(got[i]) < len(expected[i]):
            got[i].extend(endpoint.recv())
    assert tuple([each.data for each in found] for found in got) == expected
    assert {each.ecn for found in got for each in found} == {cmsg.ECN(ecn or 0)}


@linux
@pytest.mark.parametrize("beside", BESIDE)
def test_one_batch_goes_to_both_families(dual, beside):
    """The destination decides whether IPv4's or IPv6's messages go."""
    sock, v4, v6 = dual
    options = dict(BESIDE[beside])
    for other in (v4, v6):
        udp.Endpoint(other)  # asks for ECN
    to4, to6 = ("::ffff:127.0.0.1", v4.getsockname()[1]), v6.getsockname()
    batch = [(b"%d" % i, to4 if i % 3 else to6) for i in range(60)]
    if "local" in options:
        with pytest.raises(ValueError, match="local"):
            udp.Endpoint(sock).send_many(batch, **options)
        assert drained(v4) + drained(v6) == []
        batch = [(data, to) for data, to in batch if to is to4]
    assert udp.Endpoint(sock).send_many(batch, **options) == len(batch)
    for other, to in ((v4, to4), (v6, to6)):
        assert [(each.data, each.ecn) for each in drained(other)] == [
            (data, options.get("ecn", 0)) for data, where in batch if where is to
        ]


@linux
def test_a_batch_goes_from_the_address_that_was_asked(dual):
    sock, v4, _ = dual
    port = sock.getsockname()[1]
    to = ("::ffff:127.0.0.1", v4.getsockname()[1])
    assert udp.Endpoint(sock).send_many([(b"1", to), (b"2", to)], local="127.0.0.77") == 2
    assert {each.address for each in drained(v4)} == {("127.0.0.77", port)}


@pytest.mark.parametrize("ecn", [None, 2])
def test_a_connected_socket_needs_no_addresses(socks, ecn):
    sock, other, third = socks
    sock.connect(other.getsockname())
    udp.Endpoint(other)
    batch = [(b"1", None), (b"2", other.getsockname()), (b"3", None), (b"", third.getsockname())]
    if sock.family == socket.AF_INET6 and not sys.platform.startswith("linux"):
        pytest.skip("to name an address on a connected socket is Linux's")
    assert udp.Endpoint(sock).send_many(batch, ecn=ecn) == 4
    assert [(each.data, each.ecn) for each in drained(other)] == [(data, ecn or 0) for data in (b"1", b"2", b"3")]
    assert [each.data for each in drained(third)] == [b""]


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(bytearray(data)).cast("H")])
@pytest.mark.parametrize("size", [4, 40_000])
def test_any_buffer_is_data_and_is_let_go(socks, kind, size):
    sock, other, _ = socks
    data = [os.urandom(size) for _ in range(3)]
    given = [kind(each) for each in data]
    assert udp.Endpoint(sock).send_many([(each, other.getsockname()) for each in given]) == 3
    assert [each.data for each in drained(other)] == data
    for each in given:
        if isinstance(each, bytearray):
            each += b"more"


@linux
def test_the_kernels_error_of_a_later_one_is_raised_by_the_next_call(socks):
    """What went before it is counted."""
    sock, other, _ = socks
    batch = [(b"1", other.getsockname()), (b"2", other.getsockname()), (bytes(65535), other.getsockname())]
    endpoint = udp.Endpoint(sock)
    for options in ({}, {"ecn": 1}):
        assert endpoint.send_many(batch, **options) == 2
        with pytest.raises(OSError) as info:
            endpoint.send_many(batch[2:], **options)
        assert info.value.errno == errno.EMSGSIZE
    assert [each.data for each in drained(other)] == [b"1", b"2"] * 2
    assert endpoint.fallbacks == udp.Fallbacks(None, None, {})


@linux
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("beside", [{"ecn": 1}, {"ecn": 1, "local": "127.0.0.1"}])
def test_a_batch_whose_ecn_is_refused_goes_without_from_then_on(monkeypatch, error, beside):
    """A stand-in refuses what the kernel of today takes."""
    real, refused = many.deliver, []
    tos = struct.pack("ii", constants.IPPROTO_IP, constants.IP_TOS)

    def deliver(box, *rest):
        control = box.struct.control
        if control and tos in bytes(ffi.buffer(control, box.struct.control_sizes[0])):
            refused.append(box)
            _refuse(error)
        return real(box, *rest)

    monkeypatch.setattr(many, "deliver", deliver)
    monkeypatch.setattr(many, "raised_inside", lambda error: True)
    with bound(*FAMILIES["4"]) as a, bound(*FAMILIES["4"]) as b:
        one = udp.Endpoint(a)
        for _ in range(2):
            assert one.send_many([(b"1", b.getsockname()), (b"2", b.getsockname())], **beside) == 2
        assert one.fallbacks.ecn == error
        assert [(each.data, each.ecn) for each in drained(b)] == [(b"1", 0), (b"2", 0)] * 2
    assert len(refused) == 1


def _refuse(error):
    fail(-error)


@pytest.mark.parametrize("given", [5, None, b"data", "text"])
def test_what_is_no_iterable_of_pairs_is_refused(socks, given):
    with pytest.raises(TypeError, match="datagrams"):
        udp.Endpoint(socks[0]).send_many(given)


def test_flags_are_checked_before_all(socks):
    with pytest.raises(TypeError, match="flags"):
        udp.Endpoint(socks[0]).send_many([], flags="0")
    assert udp.Endpoint(socks[0]).send_many([], ecn=1) == 0


def test_a_batch_on_a_closed_socket_is_an_os_error(socks):
    one = udp.Endpoint(socks[0])
    socks[0].close()
    for options in ({}, {"ecn": 1}):
        with pytest.raises(OSError) as info:
            one.send_many([(b"x", socks[1].getsockname())], **options)
        assert info.value.errno == errno.EBADF
