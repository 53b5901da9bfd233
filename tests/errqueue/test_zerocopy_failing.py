# SPDX-License-Identifier: MIT
"""Sends out of memory itself that fail or are cut short: each is counted as the kernel counts it."""

import errno
import socket
import subprocess
import sys

import pytest

from lowsock import constants
from lowsock.errqueue import ZeroCopySender

pytestmark = [
    pytest.mark.unsanitized,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's"),
]


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
            assert sender.send(b"y").key == sender.next_key - 1  # there is room again
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
            if sender._in_flight.unrecorded is not None:
                raise KeyboardInterrupt

        monkeypatch.setattr(sender, "_record_attempt", conclude)
        with pytest.raises(KeyboardInterrupt):
            sender.send(b"x" * 100)
        monkeypatch.undo()
        assert sender.pending == 0
        sender.read()
        assert (sender.pending, sender.pending_bytes, sender.next_key) == (1, 100, 1)
        wire.release()
        assert sender.wait(5)


def test_a_datagram_that_left_in_part_is_counted(wire):
    """Its first packet waits in a queue, the next is refused: the completion comes later, and so does its number."""
    wire.release()
    tc = ["tc", "-n", wire.name, "qdisc"]
    queue = ["dev", "near", "root", "tbf", "burst", "1600", "limit"]
    added = subprocess.run([*tc, "add", *queue, "6000", "rate", "8kbit"], check=False, capture_output=True)
    if added.returncode:
        pytest.skip(f"no tbf here: {added.stderr}")
    try:
        with wire.socket() as sock, ZeroCopySender(sock) as sender:
            sock.setsockopt(socket.IPPROTO_IP, constants.IP_RECVERR, 1)
            sender.send(b"a" * 1200)
            with pytest.raises(OSError, match="buffer space"):
                sender.send(b"b" * 8000)
            subprocess.run([*tc, "change", *queue, "60000", "rate", "8kbit"], check=True)
            last = sender.send(b"c" * 1000)
            sender.read()
            assert not sender.wait(0, key=last.key)
            subprocess.run([*tc, "change", *queue, "60000", "rate", "800mbit"], check=True)
            assert sender.wait(5)
            assert max(event.last for event in sender.read()) == last.key == sender.next_key - 1
    finally:
        subprocess.run([*tc, "del", "dev", "near", "root"], check=True)


def test_in_doubt_it_sends_plain_copies(udp_pair):
    """The number of the next send cannot be told while a datagram is held back (UDP_CORK): the question would join it."""
    with ZeroCopySender(udp_pair.a) as sender:
        sender._in_flight.uncertain = 1
        udp_pair.a.setsockopt(constants.SOL_UDP, constants.UDP_CORK, 1)
        assert sender.send(b"a").key is None
        udp_pair.a.setsockopt(constants.SOL_UDP, constants.UDP_CORK, 0)
        assert sender.send(b"b").key == 1  # 0 was the question's
        assert [udp_pair.b.recv(10) for _ in range(2)] == [b"a", b"b"]
        assert sender.wait(5)
        assert sender._in_flight.uncertain == 0


EXIT = """
import socket
from lowsock.errqueue import ZeroCopySender
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("10.78.0.9", 4444))
sender = ZeroCopySender(sock)
for size in (200, 400, 800, 1200):
    sender.send(b"<" + b"k" * size + b">")
    lent = sender.buffer(size + 2)
    lent[:] = b"<" + b"l" * size + b">"
    sender.send(lent)
"""


@pytest.mark.parametrize("end", ["", "sender.close(0)", "del sender, lent"])
def test_what_is_in_flight_when_the_process_ends_arrives_as_it_was(wire, end):
    """The interpreter frees its memory, and malloc writes into what is free; what the kernel may still read is kept."""
    child = ["ip", "netns", "exec", wire.name, sys.executable, "-I", "-W", "ignore", "-c", EXIT + end]
    with wire.listen() as listener:
        subprocess.run(child, check=True, timeout=30)
        wire.release()
        came = []
        while len(came) < 8:
            packet = listener.recv(2000)
            if packet[12:14] == b"\x08\x00":
                came.append(packet[42:])
    wanted = [b"<" + letter * size + b">" for size in (200, 400, 800, 1200) for letter in (b"k", b"l")]
    assert [packet[: len(data)] for packet, data in zip(came, wanted)] == wanted


FORK = """
import os, socket, sys
from lowsock import errqueue
receiver, sock = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
sock.connect(receiver.getsockname())
sender = errqueue.ZeroCopySender(sock)
sender.send(b"x")
child = os.fork()
if not child:
    for call in (lambda: sender.send(b"y"), sender.read, sender.wait, lambda: errqueue.read(sock)):
        try:
            call()
        except RuntimeError:
            continue
        os._exit(1)
    sender.close()
    del sender
    try:
        errqueue.ZeroCopySender(sock)
    except ValueError:  # first_key
        os._exit(0)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert [event[:2] for event in sender.read()] == [(0, 0)]
sender.close()
"""


def test_a_child_made_by_fork_takes_nothing():
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", FORK], check=True, timeout=30)


CYCLE = """
import gc, socket
from lowsock.errqueue import ZeroCopySender
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", 9))
with ZeroCopySender(sock) as sender:
    for _ in range(10):
        try:
            sender.send(sender.buffer(70_000))
        except OSError as error:
            error.itself = error
        gc.collect()
"""


def test_an_error_that_keeps_itself_can_be_collected():
    """It has the frames of the send, and those the view of lent memory. A view that is exported then crashes CPython."""
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", CYCLE], check=True, timeout=30)
