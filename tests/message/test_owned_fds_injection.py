# SPDX-License-Identifier: MIT
"""An exception at every bytecode of what owns descriptors: nobody loses one, and nothing is closed twice."""

import contextlib
import gc
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Callable, Optional

import injecting
import pytest

import lowsock
from lowsock import constants, peer

PYPY = sys.implementation.name == "pypy"


class World(injecting.World):
    """Sockets with a message under way, an owner of three descriptors, two that nobody owns, and what the call returns."""

    def __init__(self, timeout: Optional[float]) -> None:
        super().__init__([], timeout)
        self.b.recv(100)
        for name in ("SO_PASSCRED", "SO_PASSPIDFD"):
            if hasattr(constants, name):
                self.b.setsockopt(socket.SOL_SOCKET, getattr(constants, name), 1)
        lowsock.send_fds(self.a, [b"data"], [0, 1])
        self.owner = lowsock.OwnedFds([os.dup(0) for _ in range(3)])
        self.shown = repr(self.owner)
        self.loose = [os.dup(0) for _ in range(2)]
        self.got: Any = None

    def owners(self) -> list[lowsock.OwnedFds]:
        return [one for one in (self.owner, self.got) if isinstance(one, lowsock.OwnedFds)]

    def end(self) -> None:
        """Closes all that this world knows of; whatever else is open was lost."""
        self.close()
        for owner in self.owners():
            owner.close()
        close_all(self.loose + [fd for fd in as_list(self.got) if isinstance(fd, int)])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def receive(*arguments: int) -> Callable[[World], None]:
    def call(world: World) -> None:
        world.got = lowsock.recv_owned_fds(world.b, 10, *arguments).fds

    return call


def take(world: World) -> None:
    world.got = world.owner.take(1)


def take_first(world: World) -> None:
    world.got = world.owner.take()


def detach(world: World) -> None:
    world.got = world.owner.detach()


def close(world: World) -> None:
    world.owner.close()
    world.owner.close()


def leave(world: World) -> None:
    with world.owner as owner:
        len(owner)


def adopt(world: World) -> None:
    world.got = lowsock.OwnedFds(world.loose)
    world.loose = []


def send(world: World) -> None:
    lowsock.send_fds(world.a, [b"x"], world.owner)


def ask_for_pidfd(world: World) -> None:
    world.got = peer.pidfd(world.b)


CALLS: dict[str, Callable[[World], None]] = {
    "recv_owned_fds": receive(),
    "recv_owned_fds with a surplus": receive(1),
    "recv_owned_fds, a peek": receive(253, socket.MSG_PEEK),
    "recv_owned_fds without room": receive(0),
    "take": take,
    "take the first": take_first,
    "detach": detach,
    "close": close,
    "with": leave,
    "adopt": adopt,
    "send_fds": send,
    "peer.pidfd": ask_for_pidfd,
}
ALL = pytest.mark.parametrize("call", CALLS)
pytestmark = [pytest.mark.collecting, pytest.mark.filterwarnings("ignore:an OwnedFds left:ResourceWarning")]


class Runs:
    """One run of a call for each bytecode of it; ``lost`` has where descriptors were left that nobody knows of."""

    def __init__(self, call: str, open_fds: Callable[[], set[int]]) -> None:
        if call == "peer.pidfd" and not hasattr(constants, "SO_PEERPIDFD"):
            pytest.skip("this system has no SO_PEERPIDFD")
        self._call, self._open_fds = CALLS[call], open_fds
        self.lost: list[Any] = []

    def __call__(
        self, make_error: Callable[[], BaseException] = KeyboardInterrupt, timeout: Optional[float] = None
    ) -> Iterator[tuple[World, BaseException, Any]]:
        before = self._open_fds()
        for world, error, outcome in injecting.at_every_step(self._call, make_error, lambda: World(timeout)):
            error.__traceback__ = None  # what its frames held is collected
            yield world, error, outcome
            world.end()
            left = self._open_fds() - before
            for _ in range(4 if PYPY else 0):  # it finalizes in steps, and late
                if not left:
                    break
                gc.collect()
                left = self._open_fds() - before
            close_all(left)
            if left and not is_handed_over(outcome):
                self.lost.append(outcome.point)


def is_return(outcome: Any) -> bool:
    return outcome.point is not None and outcome.point.is_return()


def is_handed_over(outcome: Any) -> bool:
    """The guarantee for bare descriptors ends at the ``return``."""
    return is_return(outcome) and outcome.point.function in ("take", "detach")


def is_adopted(outcome: Any) -> bool:
    """The constructor has done its last step: what follows makes the None that it returns."""
    endings = ("NOP", "POP_BLOCK", "JUMP_FORWARD", "LOAD_CONST")
    return outcome.point.function == "__init__" and (is_return(outcome) or outcome.point.bytecode in endings)


# ---- the laws ----


@ALL
@injecting.TIMEOUTS
def test_no_descriptor_is_lost_wherever_an_exception_comes(
    call: str, timeout: Optional[float], open_fds: Callable[[], set[int]]
) -> None:
    runs = Runs(call, open_fds)
    for _ in runs(timeout=timeout):
        pass
    assert not runs.lost


@ALL
@injecting.TIMEOUTS
def test_what_was_raised_comes_out(call: str, timeout: Optional[float], open_fds: Callable[[], set[int]]) -> None:
    changed = [
        (point, repr(raised))
        for _, error, (point, raised) in Runs(call, open_fds)(injecting.Raised, timeout)
        if point is not None and raised is not error
    ]
    assert not changed


@pytest.mark.parametrize("call", ["take", "detach"])
def test_what_was_not_handed_over_is_back_in_its_slot(call: str, open_fds: Callable[[], set[int]]) -> None:
    changed = [
        outcome.point
        for world, _, outcome in Runs(call, open_fds)()
        if outcome.point is not None and not is_handed_over(outcome) and repr(world.owner) != world.shown
    ]
    assert not changed


def test_what_was_not_adopted_is_the_callers(open_fds: Callable[[], set[int]]) -> None:
    """Until the constructor's last step."""
    taken = [
        outcome.point
        for world, _, outcome in Runs("adopt", open_fds)()
        if outcome.point is not None and not is_adopted(outcome) and not set(world.loose) <= open_fds()
    ]
    assert not taken


@ALL
def test_nothing_is_closed_twice(call: str, open_fds: Callable[[], set[int]]) -> None:
    """Numbers that were closed are somebody else's by the time that all owners are closed again, and collected."""
    robbed = []
    for world, _, outcome in Runs(call, open_fds)():
        others = [os.dup(2) for _ in range(12)]
        for owner in world.owners() * 2:
            owner.close()
        if PYPY and is_return(outcome):
            gc.collect()  # nobody else has the owner
        if not set(others) <= open_fds():
            robbed.append(outcome.point)
        close_all(others)
    assert not robbed


class Collector:
    """A trace function that collects at every bytecode of lowsock's own frames."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(injecting.PACKAGE):
            return None
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.steps += 1
        if not PYPY or self.steps % 16 == 0:  # there a collection takes ten milliseconds
            gc.collect()
        return self._step


@ALL
def test_the_collector_may_come_at_any_time(call: str, open_fds: Callable[[], set[int]]) -> None:
    Runs(call, open_fds)  # skips where it must
    world, before, collector = World(30.0), sys.gettrace(), Collector()
    sys.settrace(collector)
    try:
        CALLS[call](world)
    finally:
        sys.settrace(before)
    assert collector.steps > 10
    for owner in world.owners():
        assert owner.closed or {fd for fd in states(owner) if fd is not None} <= open_fds()
    assert {fd for fd in as_list(world.got) if isinstance(fd, int)} <= open_fds()
    world.end()


def states(owner: lowsock.OwnedFds) -> list[Optional[int]]:
    """What is lent of each slot; None where it has nothing to lend."""
    found: list[Optional[int]] = []
    for i in range(len(owner)):
        try:
            found.append(owner[i])
        except ValueError:
            found.append(None)
    return found


class Interrupted(lowsock.OwnedFds):
    """Its finalizer gets nowhere."""

    def __del__(self, *_: Any) -> None:
        raise KeyboardInterrupt


def test_an_exception_in_the_finalizer_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, open_fds: Callable[[], set[int]]
) -> None:
    """What is left is closed with the memory that it stands in."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
    before = open_fds()
    for _ in range(3):
        Interrupted([os.dup(0) for _ in range(3)])
    collect()
    assert open_fds() == before
    assert seen == [KeyboardInterrupt] * 3


def collect() -> None:
    for _ in range(4 if PYPY else 1):  # it finalizes in steps
        gc.collect()
