# SPDX-License-Identifier: MIT
"""An exception at every step of a transport's sends, as a signal handler may raise one: nothing goes twice."""

import socket

import pytest
from batching import received
from injecting import Failed, at_every_step

from lowsock.aio._datagram.backends import backend_for
from lowsock.aio._datagram.send_queue import Outgoing

ERRORS = pytest.mark.parametrize("error", [KeyboardInterrupt, Failed])
LIKE = [(8, None)] * 3
UNLIKE = [(9, None), (0, None), (7, None)]
MARKED = [(8, (1, None))] * 2
ONE_CALL = {"send_one": [(8, None)], "send_run": LIKE, "send_many": UNLIKE, "send_with_control": MARKED}


class Sending:
    """A queue with datagrams in it, and who gets them."""

    def __init__(self, family, rows):
        if family == "unix":
            self.a, self.b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        else:
            self.a, self.b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            self.b.bind(("127.0.0.1", 0))
            self.a.connect(self.b.getsockname())
        self.a.setblocking(False)
        options = dict.fromkeys(("gro", "recv_ecn", "recv_pktinfo", "recv_timestamps", "recv_errors"), False)
        self.out = Outgoing(backend_for(self.a, gso=True, **options), pytest.fail, pytest.fail)
        self.sent = []
        for i, (size, control) in enumerate(rows):
            self.sent.append((b"%d" % i).ljust(size, b".")[:size])
            self.out.queue.append((self.sent[-1], None) if control is None else (self.sent[-1], None, control))
            self.out.with_control += control is not None
            self.out.size += size or 1

    def flush(self):
        assert self.out.flush()

    def close(self):
        self.a.close()
        self.b.close()


def is_part(found, sent):
    """Whether all that was found was sent, in that order, and once."""
    left = iter(sent)
    return all(data in left for data in found)


@ERRORS
@pytest.mark.parametrize("kind", ONE_CALL)
def test_what_one_call_got_goes_once_or_not_at_all(kind, error):
    """And the queue is as one that never had it."""
    for world, raised, outcome in at_every_step(Sending.flush, error, lambda: Sending("udp", ONE_CALL[kind])):
        assert outcome.raised is (raised if outcome.point else None)
        world.flush()
        assert received(world.b) in ([], world.sent)
        assert ([*world.out.queue], world.out.size, world.out.with_control, world.out.flushing) == ([], 0, 0, False)


@ERRORS
@pytest.mark.parametrize(("family", "rows"), [("unix", LIKE + UNLIKE), ("udp", LIKE + MARKED + UNLIKE)])
def test_of_several_calls_at_most_one_is_in_doubt(family, rows, error):
    most = 0
    for world, _, _ in at_every_step(Sending.flush, error, lambda: Sending(family, rows)):
        world.flush()
        found = received(world.b)
        assert is_part(found, world.sent)
        most = max(most, len(world.sent) - len(found))
        assert (len(world.out.queue), world.out.size, world.out.with_control) == (0, 0, 0)
    assert len(found) == len(rows)  # the run that got through
    assert most < len(rows) or family == "unix"


@ERRORS
def test_what_the_kernel_has_no_room_for_is_kept_but_for_what_was_in_doubt(error):
    """EAGAIN in the middle: the next flush goes on behind it."""
    rows = [(1000, None)] * 7 + [(900, None)]

    def make():
        world = Sending("unix", rows)
        world.a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least: a few of these
        return world

    for world, _, (point, _) in at_every_step(lambda world: world.out.flush(), error, make):
        found = []
        while world.out.queue:
            world.out.flush()
            found += received(world.b)
        found += received(world.b)
        assert is_part(found, world.sent)
        assert point is not None or found == world.sent
