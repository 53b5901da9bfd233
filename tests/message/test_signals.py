# SPDX-License-Identifier: MIT
"""Signal handlers that return, raise or close the socket while a call waits (PEP 475)."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import pytest

import lowsock

SOON, AGAIN = 0.01, 0.01  # seconds to the first signal and between two: it comes until the call has seen it
LARGE = 20_000  # bytes: a buffer of this size is held while the call waits
FOREVER = 60.0  # seconds: a timeout that no test reaches


class Raised(Exception):
    """What a handler raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """A callable: ``alarm(action)`` has a signal handler do ``action()`` every few milliseconds from now on."""
    before = signal.getsignal(signal.SIGALRM)

    def arm(action: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: action())
        signal.setitimer(signal.ITIMER_REAL, SOON, AGAIN)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Sockets:
    """A connected pair and a buffer; ``a`` is the one that waits."""

    def __init__(self, timeout: Optional[float]) -> None:
        self.a, self.b = socket.socketpair()
        self.a.settimeout(timeout)
        self.buffer = bytearray(LARGE)

    def fill(self) -> None:
        """Until ``a`` cannot send one byte more."""
        os.set_blocking(self.a.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.a.fileno(), bytes(2**16))
        os.set_blocking(self.a.fileno(), self.a.gettimeout() is None)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.b.recv(2**16, socket.MSG_DONTWAIT):
                pass

    def send_data(self) -> None:
        self.b.send(b"data")


Call = Callable[[Any, Sockets], Any]
RECEIVES: dict[str, Call] = {
    "recvmsg": lambda sock, s: lowsock.recvmsg(sock, 10),
    "recvmsg with room": lambda sock, s: lowsock.recvmsg(sock, 10, 256),
    "recvmsg_into": lambda sock, s: lowsock.recvmsg_into(sock, [s.buffer]),
    "recv1msg": lambda sock, s: lowsock.recv1msg(sock),
    "recv_fds": lambda sock, s: lowsock.recv_fds(sock, 10, 1),
}
SENDS: dict[str, Call] = {
    "sendmsg": lambda sock, s: lowsock.sendmsg(sock, [b"x"]),
    "sendmsg gathered": lambda sock, s: lowsock.sendmsg(sock, [s.buffer, b"x"]),
    "send1msg": lambda sock, s: lowsock.send1msg(sock, s.buffer),
    "send_fds": lambda sock, s: lowsock.send_fds(sock, [b"x"], [s.b.fileno()]),
}


class Wait(NamedTuple):
    """A call that waits, what it waits for, and how to bring that about."""

    call: Call
    prepare: Callable[[Sockets], None]
    release: Callable[[Sockets], None]


WAITS = {
    **{name: Wait(call, lambda sockets: None, Sockets.send_data) for name, call in RECEIVES.items()},
    **{name: Wait(call, Sockets.fill, Sockets.drain) for name, call in SENDS.items()},
}
Alarm = Callable[[Callable[[], Any]], None]


@pytest.fixture(params=WAITS)
def wait(request: pytest.FixtureRequest) -> Wait:
    return WAITS[request.param]


@pytest.fixture
def sockets(request: pytest.FixtureRequest, wait: Wait) -> Iterator[Sockets]:
    sockets = Sockets(getattr(request, "param", None))
    wait.prepare(sockets)
    with sockets.a, sockets.b:
        yield sockets


BOTH = pytest.mark.parametrize("sockets", (None, FOREVER), ids=("blocking", "timeout"), indirect=True)


@BOTH
def test_a_handler_that_returns_lets_the_call_go_on(wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    seen = []

    def handler() -> None:
        seen.append(1)
        if len(seen) == 3:
            wait.release(sockets)

    alarm(handler)
    answer = wait.call(sockets.a, sockets)
    assert len(seen) >= 3
    assert answer


@pytest.mark.parametrize("sockets", (0.15,), indirect=True)
def test_signals_do_not_prolong_the_timeout(wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    seen = []
    alarm(lambda: seen.append(1))
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        wait.call(sockets.a, sockets)
    assert 0.15 <= time.monotonic() - start < FOREVER / 2
    assert seen


@BOTH
@pytest.mark.parametrize("kind", (Raised, IndexError, TypeError, OverflowError, BlockingIOError, InterruptedError))
def test_a_handler_that_raises_wins(kind: Callable[[str], Exception], wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    error = kind("from the handler")

    def handler() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise error

    with pytest.raises(type(error)) as caught:  # noqa: PT012 - the signal may come early
        alarm(handler)
        wait.call(sockets.a, sockets)
    assert caught.value is error
    sockets.buffer.append(1)  # not held, though `caught` keeps every frame alive
    wait.release(sockets)
    assert wait.call(sockets.a, sockets), "the socket is as good as before"


@BOTH
def test_a_handler_that_closes_the_socket_ends_the_call(wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):  # noqa: PT012 - the signal may come early
        alarm(sockets.a.close)
        wait.call(sockets.a, sockets)


def test_a_handler_that_closes_a_bare_descriptor_ends_the_call(wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    fd = sockets.a.detach()

    def handler() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(fd)

    alarm(handler)
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait.call(fd, sockets)


@BOTH
def test_a_number_that_a_handler_reuses_is_not_touched(wait: Wait, sockets: Sockets, alarm: Alarm) -> None:
    """The handler closes the socket, and its number comes back as another that is ready for the call."""
    other, peer = socket.socketpair()
    peer.send(b"not yours")

    def handler() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        number = sockets.a.detach()
        os.dup2(other.fileno(), number)
        reused.append(number)

    reused: list[int] = []
    with other, peer:
        alarm(handler)
        with pytest.raises(OSError, match="Bad file descriptor"):
            wait.call(sockets.a, sockets)
        os.close(reused[0])
        assert other.recv(100) == b"not yours"
        with pytest.raises(BlockingIOError):
            peer.recv(100, socket.MSG_DONTWAIT)
