# SPDX-License-Identifier: MIT
"""Sending from memory that the kernel reads after the call: nothing is freed early, nothing is counted wrong."""

import copy
import errno
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref

import pytest

import lowsock
from lowsock import _zerocopy, constants, errqueue
from lowsock._errqueue import ATTACHED, ZeroCopyCompletion
from lowsock._inflight import Ledger, Piece
from lowsock.errqueue import IcmpError, Sent, ZeroCopySender

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


# ---- the count ----


def told(first, last=None, copied=False):
    return ZeroCopyCompletion(first, first if last is None else last, copied, [], 0)


def ledger(first, count):
    made = Ledger(first)
    for i in range(count):
        made.put(made.next, i)
    return made


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
def test_numbers_go_on_and_wrap(first):
    made = ledger(first, 5)
    assert list(made.pieces) == [(first + i) % TOP for i in range(5)]
    assert made.next == (first + 5) % TOP
    assert [made.was_given((first + i) % TOP) for i in (-1, 0, 4, 5, 6)] == [True, True, True, False, False]


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 4), (1, 3), (4, 4)])
def test_a_completion_releases_its_range_and_nothing_else(first, begin, end):
    made = ledger(first, 5)
    made.settle(told((first + begin) % TOP, (first + end) % TOP))
    assert set(made.pieces.values()) == set(range(5)) - set(range(begin, end + 1))
    assert not made.astray


def test_completions_may_come_in_any_order():
    made = ledger(TOP - 2, 4)
    for key, left in ((1, [0, 1, 2]), (TOP - 2, [1, 2]), (0, [1]), (TOP - 1, [])):
        made.settle(told(key))
        assert list(made.pieces.values()) == left


@pytest.mark.parametrize("copied", [False, True])
def test_copies_are_counted_once(copied):
    made = ledger(0, 4)
    for first, last in ((0, 1), (0, 1), (1, 2)):
        made.settle(told(first, last, copied))
    assert made.copied == 3 * copied


def test_a_range_wider_than_what_is_in_flight():
    made = ledger(1000, 2)
    made.settle(told(0, 1001))
    assert not made.pieces


@pytest.mark.parametrize("first", [0, TOP - 1])
def test_a_number_that_was_not_given_stops_all_release(first):
    made = ledger(first, 2)
    made.settle(told((first + 2) % TOP))
    made.settle(told(first))
    assert (made.astray, len(made.pieces)) == (True, 2)


@pytest.mark.parametrize("first", [0, 5, TOP - 1])
def test_a_refused_send_may_have_been_counted(first):
    made = ledger(first, 2)
    made.refused = True
    made.settle(told((first + 1) % TOP, (first + 2) % TOP))
    assert (made.astray, made.next, list(made.pieces.values())) == (False, (first + 3) % TOP, [0])


# ---- one send on the loopback ----


@pytest.fixture(params=["udp", "tcp"])
def two(request, udp_pair, tcp_pair):
    return {"udp": udp_pair, "tcp": tcp_pair}[request.param]


@pytest.fixture
def ends():
    """Two TCP sockets, connected over IPv4."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    with a, b:
        yield a, b


def drain(sock):
    sock.setblocking(False)
    taken = b""
    while True:
        try:
            data = sock.recv(2**20)
        except BlockingIOError:
            return taken
        if not data:
            return taken
        taken += data


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_bytes_arrive_and_are_let_go(two, size):
    data = os.urandom(size)
    with ZeroCopySender(two.a) as sender:
        sent = sender.send(data)
        assert (sent, sent.key) == (size, 0)
        assert two.b.recv(size, socket.MSG_WAITALL if two.stream else 0) == data
        assert sender.wait(5)
        assert (sender.pending, sender.pending_bytes, sender.next_key) == (0, 0, 1)
        assert sender.wait(0, key=0)


def test_on_the_loopback_the_kernel_copies_and_says_so(two):
    with ZeroCopySender(two.a) as sender:
        for _ in range(3):
            sender.send(b"x" * 100)
        drain(two.b)
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


def test_lent_memory_arrives_whole_and_in_slices(two):
    with ZeroCopySender(two.a) as sender:
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
            assert two.b.recv(10) == data
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


def test_an_empty_message_is_not_counted(two):
    with ZeroCopySender(two.a) as sender:
        assert [(int(sent), sent.key) for sent in (sender.send(b""), sender.send(b"x"))] == [(0, None), (1, 0)]
        drain(two.b)
        assert sender.wait(5)


def test_address_flags_and_control_messages_are_honoured(udp_pair):
    with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as sock, ZeroCopySender(sock) as sender:
        sent = sender.send(b"0123456789", udp_pair.b.getsockname(), 0, [(constants.SOL_UDP, constants.UDP_SEGMENT, b"\4\0")])
        assert sent == 10
        udp_pair.b.connect(("127.0.0.1", 1) if udp_pair.family == socket.AF_INET else ("::1", 1))
    with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as to, socket.socket(udp_pair.family, socket.SOCK_DGRAM) as sock:
        to.bind((udp_pair.a.getsockname()[0], 0))
        to.settimeout(5)
        with ZeroCopySender(sock) as sender:
            sender.send(b"0123456789", to.getsockname(), 0, [(constants.SOL_UDP, constants.UDP_SEGMENT, b"\4\0")])
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


def test_a_broken_pipe_is_raised(ends):
    a, b = ends
    with ZeroCopySender(a) as sender:
        a.shutdown(socket.SHUT_WR)
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


# ---- waiting for room ----


def fill(sender, data=b"x" * 50_000):
    """Sends until there is no room; how many sends, and the bytes."""
    sizes = []
    while True:
        try:
            sizes.append(sender.send(data, flags=socket.MSG_DONTWAIT))
        except BlockingIOError:
            return len(sizes), sum(sizes)


def send_for_ever(sender, counts, begins=None):
    """The kernel enlarges the buffer of a stream that is busy, so a full one may have room again."""
    while True:
        counts.append(sender.next_key)
        if begins is not None:
            begins.append(time.monotonic())
        sender.send(b"x" * 10**6)


def test_a_full_stream_is_not_waited_for_if_told(ends):
    a, b = ends
    with ZeroCopySender(a) as sender:
        count, size = fill(sender)
        assert sender.next_key == count
        a.setblocking(False)
        with pytest.raises(BlockingIOError):
            sender.send(b"x")
        while len(drain(b)) < 1 or not sender.wait(0.01):
            pass
        assert count > 1


def test_the_timeout_of_the_socket_holds(ends):
    a, b = ends
    with ZeroCopySender(a) as sender:
        fill(sender)
        a.settimeout(0.05)
        begins = []
        with pytest.raises(socket.timeout):
            send_for_ever(sender, [], begins)
        assert 0.05 <= time.monotonic() - begins[-1] < 5
        drain_until_complete(sender, b)


def drain_until_complete(sender, sock):
    while not sender.wait(0.01):
        drain(sock)


@pytest.mark.parametrize("as_number", [False, True])
def test_a_blocking_send_waits_for_room(ends, as_number):
    a, b = ends
    received = []

    def receive():
        while len(data := b.recv(2**20)) > 0:
            received.append(len(data))

    with ZeroCopySender(a.fileno() if as_number else a) as sender:
        count, size = fill(sender)
        reader = threading.Thread(target=receive)
        reader.start()
        data, at = bytes(3_000_000), 0
        while at < len(data):
            at += sender.send(data[at:])
        assert sender.wait(10)
        a.shutdown(socket.SHUT_WR)
        reader.join()
    assert sum(received) == size + len(data)


def test_hundreds_in_flight_are_all_kept_until_their_completion(ends):
    a, b = ends
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    with ZeroCopySender(a) as sender:
        pieces = []
        while sender.pending < 300 and len(pieces) < 3000:
            pieces.append(os.urandom(1000))
            assert sender.send(pieces[-1], flags=socket.MSG_DONTWAIT) == 1000
            sender.read()
        assert sender.pending >= 300
        assert sender.pending_bytes == 1000 * sender.pending
        taken = b""
        while not sender.wait(0.01):
            taken += drain(b)
        taken += drain(b)
    assert taken == b"".join(pieces)


# ---- in flight for as long as we like: a neighbour that does not answer ----

MAKE = """
import socket, sys, lowsock
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
with made, socket.socket(fileno=int(sys.argv[1])) as way:
    lowsock.send_fds(way, [b"!"], [made.fileno()])
"""
SILENT = "10.78.0.9"


class Wire:
    """A namespace with one link, whose other end belongs to nobody."""

    def __init__(self):
        self.name = f"lowsock-wire-{os.getpid()}"
        self.run("netns", "add", self.name)
        self.inside("link", "add", "near", "type", "veth", "peer", "name", "end")
        self.inside("addr", "add", "10.78.0.1/24", "dev", "near")
        for device in ("near", "end", "lo"):
            self.inside("link", "set", device, "up")

    @staticmethod
    def run(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)

    def inside(self, *words):
        self.run("-n", self.name, *words)

    def hold(self):
        """Datagrams wait for the neighbour to be found."""
        self.inside("neigh", "flush", "dev", "near")
        subprocess.run(["ip", "-n", self.name, "neigh", "del", SILENT, "dev", "near"], check=False, capture_output=True)

    def release(self):
        self.inside("neigh", "replace", SILENT, "lladdr", "02:00:00:00:00:09", "dev", "near", "nud", "permanent")

    def write(self, path, value):
        script = f"echo {value} > /proc/sys/{path}"
        subprocess.run(["ip", "netns", "exec", self.name, "sh", "-c", script], check=True, timeout=30)

    def socket(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            inside = ["ip", "netns", "exec", self.name, sys.executable, "-I", "-c", MAKE, str(theirs.fileno())]
            subprocess.run(inside, check=True, pass_fds=[theirs.fileno()], timeout=30)
            _, (fd,), _, _ = lowsock.recv_fds(ours, 1, 1)
        made = socket.socket(fileno=fd)
        made.connect((SILENT, 4444))
        return made

    def remove(self):
        self.run("netns", "del", self.name)


@pytest.fixture(scope="module")
def wires():
    try:
        made = Wire()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', b'') or error}")
    yield made
    made.remove()


@pytest.fixture
def wire(wires):
    wires.hold()
    return wires


@pytest.fixture
def held(wire):
    """A UDP socket whose datagrams are held back until `release`."""
    with wire.socket() as sock:
        yield sock
        wire.release()


def test_what_is_sent_from_the_memory_itself_is_not_copied(wire, held):
    with ZeroCopySender(held) as sender:
        for _ in range(3):
            sender.send(b"x" * 1000)
        assert (sender.read(), sender.pending, sender.pending_bytes) == ([], 3, 3000)
        wire.release()
        assert sender.wait(5)
        assert (sender.copied, [event[:3] for event in sender.read()]) == (0, [(0, 2, False)])


def test_memory_in_flight_is_kept(wire, held):
    """Neither a `bytes` that nobody else has nor lent memory without a view goes before its completion."""
    sender = ZeroCopySender(held)
    memory = sender.buffer(100)
    gone = weakref.ref(memory.obj)
    sender.send(memory[20:30])
    sender.send(os.urandom(1000))
    del memory
    for _ in range(3):
        gc.collect()
    assert gone() is not None
    assert sender.pending == 2
    wire.release()
    assert sender.wait(5)
    for _ in range(4):
        gc.collect()
    assert gone() is None
    sender.close()


def test_lent_memory_is_free_where_nothing_of_it_is_in_flight(wire, held):
    with ZeroCopySender(held) as sender:
        memory, other = sender.buffer(100), sender.buffer(100)
        sender.send(memory[20:30])
        free = {(i, j): sender.is_free(memory[i:j]) for i, j in ((0, 20), (30, 100), (0, 21), (29, 40), (25, 26), (0, 100))}
        assert free == {(0, 20): True, (30, 100): True, (0, 21): False, (29, 40): False, (25, 26): False, (0, 100): False}
        assert sender.is_free(other)
        wire.release()
        assert sender.wait(5)
        assert sender.is_free(memory)


def test_a_wait_ends_with_its_time_or_its_key(wire, held):
    with ZeroCopySender(held) as sender:
        sent = sender.send(b"x")
        begin = time.monotonic()
        assert not sender.wait(0.05)
        assert not sender.wait(0, key=sent.key)
        assert time.monotonic() - begin < 5
        threading.Timer(0.05, wire.release).start()
        assert sender.wait(10, key=sent.key)


def test_a_wait_does_not_spin(wire, held):
    """POLLERR stays up while an event of the queue waits to be read; another kind of event is read, and then it is quiet."""
    held.setsockopt(socket.IPPROTO_IP, constants.IP_RECVERR, 1)
    held.setsockopt(socket.IPPROTO_IP, constants.IP_MTU_DISCOVER, constants.IP_PMTUDISC_DO)
    with ZeroCopySender(held) as sender:
        sender.send(b"x")
        with pytest.raises(OSError):
            held.send(bytes(5000))  # EMSGSIZE: an event
        begin = time.process_time()
        assert not sender.wait(0.5)
        assert time.process_time() - begin < 0.25
        wire.release()


def test_closing_in_time_says_nothing(wire, held):
    sender = ZeroCopySender(held)
    sender.send(b"x")
    threading.Timer(0.05, wire.release).start()
    sender.close(10)
    sender.close()
    assert sender.pending == 0


def test_closing_too_early_keeps_the_memory_for_good_and_warns(wire, held):
    sender = ZeroCopySender(held)
    memory = sender.buffer(100)
    gone = weakref.ref(memory.obj)
    sender.send(memory)
    del memory
    before = len(_zerocopy._KEPT)
    with pytest.warns(ResourceWarning, match="1 sends were incomplete: 100 bytes"):
        sender.close(0.01)
    del sender
    for _ in range(4):
        gc.collect()
    assert (gone() is not None, len(_zerocopy._KEPT)) == (True, before + 1)


def test_a_sender_that_is_collected_keeps_the_memory_and_warns(wire, held):
    sender = ZeroCopySender(held)
    memory = sender.buffer(100)
    gone = weakref.ref(memory.obj)
    sender.send(memory)
    del memory
    with pytest.warns(ResourceWarning, match="was never closed while 1 sends"):
        del sender
        for _ in range(4):
            gc.collect()
    assert gone() is not None


def test_a_sender_with_nothing_in_flight_is_collected_in_silence(udp_pair):
    sender = ZeroCopySender(udp_pair.a)
    sender.send(b"x")
    assert sender.wait(5)
    del sender
    for _ in range(4):
        gc.collect()
    with ZeroCopySender(udp_pair.a) as sender:
        assert sender.next_key == 1


def test_the_next_sender_ignores_what_the_one_before_left(wire, held):
    first = ZeroCopySender(held)
    first.send(b"one")
    with pytest.warns(ResourceWarning):
        first.close(0)
    with ZeroCopySender(held) as sender:
        assert sender.send(b"two").key == 1
        wire.release()
        assert sender.wait(5)
        assert [event[:2] for event in sender.read()] == [(0, 1)]


def test_closing_after_the_socket_keeps_the_memory(wire):
    sock = wire.socket()
    sender = ZeroCopySender(sock)
    sender.send(b"x")
    sock.close()
    with pytest.warns(ResourceWarning):
        sender.close()
    wire.release()


def test_other_events_go_through_the_sender_to_whoever_reads(wire, held):
    held.setsockopt(socket.IPPROTO_IP, constants.IP_RECVERR, 1)
    held.setsockopt(socket.IPPROTO_IP, constants.IP_MTU_DISCOVER, constants.IP_PMTUDISC_DO)
    with ZeroCopySender(held) as sender:
        sender.send(b"x")
        with pytest.raises(OSError):
            sender.send(bytes(5000))
        wire.release()
        assert sender.wait(5)
        read = errqueue.read(held)
        assert sorted(type(event).__name__ for event in read) == ["LocalError", "ZeroCopyCompletion"]
        assert sender.next_key == 1


@pytest.mark.parametrize("allowed", [1, 3])
def test_without_memory_to_keep_track_it_sends_a_plain_copy(wire, allowed):
    """Memory for each send comes out of net.core.optmem_max, which is the namespace's own since Linux 6.8."""
    try:
        wire.write("net/core/optmem_max", 1000 * allowed)
    except subprocess.CalledProcessError:
        pytest.skip("net.core.optmem_max is not the namespace's own here")
    try:
        with wire.socket() as sock, ZeroCopySender(sock) as sender:
            keys = [sender.send(b"x").key for _ in range(10)]
            counted = [key for key in keys if key is not None]
            assert counted == list(range(len(counted)))
            assert 0 < len(counted) < 10
            wire.release()
            assert sender.wait(5)
            assert sender.copied == 10 - len(counted)
            assert sender.send(b"y").key == len(counted)  # there is room again
            assert sender.wait(5)
    finally:
        wire.write("net/core/optmem_max", 131072)


def test_a_send_that_fails_after_it_was_counted(wire):
    """A queueing discipline that is full drops it: ENOBUFS with IP_RECVERR, and the kernel has counted it."""
    wire.release()
    tc = ["tc", "-n", wire.name, "qdisc"]
    with wire.socket() as sock, ZeroCopySender(sock) as sender:
        sock.setsockopt(socket.IPPROTO_IP, constants.IP_RECVERR, 1)
        add = subprocess.run(
            [*tc, "add", "dev", "near", "root", "tbf", "rate", "8kbit", "burst", "1600", "limit", "3000"],
            check=False,
            capture_output=True,
        )
        if add.returncode:
            pytest.skip(f"no tbf here: {add.stderr}")
        memory = sender.buffer(1000)
        came = []
        for _ in range(8):
            try:
                came.append(sender.send(memory).key)
            except OSError as error:
                came.append(error.errno)
        assert came[-1] == errno.ENOBUFS
        taken = [key for key in came if key != errno.ENOBUFS]
        assert sender.next_key == 8
        assert not sender.is_free(memory)
        subprocess.run([*tc, "del", "dev", "near", "root"], check=True)
        key = sender.send(memory).key
        assert key == 8
        assert sender.wait(5)
        assert (taken, sender.is_free(memory)) == (taken[:1] + taken[1:], True)


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
    assert sender not in list(ATTACHED.values())


def test_events_that_nobody_reads_are_counted_when_they_are_lost(udp_pair, monkeypatch):
    monkeypatch.setattr(_zerocopy, "_STASHED", 3)
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
    with ZeroCopySender(udp_pair.a) as sender:
        for _ in range(5):
            udp_pair.a.send(b"x")
        assert [[event.key for event in errqueue.read(udp_pair.a, limit)] for limit in (2, 2, 2)] == [[0, 1], [2, 3], [4]]


# ---- threads and signals ----


def test_threads_share_a_sender(ends):
    a, b = ends
    sizes, keys = [], []
    with ZeroCopySender(a) as sender:

        def work(letter):
            for _ in range(50):
                sent = sender.send(letter * 2000)
                sizes.append(int(sent))
                keys.append(sent.key)
                if letter == b"a":
                    sender.read()

        threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
        for thread in threads:
            thread.start()
        taken = 0
        poll = select.poll()
        poll.register(b, select.POLLIN)
        while any(thread.is_alive() for thread in threads) or taken < sum(sizes):
            poll.poll(10)
            taken += len(drain(b))
        for thread in threads:
            thread.join()
        assert sender.wait(5)
    assert sorted(key for key in keys if key is not None) == list(range(len([key for key in keys if key is not None])))
    assert taken == sum(sizes)


class Interrupted(Exception):
    pass


def raising(*_):
    raise Interrupted


def test_handlers_that_raise_lose_no_piece_and_no_completion(udp_pair):
    """After any number of interruptions each send that the kernel counted has been counted here, and is complete."""
    before = signal.signal(signal.SIGALRM, raising)
    hits = 0
    try:
        with ZeroCopySender(udp_pair.a) as sender:
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline and hits < 300:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.000003 * (hits % 100))
                    while True:
                        sender.send(b"x" * 10)
                        sender.read()
                        drain(udp_pair.b)
                except Interrupted:
                    hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert sender.wait(5)
            key = sender.send(b"last").key
            assert sender.wait(5, key=key)
            assert sender.pending == 0
            assert not sender._ledger.astray
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits > 10


def test_a_handler_interrupts_a_send_that_waits(ends):
    a, b = ends
    before = signal.signal(signal.SIGALRM, raising)
    try:
        with ZeroCopySender(a) as sender:
            fill(sender)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            counts = []
            with pytest.raises(Interrupted):
                send_for_ever(sender, counts)
            assert sender.next_key == counts[-1]
            drain_until_complete(sender, b)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_comes_back_in_is_refused(udp_pair):
    with ZeroCopySender(udp_pair.a) as sender:
        with sender._lock:
            for call in (lambda: sender.send(b"x"), sender.wait, sender.read, sender.close):
                with pytest.raises(RuntimeError, match="signal handler"):
                    call()
        assert sender.send(b"x").key == 0


def test_what_was_sent_when_an_exception_came_is_entered_by_the_next_call(wire, held, monkeypatch):
    """The call is made, and then the handler raises before its answer is entered."""
    with ZeroCopySender(held) as sender:

        def conclude(steps=iter([0, 1])):  # noqa: B008
            if next(steps):
                raise Interrupted

        monkeypatch.setattr(sender, "_conclude", conclude)
        with pytest.raises(Interrupted):
            sender.send(b"x" * 100)
        monkeypatch.undo()
        assert sender.pending == 0
        sender.read()
        assert (sender.pending, sender.pending_bytes, sender.next_key) == (1, 100, 1)
        wire.release()
        assert sender.wait(5)


def test_pieces_overlap_by_their_memory():
    with warnings.catch_warnings(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, ZeroCopySender(sock) as sender:
        memory = sender.buffer(10)
        a, b, c = (sender._piece("data", memory[i:j]) for i, j in ((0, 5), (5, 10), (4, 6)))
        assert isinstance(a, Piece)
        assert [a.overlaps(b), a.overlaps(c), b.overlaps(c), c.overlaps(a), b.overlaps(a)] == [
            False,
            True,
            True,
            True,
            False,
        ]
