# SPDX-License-Identifier: MIT
"""sendmsg, recvmsg, recvmsg_into, send1msg and recv1msg beside the socket module's methods, on every kind of socket."""

import contextlib
import socket

import pytest

import lowsock
from lowsock import constants
from lowsock._memory import recv_pool as _reply

pytestmark = pytest.mark.smoke

MODES = {"blocking": None, "timeout": 30, "non-blocking": 0}  # settimeout's argument


@pytest.fixture(params=MODES)
def mode(request, pair):
    """Each kind of pair, in each mode."""
    for sock in (pair.a, pair.b):
        sock.settimeout(MODES[request.param])
    return request.param


def drain(sock):
    """Reads whatever is left."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 16):
            pass
    sock.settimeout(timeout)


def beside(pair, send, theirs, ours):
    """What the socket module and lowsock receive of the same message, sent to each once."""
    results = []
    for receive in (theirs, ours):
        send()
        results.append(receive())
        drain(pair.b)
    return results


# ---- receiving ----

ARGUMENTS = {
    "larger than the message": (100,),
    "just as large": (9,),
    "smaller": (4,),
    "nothing": (0,),
    "room for control data": (100, 200),
    "smaller, and room": (4, 200),
    "beyond the pool": (300 * 1024,),
    "beyond the pool, and room": (300 * 1024, 10 * 1024),
    "many megabytes": (20 * 1024 * 1024,),
    "peek": (100, 0, socket.MSG_PEEK),
    "short peek": (4, 50, socket.MSG_PEEK),
    "without waiting": (100, 0, socket.MSG_DONTWAIT),
    "wait for all": (9, 0, socket.MSG_WAITALL),
}


def test_recvmsg_gives_what_the_socket_module_gives(pair, mode):
    for case, arguments in ARGUMENTS.items():
        theirs, ours = beside(
            pair,
            lambda: pair.a.send(b"a message"),
            lambda: pair.b.recvmsg(*arguments),  # noqa: B023 - called at once
            lambda: lowsock.recvmsg(pair.b, *arguments),  # noqa: B023
        )
        assert ours == theirs, case


def test_recvmsg_into_gives_what_the_socket_module_gives(pair, mode):
    for case, (size, *rest) in ARGUMENTS.items():
        spaces = [[bytearray(size // 2), bytearray(size - size // 2)] for _ in range(2)]
        theirs, ours = beside(
            pair,
            lambda: pair.a.send(b"a message"),
            lambda: pair.b.recvmsg_into(spaces[0], *rest),  # noqa: B023
            lambda: lowsock.recvmsg_into(pair.b, spaces[1], *rest),  # noqa: B023
        )
        assert ours == theirs, case
        assert spaces[1] == spaces[0], case


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_recv1msg_gives_what_recv_gives(pair, mode, size):
    theirs, ours = beside(
        pair, lambda: pair.a.send(b"a message"), lambda: pair.b.recv(size), lambda: lowsock.recv1msg(pair.b, size)
    )
    assert ours[0] == theirs
    assert ours[2] == []


def test_recv1msg_refuses_a_size_of_0_and_loses_nothing(message_pair):
    """Which was Twisted's way to say that there are no flags."""
    message_pair.a.send(b"kept")
    with pytest.raises(ValueError, match=r"^maxsize must be at least 1: recv1msg\(\) takes the size here, and flags by "):
        lowsock.recv1msg(message_pair.b, 0)
    with pytest.raises(TypeError, match="positional"):
        lowsock.recv1msg(message_pair.b, 0, 8192)
    assert lowsock.recv1msg(message_pair.b)[0] == b"kept"


def test_recv1msg_has_room_for_8192_bytes(message_pair):
    message_pair.a.send(b"x" * 9000)
    data, msg_flags, _ = lowsock.recv1msg(message_pair.b)
    assert (len(data), msg_flags & socket.MSG_TRUNC) == (8192, socket.MSG_TRUNC)


def test_an_empty_datagram_is_received_as_one(message_pair):
    theirs, ours = beside(
        message_pair,
        lambda: message_pair.a.send(b""),
        lambda: message_pair.b.recvmsg(10),
        lambda: lowsock.recvmsg(message_pair.b, 10),
    )
    assert ours == theirs
    assert ours[0] == b""


def test_the_end_of_a_stream_is_no_data(stream_pair):
    stream_pair.a.shutdown(socket.SHUT_WR)
    assert lowsock.recvmsg(stream_pair.b, 10) == (b"", [], 0, None)
    assert lowsock.recvmsg(stream_pair.b, 10, 100) == (b"", [], 0, None)
    assert lowsock.recvmsg_into(stream_pair.b, [bytearray(10)]) == (0, [], 0, None)
    assert lowsock.recv1msg(stream_pair.b) == (b"", 0, [])


# ---- sending ----

MESSAGES = {
    "one buffer": ([b"a message"],),
    "several buffers": ([b"a", b" ", b"message"],),
    "a tuple": ((b"a ", bytearray(b"message")),),
    "no buffers": ([],),
    "an empty buffer": ([b""],),
    "empty buffers": ([b"", bytearray(), memoryview(b"")],),
    "empty ones between": ([b"", b"a", b"", b"b", b""],),
    "no control data": ([b"x"], []),
    "flags": ([b"x"], [], socket.MSG_DONTWAIT),
    "no address": ([b"x", b"y"], [], 0, None),
}


@pytest.mark.parametrize("arguments", MESSAGES.values(), ids=MESSAGES)
def test_sendmsg_sends_what_the_socket_module_sends(pair, mode, arguments):
    size, expected = len(b"".join(arguments[0])), []
    for send in (pair.a.sendmsg, lambda *args: lowsock.sendmsg(pair.a, *args)):
        assert send(*arguments) == size
        if size or not pair.stream:
            expected.append(pair.b.recvmsg(100))
    assert expected[:1] == expected[1:]


@pytest.mark.parametrize("data", [b"data", b"", bytearray(b"data"), memoryview(b"data")])
def test_send1msg_sends_what_send_sends(pair, mode, data):
    assert lowsock.send1msg(pair.a, data) == pair.a.send(data) == len(data)
    if pair.stream:
        assert pair.b.recv(100) == bytes(data) * 2 if data else True
    else:
        assert [pair.b.recv(100), pair.b.recv(100)] == [bytes(data)] * 2


def test_flags_are_passed_on(stream_pair):
    lowsock.sendmsg(stream_pair.a, [b"held back, "], [], getattr(constants, "MSG_MORE", 0))
    lowsock.send1msg(stream_pair.a, b"then sent", getattr(constants, "MSG_NOSIGNAL", 0))
    assert lowsock.recvmsg(stream_pair.b, 20, 0, socket.MSG_WAITALL)[0] == b"held back, then sent"


# ---- the ways to pass a socket ----


def test_a_socket_is_taken_in_every_way(pair, passed):
    a, b = passed(pair.a), passed(pair.b)
    assert lowsock.sendmsg(a, [b"one", b"two"]) == 6
    assert lowsock.recvmsg(b, 100)[0] == b"onetwo"
    assert lowsock.send1msg(a, b"three") == 5
    assert lowsock.recv1msg(b)[0] == b"three"
    assert lowsock.send_fds(a, [b"four"], []) == 4
    space = bytearray(5)
    assert lowsock.recvmsg_into(b, [space])[0] == 4
    assert space == b"four\0"
    lowsock.sendmsg(a, [b"five"])
    assert lowsock.recv_fds(b, 100, 1)[0] == b"five"


@pytest.mark.parametrize("receive", [lowsock.recvmsg, lambda sock, size: lowsock.recvmsg_into(sock, [bytearray(size)])])
def test_every_way_gives_the_same(pair, passed, receive):
    theirs, ours = beside(pair, lambda: pair.a.send(b"x"), lambda: receive(pair.b, 10), lambda: receive(passed(pair.b), 10))
    assert ours == theirs


def test_arguments_may_be_named(pair):
    lowsock.sendmsg(sock=pair.a, buffers=[b"x"], ancdata=[], flags=0, address=None)
    assert lowsock.recvmsg(sock=pair.b, bufsize=5, ancbufsize=0, flags=0)[0] == b"x"
    lowsock.send1msg(sock=pair.a, data=b"y", flags=0, ancillary=[])
    assert lowsock.recv1msg(sock=pair.b, maxsize=5, flags=0, cmsg_size=0)[0] == b"y"
    lowsock.send_fds(sock=pair.a, buffers=[b"z"], fds=[], flags=0, address=None)
    assert lowsock.recvmsg_into(sock=pair.b, buffers=[bytearray(5)], ancbufsize=0, flags=0)[0] == 1
    pair.a.send(b"w")
    assert lowsock.recv_fds(sock=pair.b, bufsize=5, maxfds=1, flags=0)[0] == b"w"


class Index:
    """A number that is no int, as the socket module's methods take it."""

    def __init__(self, number):
        self.number = int(number)

    def __index__(self):
        return self.number


PEEK = socket.MSG_PEEK
INDEXED = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, Index(2))[0],
    "recvmsg's room": lambda sock: lowsock.recvmsg(sock, 2, Index(100))[0],
    "recvmsg's flags": lambda sock: lowsock.recvmsg(sock, Index(2), Index(0), Index(PEEK))[0],
    "recvmsg_into": lambda sock: b"xy"[: lowsock.recvmsg_into(sock, [bytearray(2)], Index(0), Index(0))[0]],
    "recv1msg": lambda sock: lowsock.recv1msg(sock, Index(2), flags=Index(PEEK), cmsg_size=Index(8))[0],
    "recv1msg's size": lambda sock: lowsock.recv1msg(sock, Index(2))[0],
    "recv_fds": lambda sock: lowsock.recv_fds(sock, Index(2), Index(1), Index(PEEK))[0],
    "recv_fds's size": lambda sock: lowsock.recv_fds(sock, Index(2), 1)[0],
}


@pytest.mark.parametrize("receive", INDEXED.values(), ids=INDEXED)
def test_a_number_of_receiving_may_be_anything_with_an_index(pair, receive):
    pair.a.send(b"xy")
    assert receive(pair.b) == b"xy"


INDEXED_SENDS = {
    "sendmsg": lambda sock: lowsock.sendmsg(sock, [b"x"], [], Index(0)),
    "sendmsg's flags alone": lambda sock: lowsock.sendmsg(sock, [b"x"], flags=Index(0)),
    "send1msg": lambda sock: lowsock.send1msg(sock, b"x", Index(0)),
    "send_fds": lambda sock: lowsock.send_fds(sock, [b"x"], [Index(0)], Index(0)),
    "send_fds's descriptor": lambda sock: lowsock.send_fds(sock, [b"x"], [Index(0)]),
    "a control message": lambda sock: lowsock.sendmsg(
        sock, [b"x"], [(Index(socket.SOL_SOCKET), Index(socket.SCM_RIGHTS), bytes(4))]
    ),
}


@pytest.mark.parametrize("send", INDEXED_SENDS.values(), ids=INDEXED_SENDS)
def test_a_number_of_sending_may_be_anything_with_an_index(unix_pair, send):
    assert send(unix_pair.a) == 1
    assert unix_pair.b.recv(10) == b"x"


class Int:
    """What can be made an int, but is no index: the socket module refuses it."""

    def __int__(self):
        return 1


NOT_INDEXED = {
    "recvmsg": lambda pair: lowsock.recvmsg(pair.b, Int()),
    "recvmsg's room": lambda pair: lowsock.recvmsg(pair.b, 1, Int()),
    "recvmsg's flags": lambda pair: lowsock.recvmsg(pair.b, 1, 0, Int()),
    "recvmsg_into": lambda pair: lowsock.recvmsg_into(pair.b, [bytearray(1)], Int()),
    "recv1msg": lambda pair: lowsock.recv1msg(pair.b, Int()),
    "recv_fds": lambda pair: lowsock.recv_fds(pair.b, 1, Int()),
    "sendmsg": lambda pair: lowsock.sendmsg(pair.a, [b"x"], [], Int()),
    "sendmsg's flags alone": lambda pair: lowsock.sendmsg(pair.a, [b"x"], flags=Int()),
    "send1msg": lambda pair: lowsock.send1msg(pair.a, b"x", Int()),
    "flags beside a message": lambda pair: lowsock.sendmsg(
        pair.a, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))], Int()
    ),
    "send_fds": lambda pair: lowsock.send_fds(pair.a, [b"x"], [Int()]),
    "a level": lambda pair: lowsock.sendmsg(pair.a, [b"x"], [(Int(), socket.SCM_RIGHTS, bytes(4))]),
    "a type": lambda pair: lowsock.sendmsg(pair.a, [b"x"], [(socket.SOL_SOCKET, Int(), bytes(4))]),
}


@pytest.mark.parametrize("call", NOT_INDEXED.values(), ids=NOT_INDEXED)
def test_what_is_no_index_is_no_number(unix_pair, call):
    unix_pair.a.send(b"there")
    with pytest.raises(TypeError):
        call(unix_pair)
    assert unix_pair.b.recv(10) == b"there"
    with pytest.raises(BlockingIOError):
        unix_pair.b.recv(10, socket.MSG_DONTWAIT)


# ---- nothing is left of an earlier call ----


def test_nothing_stale_shows_after_an_address(pair, ipv6):
    """The pool's memory once held an address, flags and control data of another socket."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as poison:
        poison.bind(("::1", 0))
        poison.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        poison.connect(poison.getsockname())
        for receive in (lambda: lowsock.recvmsg(pair.b, 10), lambda: lowsock.recvmsg(pair.b, 10, 100)):
            pair.a.send(b"x")
            expected = pair.b.recvmsg(10)
            pair.a.send(b"x")
            poison.send(b"poison" * 100)
            poisoned = lowsock.recvmsg(poison, 10, 100)
            assert poisoned[1]
            assert poisoned[2] & socket.MSG_TRUNC
            assert poisoned[3]
            assert receive() == expected


def test_a_shorter_message_shows_nothing_of_a_longer_one(pair):
    for data in (b"a longer message", b"short", b"x"):
        pair.a.send(data)
        assert lowsock.recvmsg(pair.b, 100)[0] == data


def test_results_of_an_earlier_call_stay_as_they_were(pair):
    pair.a.send(b"first")
    first = lowsock.recvmsg(pair.b, 100, 100)
    copy = (bytes(bytearray(first[0])), list(first[1]), *first[2:])
    pair.a.send(b"other")
    lowsock.recvmsg(pair.b, 100, 100)
    assert first == copy


EMPTY_HANDED = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 10),
    "recvmsg with room": lambda sock: lowsock.recvmsg(sock, 10, 100),
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(10)]),
    "recv1msg": lambda sock: lowsock.recv1msg(sock, 10),
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 10, 1),
}


@pytest.mark.parametrize("receive", EMPTY_HANDED.values(), ids=EMPTY_HANDED)
def test_a_receive_that_finds_nothing_gives_its_memory_back(dgram_pair, receive, monkeypatch):
    """Else each wait of a socket with a timeout would cost a new block of the pool."""
    dgram_pair.b.setblocking(False)
    _reply.give(_reply.take(0, 0))
    monkeypatch.setattr(_reply, "Reply", None)  # none can be made
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            receive(dgram_pair.b)
