# SPDX-License-Identifier: MIT
"""lowsock.errqueue.wait: it wakes for events, for nothing else, and in time."""

import errno
import socket
import struct
import sys
import threading
import time

import pytest

from lowsock import cmsg, errqueue

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
