# SPDX-License-Identifier: MIT
"""An exception at every bytecode of a zero-copy sender: the count is right after it, and no thread is locked out."""

import socket
import sys
import threading
import warnings
from functools import partial

import injecting
import pytest

from lowsock import constants, errqueue
from lowsock.errqueue import ZeroCopySender
from lowsock.errqueue._events import READERS, cookie
from lowsock.errqueue._inflight import KEEP_ALIVE

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's"),
    pytest.mark.skipif(
        sys.implementation.name == "pypy", reason="what is raised in PyPy's finalizers, at any step, is lost"
    ),
]


class Injector(injecting.Injector):
    """Leaves finalizers alone: what is raised there goes nowhere, and on PyPy they run at any time."""

    def __call__(self, frame, event, arg):
        own = frame.f_code.co_name not in ("remove", "<genexpr>")
        return super().__call__(frame, event, arg) if own and not is_final(frame) else None


def is_final(frame):
    """Whether a finalizer called what runs in ``frame``, or it is one."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


at_every_step = partial(injecting.at_every_step, injector=Injector)


class World:
    """A sender on a UDP socket with two sends behind it, whose completions nobody has read, and a socket without one."""

    def __init__(self):
        self.a, self.b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.b.bind(("127.0.0.1", 0))
        self.a.connect(self.b.getsockname())
        self.sender = ZeroCopySender(self.a)
        self.memory = self.sender.buffer(10)
        for data in (b"one", self.memory):
            self.sender.send(data)
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.sender.close(0)
        for sock in (self.a, self.b, self.other):
            sock.close()


def left(world):
    with world.sender:
        raise KeyError("the body's")


CALLS = {
    "send": lambda world: world.sender.send(b"three"),
    "send, refused": lambda world: world.sender.send(bytes(70_000)),
    "send, counted and refused": lambda world: world.sender.send(
        bytes(4096), ancdata=[(constants.SOL_UDP, constants.UDP_SEGMENT, b"\1\0")]
    ),
    "read": lambda world: world.sender.read(),
    "errqueue.read": lambda world: errqueue.read(world.a),
    "errqueue.wait": lambda world: errqueue.wait(world.a, 1),
    "wait": lambda world: world.sender.wait(1),
    "is_free": lambda world: world.sender.is_free(world.memory),
    "buffer": lambda world: world.sender.send(world.sender.buffer(3)),
    "drain": lambda world: world.sender.drain(1),
    "close": lambda world: world.sender.close(1),
    "with": left,
    "a new one": lambda world: ZeroCopySender(world.other),
}
EVENTS = {"read", "errqueue.read", "errqueue.wait"}  # what they had taken is lost


def in_another_thread(call):
    """What the call returns; a lock that is left behind would keep it waiting."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(10)
    assert results, "the other thread is locked out"
    return results[0]


def kernels_count(sock):
    """The number of the next zero-copy send, as the kernel counts."""
    sock.send(b"x", constants.MSG_ZEROCOPY)
    return [event.last for event in errqueue.read(sock) if isinstance(event, errqueue.ZeroCopyCompletion)][-1]


@pytest.mark.parametrize("call", CALLS)
def test_wherever_an_exception_comes_the_count_is_right_and_nobody_is_locked_out(call):
    held = len(KEEP_ALIVE)
    for world, error, (point, raised) in at_every_step(CALLS[call], KeyboardInterrupt, World):
        assert point is None or raised is error, point
        error.__traceback__ = None
        sender = world.sender
        if not sender._closed:
            key = in_another_thread(lambda sender=sender: sender.send(b"next")).key
            assert in_another_thread(lambda sender=sender, key=key: sender.wait(5, key)), point
            assert (sender.pending, sender._in_flight.uncertain, sender._in_flight.saw_foreign) == (0, 0, False), point
            read = [number for event in sender.read() for number in range(event.first, event.last + 1)]
            assert call in EVENTS or read == list(range(key + 1)), point
            sender.close(0)
        next_key, sender = sender.next_key, None
        assert in_another_thread(lambda world=world: ZeroCopySender(world.a).next_key) == next_key, point
        assert kernels_count(world.a) == next_key, point
        assert in_another_thread(lambda world=world: ZeroCopySender(world.other).close() or True), point
    assert len(KEEP_ALIVE) == held


def test_a_sender_that_was_not_quite_made_is_none():
    for world, error, _ in at_every_step(CALLS["a new one"], KeyboardInterrupt, World):
        error.__traceback__ = None
        assert cookie(world.other.fileno()) not in READERS
        ZeroCopySender(world.other).close()
