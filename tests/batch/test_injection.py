# SPDX-License-Identifier: MIT
"""Batches in the middle of which an exception comes, at every bytecode in turn."""

import array
import select
import socket
import struct
from typing import Any, Callable, Optional

import pytest
from injecting import TIMEOUTS, Raised, World, at_every_step, losses

import lowsock
from lowsock import RecvBatch, SendBatch
from lowsock._batch import inbox as _inbox
from lowsock._system.ffi import lib

ROOM = 64  # bytes for control messages
RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))


class Dgrams(World):
    """A pair with three messages under way, each with descriptors, and a batch of each kind."""

    def __init__(self, fds: list[int], timeout: Optional[float] = None) -> None:
        self.a, self.b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.a.settimeout(timeout)
        self.b.settimeout(timeout)
        self.buffer = bytearray(20_000)
        self.into, self.out = RecvBatch(4, 10, ROOM), SendBatch(4, 10, ROOM)
        for i in range(3):
            lowsock.send_fds(self.a, [b"%d" % i], fds)

    def close(self) -> None:
        super().close()
        self.into.close()
        self.out.close()
        del self.into, self.out  # whose end is then not in the middle of another run


def receive_and_look(world: Dgrams) -> None:
    world.into.recv(world.b)
    for i in range(len(world.into)):
        world.taken.append(world.into.take_fds(i))


RECEIVES: dict[str, Callable[[Any], Any]] = {
    "recvmmsg": lambda world: lowsock.recvmmsg(world.b, 4, 10, ROOM),
    "recvmmsg, large": lambda world: lowsock.recvmmsg(world.b, 2000, 1000, ROOM),
    "recvmmsg, all": lambda world: lowsock.recvmmsg(world.b, 3, 10, ROOM, wait_all=True),
}


def drain(sock: socket.socket) -> None:
    while select.select([sock], [], [], 0)[0]:
        sock.recv(10)


def numbers(ancdata: list) -> list[int]:
    return array.array("i", b"".join(data for _, _, data in ancdata)).tolist()


@TIMEOUTS
@pytest.mark.parametrize("call", RECEIVES)
def test_received_descriptors_are_closed_wherever_an_exception_comes(call, timeout, two_fds, open_fds):
    lost, received = losses(RECEIVES[call], lambda: Dgrams(two_fds, timeout), open_fds, drain=lambda world: drain(world.b))
    assert received, "the run that got through has descriptors"
    assert not lost


@pytest.mark.filterwarnings("ignore:an OwnedFds left:ResourceWarning")  # the caller did not come to use its own
def test_a_batch_owns_its_descriptors_until_they_are_taken(two_fds, open_fds):
    """Whatever is raised, a descriptor is with an owner that the caller has, or closed with the batch."""
    before: set[int] = set()

    def make_world() -> Dgrams:
        before.clear()
        before.update(open_fds())
        world = Dgrams(two_fds)
        world.taken = []
        return world

    wrong = []
    for world, _, (point, raised) in at_every_step(receive_and_look, KeyboardInterrupt, make_world):
        if raised is not None:
            raised.__traceback__ = None  # which holds the batch
        for owner in (world.a, world.b, world.into):
            owner.close()
        taken = {fd for fds in world.taken for fd in fds}
        left = open_fds() - before
        for fds in world.taken:
            fds.close()
        if left != taken and point is not None and not point.is_return():
            wrong.append((point, left, taken))
    assert len(taken) == 6
    assert not wrong


class Somebody:
    """Another caller, in the middle of a batch: a descriptor has come into the inbox that it took."""

    def receive(self) -> None:
        self.inbox = _inbox.take(4, 10, ROOM)
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b:
            lowsock.send_fds(a, [b"x"], [0])
            lib.lowsock_recvmmsg(self.inbox.struct, b.fileno(), 0, 4, 10, ROOM, 0)

    def still_has_it(self) -> bool:
        fd = numbers(self.inbox.ancdata(0, 1)[0])
        lib.lowsock_inbox_close(self.inbox.struct)
        return len(fd) == 1


@pytest.mark.parametrize("call", ("recvmmsg", "recvmmsg, all"))
def test_an_inbox_given_back_is_left_alone(call):
    somebody, robbed = Somebody(), []
    for _, _, (point, _) in at_every_step(RECEIVES[call], KeyboardInterrupt, lambda: Dgrams([]), somebody.receive):
        if point is not None and not somebody.still_has_it():
            robbed.append(point)
    assert not robbed


def filled(world: Dgrams) -> None:
    world.out.append(b"a", ancdata=[RIGHTS])
    world.out.extend([b"b", b"c"])
    world.out.send(world.a)


CALLS: dict[str, Callable[[Any], Any]] = {
    **RECEIVES,
    "sendmmsg": lambda world: lowsock.sendmmsg(world.a, [([b"x"],)] * 2),
    "sendmmsg, control": lambda world: lowsock.sendmmsg(world.a, iter([([b"x"], [RIGHTS]), ((b"y", world.buffer),)])),
    "batches": lambda world: (filled(world), world.into.recv(world.b), iter(world.into), world.into.messages()),
}


@TIMEOUTS
@pytest.mark.parametrize("call", CALLS)
def test_what_was_raised_comes_out(call, timeout):
    changed = []
    for world, error, (point, raised) in at_every_step(CALLS[call], Raised, lambda: Dgrams([], timeout)):
        if point is not None and raised is not error:
            changed.append((point, repr(raised)))
        if raised is not None:
            raised.__traceback__ = None
        world.buffer.append(1)  # not held
    assert not changed


def test_a_batch_sends_nothing_twice_and_leaves_nothing_out_whatever_is_raised():
    """An exception anywhere in `send`; the next call goes on where the kernel stopped."""
    pieces = [b"1", b"2", b"3"]

    class Filled(Dgrams):
        def __init__(self) -> None:
            super().__init__([])
            drain(self.b)
            self.out.extend(pieces)

    wrong = []
    for world, _, (point, _) in at_every_step(lambda world: world.out.send(world.a), KeyboardInterrupt, Filled):
        while len(world.out):
            world.out.send(world.a)
        world.out.append(b"next")
        world.out.send(world.a)
        came = [message[0] for message in lowsock.recvmmsg(world.b, 10, 10)]
        if came != [*pieces, b"next"]:
            wrong.append((point, came))
    assert not wrong


@pytest.mark.parametrize("fill", (lambda out: out.append(b"x", ancdata=[RIGHTS]), lambda out: out.extend([b"x", b"y"])))
def test_an_exception_while_it_is_filled_leaves_a_batch_that_works(fill):
    wrong = []
    for world, _, (point, _) in at_every_step(lambda world: fill(world.out), KeyboardInterrupt, lambda: Dgrams([])):
        drain(world.b)
        waiting = len(world.out)
        world.out.append(b"next")
        sent = world.out.send(world.a)
        came = [message[0] for message in lowsock.recvmmsg(world.b, 10, 10)]
        if sent != waiting + 1 or len(came) != sent or came[-1] != b"next" or waiting not in (0, 1, 2):
            wrong.append((point, waiting, came))
    assert not wrong
