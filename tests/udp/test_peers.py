# SPDX-License-Identifier: MIT
"""Destinations that refused offload, when the socket is connected: what was learned is of the peer, not of the socket."""

import socket
import struct
import sys

import pytest

from lowsock import constants, udp

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="segmentation offload is Linux's")

KINDS = {
    "4": (socket.AF_INET, "127.0.0.1", ("10.9.0.1", "10.9.0.2"), "/32", socket.IPPROTO_IP, "IP_MTU_DISCOVER"),
    "6": (socket.AF_INET6, "::1", ("fd09::1", "fd09::2"), "/128", socket.IPPROTO_IPV6, "IPV6_MTU_DISCOVER"),
}


class Narrow:
    """Two sockets in a namespace, of which one sends; to `far`, and to `farther`, a segment of 1300 bytes is too large."""

    def __init__(self, space, kind):
        family, self.near, (self.far, self.farther), length, level, option = KINDS[kind]
        flag = f"-{kind}"
        for host in (self.far, self.farther):
            space.address("lo", host + length)
            where = ("local", host, "dev", "lo", "table", "local")
            space.ip(flag, "route", "del", *where)
            space.ip(flag, "route", "add", *where, "mtu", "1280")
        with space:
            self.a, self.b = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        self.a.setsockopt(level, getattr(constants, option), constants.IP_PMTUDISC_DONT)
        self.b.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 1 << 24)
        self.b.settimeout(10)
        self.b.bind(("" if kind == "4" else "::", 0))
        self.one, self.other = udp.Endpoint(self.a), udp.Endpoint(self.b)

    def connect(self, host):
        self.a.connect((host, self.b.getsockname()[1]))

    def calls(self, segment):
        """What offload would be used for a send with segments of that size."""
        return self.one._sender.max_segments(b"", segment)

    def goes(self, segment):
        data = b"".join(struct.pack(">I", i) for i in range(2500))
        count = -(-len(data) // segment)
        assert self.one.send(data, address=None, segment_size=segment) == len(data)
        got = []
        while len(got) < count:
            got += [each.data for each in self.other.recv()]
        assert got == [data[at : at + segment] for at in range(0, len(data), segment)]


@pytest.fixture(params=KINDS)
def narrow(request, new_namespace):
    made = Narrow(new_namespace(), request.param)
    yield made
    made.a.close()
    made.b.close()


def test_what_a_peer_refused_is_forgotten_with_the_peer(narrow):
    narrow.connect(narrow.far)
    narrow.goes(1300)
    assert narrow.one.fallbacks.destinations == {None: 1300}
    assert narrow.calls(1300) == 1
    narrow.connect(narrow.near)
    assert narrow.calls(1300) == narrow.one.max_gso_segments > 1
    assert narrow.one.fallbacks.destinations == {}
    narrow.goes(1300)
    assert narrow.one.fallbacks.destinations == {}


def test_fallbacks_do_not_tell_of_a_peer_that_was(narrow):
    narrow.connect(narrow.far)
    narrow.goes(1300)
    narrow.connect(narrow.near)
    assert narrow.one.fallbacks.destinations == {}


def test_another_peer_is_learned_from_anew(narrow):
    """The least size that one refused is not the other's."""
    narrow.connect(narrow.far)
    narrow.goes(1260)
    narrow.connect(narrow.farther)
    narrow.goes(1400)
    assert narrow.one.fallbacks.destinations == {None: 1400}
    assert narrow.calls(1300) > 1


def test_the_same_peer_again_is_known_still(narrow):
    narrow.connect(narrow.far)
    narrow.goes(1300)
    narrow.connect(narrow.far)
    assert narrow.calls(1300) == 1
    assert narrow.calls(1000) > 1


def test_a_socket_that_lost_its_peer_has_none_to_remember(narrow):
    narrow.connect(narrow.far)
    narrow.goes(1300)
    if narrow.a.family == socket.AF_INET:
        narrow.a.connect(("0.0.0.0", 0))  # Linux takes port 0 of nowhere as loopback, so it is another peer
    else:
        narrow.connect(narrow.near)
    assert narrow.one.fallbacks.destinations == {}


def test_an_address_of_its_own_is_remembered_beside_the_peer(narrow):
    """Whoever names the peer's address in a call learns for that address."""
    to = (narrow.far, narrow.b.getsockname()[1])
    narrow.connect(narrow.far)
    narrow.goes(1300)
    assert narrow.one.send(bytes(5000), address=to, segment_size=1300) == 5000
    assert {key if key is None else key[0] for key in narrow.one.fallbacks.destinations} == {None, narrow.far}
    narrow.connect(narrow.near)
    assert [key[0] for key in narrow.one.fallbacks.destinations] == [narrow.far]


def test_a_closed_socket_can_still_be_asked_what_was_learned(narrow):
    narrow.connect(narrow.far)
    narrow.goes(1300)
    narrow.a.close()
    assert narrow.one.fallbacks.destinations == {}


@pytest.mark.parametrize("host", ["", "127.1", b"127.0.0.1"])
def test_a_host_that_needs_no_lookup_is_taken_as_everywhere(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        assert udp.Endpoint(a).send(b"abcd", address=(host, b.getsockname()[1]), segment_size=2) == 4
        assert [b.recv(10), b.recv(10)] == [b"ab", b"cd"]


def test_a_host_name_is_refused_in_words_that_fit_one_send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
        with pytest.raises(ValueError, match=r"^address host must be numeric here: to look up 'localhost' would block$"):
            udp.Endpoint(a).send(b"x", address=("localhost", 9))
        with pytest.raises(ValueError, match=r"^datagrams\[1\] address host must be numeric here"):
            udp.Endpoint(a).send_many([(b"x", ("127.0.0.1", 9)), (b"x", ("localhost", 9))])
