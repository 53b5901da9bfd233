# SPDX-License-Identifier: MIT
"""An exception raised between any two steps of a call, as a signal handler may raise one, at every step in turn.

A trace function raises at the n-th bytecode that lowsock runs, for each n until the call gets through: nothing here is
left to chance. Whatever the point, descriptors are closed, buffers are let go, and the exception comes out as it is.
"""

import contextlib
import dis
import os
import random
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

import pytest

import lowsock
from lowsock import _reply, constants
from lowsock._ffi import lib

PACKAGE = os.path.dirname(lowsock.__file__)
ROOM = 256  # bytes for control messages
LARGE = 20_000  # bytes: an export is held, not a copy made
# Before 3.11 CPython crashes if anything is raised at these, and runs no signal handlers there.
FRAGILE = {"ROT_FOUR", "POP_EXCEPT"} if sys.version_info < (3, 11) else set()


class Raised(AttributeError, IndexError, KeyError, TypeError, OverflowError, ValueError, BufferError):
    """Whatever lowsock catches around steps of its own, at once."""


class Failed(OSError, IndexError, KeyError, TypeError, OverflowError, ValueError, BufferError):
    """The same with `OSError`, which goes with all but `AttributeError`."""


class Point(NamedTuple):
    """Where an exception was raised: function, line, name of the bytecode."""

    function: str
    line: int
    bytecode: str

    def is_return(self) -> bool:
        """The guarantee for bare descriptors ends at the ``return``, of the call and of what the call returns."""
        return self.bytecode.startswith("RETURN")


class Injector:
    """A trace function that raises ``error`` at bytecode ``number`` of lowsock's own frames."""

    def __init__(self, number: int, error: BaseException, just_before: Callable[[], None]) -> None:
        self._left = number
        self._error = error
        self._just_before = just_before
        self.point: Optional[Point] = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if (
            not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_name == "__del__"
        ):  # Python ignores what it raises
            return None
        frame.f_trace = self._step  # 3.12 and later want it before f_trace_opcodes
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        bytecode = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if event == "opcode" and bytecode not in FRAGILE:
            self._left -= 1
            if self._left == -1:
                self.point = Point(frame.f_code.co_name, frame.f_lineno, bytecode)
                self._just_before()
                raise self._error
        return self._step


class World:
    """What one run has to itself: a pair of sockets with a message under way, and a buffer."""

    def __init__(self, fds: list[int], timeout: Optional[float]) -> None:
        self.a, self.b = socket.socketpair()
        self.a.settimeout(timeout)
        self.b.settimeout(timeout)
        self.buffer = bytearray(LARGE)
        lowsock.send_fds(self.a, [b"data"], fds)

    def close(self) -> None:
        self.a.close()
        self.b.close()


Call = Callable[[World], Any]
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
TIMEOUTS = pytest.mark.parametrize("timeout", (None, 30.0), ids=("blocking", "timeout"))


class Outcome(NamedTuple):
    point: Optional[Point]  # None: the call got through
    raised: Optional[BaseException]


def inject(call: Call, world: World, injector: Injector) -> Outcome:
    before = sys.gettrace()
    sys.settrace(injector)
    try:
        call(world)
    except BaseException as raised:
        return Outcome(injector.point, raised)
    finally:
        sys.settrace(before)
    return Outcome(injector.point, None)


def warm_up() -> None:
    """Leaves a reply in the pool, so that every run takes the same steps."""
    a, b = socket.socketpair()
    with a, b:
        a.send(b"x")
        lowsock.recvmsg(b, 1)


def at_every_step(
    call: Call,
    make_error: Callable[[], BaseException],
    make_world: Callable[[], World],
    just_before: Callable[[], None] = lambda: None,
) -> Iterator[tuple[World, BaseException, Outcome]]:
    """One run for each bytecode: its world, which is closed after, what was raised in it and what came of it."""
    for number in range(5000):
        warm_up()
        world, error = make_world(), make_error()
        outcome = inject(call, world, Injector(number, error, just_before))
        try:
            yield world, error, outcome
        finally:
            world.close()
        if outcome.point is None:
            assert number > 10, "the call was not traced"
            return
    raise AssertionError("the call does not end")


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Two descriptors to send."""
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        os.close(fd)


@TIMEOUTS
@pytest.mark.parametrize("call", [call for call in RECEIVES if call != "recvmsg without room"])
def test_received_descriptors_are_closed_wherever_an_exception_comes(
    call: str, timeout: Optional[float], fds: list[int], open_fds: Callable[[], set[int]]
) -> None:
    lost, before = [], set()

    def make_world() -> World:
        world = World(fds, timeout)
        before.clear()
        before.update(open_fds())
        return world

    for _, _, (point, _) in at_every_step(RECEIVES[call], KeyboardInterrupt, make_world):
        left = open_fds() - before
        for fd in left:
            os.close(fd)
        if left and point is not None and not point.is_return():
            lost.append(point)
    assert left, "the run that got through has descriptors"
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
        lib.lowsock_close(self.reply.struct)
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
