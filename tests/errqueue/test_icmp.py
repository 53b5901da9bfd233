# SPDX-License-Identifier: MIT
"""ICMP errors of real routers, in network namespaces of our own.

The network is  near -- first -- second -- far : four hosts, the two in the middle are routers, and the last link of them
takes packets of 1300 bytes only. Sockets are made in a namespace by a child, which sends their descriptors here.
"""

import errno
import os
import select
import socket
import subprocess
import sys

import pytest
from places import LISTINGS

import lowsock
from lowsock import cmsg, constants, errqueue
from lowsock.errqueue import IcmpError, LocalError, Origin

pytestmark = pytest.mark.unsanitized  # `ip` does not get through under the sanitizers

LISTING = LISTINGS / "traceroute.py"
V4, V6 = socket.AF_INET, socket.AF_INET6
LAST_MTU = 1300
OVERHEAD = {V4: 28, V6: 48}  # of IP and UDP
FAR = {V4: "10.77.3.2", V6: "fd77:3::2"}
FIRST = {V4: "10.77.1.2", V6: "fd77:1::2"}
SECOND = {V4: "10.77.2.2", V6: "fd77:2::2"}
RECVERR = {V4: (socket.IPPROTO_IP, constants.IP_RECVERR), V6: (socket.IPPROTO_IPV6, constants.IPV6_RECVERR)}
DISCOVER = {
    V4: (socket.IPPROTO_IP, constants.IP_MTU_DISCOVER, constants.IP_PMTUDISC_DO),
    V6: (socket.IPPROTO_IPV6, constants.IPV6_MTU_DISCOVER, constants.IPV6_PMTUDISC_DO),
}
both_families = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])

MAKE = """
import socket, sys, lowsock
made = socket.socket(int(sys.argv[2]), socket.SOCK_DGRAM)
with made, socket.socket(fileno=int(sys.argv[1])) as way:
    lowsock.send_fds(way, [b"!"], [made.fileno()])
"""


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, **more)


class Network:
    """Namespaces by their names here."""

    def __init__(self):
        self.names = {name: f"lowsock-{name}-{os.getpid()}" for name in ("near", "first", "second", "far")}

    def build(self):
        for name in self.names.values():
            run("ip", "netns", "add", name)
            quiet = "net/ipv4/icmp_ratelimit net/ipv6/icmp/ratelimit"
            self._sh(name, f"ip link set lo up; for f in {quiet}; do echo 0 > /proc/sys/$f; done")
            self._sh(name, "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        hosts = list(self.names.values())
        for number, (left, right) in enumerate(zip(hosts, hosts[1:]), 1):
            run("ip", "-n", left, "link", "add", f"to{number}", "type", "veth", "peer", f"from{number}", "netns", right)
            for side, host, device in ((1, left, f"to{number}"), (2, right, f"from{number}")):
                self._sh(host, f"ip addr add 10.77.{number}.{side}/24 dev {device}")
                self._sh(host, f"ip addr add fd77:{number}::{side}/64 dev {device} nodad")
                self._sh(host, f"ip link set {device} up mtu {LAST_MTU if number == 3 else 1500}")
        near, first, second, far = hosts
        for host, left, right in ((near, None, 1), (first, None, 2), (second, 2, None), (far, 3, None)):
            for way, side in ((left, 1), (right, 2)):
                if way:
                    self._sh(host, f"ip route add default via 10.77.{way}.{side}")
                    self._sh(host, f"ip route add default via fd77:{way}::{side}")
        self._sh(first, "ip route add 10.77.1.0/24 dev from1 2>/dev/null || true")
        self._sh(second, "ip route add unreachable 10.77.9.0/24; ip route add unreachable fd77:9::/64")
        self._sh(first, "ip route add prohibit 10.77.8.0/24; ip route add prohibit fd77:8::/64")

    def _sh(self, name, script):
        run("ip", "netns", "exec", name, "sh", "-ec", script)

    def socket(self, name, family):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            inside = ["ip", "netns", "exec", self.names[name], sys.executable, "-I", "-c", MAKE]
            run(*inside, str(theirs.fileno()), str(int(family)), pass_fds=[theirs.fileno()])
            _, (fd,), _, _ = lowsock.recv_fds(ours, 1, 1)
        return socket.socket(fileno=fd)

    def remove(self):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def network():
    if not sys.platform.startswith("linux"):
        pytest.skip("network namespaces are Linux's")
    made = Network()
    try:
        made.build()
        yield made
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
    finally:
        made.remove()


@pytest.fixture
def near(network):
    """A callable: a UDP socket at the near end, told of errors."""
    made = []

    def make(family):
        made.append(network.socket("near", family))
        made[-1].setsockopt(*RECVERR[family], 1)
        return made[-1]

    yield make
    for sock in made:
        sock.close()


def one_event(sock):
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(5000), "no event came"
    (event,) = errqueue.read(sock)
    return event


@both_families
def test_a_closed_port_of_a_far_host(near, family):
    sock = near(family)
    sock.sendto(b"hello", (FAR[family], 4444))
    event = one_event(sock)
    kind = (Origin.ICMP, 3, 3) if family == V4 else (Origin.ICMP6, 1, 4)
    assert event[:5] == (errno.ECONNREFUSED, *kind, None)
    assert (event.offender[0], event.destination[:2], event.data) == (FAR[family], (FAR[family], 4444), b"hello")


@both_families
def test_a_host_that_cannot_be_reached(near, family):
    sock = near(family)
    host = {V4: "10.77.9.1", V6: "fd77:9::1"}[family]
    sock.sendto(b"hello", (host, 4444))
    event = one_event(sock)
    kind = (errno.EHOSTUNREACH, Origin.ICMP, 3, 1) if family == V4 else (errno.ENETUNREACH, Origin.ICMP6, 1, 0)
    assert event[:5] == (*kind, None)
    assert (event.offender[0], event.destination[0], event.data) == (SECOND[family], host, b"hello")


@both_families
def test_a_network_that_is_forbidden(near, family):
    sock = near(family)
    sock.sendto(b"hello", ({V4: "10.77.8.1", V6: "fd77:8::1"}[family], 4444))
    event = one_event(sock)
    kind = (errno.EHOSTUNREACH, Origin.ICMP, 3, 13) if family == V4 else (errno.EACCES, Origin.ICMP6, 1, 1)
    assert event[:5] == (*kind, None)
    assert event.offender[0] == FIRST[family]


@pytest.mark.parametrize(("hops", "router"), [(1, FIRST), (2, SECOND)])
@both_families
def test_a_datagram_that_passes_too_many_routers(near, family, hops, router):
    sock, address = near(family), (FAR[family], 4444)
    lowsock.sendmsg(sock, [b"hello"], [cmsg.towards(address, cmsg.HopCount, hops=hops)], 0, address)
    event = one_event(sock)
    assert type(event) is IcmpError
    assert event[:5] == (errno.EHOSTUNREACH, *((Origin.ICMP, 11) if family == V4 else (Origin.ICMP6, 3)), 0, None)
    assert (event.offender[0], event.destination[0], event.data) == (router[family], address[0], b"hello")


@both_families
def test_the_mtu_of_a_router_is_told_by_it_and_then_here(near, family):
    """The first datagram meets the small link, and the kernel remembers: the second is refused before it leaves."""
    sock, address = near(family), (FAR[family], 4444)
    sock.setsockopt(*DISCOVER[family])
    size = 1500 - OVERHEAD[family]
    lowsock.sendmsg(sock, [bytes(size)], (), 0, address)
    event = one_event(sock)
    kind = (Origin.ICMP, 3, 4) if family == V4 else (Origin.ICMP6, 2, 0)
    assert event[:5] == (errno.EMSGSIZE, *kind, LAST_MTU)
    assert event.offender[0] == SECOND[family]
    assert event.data == bytes(len(event.data))
    assert 0 < len(event.data) <= size

    with pytest.raises(OSError) as caught:
        lowsock.sendmsg(sock, [bytes(size)], (), 0, address)
    assert caught.value.errno == errno.EMSGSIZE
    local = one_event(sock)
    assert (type(local), local.mtu, local.destination[0]) == (LocalError, LAST_MTU, address[0])


@both_families
def test_what_fits_the_small_link_goes_through(near, family):
    sock = near(family)
    sock.setsockopt(*DISCOVER[family])
    sock.sendto(bytes(LAST_MTU - OVERHEAD[family]), (FAR[family], 4444))
    assert one_event(sock).errno == errno.ECONNREFUSED  # from the port


def test_a_v4_mapped_destination_has_a_v4_mapped_offender(near):
    sock = near(V6)
    sock.setsockopt(*RECVERR[V4], 1)
    address = f"::ffff:{FAR[V4]}", 4444, 0, 0
    lowsock.sendmsg(sock, [b"hello"], [cmsg.towards(address, cmsg.HopCount, hops=1)], 0, address)
    event = one_event(sock)
    assert (event.origin, event.icmp_type, event.destination) == (Origin.ICMP, 11, address)
    assert event.offender == (f"::ffff:{FIRST[V4]}", 0, 0, 0)


@both_families
def test_the_traceroute_names_every_hop(network, family):
    inside = ["ip", "netns", "exec", network.names["near"], sys.executable, "-I", "-W", "error"]
    said = run(*inside, str(LISTING), FAR[family]).stdout.splitlines()
    assert [line.split(" after ")[0] for line in said[1:]] == [
        f"  1 {FIRST[family]}",
        f"  2 {SECOND[family]}",
        f"  3 {FAR[family]}",
    ]
    assert said[3].endswith(": reached")


def test_the_traceroute_says_where_the_way_ends(network):
    inside = ["ip", "netns", "exec", network.names["near"], sys.executable, "-I", "-W", "error"]
    said = run(*inside, str(LISTING), "10.77.9.1").stdout.splitlines()
    assert said[1].startswith(f"  1 {FIRST[V4]} after ")
    assert f" {SECOND[V4]} after " in said[-1]  # it may have been silent before: routers answer so many a second only
    assert said[-1].endswith(": " + os.strerror(errno.EHOSTUNREACH))


def test_the_traceroute_of_the_loopback_is_one_hop():
    said = run(sys.executable, "-I", "-W", "error", str(LISTING), "127.0.0.1").stdout.splitlines()
    assert len(said) == 2
    assert said[1].startswith("  1 127.0.0.1 after ")
    assert said[1].endswith(": reached")
