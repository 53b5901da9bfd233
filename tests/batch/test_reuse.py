# SPDX-License-Identifier: MIT
"""SendBatch: filled and sent again and again, with nothing left over from the time before; and the end of both batches."""

import array
import re
import socket
import struct
from collections.abc import Iterator

import pytest
from batching import TTL, received, ttl

import lowsock
from lowsock import RecvBatch, SendBatch, constants


def rights(*fds: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


@pytest.fixture
def inet() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that is not connected, and one that is bound and tells the TTL."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, 1)
        a.setsockopt(*TTL, 77)
        yield a, b


# ---- filling ----


@pytest.mark.parametrize("data", (b"data", bytearray(b"data"), memoryview(b"xdata")[1:], array.array("H", [1, 2])))
@pytest.mark.parametrize("extend", (False, True))
def test_data_is_any_bytes_like_object_and_copied(dgrams, data, extend):
    expected = bytes(data)
    with SendBatch(2, 10) as batch:
        if extend:
            batch.extend([data, b"end"])
        else:
            batch.append(data)
            batch.append(b"end")
        if isinstance(data, bytearray):
            data[:] = b"gone"
        assert batch.send(dgrams[0]) == 2
    assert received(dgrams[1]) == [expected, b"end"]


@pytest.mark.parametrize("sizes", ([5, 5, 5], [1, 10, 0, 10], [0]))
def test_appended_and_extended_messages_keep_their_order(dgrams, sizes):
    with SendBatch(40, 10) as batch:
        for turn in range(3):
            pieces = [bytes([turn, i, *range(10)])[:size] for i, size in enumerate(sizes)]
            batch.append(b"first")
            batch.extend(pieces)
            batch.append(b"middle")
            batch.extend(pieces)
            batch.extend([])
            assert len(batch) == 2 + 2 * len(sizes)
            batch.send(dgrams[0])
            assert received(dgrams[1]) == [b"first", *pieces, b"middle", *pieces]


def test_a_full_batch_takes_no_more(dgrams):
    with SendBatch(3, 10) as batch:
        batch.extend([b"1", b"2"])
        with pytest.raises(ValueError, match="the batch is full"):
            batch.extend([b"x", b"y"])
        batch.append(b"3")
        with pytest.raises(ValueError, match="the batch is full"):
            batch.append(b"x")
        assert batch.send(dgrams[0]) == 3
        batch.append(b"4")
        assert batch.send(dgrams[0]) == 1
    assert received(dgrams[1]) == [b"1", b"2", b"3", b"4"]


MISFITS = {
    "too long": (lambda batch: batch.append(bytes(11)), ValueError, "data is too long: 11 bytes"),
    "one too long": (lambda batch: batch.extend([b"", bytes(11)]), ValueError, "data is too long: 11 bytes"),
    "text": (lambda batch: batch.append("x"), TypeError, "data must be a bytes-like object"),
    "text among others": (lambda batch: batch.extend([b"x", "x"]), TypeError, r"pieces\[1\] must be a bytes-like object"),
    "bare bytes": (lambda batch: batch.extend(b"x"), TypeError, "pieces must be an iterable"),
    "a strided view": (lambda batch: batch.append(memoryview(b"abcd")[::2]), BufferError, "data"),
    "control data": (lambda batch: batch.append(b"x", ancdata=[(1, 1, bytes(100))]), ValueError, "ancdata is too long"),
    "no three-tuple": (lambda batch: batch.append(b"x", ancdata=[5]), TypeError, r"ancdata\[0\] must be a three-tuple"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_refused_and_leaves_nothing(dgrams, kind):
    misfit, error, words = MISFITS[kind]
    with SendBatch(5, 10, 32) as batch:
        batch.append(b"1")
        with pytest.raises(error, match=words):
            misfit(batch)
        batch.append(b"2")
        assert batch.send(dgrams[0]) == 2
    assert received(dgrams[1]) == [b"1", b"2"]


def test_control_messages_need_room(dgrams):
    with SendBatch(1, 10) as batch, pytest.raises(ValueError, match="ancdata is too long: the batch has 0 bytes"):
        batch.append(b"x", ancdata=ttl(1))


def test_control_messages_and_addresses_are_those_of_their_own_message(inet):
    """Twice in a row, the second time in other slots: nothing of the first is left."""
    a, b = inet
    address = b.getsockname()
    with SendBatch(5, 10, lowsock.CMSG_SPACE(4)) as batch, RecvBatch(9, 10, 64) as into:
        for hops in ([9, None, 5, None], [None, 3, None, None, 8]):
            for number in hops:
                batch.append(b"x", ancdata=ttl(number) if number else (), address=address)
            assert batch.send(a) == len(hops)
            assert into.recv(b) == len(hops)
            came = [struct.unpack("i", into.ancdata(i)[0][2])[0] for i in range(len(hops))]
            assert came == [number or 77 for number in hops]


def test_an_address_is_not_left_in_its_slot(inet):
    a, b = inet
    with SendBatch(3, 10) as batch:
        batch.extend([b"1", b"2", b"3"], address=b.getsockname())
        assert batch.send(a) == 3
        for fill in (lambda: batch.append(b"4"), lambda: batch.extend([b"4"])):
            fill()
            with pytest.raises(OSError, match="Destination address required"):
                batch.send(a)
            batch.clear()
    assert received(b) == [b"1", b"2", b"3"]


def test_addresses_go_with_ranges_and_single_messages(inet):
    a, b = inet
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c, SendBatch(8, 10) as batch:
        c.bind(("127.0.0.1", 0))
        batch.extend([b"1", b"2"], address=b.getsockname())
        batch.append(b"3", address=c.getsockname())
        batch.extend([b"4", b"5"], address=c.getsockname())
        batch.append(b"6", ancdata=[], address=b.getsockname())
        assert batch.send(a) == 6
        assert received(b) == [b"1", b"2", b"6"]
        assert received(c) == [b"3", b"4", b"5"]


def test_a_host_name_is_named_when_it_is_sent(inet):
    with SendBatch(4, 10) as batch:
        batch.append(b"x", address=inet[1].getsockname())
        batch.append(b"x", address=("localhost", 9))
        with pytest.raises(ValueError, match=r"messages\[1\] address host must be numeric"):
            batch.send(inet[0])
        assert len(batch) == 2
    assert received(inet[1]) == []


def test_descriptors_without_data_are_refused_on_a_stream():
    a, b = socket.socketpair()
    with a, b, SendBatch(4, 10, 64) as batch:
        batch.append(b"x")
        batch.append(b"", ancdata=rights(0))
        with pytest.raises(ValueError, match=r"messages\[1\] data must hold at least one byte"):
            batch.send(a)
        batch.clear()
        batch.append(b"x")
        batch.append(b"y")
        assert batch.send(a) == 2


# ---- sending, in parts ----


def test_the_rest_goes_with_the_next_call(dgrams):
    a, b = dgrams
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    a.setblocking(False)
    arrived, refusals = [], 0
    with SendBatch(300, 500) as batch:
        batch.extend([struct.pack("i", i) * 100 for i in range(300)])
        while left := len(batch):
            try:
                assert batch.send(a) == left - len(batch)
            except BlockingIOError:
                refusals += 1
                arrived += received(b)
    assert arrived + received(b) == [struct.pack("i", i) * 100 for i in range(300)]
    assert refusals > 3


def test_more_can_be_added_after_a_part_has_gone(dgrams):
    a, b = dgrams
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    a.setblocking(False)
    with SendBatch(100, 10) as batch:
        batch.extend([b"%d" % i for i in range(50)])
        sent = batch.send(a)
        assert 0 < sent < 50
        batch.append(b"50")
        arrived = received(b)
        while len(batch):
            batch.send(a)
            arrived += received(b)
    assert arrived == [b"%d" % i for i in range(51)]


@pytest.mark.parametrize("count", (1024, 1025, 5000))
def test_large_batches_go_in_as_many_calls_as_it_takes(udp_pair, count):
    option = getattr(constants, "SO_RCVBUFFORCE", socket.SO_RCVBUF)
    udp_pair.b.setsockopt(socket.SOL_SOCKET, option, 2**26)
    pieces = [struct.pack("i", i) for i in range(count)]
    with SendBatch(count, 4) as batch, RecvBatch(count, 4) as into:
        batch.extend(pieces)
        assert batch.send(udp_pair.a) == count
        assert into.recv(udp_pair.b) == count
        assert list(into.messages()) == [(piece, udp_pair.a.getsockname()) for piece in pieces]


def test_one_that_is_refused_stays_until_it_is_skipped(udp_pair):
    with SendBatch(4, 70_000) as batch:
        batch.extend([b"1", bytes(70_000), b"3"])
        assert batch.send(udp_pair.a) == 1
        for _ in range(2):
            with pytest.raises(OSError, match="Message too long"):
                batch.send(udp_pair.a)
        assert len(batch) == 2
        batch.skip()
        assert batch.send(udp_pair.a) == 1
        with pytest.raises(ValueError, match="the batch is empty"):
            batch.skip()
        batch.append(bytes(70_000))
        batch.skip()
        assert batch.send(udp_pair.a) == 0
        batch.append(b"4")
        assert batch.send(udp_pair.a) == 1
    assert received(udp_pair.b) == [b"1", b"3", b"4"]


def test_what_was_cleared_is_not_sent(dgrams):
    with SendBatch(4, 10) as batch:
        batch.extend([b"1", b"2"])
        batch.clear()
        assert len(batch) == 0
        assert batch.send(dgrams[0]) == 0
        batch.append(b"3")
        assert batch.send(dgrams[0]) == 1
    assert received(dgrams[1]) == [b"3"]


# ---- the end ----

AFTER = {
    "append": lambda out, into, sock: out.append(b"x"),
    "extend": lambda out, into, sock: out.extend([b"x"]),
    "extend, none": lambda out, into, sock: out.extend([]),
    "send": lambda out, into, sock: out.send(sock),
    "skip": lambda out, into, sock: out.skip(),
    "clear": lambda out, into, sock: out.clear(),
    "len": lambda out, into, sock: len(out),
    "enter": lambda out, into, sock: out.__enter__(),
    "recv": lambda out, into, sock: into.recv(sock),
    "iterate": lambda out, into, sock: list(into),
    "messages": lambda out, into, sock: into.messages(),
    "data": lambda out, into, sock: into.data(0),
    "address": lambda out, into, sock: into.address(0),
    "flags": lambda out, into, sock: into.flags(0),
    "ancdata": lambda out, into, sock: into.ancdata(0),
    "take_fds": lambda out, into, sock: into.take_fds(0),
    "len of a receive": lambda out, into, sock: len(into),
    "enter a receive": lambda out, into, sock: into.__enter__(),
}


@pytest.mark.parametrize("what", AFTER)
def test_closing_is_final(dgrams, what):
    with SendBatch(2, 10) as out, RecvBatch(2, 10) as into:
        out.append(b"x")
        dgrams[0].send(b"x")
        into.recv(dgrams[1])
        assert not out.closed
        assert not into.closed
    assert out.closed
    assert into.closed
    with pytest.raises(ValueError, match="the batch is closed"):
        AFTER[what](out, into, dgrams[0])
    out.close()
    into.close()


BAD = {
    "vlen 0": ((0, 10), ValueError),
    "vlen -1": ((-1, 10), ValueError),
    "vlen text": (("x", 10), TypeError),
    "vlen too large": ((2**24, 10), OverflowError),
    "bufsize -1": ((1, -1), ValueError),
    "bufsize None": ((1, None), TypeError),
    "ancbufsize -1": ((1, 1, -1), ValueError),
    "ancbufsize too large": ((1, 1, 2**40), OverflowError),
}


@pytest.mark.parametrize("batch", (SendBatch, RecvBatch))
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_size_is_named(batch, kind):
    args, error = BAD[kind]
    with pytest.raises(error, match=kind.split()[0]):
        batch(*args)


# ---- old spellings ----

OLD = {
    "append": (lambda batch, sock: batch.append(b"x", []), "append() takes ancdata and address by keyword: ancdata=..., "),
    "extend": (lambda batch, sock: batch.extend([b"x"], ("::1", 9)), "extend() takes address by keyword: address=..."),
    "send": (lambda batch, sock: batch.send(sock, 0), "send() takes flags by keyword: flags=..."),
}


@pytest.mark.parametrize("name", OLD)
def test_an_argument_by_position_is_a_type_error_that_says_the_keyword(dgrams, name):
    call, says = OLD[name]
    with SendBatch(4, 10) as batch:
        batch.append(b"first")
        with pytest.raises(TypeError, match=re.escape(says)):
            call(batch, dgrams[0])
        assert len(batch) == 1
