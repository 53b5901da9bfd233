# SPDX-License-Identifier: MIT
"""Flags of one message, those that go in and those that come out, and truncation."""

import socket

import pytest

import lowsock
from lowsock import constants

PEEK, DONTWAIT = socket.MSG_PEEK, socket.MSG_DONTWAIT
TRUNC, CTRUNC = socket.MSG_TRUNC, socket.MSG_CTRUNC
CLOEXEC = getattr(constants, "MSG_CMSG_CLOEXEC", 0)
linux = pytest.mark.skipif(not CLOEXEC, reason="the flag is Linux's and FreeBSD's")


def recvmsg_into(sock, size, *rest):
    """recvmsg_into with recvmsg's arguments and results."""
    space = bytearray(size)
    count, *others = lowsock.recvmsg_into(sock, [space], *rest)
    return (bytes(space[:count]), *others)


def recv1msg(sock, size, ancbufsize=0, flags=0):
    data, msg_flags, ancillary = lowsock.recv1msg(sock, size, flags=flags, cmsg_size=ancbufsize)
    return data, ancillary, msg_flags, None


def recv_fds(sock, size, ancbufsize=0, flags=0):
    data, fds, msg_flags, address = lowsock.recv_fds(sock, size, 0, flags)
    return data, fds, msg_flags, address


RECEIVES = {"recvmsg": lowsock.recvmsg, "recvmsg_into": recvmsg_into, "recv1msg": recv1msg, "recv_fds": recv_fds}


@pytest.fixture(params=RECEIVES)
def receive(request):
    """Each receiving call, as ``(sock, size, ancbufsize, flags) -> (data, ancdata, msg_flags, address)``."""
    return RECEIVES[request.param]


# ---- data that did not fit ----


def test_a_cut_message_says_so(message_pair, receive):
    message_pair.a.send(b"a long message")
    data, _, msg_flags, _ = receive(message_pair.b, 6)
    assert (data, msg_flags & TRUNC) == (b"a long", TRUNC)


def test_what_was_cut_off_is_gone(message_pair, receive):
    message_pair.a.send(b"a long message")
    message_pair.a.send(b"next")
    receive(message_pair.b, 6)
    data, _, msg_flags, _ = receive(message_pair.b, 6)
    assert (data, msg_flags & TRUNC) == (b"next", 0)


def test_a_stream_is_never_cut(stream_pair, receive):
    stream_pair.a.send(b"a long message")
    assert receive(stream_pair.b, 6) == (b"a long", [], 0, None)
    assert receive(stream_pair.b, 100) == (b" message", [], 0, None)


def test_a_message_that_just_fits_is_whole(message_pair, receive):
    message_pair.a.send(b"fits")
    data, _, msg_flags, _ = receive(message_pair.b, 4)
    assert (data, msg_flags & TRUNC) == (b"fits", 0)


def test_no_room_cuts_everything(message_pair, receive):
    if receive is recv1msg:
        pytest.skip("recv1msg refuses a size of 0")
    message_pair.a.send(b"message")
    data, _, msg_flags, _ = receive(message_pair.b, 0)
    assert (data, msg_flags & TRUNC) == (b"", TRUNC)


def test_asking_for_the_real_length_gives_no_byte_more_than_there_is_room(message_pair, receive):
    message_pair.a.send(b"a long message")
    data, _, msg_flags, _ = receive(message_pair.b, 6, 0, TRUNC)
    assert (data, msg_flags & TRUNC) == (b"a long", TRUNC)


def test_asking_for_the_real_length_of_a_short_message_changes_nothing(message_pair, receive):
    message_pair.a.send(b"short")
    data, _, msg_flags, _ = receive(message_pair.b, 100, 0, TRUNC)
    assert (data, msg_flags & TRUNC) == (b"short", 0)


def test_discarding_on_tcp_shows_no_earlier_data(tcp_pair, receive):
    """tcp(7): MSG_TRUNC counts bytes that it does not copy."""
    tcp_pair.a.send(b"secret" * 10)
    lowsock.recvmsg(tcp_pair.b, 60, 0, socket.MSG_WAITALL)
    tcp_pair.a.send(b"public" * 10)
    tcp_pair.b.recv(60, socket.MSG_WAITALL | PEEK)
    data, _, _, _ = receive(tcp_pair.b, 60, 0, TRUNC)
    assert data == bytes(len(data))


# ---- flags that go in ----


def test_a_peek_leaves_the_message(pair, receive):
    pair.a.send(b"data")
    for flags in (PEEK, PEEK, 0):
        assert receive(pair.b, 10, 0, flags)[0] == b"data"
    with pytest.raises(BlockingIOError):
        receive(pair.b, 10, 0, DONTWAIT)


def test_not_waiting_is_for_one_call(pair, receive):
    with pytest.raises(BlockingIOError):
        receive(pair.b, 10, 0, DONTWAIT)
    assert pair.b.gettimeout() is None
    pair.a.send(b"data")
    assert receive(pair.b, 10)[0] == b"data"


def test_not_waiting_is_for_one_call_of_a_descriptor(pair, receive):
    with pytest.raises(BlockingIOError):
        receive(pair.b.fileno(), 10, 0, DONTWAIT)


def test_not_waiting_is_for_one_send(stream_pair):
    def fill():
        while True:
            lowsock.sendmsg(stream_pair.a, [b"x" * 65536], [], DONTWAIT)

    with pytest.raises(BlockingIOError):
        fill()
    assert stream_pair.a.gettimeout() is None


def test_waiting_for_all_takes_several_sends(stream_pair, receive):
    for piece in (b"one", b"two", b"three"):
        stream_pair.a.send(piece)
    assert receive(stream_pair.b, 11, 0, socket.MSG_WAITALL)[0] == b"onetwothree"


def test_the_end_of_a_record_shows():
    try:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        pytest.skip(f"no seqpacket sockets: {error}")
    with a, b:
        for flags in (0, socket.MSG_EOR):
            lowsock.sendmsg(a, [b"record"], [], flags)
            theirs = b.recvmsg(10, 0, PEEK)[2]
            assert lowsock.recvmsg(b, 10)[2] == theirs


@linux
@pytest.mark.parametrize("room", [0, 200])
def test_close_on_exec_shows_if_it_was_passed(pair, room):
    pair.a.send(b"12")
    assert lowsock.recvmsg(pair.b, 1, room, CLOEXEC | PEEK)[2] & CLOEXEC == CLOEXEC
    assert lowsock.recvmsg(pair.b, 1, room, PEEK)[2] & CLOEXEC == 0
    assert recvmsg_into(pair.b, 1, room, CLOEXEC | PEEK)[2] & CLOEXEC == CLOEXEC
    assert recvmsg_into(pair.b, 1, room, PEEK)[2] & CLOEXEC == 0
    assert lowsock.recv1msg(pair.b, 1, flags=CLOEXEC | PEEK)[1] & CLOEXEC == CLOEXEC
    assert lowsock.recv_fds(pair.b, 1, 1, CLOEXEC | PEEK)[2] & CLOEXEC == CLOEXEC
    assert lowsock.recv_fds(pair.b, 1, 1)[2] & CLOEXEC == 0


@pytest.mark.parametrize("timeout", [None, 0, 30])
def test_flags_of_our_own_do_not_show(pair, receive, timeout):
    pair.b.settimeout(timeout)
    pair.a.send(b"data")
    msg_flags = receive(pair.b, 10)[2]
    assert msg_flags & (DONTWAIT | CLOEXEC) == 0


# ---- control data that did not fit ----


@pytest.fixture
def stamped(udp_pair):
    """A pair whose second socket gets a time stamp beside each message."""
    if not hasattr(constants, "SO_TIMESTAMP"):
        pytest.skip("this platform has no SO_TIMESTAMP")
    udp_pair.b.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMP, 1)
    return udp_pair


@pytest.mark.parametrize("room", [0, 1, lowsock.CMSG_LEN(0) - 1])
def test_control_data_without_room_is_dropped_with_a_flag(stamped, room):
    stamped.a.send(b"data")
    data, ancdata, msg_flags, _ = lowsock.recvmsg(stamped.b, 10, room)
    assert (data, ancdata, msg_flags & CTRUNC) == (b"data", [], CTRUNC)


def test_cut_control_data_is_as_long_as_there_was_room(stamped):
    stamped.a.send(b"data")
    _, ((_, _, stamp),), msg_flags, _ = lowsock.recvmsg(stamped.b, 10, lowsock.CMSG_LEN(5))
    assert (len(stamp), msg_flags & CTRUNC) == (5, CTRUNC)


def test_cut_control_data_is_what_the_socket_module_gives(stamped):
    stamped.a.send(b"data")
    for room in range(64):
        _, theirs, their_flags, _ = stamped.b.recvmsg(10, room, PEEK)
        _, ours, our_flags, _ = lowsock.recvmsg(stamped.b, 10, room, PEEK)
        assert (ours, our_flags) == (theirs, their_flags)


def test_both_can_be_cut_at_once(stamped, receive):
    stamped.a.send(b"a long message")
    data, _, msg_flags, _ = receive(stamped.b, 6)
    assert (data, msg_flags & (TRUNC | CTRUNC)) == (b"a long", TRUNC | CTRUNC)
