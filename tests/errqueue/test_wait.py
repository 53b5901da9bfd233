# SPDX-License-Identifier: MIT
"""lowsock.errqueue.wait: it wakes for events, for nothing else, and in time."""

import errno
import socket
import struct
import sys
import threading
import time
from fractions import Fraction

import pytest

from lowsock import cmsg, errqueue
from lowsock._system.waiting import SharedWaiter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="error queues are Linux's")


def test_wait_returns_what_came_and_only_then(udp_pair):
    sender, receiver = udp_pair.a, udp_pair.b
    cmsg.enable(sender, cmsg.ExtendedError)
    assert errqueue.wait(sender, 0) == []
    sender.settimeout(30)  # counts not
    assert errqueue.wait(sender, 0.01) == []
    receiver.close()
    sender.send(b"x")
    (event,) = errqueue.wait(sender, 10)
    assert (type(event), event.errno) == (errqueue.IcmpError, errno.ECONNREFUSED)


def test_wait_does_not_spin_on_an_error_without_an_event(tcp_pair):
    """A reset connection shows POLLERR or POLLHUP for ever."""
    a, b = tcp_pair.a, tcp_pair.b
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    b.close()
    before = time.process_time()
    assert errqueue.wait(a, 0.3) == []
    assert time.process_time() - before < 0.2


def test_wait_on_a_socket_that_is_closed_meanwhile_ends(udp_pair):
    sender = udp_pair.a
    closing = threading.Timer(0.05, sender.close)
    closing.start()
    with pytest.raises(OSError, match="Bad file descriptor"):
        errqueue.wait(sender, 10)
    closing.join()


BAD = [
    (-1, ValueError),
    (-0.5, ValueError),
    (float("nan"), ValueError),
    (10**400, OverflowError),
    ("1", TypeError),
    (b"1", TypeError),
    ([], TypeError),
    (1j, TypeError),
]


@pytest.mark.parametrize(("timeout", "error"), BAD, ids=lambda value: repr(value)[:20])
def test_a_wrong_timeout_is_named(udp_pair, timeout, error):
    with errqueue.ZeroCopySender(udp_pair.b) as sender:
        for call in (
            lambda: errqueue.wait(udp_pair.a, timeout),
            lambda: sender.wait(timeout),
            lambda: sender.close(timeout),
            lambda: errqueue.ZeroCopySender(udp_pair.a, timeout=timeout),
        ):
            with pytest.raises(error, match=r"^timeout "):
                call()
        assert sender.wait()


@pytest.mark.parametrize("timeout", [None, 1e308, float("inf"), 2**1000, Fraction(10**9), True, 10])
def test_a_timeout_may_be_as_long_as_one_likes(udp_pair, timeout):
    cmsg.enable(udp_pair.a, cmsg.ExtendedError)
    udp_pair.b.close()
    udp_pair.a.send(b"x")
    assert len(errqueue.wait(udp_pair.a, timeout)) == 1
    assert SharedWaiter(timeout).wait(-1, 0, False)


@pytest.mark.parametrize("sock", [-1, 10**6])
def test_what_is_not_open_is_refused_by_wait(sock):
    with pytest.raises(OSError, match="Bad file descriptor"):
        errqueue.wait(sock, 0)
