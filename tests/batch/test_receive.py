# SPDX-License-Identifier: MIT
"""recvmmsg: what comes, what is waited for, and what it says of each message."""

import array
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from batching import force_room

import lowsock
from lowsock import constants

SHORT = 0.05  # seconds: a timeout that is to be reached
SOON = 0.02  # seconds until another thread sends
PATIENCE = 30.0  # seconds: a timeout that is not
MANY = (1, 2, 64, 65, 1024, 1025, 5000)


def data_of(messages: list) -> list[bytes]:
    return [message[0] for message in messages]


def close_all(messages: list) -> int:
    """Closes the descriptors in received messages; how many there were."""
    fds = array.array("i")
    for _, ancdata, _, _ in messages:
        for level, kind, data in ancdata:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data)
    for fd in fds:
        assert not os.get_inheritable(fd)
        os.close(fd)
    return len(fds)


@pytest.fixture
def dgrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b


def rights(*fds: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


# ---- what comes ----


def test_each_is_what_recvmsg_returns(message_pair, passed):
    sizes = (5, 1, 100, 5, 99)
    for size in 2 * sizes:
        message_pair.a.send(b"x" * size)
    expected = [message_pair.b.recvmsg(100) for _ in sizes]
    assert lowsock.recvmmsg(passed(message_pair.b), 10, 100) == expected


@pytest.mark.parametrize("sizes", ([7] * 5, [7, 7, 7, 7, 3], [0] * 5, [100] * 5, range(5)), ids=str)
@pytest.mark.parametrize("vlen", (5, 4, 1, 200))
def test_sizes_do_not_matter(dgrams, sizes, vlen):
    """Thrice in a row: messages of one size are cut out by another way from the second time on."""
    for turn in range(3):
        expected = [bytes([turn, i, *range(100)])[:size] for i, size in enumerate(sizes)]
        for data in expected:
            dgrams[0].send(data)
        came = []
        while len(came) < 5:
            came += lowsock.recvmmsg(dgrams[1], vlen, 100)
        assert data_of(came) == expected


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("ancbufsize", (0, 64))
def test_one_call_takes_as_many_as_there_are(udp_pair, count, ancbufsize):
    force_room(udp_pair.b)
    assert lowsock.sendmmsg(udp_pair.a, [([struct.pack("i", i)],) for i in range(count)]) == count
    came = lowsock.recvmmsg(udp_pair.b, 2 * count, 10, ancbufsize)
    assert data_of(came) == [struct.pack("i", i) for i in range(count)]
    assert {message[3] for message in came} == {udp_pair.a.getsockname()}


def test_no_more_come_than_were_asked_for(dgrams):
    for i in range(5):
        dgrams[0].send(b"%d" % i)
    assert data_of(lowsock.recvmmsg(dgrams[1], 3, 10)) == [b"0", b"1", b"2"]
    assert data_of(lowsock.recvmmsg(dgrams[1], 3, 10)) == [b"3", b"4"]
    assert lowsock.recvmmsg(dgrams[1], 0, 10) == []


@pytest.mark.parametrize("kind", (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX), ids=("IPv4", "IPv6", "AF_UNIX"))
def test_each_has_its_own_source(kind, tmp_path):
    """Few and many of them: also those that no cache has seen."""
    host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}.get(kind)
    with ExitStack() as stack:
        b, *sources = (stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM)) for _ in range(9))
        for i, sock in enumerate([b, *sources]):
            try:
                sock.bind((host, 0) if host else str(tmp_path / str(i)))
            except OSError as error:
                pytest.skip(f"{host} is not there: {error}")
        for _ in range(40):
            for sock in (*sources, sources[-1]):
                sock.sendto(b"x", b.getsockname())
            names = [sock.getsockname() for sock in (*sources, sources[-1])]
            assert [message[3] for message in lowsock.recvmmsg(b, 10, 10)] == names


def test_a_source_without_a_name_is_none_among_others(tmp_path):
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(3))
        b.bind(str(tmp_path / "b"))
        c.bind(str(tmp_path / "a longer name"))
        for sock in (a, c, a, c, a):
            sock.sendto(b"x", b.getsockname())
        assert [message[3] for message in lowsock.recvmmsg(b, 9, 9)] == [None, c.getsockname()] * 2 + [None]


def test_empty_datagrams_are_messages(udp_pair):
    for data in (b"", b"x", b""):
        udp_pair.a.send(data)
    assert data_of(lowsock.recvmmsg(udp_pair.b, 5, 10)) == [b"", b"x", b""]


def test_no_room_for_data_is_room_for_none(dgrams):
    for _ in range(3):
        dgrams[0].send(b"x")
    came = lowsock.recvmmsg(dgrams[1], 5, 0)
    assert [(message[0], message[2]) for message in came] == [(b"", socket.MSG_TRUNC)] * 3


def test_what_is_cut_off_is_told_of_its_own_message(udp_pair):
    for size in (10, 11, 9, 3000):
        udp_pair.a.send(bytes(size))
    came = lowsock.recvmmsg(udp_pair.b, 5, 10)
    assert [(len(message[0]), message[2]) for message in came] == [
        (10, 0),
        (10, socket.MSG_TRUNC),
        (9, 0),
        (10, socket.MSG_TRUNC),
    ]


def test_a_real_length_is_not_taken_for_data(udp_pair):
    """MSG_TRUNC as an input flag makes the kernel tell more than there is room for."""
    for size in (100, 5):
        udp_pair.a.send(b"x" * size)
    assert data_of(lowsock.recvmmsg(udp_pair.b, 5, 10, 0, socket.MSG_TRUNC)) == [b"x" * 10, b"x" * 5]


def test_nothing_of_earlier_memory_is_told(tcp_pair):
    """TCP counts bytes with MSG_TRUNC that it does not copy."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.send(b"secret" * 100)
        lowsock.recvmmsg(b, 4, 600)
    tcp_pair.a.send(b"x" * 20)
    assert data_of(lowsock.recvmmsg(tcp_pair.b, 1, 20, 0, socket.MSG_TRUNC)) == [bytes(20)]


def test_a_peek_sees_the_first_one_each_time(dgrams):
    """So Linux has it: nothing is taken away between the messages of a batch."""
    for data in (b"1", b"2"):
        dgrams[0].send(data)
    assert set(data_of(lowsock.recvmmsg(dgrams[1], 3, 10, 0, socket.MSG_PEEK))) == {b"1"}
    assert data_of(lowsock.recvmmsg(dgrams[1], 3, 10)) == [b"1", b"2"]


def test_large_batches_are_received_in_memory_of_their_own(dgrams):
    for i in range(3):
        dgrams[0].send(bytes([i]) * 30_000)
    came = lowsock.recvmmsg(dgrams[1], 2000, 65536, 4096)
    assert data_of(came) == [bytes([i]) * 30_000 for i in range(3)]


# ---- control messages ----


def test_control_messages_are_those_of_their_own_message(dgrams, open_fds):
    before = open_fds()
    fds = [0, 1, 2]
    for count in (1, 0, 3, 0, 2):
        lowsock.sendmsg(dgrams[0], [b"%d" % count], rights(*fds[:count]) if count else [])
    came = lowsock.recvmmsg(dgrams[1], 9, 10, lowsock.CMSG_SPACE(12))
    assert [close_all([message]) for message in came] == [1, 0, 3, 0, 2]
    assert open_fds() == before


def test_lists_of_control_messages_are_not_shared(dgrams):
    for _ in range(2):
        dgrams[0].send(b"x")
    first, second = lowsock.recvmmsg(dgrams[1], 2, 10)
    first[1].append(5)
    assert second[1] == []


def test_several_control_messages_come_with_each(udp_pair):
    if udp_pair.family != socket.AF_INET:
        pytest.skip("the options are those of IPv4")
    udp_pair.b.setsockopt(socket.IPPROTO_IP, constants.IP_PKTINFO, 1)
    udp_pair.b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, 1)
    udp_pair.b.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPNS, 1)
    for i in range(4):
        udp_pair.a.send(b"%d" % i)
    for _, ancdata, flags, _ in lowsock.recvmmsg(udp_pair.b, 4, 10, 200):
        assert {item[:2] for item in ancdata} == {
            (socket.IPPROTO_IP, constants.IP_PKTINFO),
            (socket.IPPROTO_IP, socket.IP_TTL),
            (socket.SOL_SOCKET, constants.SCM_TIMESTAMPNS),
        }
        assert flags == 0


def test_descriptors_that_do_not_fit_are_cut_off_of_their_own_message(dgrams, open_fds):
    before = open_fds()
    for count in (1, 3, 1):
        lowsock.send_fds(dgrams[0], [b"x"], [0] * count)
    came = lowsock.recvmmsg(dgrams[1], 9, 10, lowsock.CMSG_LEN(4))
    assert [message[2] & socket.MSG_CTRUNC for message in came] == [0, socket.MSG_CTRUNC, 0]
    assert close_all(came) >= 3
    assert open_fds() == before


def test_descriptors_without_room_are_dropped(dgrams, open_fds):
    before = open_fds()
    for _ in range(3):
        lowsock.send_fds(dgrams[0], [b"x"], [0])
    assert [message[1:3] for message in lowsock.recvmmsg(dgrams[1], 9, 10)] == [([], socket.MSG_CTRUNC)] * 3
    assert open_fds() == before


@pytest.mark.parametrize("flag", (0, getattr(constants, "MSG_CMSG_CLOEXEC", 0)))
def test_close_on_exec_shows_only_if_it_was_asked_for(dgrams, flag):
    lowsock.send_fds(dgrams[0], [b"x"], [0])
    came = lowsock.recvmmsg(dgrams[1], 2, 10, 100, flag)
    assert came[0][2] == flag
    assert close_all(came) == 1


# ---- what is waited for ----


def later(sock: socket.socket, *messages: bytes) -> threading.Thread:
    """Sends each after a while."""

    def send() -> None:
        for data in messages:
            threading.Event().wait(SOON)
            sock.send(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


FLAGS = (0, socket.MSG_PEEK, getattr(constants, "MSG_CMSG_CLOEXEC", 0))


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
@pytest.mark.parametrize("flags", FLAGS)
def test_the_first_is_waited_for_and_no_other(dgrams, timeout, flags):
    dgrams[1].settimeout(timeout)
    thread = later(dgrams[0], b"first")
    came = lowsock.recvmmsg(dgrams[1], 5, 10, 0, flags)
    thread.join()
    assert came[0][0] == b"first"
    assert all(data == b"first" for data in data_of(came))


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
def test_all_are_waited_for_on_demand(dgrams, timeout):
    dgrams[1].settimeout(timeout)
    dgrams[0].send(b"0")
    thread = later(dgrams[0], b"1", b"2", b"3")
    assert data_of(lowsock.recvmmsg(dgrams[1], 4, 10, wait_all=True)) == [b"0", b"1", b"2", b"3"]
    thread.join()


def test_all_are_not_waited_for_where_a_flag_says_otherwise(dgrams):
    dgrams[0].send(b"0")
    flags = constants.MSG_DONTWAIT | getattr(constants, "MSG_WAITFORONE", 0)
    assert data_of(lowsock.recvmmsg(dgrams[1], 4, 10, 0, flags, wait_all=True)) == [b"0"]


def test_what_came_before_the_timeout_is_returned(dgrams):
    dgrams[1].settimeout(SHORT)
    start = time.monotonic()
    thread = later(dgrams[0], b"1", b"2")
    came = lowsock.recvmmsg(dgrams[1], 4, 10, wait_all=True)
    assert data_of(came) in ([b"1"], [b"1", b"2"])
    assert SHORT <= time.monotonic() - start < PATIENCE
    thread.join()


@pytest.mark.parametrize("wait_all", (False, True))
def test_a_timeout_with_nothing_raises(dgrams, wait_all):
    dgrams[1].settimeout(SHORT)
    with pytest.raises(socket.timeout):
        lowsock.recvmmsg(dgrams[1], 4, 10, wait_all=wait_all)


@pytest.mark.parametrize("wait_all", (False, True))
def test_a_non_blocking_socket_does_not_wait(dgrams, wait_all, passed):
    sock = passed(dgrams[1])
    dgrams[1].setblocking(False)  # last: PyPy's constructor makes what it shares blocking
    with pytest.raises(BlockingIOError):
        lowsock.recvmmsg(sock, 4, 10, wait_all=wait_all)
    dgrams[0].send(b"x")
    assert data_of(lowsock.recvmmsg(sock, 4, 10, wait_all=wait_all)) == [b"x"]


def refused(udp: socket.socket) -> None:
    """An ICMP error is pending on a connected socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        name = gone.getsockname()
    udp.connect(name)
    udp.send(b"x")


@pytest.mark.parametrize("timeout", (None, PATIENCE), ids=("blocking", "timeout"))
def test_an_error_after_the_first_is_kept_for_the_next_call(timeout):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        b.settimeout(timeout)
        a.sendto(b"before", b.getsockname())
        thread = threading.Thread(target=lambda: (threading.Event().wait(SOON), refused(b)))
        thread.start()
        came = lowsock.recvmmsg(b, 5, 10, wait_all=True)
        thread.join()
        assert data_of(came) == [b"before"]
        with pytest.raises(ConnectionRefusedError):
            lowsock.recvmmsg(b, 5, 10)


# ---- what is refused ----

BAD = {
    "vlen -1": ((-1, 10), ValueError, "vlen must not be negative"),
    "vlen None": ((None, 10), TypeError, "vlen must be an int"),
    "vlen too large": ((2**24, 10), OverflowError, "vlen is out of range"),
    "bufsize -1": ((1, -1), ValueError, "bufsize must not be negative"),
    "bufsize 1.5": ((1, 1.5), TypeError, "bufsize must be an int"),
    "bufsize too large": ((1, 2**40), OverflowError, "bufsize is out of range"),
    "ancbufsize -1": ((1, 10, -1), ValueError, "ancbufsize must not be negative"),
    "ancbufsize text": ((1, 10, "x"), TypeError, "ancbufsize must be an int"),
    "flags None": ((1, 10, 0, None), TypeError, "flags must be an int"),
    "flags too large": ((1, 10, 0, 2**40), OverflowError, "flags is out of range"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_argument_is_named(dgrams, kind):
    args, error, words = BAD[kind]
    dgrams[0].send(b"still there")
    with pytest.raises(error, match=words):
        lowsock.recvmmsg(dgrams[1], *args)
    assert dgrams[1].recv(20) == b"still there"


def test_a_closed_socket_is_told(dgrams):
    dgrams[1].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        lowsock.recvmmsg(dgrams[1], 4, 10)


def test_what_is_no_socket_is_told():
    with pytest.raises(TypeError, match="sock must be an int"):
        lowsock.recvmmsg("x", 4, 10)
