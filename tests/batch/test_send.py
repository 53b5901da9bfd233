# SPDX-License-Identifier: MIT
"""sendmmsg: what goes, what is refused, and what the count says."""

import array
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from batching import TTL, force_room, received, ttl

import lowsock
from lowsock import constants

PYPY = sys.implementation.name == "pypy"
SHORT = 0.05  # seconds: a timeout that is to be reached
LARGE = 200_000  # bytes of a receive buffer that takes a burst
MANY = (1, 2, 64, 65, 1023, 1024, 1025, 5000)


# ---- what goes ----


def test_every_message_arrives_as_it_was(message_pair, passed):
    messages = [([f"number {i}".encode()],) for i in range(7)]
    assert lowsock.sendmmsg(passed(message_pair.a), messages) == 7
    assert received(message_pair.b) == [b"number %d" % i for i in range(7)]


BUFFERS = {
    "bytes": lambda: [b"data"],
    "a tuple": lambda: (b"data",),
    "an iterator": lambda: iter([b"da", b"ta"]),
    "two": lambda: [b"da", b"ta"],
    "none": list,
    "empty": lambda: [b""],
    "bytearray": lambda: [bytearray(b"data")],
    "array": lambda: [array.array("H", [1, 2])],
    "memoryview": lambda: [memoryview(b"xdatax")[1:5]],
    "a large bytearray": lambda: [bytearray(b"x" * 5000)],
    "large bytes": lambda: [bytes(20_000)],
    "large ones": lambda: [bytes(9_000), bytearray(b"y" * 9_000), b"z"],
    "100 buffers": lambda: [bytes([i]) for i in range(100)],
    "1024 buffers": lambda: [b"x" * 20] * 1024,
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("beside", (False, True), ids=("alone", "among others"))
def test_messages_are_gathered_from_their_buffers(unix_dgrams, kind, beside):
    a, b = unix_dgrams
    before, after = ([([b"before"],)], [([b"after"],)]) if beside else ([], [])
    count = lowsock.sendmmsg(a, [*before, (BUFFERS[kind](),), *after])
    whole = b"".join(map(bytes, BUFFERS[kind]()))
    assert received(b) == [b"before", whole, b"after"] if beside else [whole]
    assert count == 1 + 2 * beside


@pytest.fixture
def unix_dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        for sock in (a, b):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        yield a, b


@pytest.fixture
def inet() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that is not connected, and one that is bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        yield a, b


@pytest.mark.parametrize("kind", (list, tuple, iter, dict.fromkeys))
def test_messages_come_in_any_iterable(unix_dgrams, kind):
    a, b = unix_dgrams
    messages = [((b"%d" % i,),) for i in range(3)]
    assert lowsock.sendmmsg(a, kind(messages)) == 3
    assert received(b) == [b"0", b"1", b"2"]


def test_messages_may_be_lists(unix_dgrams):
    assert lowsock.sendmmsg(unix_dgrams[0], [[[b"x"]], [[b"y"], [], None]]) == 2
    assert received(unix_dgrams[1]) == [b"x", b"y"]


def test_nothing_is_sent_for_no_messages(unix_dgrams):
    assert lowsock.sendmmsg(unix_dgrams[0], []) == 0
    assert received(unix_dgrams[1]) == []


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("beside", ({}, {"ancdata": ttl(9)}), ids=("plain", "control"))
def test_more_than_one_call_takes_are_all_sent_in_order(udp_pair, count, beside):
    if udp_pair.family == socket.AF_INET6 and beside:
        pytest.skip("the message is one of IPv4")
    force_room(udp_pair.b)
    messages = [([struct.pack("i", i)], *beside.values()) for i in range(count)]
    assert lowsock.sendmmsg(udp_pair.a, messages) == count
    assert received(udp_pair.b) == [struct.pack("i", i) for i in range(count)]


def test_many_large_messages_are_sent_from_where_they_are(unix_dgrams):
    a, b = unix_dgrams
    sizes = [9_000, 30_000, 10, 40_000]
    messages = [([bytearray(b"%d" % i * size)],) for i, size in enumerate(sizes)]
    assert lowsock.sendmmsg(a, messages) == 4
    assert received(b) == [bytes(buffers[0]) for (buffers,) in messages]
    messages[3][0][0].append(1)  # not held any more


# ---- addresses and control messages ----


def test_each_message_goes_to_its_own_address(inet):
    a, b = inet
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
        c.bind(("127.0.0.1", 0))
        to_b, to_c = b.getsockname(), c.getsockname()
        messages = [([b"1"], (), to_b), ([b"2"], [], to_c), ([b"3"], (), to_b), ([b"4"], (), to_b), ([b"5"], (), to_c)]
        assert lowsock.sendmmsg(a, messages) == 5
        assert received(b) == [b"1", b"3", b"4"]
        assert received(c) == [b"2", b"5"]


def test_addresses_of_both_families_go_through_one_socket(ipv6):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        b.bind(("::", 0))
        port = b.getsockname()[1]
        messages = [([host.encode()], (), (host, port)) for host in ("::1", "::ffff:127.0.0.1", "::1", "::ffff:127.0.0.2")]
        assert lowsock.sendmmsg(a, messages) == 4
        hosts = [message[3][0] for message in lowsock.recvmmsg(b, 10, 100)]
        assert sorted(hosts) == ["::1", "::1", "::ffff:127.0.0.1", "::ffff:127.0.0.1"]


def test_a_connected_socket_takes_messages_with_and_without_address(udp_pair):
    messages = [([b"1"],), ([b"2"], (), udp_pair.b.getsockname()), ([b"3"],)]
    assert lowsock.sendmmsg(udp_pair.a, messages) == 3
    assert received(udp_pair.b) == [b"1", b"2", b"3"]


def test_control_messages_are_those_of_their_own_message(inet):
    a, b = inet
    b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, 1)
    a.setsockopt(*TTL, 77)
    address = b.getsockname()
    messages = [([b"1"], ttl(9), address), ([b"2"], (), address), ([b"3"], ttl(5), address), ([b"4"], [], address)]
    assert lowsock.sendmmsg(a, messages) == 4
    hops = [struct.unpack("i", message[1][0][2])[0] for message in lowsock.recvmmsg(b, 4, 10, 100)]
    assert hops == [9, 77, 5, 77]


def test_each_message_has_its_own_descriptors(unix_dgrams, open_fds):
    a, b = unix_dgrams
    before = open_fds()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))]
    assert lowsock.sendmmsg(a, [([b"1"], rights), ([b"2"],), ([], rights)]) == 3
    counts = []
    for data, ancdata, _, _ in lowsock.recvmmsg(b, 5, 10, 100):
        fds = array.array("i", b"".join(item[2] for item in ancdata))
        counts.append((data, len(fds)))
        for fd in fds:
            os.close(fd)
    assert counts == [(b"1", 2), (b"2", 0), (b"", 2)]
    assert open_fds() == before


@pytest.mark.parametrize("count", (1, 2000))
def test_flags_are_passed_on(unix_dgrams, count):
    with pytest.raises(OSError, match="not supported"):
        lowsock.sendmmsg(unix_dgrams[0], [([b"x"],)] * count, socket.MSG_OOB)


# ---- what is malformed ----

GOOD = ([b"good"],)
RIGHTS = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0\0\0\0")]
MALFORMED = {
    "an int": (5, TypeError, r"messages\[2\] must be a tuple"),
    "bytes": (b"x", TypeError, r"messages\[2\] must be a tuple"),
    "an empty tuple": ((), TypeError, r"messages\[2\] must be a tuple"),
    "four items": (([b""], [], None, 1), TypeError, r"messages\[2\] must be a tuple"),
    "bare bytes": ((b"x",), TypeError, r"messages\[2\] buffers must be an iterable"),
    "an int as buffers": ((5,), TypeError, r"messages\[2\] buffers must be an iterable"),
    "text": ((["x"],), TypeError, r"messages\[2\] buffers\[0\] must be a bytes-like object"),
    "a strided view": (([b"", memoryview(b"abcd")[::2]],), BufferError, r"messages\[2\] buffers\[1\]"),
    "an int as ancdata": (([b""], 5), TypeError, r"messages\[2\] ancdata must be an iterable"),
    "None as ancdata": (([b""], None), TypeError, r"messages\[2\] ancdata must be an iterable"),
    "a pair": (([b""], [(1, 2)]), TypeError, r"messages\[2\] ancdata\[0\] must be a three-tuple"),
    "a level too large": (([b""], [(2**40, 2, b"")]), OverflowError, r"messages\[2\] ancdata\[0\] level"),
    "a port too large": (([b""], (), ("", 2**20)), OverflowError, r"messages\[2\] address port"),
    "a host name": (([b""], (), ("localhost", 5)), ValueError, r"messages\[2\] address host must be numeric .*'localhost'"),
    "a long host name": (([b""], (), ("x" * 500, 5)), ValueError, r"messages\[2\] address host must be numeric"),
    "a host of no kind": (([b""], (), (5, 5)), TypeError, r"messages\[2\] address host"),
    "text as address": (([b""], (), "127.0.0.1"), TypeError, r"messages\[2\] address must be a tuple"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_message_is_named_and_nothing_is_sent(udp_pair, kind):
    message, error, words = MALFORMED[kind]
    with pytest.raises(error, match=words):
        lowsock.sendmmsg(udp_pair.a, [GOOD, GOOD, message, GOOD])
    assert received(udp_pair.b) == []


def test_a_path_that_is_too_long_is_named(unix_dgrams):
    with pytest.raises(OSError, match=r"messages\[1\] AF_UNIX path too long"):
        lowsock.sendmmsg(unix_dgrams[0], [GOOD, ([b"x"], (), "x" * 500)])
    assert received(unix_dgrams[1]) == []


@pytest.mark.parametrize("messages", (b"x", "x", 5, None, bytearray(1)))
def test_messages_that_are_none_are_refused(unix_dgrams, messages):
    with pytest.raises(TypeError, match="messages must be an iterable of"):
        lowsock.sendmmsg(unix_dgrams[0], messages)


@pytest.mark.parametrize(("flags", "error"), (("x", TypeError), (1.5, TypeError), (2**40, OverflowError)))
@pytest.mark.parametrize("messages", ([GOOD], [GOOD] * 2000), ids=("few", "many"))
def test_flags_are_checked_before_anything_is_sent(unix_dgrams, messages, flags, error):
    with pytest.raises(error, match="flags"):
        lowsock.sendmmsg(unix_dgrams[0], messages, flags)
    assert received(unix_dgrams[1]) == []


@pytest.mark.parametrize("buffers", ([], [b""], [b"", bytearray()]))
def test_descriptors_without_data_are_refused_on_a_stream(buffers):
    a, b = socket.socketpair()
    with a, b, pytest.raises(ValueError, match=r"messages\[1\] buffers must hold at least one byte"):
        lowsock.sendmmsg(a, [GOOD, (buffers, RIGHTS)])


@pytest.mark.parametrize("host", ("", "<broadcast>", "127.1", b"127.0.0.1"))
def test_special_and_odd_numeric_hosts_are_taken(inet, host):
    a, b = inet
    a.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    try:
        sent = lowsock.sendmmsg(a, [([b"x"], (), (host, b.getsockname()[1]))])
    except OSError:
        sent = int(host == "<broadcast>")  # there may be no route
    assert sent == 1


# ---- a part of them ----


def test_the_one_that_the_kernel_refuses_stops_the_batch(udp_pair):
    messages = [([b"1"],), ([b"2"],), ([bytes(70_000)],), ([b"4"],)]
    assert lowsock.sendmmsg(udp_pair.a, messages) == 2
    with pytest.raises(OSError, match="Message too long"):
        lowsock.sendmmsg(udp_pair.a, messages[2:])
    assert lowsock.sendmmsg(udp_pair.a, messages[3:]) == 1
    assert received(udp_pair.b) == [b"1", b"2", b"4"]


@pytest.mark.parametrize("beyond", (0, 1, 1023, 1024, 1500, 2048))
def test_the_one_that_is_refused_may_be_in_any_call(udp_pair, beyond):
    force_room(udp_pair.b)
    messages = [([b"x"],)] * beyond + [([bytes(70_000)],)] + [([b"y"],)] * 2
    if beyond:
        assert lowsock.sendmmsg(udp_pair.a, messages) == beyond
    else:
        with pytest.raises(OSError, match="Message too long"):
            lowsock.sendmmsg(udp_pair.a, messages)
    assert len(received(udp_pair.b)) == beyond


def test_too_many_buffers_are_the_kernels_to_refuse(unix_dgrams):
    messages = [GOOD, ([b"x"] * 1025,), GOOD]
    assert lowsock.sendmmsg(unix_dgrams[0], messages) == 1
    with pytest.raises(OSError, match="Message too long"):
        lowsock.sendmmsg(unix_dgrams[0], messages[1:])
    assert received(unix_dgrams[1]) == [b"good"]


@pytest.fixture
def narrow() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Datagram sockets between which a few messages fit."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        yield a, b


def all_of(send: Callable[[list[Any]], int], messages: list[Any], b: socket.socket) -> tuple[list[bytes], int]:
    """Sends and drains in turn: what arrived, and how often the socket was full at once."""
    arrived, refusals = [], 0
    while messages:
        try:
            messages = messages[send(messages) :]
        except (BlockingIOError, socket.timeout):
            refusals += 1
            arrived += received(b)
    return arrived + received(b), refusals


@pytest.mark.parametrize("timeout", (0.0, 0.002), ids=("non-blocking", "timeout"))
@pytest.mark.parametrize("size", (10, 3000))
@pytest.mark.parametrize("control", (False, True), ids=("plain", "control"))
def test_a_full_socket_takes_a_part_and_nothing_goes_twice_or_is_left_out(narrow, timeout, size, control):
    a, b = narrow
    a.settimeout(timeout)
    beside = ([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")],) if control else ()
    messages = [([struct.pack("i", i).ljust(size)], *beside) for i in range(100)]
    arrived, refusals = all_of(lambda left: lowsock.sendmmsg(a, left), messages, b)
    assert arrived == [message[0][0] for message in messages]
    assert refusals > 3


def test_only_the_first_is_waited_for(narrow):
    """A socket with a timeout and room for some of them: the call returns at once with those."""
    a, b = narrow
    a.settimeout(60)
    assert 0 < lowsock.sendmmsg(a, [([bytes(500)],)] * 200) < 200


def test_the_first_is_waited_for_until_the_timeout(narrow):
    a, b = narrow
    a.settimeout(SHORT)
    messages = [([bytes(500)],)] * 200
    lowsock.sendmmsg(a, messages)
    with pytest.raises(socket.timeout):
        lowsock.sendmmsg(a, messages)


@pytest.mark.parametrize("count", (1, 2, 3000))
def test_a_closed_socket_is_told(count):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.close()
    with b, pytest.raises(OSError, match="Bad file descriptor"):
        lowsock.sendmmsg(a, [GOOD] * count)


@pytest.mark.skipif(PYPY or sys.maxsize < 2**32, reason="bytes of 2 GiB are pages that nobody touched, on 64-bit CPython")
@pytest.mark.parametrize(
    "messages", (lambda big: [([big],)], lambda big: [([big],), GOOD], lambda big: [([big, b""],), GOOD])
)
def test_a_message_of_more_than_2_gib_is_too_long_and_no_number_is(udp_pair, messages):
    with pytest.raises(OSError, match="Message too long"):
        lowsock.sendmmsg(udp_pair.a, messages(bytes(2**31)))
    assert not received(udp_pair.b)
