# SPDX-License-Identifier: MIT
"""Tasks that are cancelled at random times: every datagram and every descriptor that went in comes out, once."""

import os
import random
import socket

import pytest

import lowsock
from lowsock import aio

READERS, MESSAGES = 4, 20000


@pytest.mark.soak
def test_every_message_and_descriptor_is_counted_whatever_is_cancelled(backend, soak_count, open_fds):
    count = soak_count(MESSAGES)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    a.setblocking(False)
    b.setblocking(False)
    sent, received = [], []

    async def take(kind):
        if kind == 0:
            data, owner, *_ = await aio.recv_rights(a, 100)
            owner.close()
        elif kind == 1:
            data, fds, *_ = await aio.recv_fds(a, 100, 2)
            for fd in fds:
                os.close(fd)
        elif kind == 2:
            ((data, *_),) = await aio.recvmmsg(a, 1, 100)
        else:
            data, *_ = await aio.recvmsg(a, 100)
        received.append(int(data))

    async def give(number):
        await aio.send_fds(b, [b"%d" % number], [0, 1])
        sent.append(number)

    async def main():
        tasks = []
        number = 0
        while number < count:
            for _ in range(chance.randrange(READERS)):
                tasks.append(backend.start(take, chance.randrange(4)))
            for _ in range(chance.randrange(READERS)):
                tasks.append(backend.start(give, number))
                number += 1
            for _ in range(chance.randrange(6)):
                await backend.step()
            if tasks and chance.random() < 0.5:
                chance.choice(tasks).cancel()
            tasks = [task for task in tasks if not task.done()]
        for task in tasks:
            task.cancel()
            await task.outcome()
        return [await drained(a)]

    async def drained(sock):
        while True:
            try:
                data, fds, *_ = lowsock.recv_fds(sock, 100, 2)
            except BlockingIOError:
                return
            for fd in fds:
                os.close(fd)
            received.append(int(data))

    with a, b:
        before = open_fds()
        backend.run(main)
        assert open_fds() <= before
    assert sorted(received) == sorted(sent)
    assert len(sent) > count // 4
