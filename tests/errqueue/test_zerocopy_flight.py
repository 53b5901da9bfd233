# SPDX-License-Identifier: MIT
"""Memory in flight for as long as we like, for a neighbour that does not answer: it is never freed early."""

import gc
import os
import select
import socket
import sys
import threading
import time
import weakref

import pytest

from lowsock import constants, errqueue
from lowsock.errqueue import ZeroCopySender
from lowsock.errqueue._inflight import KEEP_ALIVE

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")


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
    kept = [bytes(region.owner) for in_flight in KEEP_ALIVE for region in in_flight.regions.values()]
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
    before = len(KEEP_ALIVE)
    with ZeroCopySender(held) as sender:
        sender.send(b"x")
        assert len(KEEP_ALIVE) == before + 1
        wire.release()
    assert len(KEEP_ALIVE) == before
