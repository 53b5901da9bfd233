# SPDX-License-Identifier: MIT
"""Options of the IPv4 header, extension headers of IPv6 and the checksum of UDP, on the kernel."""

import errno
import socket
import struct
import sys
from contextlib import ExitStack

import pytest

from lowsock import constants, recvmsg, sendmsg
from lowsock.cmsg import decode, enable
from lowsock.cmsg._ip import Checksum, ReceivedOptions, ReturnOptions
from lowsock.cmsg._ipv6 import DstOptions, HopOptions, RoutingHeader, RthdrDstOptions

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")
ROOM = 16 * 1024
IPV6 = socket.IPPROTO_IPV6
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header of one option, PadN
UDP_PADDING = bytes([socket.IPPROTO_UDP]) + PADDING[1:]


@pytest.fixture
def stack(ipv6):
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def udp(stack):
    """A callable: a UDP socket bound to a loopback address, that asks for messages of some classes."""

    def make(host, *classes):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.settimeout(2)
        sock.bind((host, 0))
        enable(sock, *classes)
        return sock

    return make


def came(sock):
    """The messages beside one datagram, by class."""
    data, ancdata, msg_flags, source = recvmsg(sock, 4096, ROOM)
    assert not msg_flags & socket.MSG_CTRUNC
    return {type(message): message for message in decode(ancdata)}


# ---- options of the header ----

NO_OPERATION = b"\1\1\1\0"
RECORD_ROUTE = b"\7\x0b\4" + bytes(8) + b"\0"


def test_options_of_the_ipv4_header_of_one_datagram(udp):
    a, b = udp("127.0.0.1"), udp("127.0.0.1", ReceivedOptions)
    for ancdata in ([ReturnOptions(options=NO_OPERATION)], []):
        sendmsg(a, [b"x"], ancdata, 0, b.getsockname())
        messages = came(b)
        assert messages == ({ReceivedOptions: ReceivedOptions(options=NO_OPERATION)} if ancdata else {})


def test_options_to_answer_with(udp):
    """A recorded route comes back filled in; what is no use in an answer is left out."""
    a, b = udp("127.0.0.1"), udp("127.0.0.1", ReceivedOptions, ReturnOptions)
    sendmsg(a, [b"x"], [ReturnOptions(options=RECORD_ROUTE)], 0, b.getsockname())
    messages = came(b)
    route = b"\7\x0b\x0c" + socket.inet_aton("127.0.0.1") * 2 + b"\0"
    assert messages[ReceivedOptions].options == messages[ReturnOptions].options == route
    sendmsg(a, [b"x"], [ReturnOptions(options=NO_OPERATION)], 0, b.getsockname())
    assert came(b)[ReturnOptions].options == b""


def test_forty_bytes_of_options_fit(udp):
    a, b = udp("127.0.0.1"), udp("127.0.0.1", ReceivedOptions)
    sendmsg(a, [b"x"], [ReturnOptions(options=b"\1" * 40)], 0, b.getsockname())
    assert came(b)[ReceivedOptions].options == b"\1" * 40


# ---- the checksum ----


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def datagram(port, data):
    """A UDP datagram over loopback with its own IP header, which no device has checked."""
    host = socket.inet_aton("127.0.0.1")
    length = 8 + len(data)
    head = struct.pack("!HHHH", 9, port, length, 0)
    total = ~checksum(host + host + struct.pack("!HH", socket.IPPROTO_UDP, length) + head + data) & 0xFFFF
    udp = struct.pack("!HHHH", 9, port, length, total) + data
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0) + host + host + udp


def test_the_checksum_that_the_kernel_has_taken(udp, stack):
    b = udp("127.0.0.1", Checksum)
    try:
        raw = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, constants.IPPROTO_RAW))
    except PermissionError as error:
        pytest.skip(f"raw sockets want CAP_NET_RAW: {error}")
    data = b"checked!"
    raw.sendto(datagram(b.getsockname()[1], data), ("127.0.0.1", 0))
    total = came(b)[Checksum].checksum
    folded = checksum(struct.pack("!HH", total >> 16, total & 0xFFFF))
    assert folded.to_bytes(2, sys.byteorder) == checksum(data).to_bytes(2, "big")


def test_loopback_checks_nothing_and_brings_no_checksum(udp):
    a, b = udp("127.0.0.1"), udp("127.0.0.1", Checksum)
    a.sendto(b"x", b.getsockname())
    assert came(b) == {}


# ---- extension headers ----


LOOPBACK = socket.inet_pton(socket.AF_INET6, "::1")
SKIPPED = 0x1E  # an option for experiments, which a host that does not know it skips (RFC 4727)


def privileged(send):
    try:
        send()
    except PermissionError as error:
        pytest.skip(f"extension headers want CAP_NET_RAW: {error}")


@pytest.mark.parametrize("cls", [HopOptions, DstOptions])
@pytest.mark.parametrize("eights", [1, 2, 32])
def test_options_in_an_extension_header_of_one_datagram(udp, cls, eights):
    """The next header is filled in by the kernel, the rest is as it was sent."""
    a, b = udp("::1"), udp("::1", cls)
    length = 8 * eights - 4
    sent = bytes([0, eights - 1, SKIPPED, length]) + bytes(range(length))
    privileged(lambda: sendmsg(a, [b"x"], [cls(header=sent)], 0, b.getsockname()))
    (received,) = came(b).values()
    assert type(received) is cls
    assert received.header == bytes([socket.IPPROTO_UDP]) + sent[1:]


def test_options_for_routers_and_for_the_destination_in_one_datagram(udp):
    a, b = udp("::1"), udp("::1", HopOptions, DstOptions)
    privileged(lambda: sendmsg(a, [b"x"], [HopOptions(header=PADDING), DstOptions(header=PADDING)], 0, b.getsockname()))
    chained = bytes([socket.IPPROTO_DSTOPTS]) + PADDING[1:]
    assert came(b) == {HopOptions: HopOptions(header=chained), DstOptions: DstOptions(header=UDP_PADDING)}


def test_options_in_front_of_a_routing_header_are_left_out_without_one(udp):
    a, b = udp("::1"), udp("::1", HopOptions, DstOptions)
    privileged(lambda: sendmsg(a, [b"x"], [RthdrDstOptions(header=PADDING)], 0, b.getsockname()))
    assert came(b) == {}


def test_a_header_that_says_more_than_there_is_is_refused_by_the_kernel_too(udp):
    sock = udp("::1")
    lying = DstOptions.from_data(b"\0\7" + bytes(6))
    with pytest.raises(OSError) as caught:
        sendmsg(sock, [b"x"], [lying], 0, sock.getsockname())
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


SEGMENTS = bytes([0, 2, 4, 0, 0, 0, 0, 0])  # a segment routing header (RFC 8754) with one address, which is the last


@pytest.mark.parametrize("kind", [0, 3, 4])
def test_routing_headers_are_refused_in_a_control_message(udp, kind):
    """All but type 2, which is for kernels with Mobile IPv6."""
    sock = udp("::1")
    header = bytes([0, 2, kind, 1, 0, 0, 0, 0]) + LOOPBACK
    with pytest.raises(OSError, match="Invalid argument"):
        sendmsg(sock, [b"x"], [RoutingHeader(header=header)], 0, sock.getsockname())


def test_a_routing_header_is_received(udp, new_namespace):
    """Segment routing (RFC 8754), sent by way of the socket's option."""
    namespace = new_namespace()
    for interface in ("all", "lo"):
        namespace.sysctl(f"ipv6/conf/{interface}/seg6_enabled", "1")
    with namespace:
        a, b = udp("::1"), udp("::1", RoutingHeader, DstOptions)
    header = SEGMENTS + LOOPBACK
    a.setsockopt(IPV6, constants.IPV6_RTHDR, header)
    a.setsockopt(IPV6, constants.IPV6_RTHDRDSTOPTS, PADDING)
    a.sendto(b"x", b.getsockname())
    messages = came(b)
    assert messages[RoutingHeader].header == bytes([socket.IPPROTO_UDP]) + header[1:]
    assert messages[DstOptions].header == bytes([socket.IPPROTO_ROUTING]) + PADDING[1:]


def test_a_header_in_a_control_message_replaces_all_that_the_socket_has(udp):
    a, b = udp("::1"), udp("::1", HopOptions, DstOptions)
    privileged(lambda: a.setsockopt(IPV6, constants.IPV6_HOPOPTS, PADDING))
    sendmsg(a, [b"x"], [DstOptions(header=PADDING)], 0, b.getsockname())
    assert came(b) == {DstOptions: DstOptions(header=UDP_PADDING)}
    a.sendto(b"x", b.getsockname())
    assert came(b) == {HopOptions: HopOptions(header=UDP_PADDING)}
