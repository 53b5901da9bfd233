# SPDX-License-Identifier: MIT
"""A socket with an error, or with an error queue that is not empty, is waited for as any other, whatever a loop makes of
POLLERR: libuv ends a watch for good."""

import asyncio
import errno
import os
import select
import socket
import sys
import time

import pytest
from owning import free_descriptors
from waiting import fill, receive, waiting

from lowsock import aio, cmsg, errqueue
from lowsock.constants import SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE, SOF_TIMESTAMPING_TX_SOFTWARE

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="error queues are Linux's")


@pytest.fixture
def sock():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


@pytest.fixture
def nowhere():
    """An address where nobody is."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def test_whoever_waits_hears_that_nobody_is_there(backend, sock, nowhere):
    sock.connect(nowhere)

    async def main():
        tasks = await waiting(backend, sock, 2)
        told = []
        for task in tasks:
            sock.send(b"x")
            told.append(await task.outcome())
        return told

    assert list(map(type, backend.run(main))) == [ConnectionRefusedError] * 2


@linux
def test_data_comes_after_events_that_nobody_reads(backend, sock, nowhere):
    """To those who waited when the queue was filled, and to those who came later."""
    cmsg.enable(sock, cmsg.ExtendedError)

    async def main():
        tasks = await waiting(backend, sock, 3)
        sock.sendto(b"x", nowhere)
        assert isinstance(await tasks[0].outcome(), ConnectionRefusedError)  # the pending error, which comes beside
        sock.sendto(b"0", sock.getsockname())
        assert await tasks[1].outcome() == b"0"
        tasks += [backend.start(receive, sock)]
        await backend.settle()
        for data in (b"1", b"2"):
            sock.sendto(data, sock.getsockname())
        return [await task.outcome() for task in tasks[2:]], len(errqueue.read(sock))

    assert backend.run(main) == ([b"1", b"2"], 1)


@linux
@pytest.mark.parametrize("first", ["read", "write"])
def test_both_directions_wait_while_there_are_events(backend, tcp_pair, first):
    """Timestamps that nobody reads come when one waits, and another begins to wait for the other direction."""
    a, b = tcp_pair.a, tcp_pair.b
    a.setblocking(False)
    a.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE)

    async def main():
        read = (receive, a)
        write = (aio.sendmsg, a, [b"x"])
        reading = backend.start(*read) if first == "read" else None
        await backend.settle()
        fill(a)
        poll = select.poll()
        poll.register(a, 0)
        assert poll.poll(10000) == [(a.fileno(), select.POLLERR)]
        writing = backend.start(*write)
        await backend.settle()
        reading = reading or backend.start(*read)
        await backend.settle()
        assert not reading.done()
        b.setblocking(False)
        while not writing.done():
            await backend.step()
            if select.select([b], [], [], 0)[0]:
                b.recv(2**20)
        b.send(b"data")
        return await writing.outcome(), await reading.outcome(), bool(errqueue.read(a))

    assert backend.run(main) == (1, b"data", True)


def test_a_socket_closed_in_the_turn_in_which_a_wait_began_ends_no_loop(backend):
    """By the program's mistake: nobody told the loop. Its other tasks go on, the one that waits can be cancelled."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)

    async def main():
        task = backend.start(receive, a)
        await backend.step()
        a.close()
        await backend.settle()
        task.cancel()
        return await task.outcome()

    with b:
        told = backend.run(main)
    assert told == "cancelled" or told.errno == errno.EBADF  # trio's may have begun later


def test_data_comes_where_no_descriptor_is_left_to_wait_with(backend, sock):
    """It is looked for again and again, then."""

    async def main():
        with free_descriptors(0):
            (task,) = await waiting(backend, sock, 1)
            sock.sendto(b"data", sock.getsockname())
            return await task.outcome()

    assert backend.run(main) == b"data"


def test_a_number_that_is_another_sockets_leaves_no_spin_on_uvloop(dgram, libuv_ready):
    """The old socket is still open under another number, so an epoll that had it itself would go on telling of it."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    old, peer = dgram

    async def main():
        number = old.fileno()
        with socket.socket(fileno=os.dup(number)), socket.socket(type=socket.SOCK_DGRAM) as new:
            task = asyncio.ensure_future(receive(number))
            await asyncio.sleep(0)
            os.dup2(new.fileno(), number, inheritable=False)
            peer.send(b"data")
            with pytest.raises(OSError, match="Bad file descriptor"):
                await task
            begun = time.process_time()
            await asyncio.sleep(0.1)  # not to wait for anything: for a spin to use up
            return time.process_time() - begun

    loop = uvloop.new_event_loop()
    try:
        assert loop.run_until_complete(main()) < 0.05
    finally:
        loop.close()
