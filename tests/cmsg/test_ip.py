# SPDX-License-Identifier: MIT
"""Control messages of IPv4: their fields, and what the kernel does with them."""

import errno
import ipaddress
import socket
import struct
import sys
from contextlib import ExitStack

import pytest

from lowsock import recvmsg, sendmsg
from lowsock._system.layouts import Field, Layout
from lowsock.cmsg import ECN, ControlMessage, _ip, decode, enable
from lowsock.cmsg._base import row_of
from lowsock.cmsg._ip import (
    TOS,
    TTL,
    Checksum,
    DstAddr,
    FragSize,
    OrigDstAddr,
    PktInfo,
    Protocol,
    ReceivedOptions,
    RecvIf,
    ReturnOptions,
)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")
ROOM = 1024
IP = socket.IPPROTO_IP


def address(text):
    return socket.inet_pton(socket.AF_INET, text)


# ---- fields ----

# A message, the payload that it is in the kernel's layout, and its fields.
SAMPLES = [
    (
        lambda: PktInfo(local="10.0.0.1", ifindex=3, destination="224.0.0.1"),
        struct.pack("=i", 3) + address("10.0.0.1") + address("224.0.0.1"),
        {"local": "10.0.0.1", "ifindex": 3, "destination": "224.0.0.1"},
    ),
    (PktInfo, bytes(12), {"local": "0.0.0.0", "ifindex": 0, "destination": "0.0.0.0"}),
    (lambda: TTL(hops=64), struct.pack("=i", 64), {"hops": 64}),
    (lambda: TOS(dscp=46, ecn=ECN.ECT_0), struct.pack("=i", 186), {"dscp": 46, "ecn": ECN.ECT_0}),
    (TOS, bytes(4), {"dscp": 0, "ecn": ECN.NOT_ECT}),
    (
        lambda: OrigDstAddr(address=("10.0.0.1", 80)),
        struct.pack("=H", socket.AF_INET) + b"\0\x50" + address("10.0.0.1") + bytes(8),
        {"address": ("10.0.0.1", 80)},
    ),
    (lambda: FragSize(size=1500), struct.pack("=i", 1500), {"size": 1500}),
    (lambda: Protocol(protocol=17), struct.pack("=i", 17), {"protocol": 17}),
    (lambda: Checksum(checksum=0xFFFF0001), struct.pack("=I", 0xFFFF0001), {"checksum": 0xFFFF0001}),
    (lambda: ReceivedOptions(options=b"\1\1\1\0"), b"\1\1\1\0", {"options": b"\1\1\1\0"}),
    (lambda: ReturnOptions(options=bytearray(b"\1\0")), b"\1\0", {"options": b"\1\0"}),
]
samples = pytest.mark.parametrize(("make", "payload", "fields"), SAMPLES)


@linux
@samples
def test_a_message_is_made_of_its_fields(make, payload, fields):
    message = make()
    assert message.data == payload
    assert {name: getattr(message, name) for name in message._fields} == fields


CLASSES = [PktInfo, TTL, TOS, OrigDstAddr, FragSize, Protocol, Checksum]


@linux
@pytest.mark.parametrize("cls", CLASSES)
def test_a_payload_of_another_size_stays_raw(cls):
    for size in {*range(20)} - {*row_of(cls).sizes}:
        (decoded,) = decode([(*row_of(cls).sent_pair(), bytes(size))])
        assert type(decoded) is ControlMessage
        with pytest.raises(ValueError, match=f"data: {cls.__name__} has .* bytes of payload"):
            cls.from_data(bytes(size))


@linux
@pytest.mark.parametrize("cls", [*CLASSES, ReceivedOptions, ReturnOptions])
@pytest.mark.parametrize("byte", [0, 0x7F, 0xFF])
def test_any_bytes_of_the_right_size_can_be_read(cls, byte):
    for size in row_of(cls).sizes or (0, 1, 40, 100):
        message = cls.from_data(bytes([byte]) * size)
        assert repr(message).startswith(cls.__name__)


@linux
@pytest.mark.parametrize("octet", range(256))
def test_one_byte_and_four_tell_the_same(octet):
    """Linux receives TOS in one byte; TTL comes in one on BSD."""
    for data in (bytes([octet]), struct.pack("=i", octet)):
        tos, ttl = decode([(*row_of(TOS).sent_pair(), data), (*row_of(TTL).sent_pair(), data)])
        assert (tos.dscp << 2 | tos.ecn, ttl.hops) == (octet, octet)
        assert isinstance(tos.ecn, ECN)


@linux
@pytest.mark.parametrize("local", [ipaddress.ip_address("10.0.0.1"), "10.0.0.1"])
def test_addresses_may_be_objects(local):
    assert PktInfo(local=local, destination=local).destination == "10.0.0.1"
    assert OrigDstAddr(address=(local, 1)).address == ("10.0.0.1", 1)


BAD = [
    (lambda: PktInfo(local=1), TypeError, "local"),
    (lambda: PktInfo(local=b"\1\2\3\4"), TypeError, "local"),
    (lambda: PktInfo(local="localhost"), ValueError, "local"),
    (lambda: PktInfo(local="::1"), ValueError, "local"),
    (lambda: PktInfo(local="10.0.0.1\0"), ValueError, "local"),
    (lambda: PktInfo(local=ipaddress.ip_address("::1")), ValueError, "local"),
    (lambda: PktInfo(local=ipaddress.ip_network("10.0.0.0/8")), ValueError, "local"),
    (lambda: PktInfo(destination=None), TypeError, "destination"),
    (lambda: PktInfo(ifindex=-1), ValueError, "ifindex"),
    (lambda: PktInfo(ifindex=2**31), OverflowError, "ifindex"),
    (lambda: PktInfo(ifindex="lo"), TypeError, "ifindex"),
    (lambda: TTL(hops=256), OverflowError, "hops"),
    (lambda: TTL(hops=-1), ValueError, "hops"),
    (lambda: TTL(hops=1.0), TypeError, "hops"),
    (lambda: TOS(dscp=64), OverflowError, "dscp"),
    (lambda: TOS(ecn=4), OverflowError, "ecn"),
    (lambda: TOS(ecn=None), TypeError, "ecn"),
    (lambda: OrigDstAddr(address="10.0.0.1"), TypeError, "address must be a tuple"),
    (lambda: OrigDstAddr(address=("10.0.0.1",)), TypeError, "address must be a tuple"),
    (lambda: OrigDstAddr(address=("10.0.0.1", 1, 0, 0)), TypeError, "address must be a tuple"),
    (lambda: OrigDstAddr(address=("example.org", 1)), ValueError, "address host"),
    (lambda: OrigDstAddr(address=(b"10.0.0.1", 1)), TypeError, "address host"),
    (lambda: OrigDstAddr(address=("10.0.0.1", 2**16)), OverflowError, "address port"),
    (lambda: OrigDstAddr(address=("10.0.0.1", "80")), TypeError, "address port"),
    (lambda: FragSize(size=-1), ValueError, "size"),
    (lambda: Protocol(protocol=256), OverflowError, "protocol"),
    (lambda: Checksum(checksum=2**32), OverflowError, "checksum"),
    (lambda: ReturnOptions(options=bytes(41)), ValueError, "options must be of 40 bytes at most, not 41"),
    (lambda: ReturnOptions(options="\1"), TypeError, "options"),
]


@linux
@pytest.mark.parametrize(("make", "error", "says"), BAD)
def test_the_field_that_is_wrong_is_named(make, error, says):
    with pytest.raises(error, match=f"^{says}"):
        make()


@pytest.mark.parametrize("cls", [PktInfo, TTL, OrigDstAddr, DstAddr, FragSize])
def test_fields_go_by_keyword(cls):
    with pytest.raises(TypeError):
        cls("10.0.0.1")


# ---- what BSD has ----


def foreign(cls, data):
    """A message of a class that this platform may lack, as decode would make it."""
    return tuple.__new__(cls, (IP, 7, data))


def test_bsd_tells_the_destination_alone():
    message = foreign(DstAddr, address("10.0.0.1"))
    assert (message.local, message.ifindex, message.destination) == ("10.0.0.1", None, "10.0.0.1")
    assert repr(message) == "DstAddr(local='10.0.0.1')"


def test_bsd_tells_the_interface_in_a_link_layer_address(monkeypatch):
    layout = Layout(20, [Field("sdl_index", "u", 2, 2), Field("sdl_data", "b", 8, 12)])
    monkeypatch.setattr(_ip, "_sdl_index", layout.reader("sdl_index"))
    message = foreign(RecvIf, struct.pack("=BBH4x", 8, 18, 5))  # without a name, as FreeBSD sends it for want of one
    assert (message.local, message.ifindex, message.destination) == (None, 5, None)
    assert repr(message) == "RecvIf(ifindex=5)"


@linux
@pytest.mark.parametrize(
    ("make", "names"), [(lambda: DstAddr(local="10.0.0.1"), "IP_RECVDSTADDR"), (lambda: RecvIf.from_data(b""), "IP_RECVIF")]
)
def test_what_the_platform_lacks_is_named(make, names):
    with pytest.raises(NotImplementedError, match=f"no {names}"):
        make()


# ---- on the kernel ----


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def udp(stack):
    """A callable: a UDP socket bound to an IPv4 address."""

    def make(host="127.0.0.1", *classes):
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.settimeout(2)
        sock.bind((host, 0))
        enable(sock, *classes)
        return sock

    return make


def came(sock):
    """The messages beside one datagram, by class, and where it came from."""
    data, ancdata, msg_flags, source = recvmsg(sock, 2048, ROOM)
    assert not msg_flags & socket.MSG_CTRUNC
    return {type(message): message for message in decode(ancdata)}, source


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.3.2.1"])
def test_an_answer_comes_from_the_address_that_was_asked(udp, host):
    server, client = udp("0.0.0.0", PktInfo), udp()
    client.connect((host, server.getsockname()[1]))  # answers from elsewhere are refused
    client.send(b"who are you?")
    messages, source = came(server)
    info = messages[PktInfo]
    assert (info.local, info.destination, info.ifindex) == (host, host, 1)
    sendmsg(server, [b"I am"], [info], 0, source)
    assert client.recv(100) == b"I am"


@linux
def test_the_source_may_be_any_address_of_ours(udp):
    client, server = udp("0.0.0.0"), udp()
    sendmsg(client, [b"x"], [PktInfo(local="127.9.8.7")], 0, server.getsockname())
    assert came(server)[1] == ("127.9.8.7", client.getsockname()[1])


REFUSED = [
    (lambda: PktInfo(local="192.0.2.1"), errno.ENETUNREACH),
    (lambda: PktInfo(ifindex=10**6), errno.ENODEV),
    (lambda: TTL(hops=0), errno.EINVAL),
    (lambda: Protocol(protocol=0), errno.EINVAL),
    (lambda: ReturnOptions(options=b"\7\xff\4"), errno.EINVAL),
    (lambda: ReceivedOptions(options=b"\1\1\1\0"), errno.EINVAL),
]


@linux
@pytest.mark.parametrize(("make", "number"), REFUSED)
def test_what_the_kernel_refuses_to_send(udp, new_namespace, make, number):
    with new_namespace():
        sock = udp()
    with pytest.raises(OSError) as caught:
        sendmsg(sock, [b"x"], [make()], 0, sock.getsockname())
    assert caught.value.errno == number


@linux
@pytest.mark.parametrize("hops", [1, 2, 64, 128, 255])
def test_the_time_to_live_of_one_datagram(udp, hops):
    a, b = udp(), udp("127.0.0.1", TTL)
    for ancdata, expected in (([TTL(hops=hops)], hops), ([], 64)):
        sendmsg(a, [b"x"], ancdata, 0, b.getsockname())
        assert came(b)[0][TTL] == TTL(hops=expected)


@linux
def test_every_traffic_class_of_one_datagram(udp):
    a, b = udp(), udp("127.0.0.1", TOS)
    for octet in range(256):
        sent = TOS(dscp=octet >> 2, ecn=octet & 3)
        sendmsg(a, [b"x"], [sent], 0, b.getsockname())
        received = came(b)[0][TOS]
        assert (received.dscp, received.ecn, received.data) == (sent.dscp, sent.ecn, bytes([octet]))


@linux
def test_a_received_message_can_be_sent_back(udp):
    """TOS as the one byte that it came in, TTL as an int."""
    a, b = udp("127.0.0.1", TTL, TOS), udp("127.0.0.1", TTL, TOS)
    sendmsg(a, [b"x"], [TTL(hops=9), TOS(dscp=10, ecn=ECN.CE)], 0, b.getsockname())
    first = came(b)[0]
    sendmsg(b, [b"x"], first.values(), 0, a.getsockname())
    assert came(a)[0] == first


@linux
def test_the_original_destination_of_what_came_straight(udp):
    a, b = udp(), udp("0.0.0.0", OrigDstAddr)
    port = b.getsockname()[1]
    a.sendto(b"x", ("127.4.3.2", port))
    assert came(b)[0][OrigDstAddr].address == ("127.4.3.2", port)


@linux
def test_the_protocol_is_taken_by_kernels_that_know_it(udp):
    sock = udp()
    try:
        sendmsg(sock, [b"x"], [Protocol(protocol=socket.IPPROTO_UDP)], 0, sock.getsockname())
    except OSError as error:
        pytest.skip(f"Linux before 6.4: {error}")
    assert sock.recv(10) == b"x"
