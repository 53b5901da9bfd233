# SPDX-License-Identifier: MIT
"""What a socket or a destination refuses, and what a full socket does: every way to fall back, provoked on the kernel."""

import errno
import socket
import struct
import time

import pytest
from udp_sockets import HOSTS, UNLEARNED, bound, cut, linux, numbered, receive

from lowsock import constants, udp
from lowsock.udp import _sending as sending

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
        assert one.send(numbered(5000), address=b.getsockname(), segment_size=1000) == 5000
        assert receive(b, 5) == cut(numbered(5000), 1000)
        a.setsockopt(level, name, 1)
        for _ in range(2):
            expected = cut(numbered(size), 1000)
            assert one.send(numbered(size), address=b.getsockname(), segment_size=1000) == size
            assert receive(b, len(expected)) == expected
            assert one.fallbacks == udp.Fallbacks(errno.EINVAL, None, {})
            assert one.max_gso_segments == 1


@linux
def test_an_error_of_the_callers_teaches_nothing(pair4):
    """EINVAL for port 0, with offload and without: it is raised, and offload stays."""
    a, b = pair4
    one = udp.Endpoint(a)
    with pytest.raises(OSError) as info:
        one.send(numbered(5000), address=("127.0.0.1", 0), segment_size=1000)
    assert info.value.errno == errno.EINVAL
    assert one.fallbacks == UNLEARNED
    with pytest.raises(OSError):
        one.send(numbered(5000), address=b.getsockname(), segment_size=1000, local="192.0.2.1")
    assert one.fallbacks == UNLEARNED
    assert one.send(numbered(5000), address=b.getsockname(), segment_size=1000) == 5000
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
        assert one.send(numbered(5000), address=b.getsockname(), segment_size=segment, ecn=2) == 5000
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
        assert one.send(numbered(5000), address=b.getsockname(), segment_size=1000) == 5000
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
        assert one.send(numbered(60_000), address=far, segment_size=1300) == 60_000
        assert receive(narrow.b, 47) == cut(numbered(60_000), 1300)
        assert one.fallbacks == udp.Fallbacks(None, None, {far: 1300})
    assert one.send(numbered(60_000), address=narrow.to(narrow.near), segment_size=1300) == 60_000
    assert receive(narrow.b, 47) == cut(numbered(60_000), 1300)
    assert one.send(numbered(60_000), address=far, segment_size=900) == 60_000
    assert receive(narrow.b, 67) == cut(numbered(60_000), 900)
    assert (one.fallbacks, one.max_gso_segments) == (udp.Fallbacks(None, None, {far: 1300}), most)


@linux
def test_a_small_path_mtu_without_fragmentation_is_an_error_that_teaches_nothing(narrow):
    narrow.discover(constants.IP_PMTUDISC_DO)
    one, far = udp.Endpoint(narrow.a), narrow.to(narrow.far)
    with pytest.raises(OSError) as info:
        one.send(numbered(60_000), address=far, segment_size=1300)
    assert info.value.errno == errno.EMSGSIZE
    assert one.fallbacks == UNLEARNED
    assert receive(narrow.b, 0) == []
    assert one.send(numbered(60_000), address=far, segment_size=900) == 60_000
    assert receive(narrow.b, 67) == cut(numbered(60_000), 900)


@linux
def test_a_connected_peer_that_refuses_is_remembered_without_an_address(narrow):
    narrow.discover(constants.IP_PMTUDISC_DONT)
    narrow.a.connect(narrow.to(narrow.far))
    one = udp.Endpoint(narrow.a)
    for segment in (1300, 1260, 1280):
        assert one.send(numbered(5000), address=None, segment_size=segment) == 5000
    assert one.fallbacks == udp.Fallbacks(None, None, {None: 1260})


@linux
def test_a_bounded_number_of_destinations_is_remembered(narrow, monkeypatch):
    monkeypatch.setattr(sending, "MAX_DESTINATIONS", 4)
    narrow.discover(constants.IP_PMTUDISC_DONT)
    one = udp.Endpoint(narrow.a)
    for port in range(40_000, 40_006):
        one.send(bytes(5000), address=(narrow.far, port), segment_size=1300)
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
    sent = one.send(numbered(100_000), address=("10.8.0.2", 9), segment_size=1000)
    assert 0 < sent < 100_000
    assert sent % 1000 == 0
    with pytest.raises(BlockingIOError):
        one.send(numbered(100_000), address=("10.8.0.2", 9), segment_size=1000)
    assert one.fallbacks == UNLEARNED


@linux
@pytest.mark.parametrize("gso", [True, False])
def test_a_send_keeps_to_the_timeout(stuck, gso):
    stuck.settimeout(0.05)
    one = udp.Endpoint(stuck, gso=gso)
    began = time.monotonic()
    with pytest.raises(socket.timeout):
        all(one.send(numbered(20_000), address=("10.8.0.2", 9), segment_size=1000) for _ in range(1000))
    assert time.monotonic() - began >= 0.04
    assert one.fallbacks == UNLEARNED
