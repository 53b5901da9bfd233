# SPDX-License-Identifier: MIT
"""What control messages tell across a network: groups and broadcasts, small MTUs, transparent proxies."""

import errno
import socket
import struct
import sys
from contextlib import ExitStack

import pytest

from lowsock import constants, recvmsg, sendmsg
from lowsock.cmsg import LocalAddress, OriginalDestination, arrival, decode, enable, towards
from lowsock.cmsg._ip import FragSize, PktInfo
from lowsock.cmsg._ipv6 import DontFrag, FragSize6, PathMTU, PktInfo6

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's")

IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
GROUP, GROUP6 = "239.1.2.3", "ff02::1:2:3"
LARGE = bytes(5000)
SMALL_MTU = 1300


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def udp(stack):
    """A callable: a UDP socket in a namespace, bound to an address; "::" takes both families."""

    def make(namespace, host, port=0, classes=()):
        with namespace:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        stack.enter_context(sock)
        sock.settimeout(2)
        if ":" in host:
            sock.setsockopt(IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        enable(sock, *classes)
        return sock

    return make


def came(sock):
    """The messages beside one datagram, and where it came from."""
    data, ancdata, msg_flags, source = recvmsg(sock, 8192, 1024)
    assert not msg_flags & socket.MSG_CTRUNC
    return decode(ancdata), source


# ---- two hosts on a cable ----


@pytest.fixture
def hosts(new_namespace):
    """Two namespaces with one cable: 10.0.0.1 and fd00::1, 10.0.0.2 and fd00::2. No fragment passes unseen."""
    near, far = new_namespace(), new_namespace()
    near.link("cable", far, SMALL_MTU)
    for number, host in enumerate((near, far), 1):
        host.address("cable", f"10.0.0.{number}/24", f"fd00::{number}/64")
        host.ip("route", "add", "224.0.0.0/4", "dev", "cable")
    return near, far


def join(sock, family, number):
    """Joins the group of a family, by an interface; an IPv6 socket may join IPv4's."""
    if family == socket.AF_INET:
        sock.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", socket.inet_aton(GROUP), bytes(4), number))
    else:
        sock.setsockopt(IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(family, GROUP6) + struct.pack("=I", number))


@pytest.mark.parametrize("destination", [GROUP, "10.0.0.255", "255.255.255.255", "10.0.0.2"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_what_came_to_many_is_answered_from_the_interfaces_own_address(hosts, udp, destination, host):
    """On an IPv6 socket too: there PktInfo6 alone tells the destination, PktInfo beside it our address."""
    near, far = hosts
    server, client = udp(far, host, classes=[LocalAddress]), udp(near, "10.0.0.1")
    number = far.index("cable")
    join(server, socket.AF_INET, number)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sendmsg(client, [b"x"], [PktInfo(ifindex=near.index("cable"))], 0, (destination, server.getsockname()[1]))
    data, ancdata, _, source = recvmsg(server, 100, 1024)
    how = arrival(ancdata)
    assert (how.local, how.ifindex, how.destination) == ("10.0.0.2", number, destination)
    sendmsg(server, [b"y"], [towards(source, LocalAddress, local=how.local)], 0, source)
    assert client.recvfrom(10) == (b"y", ("10.0.0.2", server.getsockname()[1]))


def test_of_a_datagram_to_an_ipv6_group_the_kernel_tells_the_group_alone(hosts, udp):
    near, far = hosts
    server, client = udp(far, "::", classes=[PktInfo6]), udp(near, "fd00::1")
    number = far.index("cable")
    join(server, socket.AF_INET6, number)
    sendmsg(client, [b"x"], [PktInfo6(ifindex=near.index("cable"))], 0, (GROUP6, server.getsockname()[1]))
    (info,), source = came(server)
    assert info == PktInfo6(local=GROUP6, ifindex=number)
    how = arrival([info])
    assert (how.local, how.ifindex, how.destination) == (None, number, GROUP6)
    with pytest.raises(OSError, match="Invalid argument"):
        sendmsg(server, [b"y"], [info], 0, source)
    sendmsg(server, [b"y"], [towards(source, LocalAddress, local=how.local, ifindex=how.ifindex)], 0, source)
    assert client.recvfrom(10)[1][0] == "fd00::2"


def test_link_local_addresses_want_the_interface(hosts, udp):
    near, far = hosts
    near.address("cable", "fe80::a/64")
    far.address("cable", "fe80::b/64")
    server, client = udp(far, "::", classes=[LocalAddress]), udp(near, "::")
    client.sendto(b"x", ("fe80::b", server.getsockname()[1], 0, near.index("cable")))
    (info,), source = came(server)
    assert (info.local, info.ifindex, source[3]) == ("fe80::b", far.index("cable"), far.index("cable"))
    with pytest.raises(OSError, match="Invalid argument"):
        sendmsg(server, [b"y"], [PktInfo6(local="fe80::b")], 0, ("fd00::1", client.getsockname()[1]))
    sendmsg(server, [b"y"], [info], 0, source)
    assert recvmsg(client, 10)[3][0] == "fe80::b"  # PyPy's recvfrom adds the scope


@pytest.mark.parametrize(("host", "cls", "size"), [("10.0.0", FragSize, 20 + 1280), ("fd00:", FragSize6, 40 + 8 + 1248)])
def test_the_largest_fragment(hosts, udp, host, cls, size):
    """Fragments carry a multiple of eight bytes after the headers of IP."""
    near, far = hosts
    separator = ":" if ":" in host else "."
    a = udp(near, f"{host}{separator}1")
    b = udp(far, f"{host}{separator}2", classes=[cls])
    for data, sizes in ((b"whole", []), (LARGE, [size])):
        a.sendto(data, b.getsockname())
        messages, _ = came(b)
        assert [message.size for message in messages] == sizes


def test_the_largest_fragment_of_ipv4_on_an_ipv6_socket(hosts, udp):
    near, far = hosts
    a, b = udp(near, "10.0.0.1"), udp(far, "::", classes=[FragSize, FragSize6])
    a.sendto(LARGE, ("10.0.0.2", b.getsockname()[1]))
    assert [type(message) for message in came(b)[0]] == [FragSize]


@pytest.mark.parametrize("on", [True, False])
def test_a_datagram_is_refused_instead_of_cut(hosts, udp, on):
    near, far = hosts
    a, b = udp(near, "fd00::1"), udp(far, "fd00::2")
    if on:
        with pytest.raises(OSError) as caught:
            sendmsg(a, [LARGE], [DontFrag()], 0, b.getsockname())
        assert caught.value.errno == errno.EMSGSIZE
    else:
        a.setsockopt(IPV6, constants.IPV6_DONTFRAG, 1)
        sendmsg(a, [LARGE], [DontFrag(on=False)], 0, b.getsockname())
        assert len(b.recv(8192)) == len(LARGE)


# ---- a router in between ----


@pytest.fixture
def routed(new_namespace):
    """Two namespaces with a router in between; the cable to the far one is narrower."""
    near, router, far = (new_namespace() for _ in range(3))
    near.link("left", router)
    router.link("right", far, SMALL_MTU)
    router.sysctl("ipv6/conf/all/forwarding", "1")
    near.address("left", "fd01::1/64")
    router.address("left", "fd01::ff/64")
    router.address("right", "fd02::ff/64")
    far.address("right", "fd02::1/64")
    near.ip("route", "add", "default", "via", "fd01::ff")
    far.ip("route", "add", "default", "via", "fd02::ff")
    return near, far


def test_the_mtu_of_a_path(routed, udp):
    """The router says that a datagram was too long; then the next one is refused, and the path's MTU is told."""
    near, far = routed
    a, b = udp(near, "fd01::1", classes=[PathMTU]), udp(far, "fd02::1")
    a.setsockopt(IPV6, constants.IPV6_RECVERR, 1)
    a.setsockopt(IPV6, constants.IPV6_MTU_DISCOVER, constants.IPV6_PMTUDISC_DO)
    a.sendto(bytes(1400), b.getsockname())
    recvmsg(a, 2048, 1024, constants.MSG_ERRQUEUE)  # waits for the router's word
    with pytest.raises(OSError) as caught:
        sendmsg(a, [bytes(1400)], [DontFrag()], 0, b.getsockname())
    assert caught.value.errno == errno.EMSGSIZE
    data, ancdata, _, source = recvmsg(a, 100, 1024)
    (message,) = decode(ancdata)
    assert data == b""
    assert message == PathMTU(address=("fd02::1", 0, 0, 0), mtu=SMALL_MTU)
    assert source == message.address


# ---- transparent proxies ----


@pytest.fixture
def proxy(hosts):
    """The far host takes all of 192.0.2.0/24 and 2001:db8::/32 for itself, and the near one sends it there."""
    near, far = hosts
    for prefix, gateway in (("192.0.2.0/24", "10.0.0.2"), ("2001:db8::/32", "fd00::2")):
        near.ip("route", "add", prefix, "via", gateway)
        far.ip("route", "add", "local", prefix, "dev", "lo")
    return near, far


@pytest.mark.parametrize(("client", "server"), [("10.0.0.1", "0.0.0.0"), ("10.0.0.1", "::"), ("fd00::1", "::")])
def test_the_original_destination_and_an_answer_from_there(proxy, udp, client, server):
    near, far = proxy
    host = "2001:db8::77" if ":" in client else "192.0.2.77"
    a, b = udp(near, client), udp(far, server, classes=[OriginalDestination])
    if ":" in client:  # IPv6 does not take all that is routed here for ours
        b.setsockopt(IPV6, constants.IPV6_FREEBIND, 1)
    port = b.getsockname()[1]
    a.connect((host, port))
    a.send(b"x")
    data, ancdata, _, source = recvmsg(b, 100, 1024)
    how = arrival(ancdata)
    assert how.original[:2] == (host, port)
    sendmsg(b, [b"y"], [towards(source, LocalAddress, local=how.original[0])], 0, source)
    assert a.recv(10) == b"y"


@pytest.mark.parametrize(
    ("host", "source", "option"),
    [
        ("10.0.0", "198.51.100.7", (IP, "IP_TRANSPARENT")),
        ("fd00:", "2001:db9::7", (IPV6, "IPV6_TRANSPARENT")),
    ],
)
def test_a_transparent_socket_sends_from_an_address_that_is_not_ours(hosts, udp, host, source, option):
    near, far = hosts
    separator = ":" if ":" in host else "."
    a, b = udp(near, f"{host}{separator}1"), udp(far, f"{host}{separator}2")
    for namespace in hosts:
        namespace.sysctl("ipv4/conf/all/rp_filter", "0")
        namespace.sysctl("ipv4/conf/cable/rp_filter", "0")
    message = towards(b.getsockname(), LocalAddress, local=source)
    with pytest.raises(OSError):
        sendmsg(a, [b"x"], [message], 0, b.getsockname())
    a.setsockopt(option[0], getattr(constants, option[1]), 1)
    sendmsg(a, [b"x"], [message], 0, b.getsockname())
    assert b.recvfrom(10)[1][0] == source
