# SPDX-License-Identifier: MIT
"""A million descriptors through all that can go wrong on the way, and none is left behind.

Each run has its own seed, which it prints.
"""

import gc
import os
import random
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import injecting
import pytest
from owning import free_descriptors
from storming import Storm, may_lose

import lowsock
from lowsock import constants

pytestmark = [
    pytest.mark.soak,
    pytest.mark.collecting,
    pytest.mark.filterwarnings("ignore:an OwnedFds left:ResourceWarning"),
]

PYPY = sys.implementation.name == "pypy"
MOST = 253  # SCM_MAX_FD
ROUND = 100 if PYPY else 500  # messages between two looks at the table: what PyPy has not collected counts against a limit
KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
OPTIONS = [getattr(constants, name) for name in ("SO_PASSCRED", "SO_PASSPIDFD") if hasattr(constants, name)]


@pytest.fixture(autouse=True)
def _many_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Room for what a collector has not come to yet; what is raised in a finalizer goes nowhere."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def collect() -> None:
    for _ in range(4 if PYPY else 1):  # it finalizes in steps
        gc.collect()


# ---- what is done with what came ----


def leave(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    """The end of the ``with`` closes all."""


def forget(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    """The collector closes all: `use` does not close what it is given."""


def take_some(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    for i in range(len(owner)):
        if chance.random() < 0.5:
            os.close(owner.take(i))


def detach(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    for fd in owner.detach():
        os.close(fd)


def close_twice(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    owner.close()
    owner.close()


def send_on(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    """Lends them to a message that nobody receives."""
    a, b = socket.socketpair()
    with a, b:
        lowsock.send_fds(a, [b"x"], owner[:MOST])


class Thrown(Exception):
    """An error of the program that uses the owner."""


def fail(owner: lowsock.OwnedFds, chance: random.Random) -> None:
    raise Thrown


USES = [leave, forget, take_some, detach, close_twice, send_on, fail]
Use = Callable[[lowsock.OwnedFds, random.Random], None]


class Message:
    """One message with random descriptors, and a random way to receive it."""

    def __init__(self, chance: random.Random, storm: Storm, seen: Counter) -> None:
        self._chance, self._storm, self._seen = chance, storm, seen
        self.count = chance.choice([0, 1, 2, 5, chance.randrange(64), chance.randrange(MOST + 1)])
        self._most = chance.choice([0, 1, self.count // 2, self.count, MOST])
        self._flags = socket.MSG_PEEK if chance.random() < 0.2 else 0

    def pass_on(self) -> None:
        a, b = socket.socketpair(socket.AF_UNIX, self._chance.choice(KINDS))
        with a, b:
            for option in OPTIONS:
                b.setsockopt(socket.SOL_SOCKET, option, self._chance.randrange(2))
            b.settimeout(self._chance.choice([None, 5.0]))
            lowsock.send_fds(a, [b"data"], [0] * self.count)
            self._disturbed(b)

    def _disturbed(self, sock: socket.socket) -> None:
        way = self._chance.choice([self._plainly, self._starved, self._in_a_storm, self._traced])
        self._seen[way.__name__] += 1
        way(sock)

    def _receive(self, sock: socket.socket, use: Use) -> None:
        _, owner, msg_flags, _ = lowsock.recv_owned_fds(sock, 10, self._most, self._flags)
        self._seen["truncated"] += bool(msg_flags & socket.MSG_CTRUNC)
        if self._flags:
            self._seen["peeks"] += 1
            self._flags = 0
            self._receive(sock, use)
        elif use is not forget:
            with owner:
                use(owner, self._chance)

    def _plainly(self, sock: socket.socket) -> None:
        use = self._chance.choice(USES)
        self._seen[use.__name__] += 1
        try:
            self._receive(sock, use)
        except Thrown:
            pass

    def _starved(self, sock: socket.socket) -> None:
        with free_descriptors(self._chance.randrange(self.count + 2)):
            self._receive(sock, leave)

    def _in_a_storm(self, sock: socket.socket) -> None:
        """What owns must not lose; what hands over may, right after its ``return``."""
        use = self._chance.choice([leave, forget, close_twice])
        self._seen["raised"] += self._storm.over(partial(self._receive, sock, use)) is not None

    def _traced(self, sock: socket.socket) -> None:
        """An exception at a random bytecode."""
        injector = injecting.Injector(self._chance.randrange(600), KeyboardInterrupt(), lambda: None)
        outcome = injecting.inject(lambda _: self._receive(sock, leave), None, injector)
        self._seen["injected"] += outcome.raised is not None


def test_a_million_descriptors_leave_none_behind(
    storm: Storm, soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    seed, started = random.randrange(2**32), time.monotonic()
    print(f"seed {seed}")
    chance, seen = random.Random(seed), Counter()
    collect()
    before, passed = open_fds(), 0
    while passed < soak_count(1_000_000):
        for _ in range(ROUND):
            message = Message(chance, storm, seen)
            message.pass_on()
            passed += message.count
        collect()
        assert open_fds() == before, f"after {passed} descriptors"
    print(f"{passed} descriptors in {time.monotonic() - started:.1f} s: {dict(seen)}")
    if passed >= 10_000:
        assert min(seen[what] for what in ("truncated", "peeks", "raised", "injected", "_starved")) > 0


# ---- one call in the storm ----


def handed_over(raised: Any) -> bool:
    """The guarantee for bare descriptors ends at the ``return``."""
    return raised is not None and may_lose(raised)


TRANSFERS: dict[str, Callable[[lowsock.OwnedFds], Any]] = {
    "take": lambda owner: owner.take(1),
    "detach": lambda owner: owner.detach(),
}


@pytest.mark.parametrize("call", TRANSFERS)
def test_handlers_that_raise_through_20_000_transfers_lose_no_descriptor(
    call: str, storm: Storm, soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    """What was not handed over is in its slot."""
    before, lost = open_fds(), []
    for _ in range(soak_count(20_000)):
        owner = lowsock.OwnedFds([os.dup(0) for _ in range(3)])
        shown, got = repr(owner), []
        raised = storm.over(lambda: got.extend([TRANSFERS[call](owner)]))  # noqa: B023
        if raised is not None and not handed_over(raised) and repr(owner) != shown:
            lost.append(raised)
        owner.close()
        for fd in open_fds() - before:
            os.close(fd)
    assert not lost


@pytest.mark.parametrize("most", [MOST, 1])
def test_handlers_that_raise_through_20_000_receives_lose_no_descriptor(
    most: int, storm: Storm, soak_count: Callable[[int], int], open_fds: Callable[[], set[int]]
) -> None:
    """There is no moment at which one is lost, not even after the ``return``."""
    before, rounds = open_fds(), soak_count(20_000)
    for i in range(rounds):
        a, b = socket.socketpair()
        with a, b:
            lowsock.send_fds(a, [b"x"], [0, 1])
            storm.over(partial(lowsock.recv_owned_fds, b, 10, most))
        if i % ROUND == 0 or i == rounds - 1:
            collect()
            assert open_fds() == before
