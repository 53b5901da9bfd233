# SPDX-License-Identifier: MIT
"""Sends of an endpoint: what goes, in which datagrams, from where; every way to fall back, provoked on the kernel."""

import errno
import os
import socket
import struct
import time

import pytest

from lowsock import _udp_sending as sending
from lowsock import cmsg, constants, udp

LINUX = os.uname().sysname == "Linux"
linux = pytest.mark.skipif(not LINUX, reason="segmentation offload is Linux's")
HOSTS = {"4": (socket.AF_INET, "127.0.0.1"), "6": (socket.AF_INET6, "::1")}
UNLEARNED = udp.Fallbacks(None, None, {})


def bound(family, host):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else socket.SO_RCVBUF, 1 << 24
    )
    sock.bind((host, 0))
    sock.settimeout(10)
    if LINUX:
        cmsg.enable(sock, cmsg.Gro)
    return sock


@pytest.fixture(params=HOSTS)
def pair_of(request):
    a, b = bound(*HOSTS[request.param]), bound(*HOSTS[request.param])
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def pair4():
    a, b = bound(*HOSTS["4"]), bound(*HOSTS["4"])
    yield a, b
    a.close()
    b.close()


def numbered(size):
    """Bytes of which every four say where they stand."""
    return b"".join(struct.pack(">I", i) for i in range(size // 4 + 1))[:size]


def cut(data, segment):
    return [data[at : at + segment] for at in range(0, len(data), segment)] or [b""]


def receive(sock, count):
    """So many datagrams, and a check that there are no more."""
    receiver = udp.Endpoint(sock)
    got = []
    while len(got) < count:
        got += [each.data for each in receiver.recv()]
    timeout = sock.gettimeout()
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        receiver.recv()
    sock.settimeout(timeout)
    return got


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
    assert udp.Endpoint(a, gso=gso).send(data, b.getsockname(), segment_size=segment) == len(expected)
    assert receive(b, len(expected)) == expected


@pytest.mark.parametrize("size", [65506, 65507, 65508, 70000, 131014, 3_000_000])
def test_what_no_call_holds_goes_in_several(pair_of, size):
    a, b = pair_of
    data = numbered(size)
    expected = cut(data, 1300)
    assert udp.Endpoint(a).send(data, b.getsockname(), segment_size=1300) == len(expected)
    assert receive(b, len(expected)) == expected


def test_a_connected_socket_needs_no_address(pair_of):
    a, b = pair_of
    a.connect(b.getsockname())
    assert udp.Endpoint(a).send(b"abcde", segment_size=2, ecn=2) == 3
    assert receive(b, 3) == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)).cast("H")])
@pytest.mark.parametrize("size", [500, 20000])
def test_any_contiguous_buffer_is_data(pair4, kind, size):
    a, b = pair4
    data = numbered(size)
    assert udp.Endpoint(a).send(kind(data), b.getsockname(), segment_size=400) == len(cut(data, 400))
    assert receive(b, len(cut(data, 400))) == cut(data, 400)


def test_memory_is_let_go_after_a_send(pair4):
    a, b = pair4
    data = bytearray(20000)
    udp.Endpoint(a).send(data, b.getsockname(), segment_size=400)
    data += b"more"


@pytest.mark.parametrize("count", [1, 3, 1500])
def test_many_go_to_different_destinations(pair4, count):
    a, b = pair4
    with bound(*HOSTS["4"]) as c:
        datagrams = [(b"%d" % i, (b, c)[i % 2].getsockname()) for i in range(count)]
        assert udp.Endpoint(a).send_many(iter(datagrams), ecn=1, source="127.0.0.1") == count
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
        client.send(b"?", ("127.0.0.77", a.getsockname()[1]))
        (asked,) = server.recv()
        assert asked.local == "127.0.0.77"
        server.send(b"abcd", asked.address, segment_size=segment, source=asked.local, ifindex=asked.ifindex)
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
        client.send(b"?", (host, a.getsockname()[1]))
        (asked,) = server.recv()
        server.send(b"abcd", asked.address, segment_size=2, source=asked.local, ifindex=asked.ifindex, ecn=2)
        got = client.recv()[0]
        assert (got.address[0], got.ecn) == (host, 2)


@linux
def test_a_connected_dual_stack_socket_knows_its_peers_family(pair4):
    _, b = pair4
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as a:
        a.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one, other = udp.Endpoint(a), udp.Endpoint(b)
        a.connect(("::ffff:127.0.0.1", b.getsockname()[1]))
        one.send(b"abcd", segment_size=2, ecn=3)
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
    ({"source": "localhost"}, ValueError, "source"),
    ({"source": 5}, TypeError, "source"),
    ({"source": "::1"}, ValueError, "source"),
    ({"ifindex": -1}, ValueError, "ifindex"),
    ({"txtime": -1}, ValueError, "txtime"),
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
        udp.Endpoint(a).send(arguments.pop("data"), arguments.pop("address"), **arguments)
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
        one.send(b"abcd", b.getsockname(), segment_size=2)
    assert info.value.errno == errno.EBADF


def test_a_datagram_that_is_too_long_is_the_kernels_error(pair4):
    a, b = pair4
    one = udp.Endpoint(a)
    for segment in (None, 65535):
        with pytest.raises(OSError) as info:
            one.send(bytes(70000), b.getsockname(), segment_size=segment)
        assert info.value.errno == errno.EMSGSIZE
    assert one.fallbacks == UNLEARNED


# ---- what the socket refuses ----

NO_CHECKSUMS = {"4": ("SOL_SOCKET", "SO_NO_CHECK"), "6": ("SOL_UDP", "UDP_NO_CHECK6_TX")}


@linux
@pytest.mark.parametrize("kind", NO_CHECKSUMS)
@pytest.mark.parametrize("size", [10_000, 300_000])
def test_without_checksums_offload_is_off_for_the_socket_and_the_same_data_goes_once(kind, size):
    """SO_NO_CHECK set in mid-life: EINVAL."""
    level, name = (getattr(constants, each) for each in NO_CHECKSUMS[kind])
    a, b = bound(*HOSTS[kind]), bound(*HOSTS[kind])
    if kind == "6":
        b.setsockopt(constants.SOL_UDP, constants.UDP_NO_CHECK6_RX, 1)
    with a, b:
        one = udp.Endpoint(a)
        assert one.send(numbered(5000), b.getsockname(), segment_size=1000) == 5
        assert receive(b, 5) == cut(numbered(5000), 1000)
        a.setsockopt(level, name, 1)
        for _ in range(2):
            expected = cut(numbered(size), 1000)
            assert one.send(numbered(size), b.getsockname(), segment_size=1000) == len(expected)
            assert receive(b, len(expected)) == expected
            assert one.fallbacks == udp.Fallbacks(errno.EINVAL, None, {})
            assert one.max_gso_segments == 1


@linux
def test_an_error_of_the_callers_teaches_nothing(pair4):
    """EINVAL for port 0, with offload and without: it is raised, and offload stays."""
    a, b = pair4
    one = udp.Endpoint(a)
    with pytest.raises(OSError) as info:
        one.send(numbered(5000), ("127.0.0.1", 0), segment_size=1000)
    assert info.value.errno == errno.EINVAL
    assert one.fallbacks == UNLEARNED
    with pytest.raises(OSError):
        one.send(numbered(5000), b.getsockname(), segment_size=1000, source="192.0.2.1")
    assert one.fallbacks == UNLEARNED
    assert one.send(numbered(5000), b.getsockname(), segment_size=1000) == 5
    assert receive(b, 5) == cut(numbered(5000), 1000)


class Refusing:
    """Stands in for a system call, and refuses what has a control message of the kind that it is told."""

    def __init__(self, call, what, answer):
        self._call, self._what, self._answer = call, what, answer
        self.refusals = 0

    def __call__(self, fd, data, size, *rest):
        control = next(each for each in rest if isinstance(each, bytes))
        if self._what in control:
            self.refusals += 1
            return self._answer
        return self._call(fd, data, size, *rest)


@linux
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("segment", [None, 1000])
def test_ecn_that_is_refused_is_left_out_from_then_on(pair4, monkeypatch, error, segment):
    """Linux before 3.13, and some devices; here a stand-in refuses what the kernel of today takes."""
    a, b = pair4
    tos = struct.pack("ii", constants.IPPROTO_IP, constants.IP_TOS)
    calls = [Refusing(getattr(sending, name), tos, -error) for name in ("_udp_send", "_send_each")]
    monkeypatch.setattr(sending, "_udp_send", calls[0])
    monkeypatch.setattr(sending, "_send_each", calls[1])
    one, expected = udp.Endpoint(a), cut(numbered(5000), segment or 5000)
    for _ in range(2):
        assert one.send(numbered(5000), b.getsockname(), segment_size=segment, ecn=2) == len(expected)
        assert receive(b, len(expected)) == expected
    assert one.fallbacks == udp.Fallbacks(None, error, {})
    assert calls[1].refusals == 1


@linux
def test_eio_is_of_the_socket(pair4, monkeypatch):
    a, b = pair4
    call = Refusing(sending._udp_send, struct.pack("ii", constants.SOL_UDP, constants.UDP_SEGMENT), -errno.EIO)
    monkeypatch.setattr(sending, "_udp_send", call)
    one = udp.Endpoint(a)
    for _ in range(2):
        assert one.send(numbered(5000), b.getsockname(), segment_size=1000) == 5
        assert receive(b, 5) == cut(numbered(5000), 1000)
    assert (one.fallbacks, call.refusals) == (udp.Fallbacks(errno.EIO, None, {}), 1)


# ---- what a destination refuses ----


class Narrow:
    """Two sockets in a namespace, and an address to which the path's MTU is below a segment."""

    def __init__(self, space, kind):
        v4 = kind == "4"
        self.far, self.near = ("10.9.0.1", "127.0.0.1") if v4 else ("fd09::1", "::1")
        self.level, self.option = (
            (socket.IPPROTO_IP, constants.IP_MTU_DISCOVER) if v4 else (socket.IPPROTO_IPV6, constants.IPV6_MTU_DISCOVER)
        )
        space.address("lo", self.far + ("/32" if v4 else "/128"))
        where = ("local", self.far, "dev", "lo", "table", "local")
        space.ip("-4" if v4 else "-6", "route", "del", *where)
        space.ip("-4" if v4 else "-6", "route", "add", *where, "mtu", "1280")
        with space:
            self.a, self.b = (bound(HOSTS[kind][0], "0.0.0.0" if v4 else "::") for _ in range(2))

    def to(self, host):
        return (host, *self.b.getsockname()[1:])

    def discover(self, how):
        self.a.setsockopt(self.level, self.option, how)


@pytest.fixture(params=HOSTS)
def narrow(request, new_namespace):
    made = Narrow(new_namespace(), request.param)
    yield made
    made.a.close()
    made.b.close()


@linux
def test_a_small_path_mtu_is_of_the_destination(narrow):
    """With fragmentation allowed the same data goes in fragments; others keep offload, and so do smaller segments."""
    narrow.discover(constants.IP_PMTUDISC_DONT)
    one, far = udp.Endpoint(narrow.a), narrow.to(narrow.far)
    most = one.max_gso_segments
    for _ in range(2):
        assert one.send(numbered(60_000), far, segment_size=1300) == 47
        assert receive(narrow.b, 47) == cut(numbered(60_000), 1300)
        assert one.fallbacks == udp.Fallbacks(None, None, {far: 1300})
    assert one.send(numbered(60_000), narrow.to(narrow.near), segment_size=1300) == 47
    assert receive(narrow.b, 47) == cut(numbered(60_000), 1300)
    assert one.send(numbered(60_000), far, segment_size=900) == 67
    assert receive(narrow.b, 67) == cut(numbered(60_000), 900)
    assert (one.fallbacks, one.max_gso_segments) == (udp.Fallbacks(None, None, {far: 1300}), most)


@linux
def test_a_small_path_mtu_without_fragmentation_is_an_error_that_teaches_nothing(narrow):
    narrow.discover(constants.IP_PMTUDISC_DO)
    one, far = udp.Endpoint(narrow.a), narrow.to(narrow.far)
    with pytest.raises(OSError) as info:
        one.send(numbered(60_000), far, segment_size=1300)
    assert info.value.errno == errno.EMSGSIZE
    assert one.fallbacks == UNLEARNED
    assert receive(narrow.b, 0) == []
    assert one.send(numbered(60_000), far, segment_size=900) == 67
    assert receive(narrow.b, 67) == cut(numbered(60_000), 900)


@linux
def test_a_connected_peer_that_refuses_is_remembered_without_an_address(narrow):
    narrow.discover(constants.IP_PMTUDISC_DONT)
    narrow.a.connect(narrow.to(narrow.far))
    one = udp.Endpoint(narrow.a)
    for segment in (1300, 1260, 1280):
        assert one.send(numbered(5000), segment_size=segment) == len(cut(numbered(5000), segment))
    assert one.fallbacks == udp.Fallbacks(None, None, {None: 1260})


@linux
def test_a_bounded_number_of_destinations_is_remembered(narrow, monkeypatch):
    monkeypatch.setattr(sending, "DESTINATIONS", 4)
    narrow.discover(constants.IP_PMTUDISC_DONT)
    one = udp.Endpoint(narrow.a)
    for port in range(40_000, 40_006):
        one.send(bytes(5000), (narrow.far, port), segment_size=1300)
    assert list(one.fallbacks.destinations) == [(narrow.far, port) for port in range(40_002, 40_006)]


# ---- full sockets ----


@pytest.fixture
def stuck(new_namespace):
    """A socket that nothing leaves: ARP finds nobody for its destination, and there is a queue for three packets."""
    space, other = new_namespace(), new_namespace()
    space.link("cable", other)
    space.address("cable", "10.8.0.1/24")
    with space:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    yield sock
    sock.close()


@linux
def test_a_full_socket_ends_a_send_and_the_next_call_raises(stuck):
    """What fitted went and is counted; the rest was not sent."""
    stuck.setblocking(False)
    one = udp.Endpoint(stuck, gso=False)
    sent = one.send(numbered(100_000), ("10.8.0.2", 9), segment_size=1000)
    assert 0 < sent < 100
    with pytest.raises(BlockingIOError):
        one.send(numbered(100_000), ("10.8.0.2", 9), segment_size=1000)
    assert one.fallbacks == UNLEARNED


@linux
@pytest.mark.parametrize("gso", [True, False])
def test_a_send_keeps_to_the_timeout(stuck, gso):
    stuck.settimeout(0.05)
    one = udp.Endpoint(stuck, gso=gso)
    began = time.monotonic()
    with pytest.raises(socket.timeout):
        all(one.send(numbered(20_000), ("10.8.0.2", 9), segment_size=1000) for _ in range(1000))
    assert time.monotonic() - began >= 0.04
    assert one.fallbacks == UNLEARNED


# ---- MSG_ZEROCOPY ----


@linux
@pytest.mark.parametrize("size", [100, 30_000, 200_000])
def test_large_sends_go_by_zero_copy(pair_of, size):
    a, b = pair_of
    with udp.Endpoint(a, zerocopy=True) as one:
        assert one.zerocopy
        expected = cut(numbered(size), 1200)
        assert one.send(numbered(size), b.getsockname(), segment_size=1200, ecn=1) == len(expected)
        assert receive(b, len(expected)) == expected
        assert one._zerocopy.wait(5)
        assert bool(one._zerocopy.read()) == (size > 10_000)


@linux
def test_zero_copy_falls_back_as_the_rest(pair4):
    a, b = pair4
    with udp.Endpoint(a, zerocopy=True) as one:
        a.setsockopt(constants.SOL_SOCKET, constants.SO_NO_CHECK, 1)
        expected = cut(numbered(100_000), 1000)
        assert one.send(numbered(100_000), b.getsockname(), segment_size=1000) == len(expected)
        assert receive(b, len(expected)) == expected
        assert one.fallbacks.offload == errno.EINVAL


@linux
def test_an_endpoint_that_was_closed_leaves_the_socket_open(pair4):
    a, b = pair4
    one = udp.Endpoint(a, zerocopy=True)
    one.close()
    one.close()
    assert a.sendto(b"x", b.getsockname()) == 1
