# SPDX-License-Identifier: MIT
"""A task that is cancelled, or ended by an exception anywhere, loses no data and no descriptor, and leaves nobody behind.

Here a coroutine is driven by hand, in a loop that runs only when the test says so.
"""

import asyncio
import gc
import os
import socket
import sys
from functools import partial

import pytest
from injecting import at_every_step

import lowsock
from lowsock import aio
from lowsock.aio._wait import attempts as _waiting
from lowsock.aio._wait.waiters import QUEUES, READ


class World:
    """A loop, and a socket in it that a coroutine waits on; what is sent to it carries a descriptor."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.a, self.b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.a.setblocking(False)
        self.b.setblocking(False)
        self.fd = self.a.fileno()
        self.result = None

    def send(self):
        rights = self.b.fileno().to_bytes(4, sys.byteorder)
        self.b.sendmsg([b"data"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def close(self):
        self.loop.close()
        self.a.close()
        self.b.close()

    def step(self, do, *args):
        """Does something as code that runs in the loop."""
        asyncio._set_running_loop(self.loop)
        try:
            return do(*args)
        finally:
            asyncio._set_running_loop(None)

    def turn(self):
        """Lets the loop hear of what is ready."""
        for _ in range(2):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def drive(self, coroutine):
        """Runs a coroutine until it waits; then the datagram comes, and it runs to its end."""
        try:
            self.step(coroutine.send, None)
            self.send()
            self.turn()
            self.step(coroutine.send, None)
        except StopIteration as stopped:
            return stopped.value
        raise AssertionError("it still waits")

    def is_watched(self):
        return any([self.loop.remove_reader(self.fd), self.loop.remove_writer(self.fd)])

    def is_there(self):
        """Whether the datagram can still be received."""
        try:
            _, fds, *_ = lowsock.recv_fds(self.a, 10, 3)
        except BlockingIOError:
            return False
        for fd in fds:
            os.close(fd)
        return len(fds) == 1


RECEIVES = {
    "recvmsg": lambda sock: aio.recvmsg(sock, 100, lowsock.CMSG_SPACE(4)),
    "recv1msg": lambda sock: aio.recv1msg(sock),
    "recvmmsg": lambda sock: aio.recvmmsg(sock, 2, 100, lowsock.CMSG_SPACE(4)),
    "recv_fds": lambda sock: aio.recv_fds(sock, 100, 3),
    "recv_owned_fds": lambda sock: aio.recv_owned_fds(sock, 100),
}


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("name", RECEIVES)
def test_thrown_in_at_the_await_it_takes_nothing(world, name, error, woken):
    coroutine = RECEIVES[name](world.a)
    world.step(coroutine.send, None)
    world.send()
    if woken:
        world.turn()
    with pytest.raises(error):
        world.step(coroutine.throw, error)
    assert not world.is_watched()
    assert not any(QUEUES.values())
    assert world.is_there()


@pytest.mark.parametrize("name", RECEIVES)
def test_there_is_no_await_after_the_system_call(world, name):
    """Once it is woken and there is data, the coroutine runs to its end: there is no place where it could be cancelled."""
    close_all(world.drive(RECEIVES[name](world.a)))
    assert not world.is_watched()
    assert not any(QUEUES.values())


def close_all(result):
    """Closes the descriptors of a result, of whatever call."""
    for part in result if isinstance(result, (tuple, list)) else ():
        if isinstance(part, lowsock.OwnedFds):
            part.close()
        elif isinstance(part, list) and part and all(type(fd) is int for fd in part):
            for fd in part:
                os.close(fd)
        elif isinstance(part, list):
            for _, _, data in part if part and len(part[0]) == 3 else part[0][1] if part else ():
                os.close(int.from_bytes(data, sys.byteorder))
        elif isinstance(part, tuple) and part and isinstance(part[0], bytes):
            close_all(part)


# What an exception cuts short there is not done again: a reader may stay, until it is heard of once.
CLEANUP = {"leave", "_tear_down", "disarm", "forget", "_unwatch", "unwatch", "_is_for_writing", "_close_epoll", "queues_of",
           "key_of"}  # fmt: skip


def receive(world, name):
    world.coroutine = RECEIVES[name](world.a)
    world.loop.set_exception_handler(lambda loop, context: None)
    world.results = [world.drive(world.coroutine)]


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["recvmsg", "recv_owned_fds"])
@pytest.mark.parametrize("make", [KeyboardInterrupt])
def test_an_exception_at_every_step_leaves_nothing_behind(name, make, open_fds):
    """As a signal handler may raise one: it comes out, no reader stays, and no descriptor that has an owner. (Bare ones are
    in nobody's hands while the call leaves its queue: the guarantee for them ends at the return of the call beneath.)"""
    ends, worlds = [], []

    def make_world():
        worlds[:] = [open_fds()]
        worlds.append(World())
        worlds[0] |= open_fds()
        return worlds[1]

    for world, error, outcome in at_every_step(partial(receive, name=name), make, make_world):
        close_all(getattr(world, "results", [None])[0])
        point, outcome = outcome.point, outcome.raised
        if point is not None and point.function == "_on_ready":  # a callback: the loop logs it
            world.coroutine.close()
            continue
        assert outcome in (error, None), point
        error.with_traceback(None)  # it keeps the frames, and they the owner
        left = open_fds() - worlds[0]
        if left:
            gc.collect()
            left = open_fds() - worlds[0]
        for fd in left:
            os.close(fd)
        assert not left or name != "recv_owned_fds", point
        if point is None or point.function not in CLEANUP:
            assert not world.is_watched(), point
        ends.append(outcome)
        QUEUES.clear()
    assert ends.count(None) < len(ends)


# ---- what has been done stays known ----


def test_a_batch_goes_on_where_a_cancelled_send_has_left_it(backend, stream_pair):
    a, b = stream_pair.a, stream_pair.b
    a.setblocking(False)
    b.setblocking(False)

    async def main():
        received = b""
        with lowsock.SendBatch(20, 300000) as batch:
            batch.extend([bytes([i]) * 300000 for i in range(20)])
            while len(batch):
                task = backend.start(aio.send_batch, batch, a)
                await backend.settle()
                task.cancel()
                await task.outcome()
                received += (await aio.recvmsg(b, 2**20))[0]
            while len(received) < 20 * 300000:
                received += (await aio.recvmsg(b, 2**20))[0]
        return received

    assert backend.run(main) == b"".join(bytes([i]) * 300000 for i in range(20))


def receive_all(backend, batch, sock):
    return backend.start(partial(aio.recv_batch, wait_all=True), batch, sock)


def test_wait_all_waits_for_all(backend, message_pair):
    a, b = message_pair.a, message_pair.b
    a.setblocking(False)

    async def main():
        with lowsock.RecvBatch(3, 100) as batch:
            task = receive_all(backend, batch, a)
            for i in range(3):
                assert not task.done()
                b.send(b"%d" % i)
                await backend.settle()
            assert await task.outcome() == 3
            return [data for data, _ in batch.messages()]

    assert backend.run(main) == [b"0", b"1", b"2"]


def test_a_cancelled_wait_for_all_leaves_in_the_batch_what_came(backend, message_pair):
    a, b = message_pair.a, message_pair.b
    a.setblocking(False)

    async def main():
        with lowsock.RecvBatch(3, 100) as batch:
            task = receive_all(backend, batch, a)
            await backend.settle()
            b.send(b"0")
            await backend.settle()
            b.send(b"1")
            await backend.settle()
            task.cancel()
            assert await task.outcome() == "cancelled"
            return [data for data, _ in batch.messages()]

    assert backend.run(main) == [b"0", b"1"]


def test_a_cancelled_wait_for_all_leaves_the_descriptors_with_the_batch(backend, unix_pair):
    """Which closes them: the watch over descriptors looks."""
    unix_pair.a.setblocking(False)

    async def main():
        with lowsock.RecvBatch(3, 100, 100) as batch:
            task = receive_all(backend, batch, unix_pair.a)
            await backend.settle()
            lowsock.send_fds(unix_pair.b, [b"x"], [0])
            lowsock.send_fds(unix_pair.b, [b"y"], [0])
            await backend.settle()
            task.cancel()
            await task.outcome()
            with batch.take_fds(0) as fds:
                return len(fds)

    assert backend.run(main) == 1


@pytest.mark.parametrize("kind", ["unix-stream", "unix-seqpacket"])
def test_a_wait_for_all_ends_when_no_more_will_come(backend, kind):
    """What came is in the batch when the peer has closed."""
    types = {"unix-stream": socket.SOCK_STREAM, "unix-seqpacket": socket.SOCK_SEQPACKET}
    a, b = socket.socketpair(socket.AF_UNIX, types[kind])
    a.setblocking(False)

    async def main():
        with lowsock.RecvBatch(3, 100) as batch:
            task = receive_all(backend, batch, a)
            await backend.settle()
            b.send(b"0")
            await backend.settle()
            b.close()
            await task.outcome()
            return [data for data, _ in batch.messages()]

    with a:
        assert backend.run(main) == [b"0", b"", b""]


def test_a_signal_handlers_own_error_is_not_taken_for_eagain(world):
    """A `BlockingIOError` that comes from elsewhere than the call comes out."""
    theirs = BlockingIOError("a handler's own")

    def call():
        raise theirs

    with pytest.raises(BlockingIOError) as raised:
        world.step(_waiting.attempt(world.a, READ, call).send, None)
    assert raised.value is theirs
