# SPDX-License-Identifier: MIT
"""Control messages through the calls, both ways, beside the socket module."""

import array
import os
import socket
import struct
import sys
import time

import pytest

import lowsock
from lowsock import constants

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the control message is Linux's")
SPACE = 1024


def enabled(sock, level, option):
    try:
        sock.setsockopt(level, option, 1)
    except OSError as error:
        pytest.skip(f"the kernel refuses option {option} of level {level}: {error}")


def rights(*fds):
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))


def close_all(fds):
    for fd in fds:
        os.close(fd)


def fds_of(ancdata):
    """The descriptors in ancillary data that holds nothing else."""
    fds = array.array("i")
    for level, kind, data in ancdata:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        fds.frombytes(data)
    return fds.tolist()


def recvmsg_into(sock, size, ancbufsize):
    space = bytearray(size)
    count, *rest = lowsock.recvmsg_into(sock, [space], ancbufsize)
    return (bytes(space[:count]), *rest)


def recv1msg(sock, size, ancbufsize):
    data, msg_flags, ancillary = lowsock.recv1msg(sock, size)
    return data, ancillary, msg_flags, None


RECEIVES = {"recvmsg": lowsock.recvmsg, "recvmsg_into": recvmsg_into, "recv1msg": recv1msg}
SENDS = {
    "sendmsg": lambda sock, data, ancdata: lowsock.sendmsg(sock, [data], ancdata),
    "sendmsg, gathered": lambda sock, data, ancdata: lowsock.sendmsg(sock, [data[:1], data[1:]], ancdata),
    "sendmsg, large": lambda sock, data, ancdata: lowsock.sendmsg(sock, [data, bytearray(20_000)], ancdata) - 20_000,
    "send1msg": lambda sock, data, ancdata: lowsock.send1msg(sock, data, 0, ancdata),
}


@pytest.fixture(params=RECEIVES)
def receive(request):
    return RECEIVES[request.param]


@pytest.fixture(params=SENDS)
def send(request):
    return SENDS[request.param]


# ---- descriptors ----


def test_a_descriptor_goes_both_ways(unix_pair, send, receive, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        assert send(unix_pair.a, b"data", [rights(file.fileno())]) == 4
    data, ancdata, _, _ = receive(unix_pair.b, 4, SPACE)
    (fd,) = fds_of(ancdata)
    with os.fdopen(fd, "rb") as copy:
        assert (data, copy.read()) == (b"data", b"content")


def test_received_descriptors_are_close_on_exec(unix_pair, receive):
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0, 1)])
    fds = fds_of(receive(unix_pair.b, 1, SPACE)[1])
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    close_all(fds)


def test_the_socket_module_understands_what_is_sent(unix_pair, send):
    send(unix_pair.a, b"data", [rights(0, 1, 2)])
    data, ancdata, msg_flags, _ = unix_pair.b.recvmsg(4, SPACE)
    fds = fds_of(ancdata)
    close_all(fds)
    assert (data, len(fds), msg_flags & socket.MSG_CTRUNC) == (b"data", 3, 0)


def test_what_the_socket_module_sends_is_understood(unix_pair, receive):
    unix_pair.a.sendmsg([b"data"], [rights(0, 1, 2)])
    data, ancdata, msg_flags, _ = receive(unix_pair.b, 4, SPACE)
    fds = fds_of(ancdata)
    close_all(fds)
    assert (data, len(fds), msg_flags & socket.MSG_CTRUNC) == (b"data", 3, 0)


@linux
def test_several_messages_of_descriptors_come_as_one(unix_pair, receive):
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0), rights(1, 2)])
    _, ancdata, _, _ = receive(unix_pair.b, 1, SPACE)
    fds = fds_of(ancdata)
    close_all(fds)
    assert (len(ancdata), len(fds)) == (1, 3)


def test_descriptors_come_with_the_first_byte_of_a_stream():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with a, b:
        lowsock.sendmsg(a, [b"abc"], [rights(0)])
        for byte, count in ((b"a", 1), (b"b", 0), (b"c", 0)):
            data, ancdata, _, _ = lowsock.recvmsg(b, 1, SPACE)
            fds = fds_of(ancdata)
            close_all(fds)
            assert (data, len(fds)) == (byte, count)


@linux
@pytest.mark.parametrize("room", range(40))
def test_descriptors_that_do_not_fit_are_not_left_open(unix_pair, open_fds, room):
    before = open_fds()
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0, 1, 2)])
    _, ancdata, msg_flags, _ = lowsock.recvmsg(unix_pair.b, 1, room)
    fds = fds_of(ancdata)
    assert open_fds() - before == set(fds)
    assert bool(msg_flags & socket.MSG_CTRUNC) == (len(fds) < 3)
    close_all(fds)


def test_without_room_descriptors_are_dropped(unix_pair, open_fds):
    before = open_fds()
    for receive in (
        lambda: lowsock.recvmsg(unix_pair.b, 1)[2],
        lambda: lowsock.recvmsg_into(unix_pair.b, [bytearray(1)])[2],
        lambda: lowsock.recv1msg(unix_pair.b, 1, cmsg_size=0)[1],
    ):
        lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0, 1)])
        assert receive() & socket.MSG_CTRUNC
        assert open_fds() == before


def test_a_peek_copies_descriptors_each_time(unix_pair):
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0)])
    fds = []
    for flags in (socket.MSG_PEEK, socket.MSG_PEEK, 0):
        fds += fds_of(lowsock.recvmsg(unix_pair.b, 1, SPACE, flags)[1])
    close_all(fds)
    assert len(set(fds)) == 3


def test_cmsg_size_counts_payload(unix_pair):
    size = 3 * array.array("i").itemsize
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0, 1, 2)])
    _, msg_flags, ancillary = lowsock.recv1msg(unix_pair.b, 1, cmsg_size=size)
    fds = fds_of(ancillary)
    close_all(fds)
    assert (len(fds), msg_flags & socket.MSG_CTRUNC) == (3, 0)


# ---- credentials ----

OURS = struct.pack("=iII", os.getpid(), os.getuid(), os.getgid())


@linux
def test_credentials_both_ways(unix_pair, send, receive):
    enabled(unix_pair.b, socket.SOL_SOCKET, constants.SO_PASSCRED)
    message = (socket.SOL_SOCKET, constants.SCM_CREDENTIALS, OURS)
    send(unix_pair.a, b"data", [message])
    assert receive(unix_pair.b, 4, SPACE)[1] == [message]


@linux
def test_credentials_come_unasked_beside_descriptors(unix_pair, send):
    enabled(unix_pair.b, socket.SOL_SOCKET, constants.SO_PASSCRED)
    send(unix_pair.a, b"data", [rights(0)])
    ancdata = lowsock.recvmsg(unix_pair.b, 4, SPACE)[1]
    assert (socket.SOL_SOCKET, constants.SCM_CREDENTIALS, OURS) in ancdata
    (fds,) = [data for _, kind, data in ancdata if kind == socket.SCM_RIGHTS]
    close_all(array.array("i", fds))


@linux
def test_messages_of_several_types_go_in_one_send(unix_pair, send):
    enabled(unix_pair.b, socket.SOL_SOCKET, constants.SO_PASSCRED)
    credentials = (socket.SOL_SOCKET, constants.SCM_CREDENTIALS, OURS)
    send(unix_pair.a, b"data", [credentials, rights(0, 1)])
    received = lowsock.recvmsg(unix_pair.b, 4, SPACE)[1]
    assert sorted(kind for _, kind, _ in received) == [socket.SCM_RIGHTS, constants.SCM_CREDENTIALS]
    close_all(fds_of([message for message in received if message != credentials]))


# ---- datagrams of IP ----

IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
INT = struct.Struct("=i")


IP_OPTIONS = {
    socket.AF_INET: (IP, ("IP_RECVTTL IP_TTL", "IP_RECVTOS IP_TOS", "IP_PKTINFO IP_PKTINFO")),
    socket.AF_INET6: (
        IPV6,
        ("IPV6_RECVHOPLIMIT IPV6_HOPLIMIT", "IPV6_RECVTCLASS IPV6_TCLASS", "IPV6_RECVPKTINFO IPV6_PKTINFO"),
    ),
}


def ip_options(family):
    """(level, option that asks for it, type) of what may come beside a datagram: the same three for both families."""
    level, names = IP_OPTIONS[family]
    return [(level, *(getattr(constants, name) for name in twins.split())) for twins in names]


def ask(pair):
    for level, option, _ in ip_options(pair.family):
        enabled(pair.b, level, option)


@linux
def test_packet_information_is_what_the_socket_module_gives(udp_pair, receive):
    ask(udp_pair)
    udp_pair.a.send(b"data")
    theirs = udp_pair.b.recvmsg(4, SPACE, socket.MSG_PEEK)[1]
    assert receive(udp_pair.b, 4, SPACE)[1] == theirs
    assert {kind for _, kind, _ in theirs} == {kind for _, _, kind in ip_options(udp_pair.family)}


@linux
def test_a_number_is_sent_with_one_datagram(udp_pair, send):
    """TTL and TOS, or hop limit and traffic class, of this message alone."""
    ask(udp_pair)
    (level, _, ttl), (_, _, tos), _ = ip_options(udp_pair.family)
    for ancdata in ([(level, ttl, INT.pack(7)), (level, tos, INT.pack(0x20))], []):
        send(udp_pair.a, b"data", ancdata)
        came = {kind: data for _, kind, data in lowsock.recvmsg(udp_pair.b, 4, SPACE)[1]}
        assert (INT.unpack(came[ttl])[0] == 7) == bool(ancdata)
        assert (came[tos][0] == 0x20) == bool(ancdata)


@linux
def test_packet_information_chooses_the_source():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        source = socket.inet_aton("127.9.8.7")
        info = (IP, constants.IP_PKTINFO, bytes(4) + source + bytes(4))
        lowsock.sendmsg(a, [b"x"], [info], 0, b.getsockname())
        assert lowsock.recvmsg(b, 10)[3][0] == "127.9.8.7"


STAMPS = {"SO_TIMESTAMP": ("=qq", 10**6), "SO_TIMESTAMPNS": ("=qq", 10**9)}


@linux
@pytest.mark.skipif(sys.maxsize < 2**32, reason="a 32-bit libc has two forms of it")
@pytest.mark.parametrize("option", STAMPS)
def test_the_time_of_arrival_is_about_now(udp_pair, receive, option):
    enabled(udp_pair.b, socket.SOL_SOCKET, getattr(constants, option))
    earliest = time.time() - 1
    udp_pair.a.send(b"data")
    ((level, kind, data),) = receive(udp_pair.b, 4, SPACE)[1]
    layout, parts = STAMPS[option]
    seconds, rest = struct.unpack(layout, data)
    assert (level, kind) == (socket.SOL_SOCKET, getattr(constants, option))
    assert earliest <= seconds + rest / parts <= time.time() + 1


@linux
def test_many_messages_come_in_one_receive(udp_pair, receive):
    ask(udp_pair)
    enabled(udp_pair.b, socket.SOL_SOCKET, constants.SO_TIMESTAMPNS)
    udp_pair.a.send(b"data")
    ancdata = receive(udp_pair.b, 4, SPACE)[1]
    assert len(ancdata) == 4
    assert {type(part) for message in ancdata for part in message} == {int, bytes}


# ---- nothing is left of an earlier call ----


@linux
def test_control_data_shows_in_its_own_call_only(udp_pair, receive):
    enabled(udp_pair.b, socket.SOL_SOCKET, constants.SO_TIMESTAMP)
    udp_pair.a.send(b"with")
    assert receive(udp_pair.b, 4, SPACE)[1]
    udp_pair.b.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMP, 0)
    udp_pair.a.send(b"none")
    assert receive(udp_pair.b, 4, SPACE)[1] == []


def test_no_control_data_but_room_is_an_empty_list(pair, receive):
    pair.a.send(b"data")
    data, ancdata, msg_flags, _ = receive(pair.b, 4, SPACE)
    assert (data, ancdata, msg_flags & socket.MSG_CTRUNC) == (b"data", [], 0)


@pytest.mark.parametrize("room", [8 * 1024, 8 * 1024 + 1, 100_000])
def test_room_beyond_the_pool_is_room(unix_pair, room):
    lowsock.sendmsg(unix_pair.a, [b"x"], [rights(0)])
    _, ancdata, msg_flags, _ = lowsock.recvmsg(unix_pair.b, 1, room)
    fds = fds_of(ancdata)
    close_all(fds)
    assert (len(fds), msg_flags & socket.MSG_CTRUNC) == (1, 0)
