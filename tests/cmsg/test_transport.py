# SPDX-License-Identifier: MIT
"""lowsock.cmsg: segmentation offload, the queue of a TCP connection, TLS records. What the kernel here has no module
for is tested on bytes."""

import errno
import socket
import struct
import sys

import pytest

import lowsock
from lowsock import cmsg, constants
from lowsock.cmsg._base import row_of

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these messages are Linux's")
pytestmark = linux
BIG = 65536


def received(sock, size=BIG):
    """What a receive with just the room for Gro and Inq brings: the data and its messages."""
    data, ancdata, msg_flags, _ = lowsock.recvmsg(sock, size, cmsg.space(cmsg.Gro, cmsg.Inq))
    assert msg_flags & socket.MSG_CTRUNC == 0
    return data, cmsg.decode(ancdata)


# ---- UDP: payloads ----


@pytest.mark.parametrize("size", [1, 1200, 65535])
def test_a_segment_size_goes_as_16_bits(size):
    assert cmsg.Segment(size=size) == (constants.SOL_UDP, constants.UDP_SEGMENT, struct.pack("=H", size))
    assert cmsg.Segment(size=size).size == size


@pytest.mark.parametrize(("size", "error"), [(0, OverflowError), (-1, ValueError), (65536, OverflowError), ("1", TypeError)])
def test_a_segment_size_that_does_not_exist_is_refused(size, error):
    with pytest.raises(error, match="size "):
        cmsg.Segment(size=size)


@pytest.mark.parametrize("form", ["=i", "=H"])
def test_a_coalesced_size_may_have_either_width(form):
    (message,) = cmsg.decode([(constants.SOL_UDP, constants.UDP_GRO, struct.pack(form, 1200))])
    assert (type(message), message.size) == (cmsg.Gro, 1200)


# ---- UDP: on the kernel ----


@pytest.fixture
def coalescing(udp_pair):
    """A pair of UDP sockets of which b asks for datagrams in a row."""
    assert cmsg.enable(udp_pair.b, cmsg.Gro) >= cmsg.space(cmsg.Gro)
    for sock in udp_pair[2:4]:
        sock.settimeout(10)
    return udp_pair


def test_segments_come_together_again_with_their_size(coalescing):
    data = bytes(range(250)) * 10
    assert lowsock.sendmsg(coalescing.a, [data], [cmsg.Segment(size=1000)]) == len(data)
    assert received(coalescing.b) == (data, [cmsg.Gro(size=1000)])


def test_segments_come_one_by_one_to_who_does_not_ask(udp_pair):
    lowsock.sendmsg(udp_pair.a, [b"aaabbbc"], [cmsg.Segment(size=3)])
    assert [received(udp_pair.b) for _ in range(3)] == [(b"aaa", []), (b"bbb", []), (b"c", [])]


@pytest.mark.parametrize("size", [3, 4, 60000])
def test_what_is_no_longer_than_a_segment_is_one_datagram(coalescing, size):
    lowsock.sendmsg(coalescing.a, [b"abc"], [cmsg.Segment(size=size)])
    assert received(coalescing.b) == (b"abc", [])


def test_a_lone_datagram_brings_no_size(coalescing):
    coalescing.a.send(b"lone")
    assert received(coalescing.b) == (b"lone", [])


def test_a_message_stands_above_the_sockets_own_size(coalescing):
    coalescing.a.setsockopt(constants.SOL_UDP, constants.UDP_SEGMENT, 500)
    for messages, size in (([], 500), ([cmsg.Segment(size=300)], 300)):
        lowsock.sendmsg(coalescing.a, [bytes(1000)], messages)
        assert received(coalescing.b) == (bytes(1000), [cmsg.Gro(size=size)])


def test_a_raw_size_of_0_switches_the_sockets_own_off(coalescing):
    """Kept out of Segment, where it would be a slip."""
    coalescing.a.setsockopt(constants.SOL_UDP, constants.UDP_SEGMENT, 500)
    level, kind, data = cmsg.Segment(size=1)
    lowsock.sendmsg(coalescing.a, [bytes(1000)], [(level, kind, bytes(len(data)))])
    assert received(coalescing.b) == (bytes(1000), [])


@pytest.mark.parametrize("width", [0, 1, 3, 4, 8])
def test_any_other_width_is_refused_by_the_kernel_and_by_the_class(udp_pair, width):
    level, kind, data = cmsg.Segment(size=100)
    odd = data.ljust(8, b"\0")[:width]
    with pytest.raises(OSError, match=r"nvalid") as raised:
        lowsock.sendmsg(udp_pair.a, [bytes(1000)], [(level, kind, odd)])
    assert raised.value.errno == errno.EINVAL
    with pytest.raises(ValueError, match="Segment has 2 bytes of payload"):
        cmsg.Segment.from_data(odd)


def test_there_is_an_end_to_segments(udp_pair):
    with pytest.raises(OSError, match="nvalid") as raised:
        lowsock.sendmsg(udp_pair.a, [bytes(1290)], [cmsg.Segment(size=10)])
    assert raised.value.errno == errno.EINVAL


def test_the_socket_module_sends_it_too(coalescing):
    if not hasattr(coalescing.a, "sendmsg"):
        pytest.skip("this socket module has no sendmsg")
    coalescing.a.sendmsg([b"aabb"], [cmsg.Segment(size=2)])
    assert received(coalescing.b) == (b"aabb", [cmsg.Gro(size=2)])


# ---- TCP ----


def test_the_message_of_tcp_inq_has_the_options_number():
    assert cmsg.Inq(queued=5) == (constants.SOL_TCP, constants.TCP_CM_INQ, struct.pack("=i", 5))
    assert constants.TCP_CM_INQ == constants.TCP_INQ


def test_each_receive_tells_what_is_still_queued(tcp_pair):
    assert cmsg.enable(tcp_pair.b, cmsg.Inq) >= cmsg.space(cmsg.Inq)
    tcp_pair.a.sendall(b"0123456789")
    assert tcp_pair.b.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL) == b"0123456789"
    assert received(tcp_pair.b, 4) == (b"0123", [cmsg.Inq(queued=6)])
    assert received(tcp_pair.b, 5) == (b"45678", [cmsg.Inq(queued=1)])
    assert received(tcp_pair.b) == (b"9", [cmsg.Inq(queued=0)])


def test_the_end_of_the_stream_counts_as_one(tcp_pair):
    cmsg.enable(tcp_pair.b, cmsg.Inq)
    tcp_pair.a.sendall(b"01")
    tcp_pair.a.shutdown(socket.SHUT_WR)
    tcp_pair.b.settimeout(10)
    assert tcp_pair.b.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"01"  # waits for the end
    assert received(tcp_pair.b, 1) == (b"0", [cmsg.Inq(queued=2)])
    assert received(tcp_pair.b, 1) == (b"1", [cmsg.Inq(queued=1)])
    assert received(tcp_pair.b, 1) == (b"", [cmsg.Inq(queued=1)])


# ---- TLS ----


@pytest.mark.parametrize("cls", ["SetRecordType", "GetRecordType"])
@pytest.mark.parametrize("record_type", [*cmsg.RecordType, 0, 25, 255])
def test_a_record_type_is_one_byte(cls, record_type):
    message = getattr(cmsg, cls)(record_type=record_type)
    assert message.data == bytes([record_type])
    assert message[:2] == (
        constants.SOL_TLS,
        constants.TLS_SET_RECORD_TYPE if cls[0] == "S" else constants.TLS_GET_RECORD_TYPE,
    )
    assert (message.record_type, type(message.record_type)) == (record_type, type(record_type))


@pytest.mark.parametrize("cls", ["SetRecordType", "GetRecordType"])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (256, OverflowError), (b"\x15", TypeError)])
def test_a_record_type_that_does_not_exist_is_refused(cls, value, error):
    with pytest.raises(error, match="record_type "):
        getattr(cmsg, cls)(record_type=value)


def test_record_types_are_those_of_the_kernel():
    kernels = {name: getattr(constants, f"TLS_RECORD_TYPE_{name}") for name in ("CHANGE_CIPHER_SPEC", "ALERT", "HANDSHAKE")}
    kernels |= {"APPLICATION_DATA": constants.TLS_RECORD_TYPE_DATA, "HEARTBEAT": constants.TLS_RECORD_TYPE_HEARTBEAT}
    assert {member.name: member.value for member in cmsg.RecordType} == kernels


def test_a_record_type_comes_unasked_and_wants_room():
    assert cmsg.space(cmsg.GetRecordType) == lowsock.CMSG_SPACE(1)
    with socket.socket() as sock:
        assert cmsg.enable(sock, cmsg.GetRecordType) == lowsock.CMSG_SPACE(1)


@pytest.fixture
def tls(tcp_pair):
    """A pair of connections with TLS in the kernel, one key both ways."""
    secret = struct.pack("=HH", constants.TLS_1_2_VERSION, constants.TLS_CIPHER_AES_GCM_128) + bytes(range(8 + 16 + 4 + 8))
    try:
        for sock, way in ((tcp_pair.a, "TLS_TX"), (tcp_pair.b, "TLS_RX")):
            sock.setsockopt(constants.IPPROTO_TCP, constants.TCP_ULP, b"tls")
            sock.setsockopt(constants.SOL_TLS, getattr(constants, way), secret)
    except OSError as error:
        pytest.skip(f"this kernel has no TLS: {error}")
    return tcp_pair


def test_a_record_comes_with_the_type_that_it_was_sent_with(tls):
    lowsock.sendmsg(tls.a, [b"\1\0"], [cmsg.SetRecordType(record_type=cmsg.RecordType.ALERT)])
    data, ancdata, _, _ = lowsock.recvmsg(tls.b, 100, cmsg.space(cmsg.GetRecordType))
    assert (data, cmsg.decode(ancdata)) == (b"\1\0", [cmsg.GetRecordType(record_type=cmsg.RecordType.ALERT)])


def test_a_socket_without_tls_takes_no_notice(tcp_pair):
    assert lowsock.sendmsg(tcp_pair.a, [b"x"], [cmsg.SetRecordType(record_type=cmsg.RecordType.ALERT)]) == 1
    assert tcp_pair.b.recv(10) == b"x"


# ---- directions ----


@pytest.mark.parametrize("name", ["Segment", "SetRecordType"])
def test_what_is_only_sent_cannot_be_asked_for(name):
    assert row_of(getattr(cmsg, name)).option is None
    with socket.socket() as sock, pytest.raises(ValueError, match=f"{name} is only sent"):
        cmsg.enable(sock, getattr(cmsg, name))
