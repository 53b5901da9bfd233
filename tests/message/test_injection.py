# SPDX-License-Identifier: MIT
"""An exception raised between any two steps of a call, at every step in turn.

Whatever the point, descriptors are closed, buffers are let go, and the exception comes out as it is.
"""

import contextlib
import os
import random
import socket
from typing import Callable, Optional

import pytest
from injecting import LARGE, TIMEOUTS, Call, Failed, Raised, World, at_every_step, losses

import lowsock
from lowsock import constants
from lowsock._memory import recv_pool as _reply
from lowsock._system.ffi import lib

ROOM = 256  # bytes for control messages


RECEIVES: dict[str, Call] = {
    "recvmsg": lambda world: lowsock.recvmsg(world.b, 10, ROOM),
    "recvmsg without room": lambda world: lowsock.recvmsg(world.b, 10),
    "recvmsg, large": lambda world: lowsock.recvmsg(world.b, 2**20, 2**15),
    "recvmsg_into": lambda world: lowsock.recvmsg_into(world.b, [world.buffer, bytearray(8)], ROOM),
    "recv1msg": lambda world: lowsock.recv1msg(world.b, 10),
    "recv_fds": lambda world: lowsock.recv_fds(world.b, 10, 4),
    "recv_fds with a surplus": lambda world: lowsock.recv_fds(world.b, 10, 1),
}
SENDS: dict[str, Call] = {
    "sendmsg": lambda world: lowsock.sendmsg(world.a, [b"x"]),
    "sendmsg, gathered": lambda world: lowsock.sendmsg(world.a, [world.buffer, b"x"]),
    "sendmsg, control": lambda world: lowsock.sendmsg(world.a, iter([world.buffer]), [(0, 0, bytearray(4))]),
    "send1msg": lambda world: lowsock.send1msg(world.a, world.buffer),
    "send_fds": lambda world: lowsock.send_fds(world.a, [world.buffer], [world.a.fileno()]),
}
CALLS = {**RECEIVES, **SENDS}


@TIMEOUTS
@pytest.mark.parametrize("call", [call for call in RECEIVES if call != "recvmsg without room"])
def test_received_descriptors_are_closed_wherever_an_exception_comes(
    call: str, timeout: Optional[float], two_fds: list[int], open_fds: Callable[[], set[int]]
) -> None:
    lost, received = losses(RECEIVES[call], lambda: World(two_fds, timeout), open_fds)
    assert received, "the run that got through has descriptors"
    assert not lost


@TIMEOUTS
@pytest.mark.parametrize("call", CALLS)
def test_what_was_raised_comes_out(call: str, timeout: Optional[float]) -> None:
    changed = [
        (point, repr(raised))
        for _, error, (point, raised) in at_every_step(CALLS[call], Raised, lambda: World([], timeout))
        if point is not None and raised is not error
    ]
    assert not changed


@TIMEOUTS
@pytest.mark.parametrize("call", CALLS)
def test_no_buffer_is_held_once_the_exception_is_gone(call: str, timeout: Optional[float]) -> None:
    for world, _, outcome in at_every_step(CALLS[call], KeyboardInterrupt, lambda: World([], timeout)):
        if outcome.raised is not None:
            outcome.raised.__traceback__ = None
        world.buffer.append(1)


@TIMEOUTS
@pytest.mark.parametrize("call", SENDS)
def test_a_message_is_sent_once_at_most(call: str, timeout: Optional[float]) -> None:
    for world, _, _ in at_every_step(SENDS[call], KeyboardInterrupt, lambda: World([], timeout)):
        data = world.b.recv(4 * LARGE, socket.MSG_DONTWAIT)
        assert len(data) <= len(b"data") + LARGE + len(b"x")


class Somebody:
    """Another caller, in the middle of a receive: a descriptor has come into the reply that it took."""

    def receive(self) -> None:
        self.reply = _reply.take(10, ROOM)
        self.reply.struct.fds[0] = os.dup(0)
        self.reply.struct.fd_count = 1

    def still_has_it(self) -> bool:
        count = self.reply.struct.fd_count
        lib.lowsock_reply_close(self.reply.struct)
        return bool(count == 1)


@TIMEOUTS
@pytest.mark.parametrize("call", RECEIVES)
def test_a_reply_given_back_is_left_alone(call: str, timeout: Optional[float]) -> None:
    somebody, robbed = Somebody(), []
    for _, _, (point, _) in at_every_step(RECEIVES[call], KeyboardInterrupt, lambda: World([], timeout), somebody.receive):
        if point is not None and not somebody.still_has_it():
            robbed.append(point)
    assert not robbed


# ---- calls that wait, and addresses ----


class Empty(World):
    """Nothing to receive, and little time."""

    def __init__(self) -> None:
        super().__init__([], 0.002)
        self.b.recv(100)


class Full(Empty):
    """No room to send either."""

    def __init__(self) -> None:
        super().__init__()
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.a.fileno(), bytes(2**16))


class Inet(World):
    """A datagram from a source that was never seen before."""

    def __init__(self) -> None:
        self.a, self.b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.b.bind(("127.0.0.1", 0))
        self.a.bind((f"127.{random.randrange(1, 255)}.{random.randrange(256)}.1", 0))
        self.a.connect(self.b.getsockname())
        self.a.send(b"x")
        self.name = self.a.getsockname()


class Disturbed(Inet):
    """Nothing to receive, but an event in the error queue: a transmit timestamp."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = self.b, self.a
        wanted = constants.SOF_TIMESTAMPING_TX_SOFTWARE | constants.SOF_TIMESTAMPING_SOFTWARE
        self.b.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, wanted)
        self.b.send(b"x")
        self.b.settimeout(0.004)


OTHERS: dict[str, tuple[Call, Callable[[], World]]] = {
    **{f"{name}, empty": (RECEIVES[name], Empty) for name in ("recvmsg", "recvmsg_into", "recv_fds")},
    **{f"{name}, full": (SENDS[name], Full) for name in ("sendmsg", "sendmsg, gathered")},
    "recvmsg, disturbed": (RECEIVES["recvmsg"], Disturbed),
    "recvmsg from an address": (RECEIVES["recvmsg"], Inet),
    "sendmsg to an address": (lambda world: lowsock.sendmsg(world.b, [b"x"], [], 0, world.name), Inet),
    "sendmsg to a name": (lambda world: lowsock.sendmsg(world.b, [b"x"], [], 0, ("localhost", world.name[1])), Inet),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_was_raised_comes_out_of_rarer_calls_too(other: str) -> None:
    changed = []
    for _, error, (point, raised) in at_every_step(OTHERS[other][0], Failed, OTHERS[other][1]):
        if point is not None and raised is not error:
            changed.append((point, repr(raised)))
    assert raised is None or isinstance(raised, socket.timeout)
    assert not changed
