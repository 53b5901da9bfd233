# SPDX-License-Identifier: MIT
"""An exception raised between any two steps of a call, as a signal handler may raise one, at every step in turn.

A trace function raises at the n-th bytecode that lowsock runs, for each n until the call gets through: nothing here is
left to chance.
"""

import dis
import os
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable, NamedTuple, Optional

import pytest

import lowsock

PACKAGE = os.path.dirname(lowsock.__file__)
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


Call = Callable[[Any], Any]
TIMEOUTS = pytest.mark.parametrize("timeout", (None, 30.0), ids=("blocking", "timeout"))


class Outcome(NamedTuple):
    point: Optional[Point]  # None: the call got through
    raised: Optional[BaseException]


def inject(call: Call, world: Any, injector: Injector) -> Outcome:
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
    make_world: Callable[[], Any],
    just_before: Callable[[], None] = lambda: None,
    injector: type[Injector] = Injector,
) -> Iterator[tuple[Any, BaseException, Outcome]]:
    """One run for each bytecode: its world, which is closed after, what was raised in it and what came of it."""
    for number in range(5000):
        warm_up()
        world, error = make_world(), make_error()
        outcome = inject(call, world, injector(number, error, just_before))
        try:
            yield world, error, outcome
        finally:
            world.close()
        if outcome.point is None:
            assert number > 10, "the call was not traced"
            return
    raise AssertionError("the call does not end")


def losses(
    call: Call,
    make_world: Callable[[], Any],
    open_fds: Callable[[], set[int]],
    drain: Callable[[Any], None] = lambda _: None,
) -> tuple[list[Point], int]:
    """The points at which received descriptors were lost, and how many the run that got through has."""
    lost, before = [], set()

    def make() -> Any:
        world = make_world()
        before.clear()
        before.update(open_fds())
        return world

    for world, _, (point, _) in at_every_step(call, KeyboardInterrupt, make):
        drain(world)
        left = open_fds() - before
        for fd in left:
            os.close(fd)
        if left and point is not None and not point.is_return():
            lost.append(point)
    return lost, len(left)


@pytest.fixture
def two_fds() -> Iterator[list[int]]:
    """Two descriptors to send."""
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        os.close(fd)
