# SPDX-License-Identifier: MIT
"""Sending from memory that the kernel reads after the call, on the loopback: what goes in, what is refused, who reads."""

import copy
import errno
import gc
import os
import pickle
import socket
import sys
import weakref

import pytest

from lowsock import constants, errqueue
from lowsock.errqueue import IcmpError, Sent, ZeroCopySender
from lowsock.errqueue._events import READERS, ZeroCopyCompletion

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


# ---- one send on the loopback ----


internet = pytest.mark.parametrize("pair", ("udp4", "udp6", "tcp4", "tcp6"), indirect=True)


@internet
@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_bytes_arrive_and_are_let_go(pair, size):
    data = os.urandom(size)
    with ZeroCopySender(pair.a) as sender:
        sent = sender.send(data)
        assert (sent, sent.key) == (size, 0)
        assert pair.b.recv(size, socket.MSG_WAITALL if pair.stream else 0) == data
        assert sender.wait(5)
        assert (sender.pending, sender.pending_bytes, sender.next_key) == (0, 0, 1)
        assert sender.wait(0, key=0)


@internet
def test_on_the_loopback_the_kernel_copies_and_says_so(pair, drain):
    with ZeroCopySender(pair.a) as sender:
        for _ in range(3):
            sender.send(b"x" * 100)
        drain(pair.b)
        assert sender.wait(5)
        assert sender.copied == 3
        events = sender.read()
    assert [event.copied for event in events] == [True] * len(events)
    assert [key for event in events for key in event.keys()] == [0, 1, 2]  # noqa: SIM118


def test_adjacent_completions_are_merged(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        for _ in range(5):
            sender.send(b"x")
            sender.wait(5)
        (event,) = sender.read()
    assert event[:3] == (0, 4, True)


@internet
def test_lent_memory_arrives_whole_and_in_slices(pair):
    with ZeroCopySender(pair.a) as sender:
        memory = sender.buffer(10)
        assert (bytes(memory), memory.readonly) == (bytes(10), False)
        memory[:] = b"0123456789"
        for part, data in (
            (memory, b"0123456789"),
            (memory[3:5], b"34"),
            (memory[2:][1:], b"3456789"),
            (memory[:1].cast("c"), b"0"),
        ):
            assert sender.send(part) == len(data)
            assert pair.b.recv(10) == data
        assert sender.wait(5)
        assert sender.is_free(memory)


OTHER = {
    "bytearray": lambda sender: bytearray(b"data"),
    "memoryview of bytes": lambda sender: memoryview(b"data"),
    "memoryview of a bytearray": lambda sender: memoryview(bytearray(b"data")),
    "str": lambda sender: "data",
    "None": lambda sender: None,
    "list": lambda sender: [b"data"],
}


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_memory_that_could_change_is_refused_by_name(udp_pair, make):
    with ZeroCopySender(udp_pair.a) as sender:
        with pytest.raises(
            TypeError, match=r"^data must be bytes, or memory that buffer\(\) of this sender lent, .* change"
        ):
            sender.send(make(sender))
        assert sender.next_key == 0


def test_memory_of_another_sender_is_refused(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender, ZeroCopySender(udp_pair.b) as other:
        with pytest.raises(TypeError, match="of this sender"):
            sender.send(other.buffer(4))
        with pytest.raises(TypeError, match="view"):
            sender.is_free(other.buffer(4))


def test_a_strided_view_is_refused(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender, pytest.raises(BufferError, match="data must be a C-contiguous"):
        sender.send(sender.buffer(10)[::2])


@pytest.mark.parametrize(("size", "error"), [(0, OverflowError), (-1, ValueError), ("1", TypeError), (2**31, OverflowError)])
def test_a_wrong_size_is_named(udp_pair, size, error):
    with ZeroCopySender(udp_pair.a) as sender, pytest.raises(error, match="size"):
        sender.buffer(size)


def test_lent_memory_ends_with_its_last_view(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        memory = sender.buffer(1000)
        gone, part = weakref.ref(memory.obj), memory[10:20]
        del memory
        gc.collect()
        assert gone() is not None
        assert sender.send(part) == 10
        assert sender.wait(5)
        del part
        for _ in range(4):
            gc.collect()
        assert gone() is None
        assert not sender._lent


@internet
def test_an_empty_message_is_not_counted(pair, drain):
    with ZeroCopySender(pair.a) as sender:
        assert [(int(sent), sent.key) for sent in (sender.send(b""), sender.send(b"x"))] == [(0, None), (1, 0)]
        drain(pair.b)
        assert sender.wait(5)


SEGMENTS = [(constants.SOL_UDP, constants.UDP_SEGMENT, b"\4\0")]


def test_an_address_by_position_is_told_to_be_one_by_keyword(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        with pytest.raises(
            TypeError, match=r"send\(\) takes address and flags and ancdata by keyword: address=\.\.\., flags="
        ):
            sender.send(b"x", udp_pair.b.getsockname())
        assert sender.next_key == 0


def test_drain_waits_and_the_sender_goes_on(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        for _ in range(3):
            sender.send(b"x" * 1000)
            assert (sender.drain(5), sender.pending) == (True, 0)


def test_address_flags_and_control_messages_are_honoured(udp_pair):
    with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as sock, ZeroCopySender(sock) as sender:
        sent = sender.send(b"0123456789", address=udp_pair.b.getsockname(), ancdata=SEGMENTS)
        assert sent == 10
        udp_pair.b.connect(("127.0.0.1", 1) if udp_pair.family == socket.AF_INET else ("::1", 1))
    with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as to, socket.socket(udp_pair.family, socket.SOCK_DGRAM) as sock:
        to.bind((udp_pair.a.getsockname()[0], 0))
        to.settimeout(5)
        with ZeroCopySender(sock) as sender:
            sender.send(b"0123456789", address=to.getsockname(), flags=0, ancdata=SEGMENTS)
            assert [to.recv(100) for _ in range(3)] == [b"0123", b"4567", b"89"]


def test_what_a_send_gives_is_an_int_that_copies():
    sent = Sent(5, 3)
    assert (sent, repr(sent), sent + 1) == (5, "Sent(5, key=3)", 6)
    for again in (copy.copy(sent), pickle.loads(pickle.dumps(sent))):
        assert (again, again.key) == (5, 3)


# ---- errors ----


@pytest.mark.parametrize("kind", ["unix", "packet", "raw"])
def test_a_socket_that_cannot_is_told(kind):
    family, type_ = {
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
        "packet": (constants.AF_PACKET, socket.SOCK_RAW),
        "raw": (socket.AF_INET, socket.SOCK_RAW),
    }[kind]
    try:
        sock = socket.socket(family, type_, socket.IPPROTO_UDP if kind == "raw" else 0)
    except PermissionError:
        pytest.skip("raw sockets want CAP_NET_RAW")
    with sock, pytest.raises(NotImplementedError, match="SO_ZEROCOPY"):
        ZeroCopySender(sock)


def test_a_datagram_too_long_is_refused_and_not_counted(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        with pytest.raises(OSError) as caught:
            sender.send(bytes(70_000))
        assert caught.value.errno == errno.EMSGSIZE
        assert (sender.pending, sender.next_key) == (0, 0)
        assert sender.send(b"x").key == 0
        assert sender.wait(5)


def test_a_pending_error_is_raised_and_its_event_kept(udp_pair):
    level, option = {
        socket.AF_INET: (socket.IPPROTO_IP, constants.IP_RECVERR),
        socket.AF_INET6: (socket.IPPROTO_IPV6, constants.IPV6_RECVERR),
    }[udp_pair.family]
    udp_pair.a.setsockopt(level, option, 1)
    with ZeroCopySender(udp_pair.a) as sender:
        udp_pair.b.close()
        sender.send(b"first")
        with pytest.raises(ConnectionRefusedError):
            sender.send(b"second")
        assert sender.send(b"third").key == 1
        assert sender.wait(5)
        assert sorted({type(event) for event in sender.read()}, key=str) == [IcmpError, ZeroCopyCompletion]


def test_a_broken_pipe_is_raised(tcp_pair):
    with ZeroCopySender(tcp_pair.a) as sender:
        tcp_pair.a.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            sender.send(b"x")


def test_bad_arguments_are_named(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        for bad, name in (({"flags": "1"}, "flags"), ({"ancdata": [1]}, "ancdata"), ({"address": 5}, "address")):
            with pytest.raises(TypeError, match=name):
                sender.send(b"x", **bad)
        with pytest.raises(ValueError, match="no send has the number 0"):
            sender.wait(0, key=0)
        with pytest.raises(OverflowError, match="key"):
            sender.wait(0, key=TOP)
        assert sender.next_key == 0


# ---- who else is on the socket ----


def test_one_sender_on_a_socket(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        with pytest.raises(ValueError, match="already"):
            ZeroCopySender(udp_pair.a.fileno())
        assert sender.send(b"x").key == 0
        assert sender.wait(5)


def test_the_count_goes_on_from_sender_to_sender(udp_pair):
    for count in range(3):
        with ZeroCopySender(udp_pair.a) as sender:
            assert sender.send(b"x").key == count
            assert sender.wait(5)


def test_a_count_that_nobody_knows_must_be_told(udp_pair):
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_ZEROCOPY, 1)
    udp_pair.a.send(b"x", ZEROCOPY)
    with pytest.raises(ValueError, match="first_key"):
        ZeroCopySender(udp_pair.a)
    with ZeroCopySender(udp_pair.a, first_key=1) as sender:
        assert sender.send(b"y").key == 1
        assert sender.wait(5)


@pytest.mark.parametrize(("first_key", "error"), [(-1, ValueError), (TOP, OverflowError), ("0", TypeError)])
def test_a_wrong_first_key_is_named(udp_pair, first_key, error):
    with pytest.raises(error, match="first_key"):
        ZeroCopySender(udp_pair.a, first_key=first_key)


def test_if_somebody_else_sends_nothing_is_released_any_more(udp_pair):
    sender = ZeroCopySender(udp_pair.a)
    udp_pair.a.send(b"not ours", ZEROCOPY)
    with pytest.raises(RuntimeError, match="somebody else"):
        sender.wait(5)
    with pytest.raises(RuntimeError, match="somebody else"):
        sender.send(b"x")
    sender.close()


def test_read_goes_through_the_sender_whatever_names_the_socket(udp_pair, passed):
    with ZeroCopySender(udp_pair.a) as sender:
        sender.send(b"x")
        assert [event[:3] for event in errqueue.read(passed(udp_pair.a))] == [(0, 0, True)]
        assert sender.pending == 0


def test_a_number_that_comes_back_is_another_socket(udp_pair):
    sock = socket.socket(udp_pair.family, socket.SOCK_DGRAM)
    number = sock.fileno()
    sender = ZeroCopySender(number)
    sock.close()
    again = udp_pair.b.dup()
    assert again.fileno() == number
    with again:
        assert errqueue.read(again) == []
        for call in (lambda: sender.send(b"x"), lambda: sender.wait(0), sender.read):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF
        sender.close()


def test_a_closed_sender_is_gone_but_its_events_are_not(udp_pair):
    sender = ZeroCopySender(udp_pair.a)
    sender.send(b"x")
    sender.close(5)
    assert [event[:2] for event in sender.read()] == [(0, 0)]
    assert sender.read() == []
    for call in (lambda: sender.send(b"x"), sender.wait):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert sender not in list(READERS.values())


def test_events_that_nobody_reads_are_counted_when_they_are_lost(udp_pair, monkeypatch):
    monkeypatch.setattr("lowsock.errqueue._backlog._MOST", 3)
    asked = constants.SOF_TIMESTAMPING_SOFTWARE | constants.SOF_TIMESTAMPING_TX_SOFTWARE | constants.SOF_TIMESTAMPING_OPT_ID
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, asked)
    with ZeroCopySender(udp_pair.a) as sender:
        for _ in range(5):
            udp_pair.a.send(b"x")
        sender.wait(0)
        assert [event.key for event in sender.read()] == [2, 3, 4]
        assert sender.dropped == 2


def test_the_limit_of_a_read_leaves_the_rest(udp_pair):
    asked = constants.SOF_TIMESTAMPING_SOFTWARE | constants.SOF_TIMESTAMPING_TX_SOFTWARE | constants.SOF_TIMESTAMPING_OPT_ID
    udp_pair.a.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, asked)
    with ZeroCopySender(udp_pair.a):
        for _ in range(5):
            udp_pair.a.send(b"x")
        assert [[event.key for event in errqueue.read(udp_pair.a, limit)] for limit in (2, 2, 2)] == [[0, 1], [2, 3], [4]]


def test_pieces_overlap_by_their_memory():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, ZeroCopySender(sock) as sender:
        memory = sender.buffer(10)
        a, b, c = (sender._region("data", memory[i:j]) for i, j in ((0, 5), (5, 10), (4, 6)))
        assert [a.overlaps(b), a.overlaps(c), b.overlaps(c), c.overlaps(a), b.overlaps(a)] == [
            False,
            True,
            True,
            True,
            False,
        ]
