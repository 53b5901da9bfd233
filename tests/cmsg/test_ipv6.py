# SPDX-License-Identifier: MIT
"""Control messages of IPv6: their fields, and what the kernel does with them."""

import ipaddress
import socket
import struct
import sys
from contextlib import ExitStack

import pytest

from lowsock import CMSG_SPACE, recvmsg, sendmsg
from lowsock.cmsg import ECN, ControlMessage, decode, enable, space
from lowsock.cmsg._base import row_of
from lowsock.cmsg._ipv6 import (
    DontFrag,
    DstOptions,
    FlowInfo,
    FragSize6,
    HopLimit,
    HopOptions,
    OrigDstAddr6,
    PathMTU,
    PktInfo6,
    RoutingHeader,
    RthdrDstOptions,
    TClass,
)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")
IPV6 = socket.IPPROTO_IPV6
ROOM = 16 * 1024
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header of one option, PadN


def address(text):
    return socket.inet_pton(socket.AF_INET6, text)


def name(host, port, flowinfo, scope):
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, flowinfo) + address(host) + struct.pack("=I", scope)


# ---- fields ----

# A message, the payload that it is in the kernel's layout, and its fields.
SAMPLES = [
    (
        lambda: PktInfo6(local="2001:db8::1", ifindex=3),
        address("2001:db8::1") + struct.pack("=I", 3),
        {"local": "2001:db8::1", "ifindex": 3},
    ),
    (PktInfo6, bytes(20), {"local": "::", "ifindex": 0}),
    (lambda: HopLimit(hops=0), bytes(4), {"hops": 0}),
    (lambda: TClass(dscp=46, ecn=1), struct.pack("=i", 185), {"dscp": 46, "ecn": ECN.ECT_1}),
    (
        lambda: OrigDstAddr6(address=("fe80::1", 80, 5, 2)),
        name("fe80::1", 80, 5, 2),
        {"address": ("fe80::1", 80, 5, 2)},
    ),
    (lambda: OrigDstAddr6(address=("::1", 80)), name("::1", 80, 0, 0), {"address": ("::1", 80, 0, 0)}),
    (lambda: FragSize6(size=1280), struct.pack("=i", 1280), {"size": 1280}),
    (
        lambda: PathMTU(address=("2001:db8::1", 0, 0, 0), mtu=1280),
        name("2001:db8::1", 0, 0, 0) + struct.pack("=I", 1280),
        {"address": ("2001:db8::1", 0, 0, 0), "mtu": 1280},
    ),
    (lambda: HopOptions(header=PADDING), PADDING, {"header": PADDING}),
    (lambda: DstOptions(header=bytearray(PADDING)), PADDING, {"header": PADDING}),
    (lambda: RthdrDstOptions(header=PADDING), PADDING, {"header": PADDING}),
    (lambda: RoutingHeader(header=b"\0\2" + bytes(22)), b"\0\2" + bytes(22), {"header": b"\0\2" + bytes(22)}),
    (
        lambda: FlowInfo(flow_label=0x12345, traffic_class=0xB8),
        bytes.fromhex("0b812345"),
        {"flow_label": 0x12345, "traffic_class": 0xB8},
    ),
    (DontFrag, struct.pack("=i", 1), {"on": True}),
    (lambda: DontFrag(on=False), bytes(4), {"on": False}),
]
samples = pytest.mark.parametrize(("make", "payload", "fields"), SAMPLES)


@linux
@samples
def test_a_message_is_made_of_its_fields(make, payload, fields):
    message = make()
    assert message.data == payload
    assert {name: getattr(message, name) for name in message._fields} == fields


SIZED = [PktInfo6, HopLimit, TClass, OrigDstAddr6, FragSize6, PathMTU, FlowInfo, DontFrag]
HEADERS = [HopOptions, DstOptions, RthdrDstOptions, RoutingHeader]


@linux
@pytest.mark.parametrize("cls", SIZED + HEADERS)
def test_a_payload_of_another_size_stays_raw(cls):
    sizes = {*range(40)} - {*(range(8, 40, 8) if cls in HEADERS else row_of(cls).sizes)}
    for size in sizes:
        (decoded,) = decode([(*row_of(cls).sent_pair(), bytes(size))])
        assert type(decoded) is ControlMessage
        with pytest.raises(ValueError, match=f"data: {cls.__name__} has .* bytes of payload"):
            cls.from_data(bytes(size))


@linux
@pytest.mark.parametrize("cls", SIZED + HEADERS)
@pytest.mark.parametrize("byte", [0, 0x7F, 0xFF])
def test_any_bytes_of_the_right_size_can_be_read(cls, byte):
    for size in row_of(cls).sizes or (8, 16, 2048):
        message = cls.from_data(bytes([byte]) * size)
        assert repr(message).startswith(cls.__name__)


@linux
@pytest.mark.parametrize("octet", range(256))
def test_one_byte_and_four_tell_the_same(octet):
    """macOS has been seen to give the traffic class in one."""
    for data in (bytes([octet]), struct.pack("=i", octet)):
        tclass, limit = decode([(*row_of(TClass).sent_pair(), data), (*row_of(HopLimit).sent_pair(), data)])
        assert (tclass.dscp << 2 | tclass.ecn, limit.hops) == (octet, octet)


@linux
def test_addresses_may_be_objects():
    host = ipaddress.ip_address("2001:db8::1")
    assert PktInfo6(local=host).local == "2001:db8::1"
    assert OrigDstAddr6(address=(host, 1)).address == ("2001:db8::1", 1, 0, 0)
    assert PathMTU(address=(host, 0), mtu=1280).address[0] == "2001:db8::1"


BAD = [
    (lambda: PktInfo6(local=1), TypeError, "local"),
    (lambda: PktInfo6(local=bytes(16)), TypeError, "local"),
    (lambda: PktInfo6(local="127.0.0.1"), ValueError, "local must be a numeric IPv6 address"),
    (lambda: PktInfo6(local=ipaddress.ip_address("127.0.0.1")), ValueError, "local"),
    (lambda: PktInfo6(local="fe80::1%eth0"), ValueError, "local must have no scope"),
    (lambda: PktInfo6(local=ipaddress.ip_interface("fe80::1/64")), ValueError, "local"),
    (lambda: PktInfo6(ifindex=-1), ValueError, "ifindex"),
    (lambda: PktInfo6(ifindex=2**32), OverflowError, "ifindex"),
    (lambda: HopLimit(hops=256), OverflowError, "hops"),
    (lambda: HopLimit(hops=-1), ValueError, "hops"),
    (lambda: TClass(dscp=64), OverflowError, "dscp"),
    (lambda: TClass(ecn=-1), ValueError, "ecn"),
    (lambda: OrigDstAddr6(address=["::1", 1]), TypeError, "address must be a tuple"),
    (lambda: OrigDstAddr6(address=("::1", 1, 0, 0, 0)), TypeError, "address must be a tuple"),
    (lambda: OrigDstAddr6(address=("127.0.0.1", 1)), ValueError, "address host"),
    (lambda: OrigDstAddr6(address=("fe80::1%1", 1)), ValueError, "address host must have no scope"),
    (lambda: OrigDstAddr6(address=("::1", -1)), ValueError, "address port"),
    (lambda: OrigDstAddr6(address=("::1", 1, 2**32)), OverflowError, "address flowinfo"),
    (lambda: OrigDstAddr6(address=("::1", 1, 0, "eth0")), TypeError, "address scope_id"),
    (lambda: FragSize6(size=2**31), OverflowError, "size"),
    (lambda: PathMTU(address=("::1", 0), mtu=-1), ValueError, "mtu"),
    (lambda: PathMTU(address=None, mtu=1280), TypeError, "address"),
    (lambda: FlowInfo(flow_label=2**20), OverflowError, "flow_label"),
    (lambda: FlowInfo(flow_label=0, traffic_class=256), OverflowError, "traffic_class"),
    (lambda: DontFrag(on=2), OverflowError, "on"),
    (lambda: DontFrag(on=None), TypeError, "on"),
]
for each in HEADERS:
    BAD += [
        (lambda cls=each: cls(header=b""), ValueError, "header must be of 8 bytes at least, not 0"),
        (lambda cls=each: cls(header=b"\0"), ValueError, "header must be of 8 bytes at least, not 1"),
        (lambda cls=each: cls(header=bytes(7)), ValueError, "header must be of 8 bytes, as its second byte says 0, not 7"),
        (lambda cls=each: cls(header=bytes(16)), ValueError, "header must be of 8 bytes, as its second byte says 0, not 16"),
        (lambda cls=each: cls(header=b"\0\1" + bytes(6)), ValueError, "header must be of 16 bytes, .* says 1, not 8"),
        (lambda cls=each: cls(header="\0" * 8), TypeError, "header"),
    ]


@linux
@pytest.mark.parametrize(("make", "error", "says"), BAD)
def test_the_field_that_is_wrong_is_named(make, error, says):
    with pytest.raises(error, match=f"^{says}"):
        make()


@linux
@pytest.mark.parametrize("cls", HEADERS)
def test_there_is_room_for_the_longest_header(cls):
    longest = cls(header=b"\0\xff" + bytes(2046))
    assert space(cls) == CMSG_SPACE(len(longest.data))


# ---- on the kernel ----


@pytest.fixture
def stack(ipv6):
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def udp(stack):
    """A callable: a UDP socket bound to an IPv6 address, that asks for messages of some classes."""

    def make(host="::1", *classes):
        sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        sock.settimeout(2)
        sock.setsockopt(IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, 0))
        enable(sock, *classes)
        return sock

    return make


def came(sock):
    """The messages beside one datagram, by class, and where it came from."""
    data, ancdata, msg_flags, source = recvmsg(sock, 4096, ROOM)
    assert not msg_flags & socket.MSG_CTRUNC
    return {type(message): message for message in decode(ancdata)}, source


@linux
def test_an_answer_comes_from_the_address_that_was_asked(udp, new_namespace):
    namespace = new_namespace()
    namespace.address("lo", "2001:db8::1/128", "2001:db8::2/128")
    with namespace:
        server, client = udp("::", PktInfo6), udp("::")
    for host in ("::1", "2001:db8::1", "2001:db8::2"):
        client.connect((host, server.getsockname()[1]))  # answers from elsewhere are refused
        client.send(b"who are you?")
        messages, source = came(server)
        info = messages[PktInfo6]
        assert (info.local, info.destination, info.ifindex) == (host, host, 1)
        sendmsg(server, [b"I am"], [info], 0, source)
        assert client.recv(100) == b"I am"


@linux
@pytest.mark.parametrize("hops", [0, 1, 2, 64, 255])
def test_the_hop_limit_of_one_datagram(udp, hops):
    a, b = udp(), udp("::1", HopLimit)
    for ancdata, expected in (([HopLimit(hops=hops)], hops), ([], 64)):
        sendmsg(a, [b"x"], ancdata, 0, b.getsockname())
        assert came(b)[0][HopLimit] == HopLimit(hops=expected)


@linux
def test_every_traffic_class_of_one_datagram(udp):
    a, b = udp(), udp("::1", TClass)
    for octet in range(256):
        sent = TClass(dscp=octet >> 2, ecn=octet & 3)
        sendmsg(a, [b"x"], [sent], 0, b.getsockname())
        assert came(b)[0] == {TClass: sent}


@linux
def test_a_hop_limit_of_minus_one_stands_for_the_default(udp):
    """The kernel's way to say what leaving the message out says as well."""
    a, b = udp(), udp("::1", HopLimit)
    (default,) = decode([(*row_of(HopLimit).sent_pair(), struct.pack("=i", -1))])
    assert default.hops == -1
    sendmsg(a, [b"x"], [default], 0, b.getsockname())
    assert came(b)[0] == {HopLimit: HopLimit(hops=64)}


@linux
def test_the_original_destination_of_what_came_straight(udp):
    a, b = udp(), udp("::", OrigDstAddr6)
    port = b.getsockname()[1]
    a.sendto(b"x", ("::1", port))
    assert came(b)[0][OrigDstAddr6].address == ("::1", port, 0, 0)


@linux
def test_a_flow_label_of_one_datagram(udp):
    """The traffic class in it is the socket's or another message's, never its own."""
    a, b = udp(), udp("::1", FlowInfo)
    label = FlowInfo(flow_label=0x12345, traffic_class=0xFF)
    for others, expected in (([], 0), ([TClass(dscp=46)], 46 << 2)):
        sendmsg(a, [b"x"], [label, *others], 0, b.getsockname())
        assert came(b)[0] == {FlowInfo: FlowInfo(flow_label=0x12345, traffic_class=expected)}


@linux
def test_the_kernel_refuses_what_it_cannot_do(udp):
    sock = udp()
    for message in (PktInfo6(local="2001:db8::9"), PktInfo6(local="fe80::1"), PktInfo6(local="ff02::1")):
        with pytest.raises(OSError, match="Invalid argument"):
            sendmsg(sock, [b"x"], [message], 0, sock.getsockname())
    with pytest.raises(OSError, match="No such device"):
        sendmsg(sock, [b"x"], [PktInfo6(ifindex=10**6)], 0, sock.getsockname())
