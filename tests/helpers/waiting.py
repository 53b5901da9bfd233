# SPDX-License-Identifier: MIT
"""Tasks that wait for sockets."""

import errno
import select
import socket

import pytest

from lowsock import aio
from lowsock.aio._wait.waiters import QUEUES


@pytest.fixture
def quiet(message_pair):
    """A pair of sockets that keep the borders of messages, and do not block."""
    message_pair.a.setblocking(False)
    message_pair.b.setblocking(False)
    return message_pair


@pytest.fixture
def dgram():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def nobody_stays():
    """Every test leaves no queue behind."""
    yield
    left = [queue for queues in QUEUES.values() for queue in queues.values() if queue() is not None]
    QUEUES.clear()
    assert not left


async def receive(sock):
    return (await aio.recvmsg(sock, 100))[0]


async def waiting(backend, sock, count, function=receive):
    """So many tasks that wait, in the order of the list."""
    tasks = []
    for _ in range(count):
        tasks.append(backend.start(function, sock))
        await backend.settle()
    assert not any(task.done() for task in tasks)
    return tasks


async def outcomes(tasks):
    return [await task.outcome() for task in tasks]


def is_closed(outcome):
    return isinstance(outcome, OSError) and outcome.errno == errno.EBADF


def fill(sock):
    """Sends until no more goes, also when TCP has moved on what it has; returns the bytes."""
    sent, quiet = 0, False
    while True:
        try:
            sent += sock.send(bytes(1024))
            quiet = False
        except BlockingIOError:
            if quiet:
                return sent
            select.select([], [], [], 0.05)  # the kernel's own work: there is nothing to wait for
            quiet = True


async def send_one(sock):
    return await aio.sendmsg(sock, [b"x"])
