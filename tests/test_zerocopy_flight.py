# SPDX-License-Identifier: MIT
"""Memory in flight for as long as we like, for a neighbour that does not answer: it is never freed early."""

import errno
import gc
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest

import lowsock
from lowsock import constants, errqueue
from lowsock._inflight import HELD
from lowsock.errqueue import ZeroCopySender

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


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
    with pytest.warns(ResourceWarning, match="1 sends were incomplete: 100 bytes"):
        sender.close(0.01)
    del sender
    for _ in range(4):
        gc.collect()
    assert gone() is not None


def drop(objects):
    """PyPy finalizes in steps."""
    objects.clear()
    for _ in range(4):
        gc.collect()


def test_a_sender_that_is_collected_keeps_the_memory_and_warns(wire, held):
    sender = ZeroCopySender(held)
    memory = sender.buffer(100)
    memory[:4] = b"kept"
    sender.send(memory)
    del memory
    senders = [sender]
    del sender
    with pytest.warns(ResourceWarning, match="was never closed while 1 sends"):
        drop(senders)
    kept = [bytes(piece.owner) for ledger in HELD for piece in ledger.pieces.values()]
    assert b"kept" + bytes(96) in kept


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


def test_what_was_sent_when_an_exception_came_is_entered_by_the_next_call(wire, held, monkeypatch):
    """The call is made, and then the handler raises before its answer is entered."""
    with ZeroCopySender(held) as sender:

        def conclude():
            if sender._ledger.open is not None:
                raise KeyboardInterrupt

        monkeypatch.setattr(sender, "_conclude", conclude)
        with pytest.raises(KeyboardInterrupt):
            sender.send(b"x" * 100)
        monkeypatch.undo()
        assert sender.pending == 0
        sender.read()
        assert (sender.pending, sender.pending_bytes, sender.next_key) == (1, 100, 1)
        wire.release()
        assert sender.wait(5)


def test_a_merged_completion_says_of_all_what_is_true_of_the_first(wire, held):
    """The first goes out of the memory, to a neighbour; the second comes back here, which wants a copy."""
    held.setsockopt(socket.SOL_SOCKET, constants.SO_ZEROCOPY, 1)
    held.send(b"x", constants.MSG_ZEROCOPY)
    wire.release()
    poll = select.poll()
    poll.register(held, 0)
    assert poll.poll(5000)
    held.sendto(b"y", constants.MSG_ZEROCOPY, ("10.78.0.1", 5))
    assert [event[:3] for event in errqueue.read(held)] == [(0, 1, False)]
    held.sendto(b"y", constants.MSG_ZEROCOPY, ("10.78.0.1", 5))
    assert [event[:3] for event in errqueue.read(held)] == [(2, 2, True)]


def test_a_sender_that_ends_with_nothing_in_flight_is_not_held(wire, held):
    before = len(HELD)
    with ZeroCopySender(held) as sender:
        sender.send(b"x")
        assert len(HELD) == before + 1
        wire.release()
    assert len(HELD) == before
