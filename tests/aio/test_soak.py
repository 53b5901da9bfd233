# SPDX-License-Identifier: MIT
"""Tasks that are cancelled at random times: every datagram and every descriptor that went in comes out, once."""

import os
import random
import socket

import pytest

import lowsock
from lowsock import aio

READERS, MESSAGES = 4, 20000


class Traffic:
    """A pair of sockets, what was sent by one and received by the other, each message with two descriptors."""

    def __init__(self, a, b):
        self.a, self.b = a, b
        self.sent, self.received = [], []

    async def give(self, number):
        await aio.send_fds(self.b, [b"%d" % number], [0, 1])
        self.sent.append(number)

    async def take(self, kind):
        if kind == 0:
            data, owner, *_ = await aio.recv_owned_fds(self.a, 100)
            owner.close()
        elif kind == 1:
            data, fds, *_ = await aio.recv_fds(self.a, 100, 2)
            close_all(fds)
        elif kind == 2:
            ((data, *_),) = await aio.recvmmsg(self.a, 1, 100)
        else:
            data, *_ = await aio.recvmsg(self.a, 100)
        self.received.append(int(data))

    def drain(self):
        while True:
            try:
                data, fds, *_ = lowsock.recv_fds(self.a, 100, 2)
            except BlockingIOError:
                return
            close_all(fds)
            self.received.append(int(data))


def close_all(fds):
    for fd in fds:
        os.close(fd)


async def cancelling(backend, traffic, count, chance):
    """Begins sends and receives at random, and cancels some; in the end all that are left."""
    tasks = []
    number = 0
    while number < count:
        for _ in range(chance.randrange(READERS)):
            tasks.append(backend.start(traffic.take, chance.randrange(4)))
        for _ in range(chance.randrange(READERS)):
            tasks.append(backend.start(traffic.give, number))
            number += 1
        for _ in range(chance.randrange(6)):
            await backend.step()
        if tasks and chance.random() < 0.5:
            chance.choice(tasks).cancel()
        tasks = [task for task in tasks if not task.done()]
    for task in tasks:
        task.cancel()
        await task.outcome()


@pytest.mark.soak
def test_every_message_and_descriptor_is_counted_whatever_is_cancelled(backend, soak_count, open_fds):
    count = soak_count(MESSAGES)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        traffic = Traffic(a, b)
        before = open_fds()
        backend.run(cancelling, backend, traffic, count, random.Random(seed))
        traffic.drain()
        assert open_fds() <= before
    assert sorted(traffic.received) == sorted(traffic.sent)
    assert len(traffic.sent) > count // 4
