# SPDX-License-Identifier: MIT
"""Waiting: in order, in either direction, and nothing stays behind."""

import socket

import pytest
from waiting import fill, outcomes, receive, send_one, waiting

from lowsock import aio

pytestmark = pytest.mark.usefixtures("nobody_stays")


# ---- in order ----


@pytest.mark.parametrize("at_once", [False, True])
def test_tasks_receive_in_the_order_in_which_they_came(backend, quiet, at_once):
    async def main():
        tasks = await waiting(backend, quiet.a, 5)
        for i in range(5):
            quiet.b.send(b"%d" % i)
            if not at_once:
                await backend.settle()
                assert [task.done() for task in tasks] == [True] * (i + 1) + [False] * (4 - i)
        return await outcomes(tasks)

    assert backend.run(main) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_newcomer_does_not_take_what_others_wait_for(backend, quiet):
    async def main():
        tasks = await waiting(backend, quiet.a, 2)
        for i in range(3):
            quiet.b.send(b"%d" % i)
        last = await receive(quiet.a)  # with no await before it, it would be the first to make the call
        return [*await outcomes(tasks), last]

    assert backend.run(main) == [b"0", b"1", b"2"]


def test_each_call_waits_in_the_same_line(backend, quiet):
    calls = [
        receive,
        lambda sock: aio.recvmmsg(sock, 1, 100),
        lambda sock: aio.recv_fds(sock, 100, 1),
        lambda sock: aio.recv1msg(sock),
    ]

    async def main():
        tasks = [(await waiting(backend, quiet.a, 1, call))[0] for call in calls]
        for i in range(4):
            quiet.b.send(b"%d" % i)
        return await outcomes(tasks)

    first, [second], third, fourth = backend.run(main)
    assert [first, second[0], third[0], fourth[0]] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("which", range(4))
def test_whoever_is_cancelled_leaves_the_line(backend, quiet, which):
    async def main():
        tasks = await waiting(backend, quiet.a, 4)
        tasks[which].cancel()
        for i in range(3):
            quiet.b.send(b"%d" % i)
        return await outcomes(tasks)

    expected = [b"0", b"1", b"2"]
    expected.insert(which, "cancelled")
    assert backend.run(main) == expected


@pytest.mark.parametrize("steps", range(5))
def test_one_that_is_cancelled_when_it_was_woken_takes_nothing(backend, dgram, steps):
    """Wherever between the arrival and the end of the call: the datagram is returned to one of them."""
    a, b = dgram

    async def main():
        tasks = await waiting(backend, a, 2)
        b.send(b"data")
        for _ in range(steps):
            await backend.step()
        tasks[0].cancel()
        first = await tasks[0].outcome()
        if first == b"data":
            tasks[1].cancel()
        return [first, await tasks[1].outcome()]

    assert sorted(map(str, backend.run(main))) == ["b'data'", "cancelled"]


def test_a_failure_is_only_one_tasks(backend):
    """The error that is pending is told once, and the next one waits on."""
    with socket.socket(type=socket.SOCK_DGRAM) as gone, socket.socket(type=socket.SOCK_DGRAM) as sock:
        gone.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.connect(gone.getsockname())
        gone.close()

        async def main():
            tasks = await waiting(backend, sock, 3)
            for i in range(3):
                assert [task.done() for task in tasks] == [True] * i + [False] * (3 - i)
                sock.send(b"into the void")
                await backend.settle()
                while not tasks[i].done():
                    await backend.settle()
            return await outcomes(tasks)

        assert [type(outcome) for outcome in backend.run(main)] == [ConnectionRefusedError] * 3


# ---- either direction ----


def test_reads_and_writes_of_one_descriptor_wait_apart(backend, stream_pair):
    a, b = stream_pair.a, stream_pair.b
    a.setblocking(False)
    b.setblocking(False)

    async def main():
        sent = fill(a)
        reads = await waiting(backend, a, 2)
        writes = await waiting(backend, a, 2, send_one)
        b.send(b"data")
        assert await reads[0].outcome() == b"data"
        await backend.settle()
        assert not any(task.done() for task in [reads[1], *writes])
        received = 0
        while received < sent + 2:
            received += len(await receive_much(b))
        assert await outcomes(writes) == [1, 1]
        assert not reads[1].done()
        reads[1].cancel()
        return await reads[1].outcome()

    assert backend.run(main) == "cancelled"


async def receive_much(sock):
    return (await aio.recvmsg(sock, 65536))[0]


def test_a_full_datagram_peer_is_waited_for(backend, dgram):
    """poll(2) tells of a peer that is full for a connected socket only; senders come through in their order."""
    a, b = dgram

    async def main():
        sent = fill(a)
        tasks = await waiting(backend, a, 3, send_one)
        for _ in range(sent // 1024):
            assert len(await receive(b)) == 100
        got = [await receive(b) for _ in range(3)]
        return await outcomes(tasks), got

    assert backend.run(main) == ([1, 1, 1], [b"x"] * 3)


# ---- nothing stays behind ----


@pytest.mark.parametrize("ending", ["data", "cancel", "error", "close"])
def test_no_reader_stays_behind(backend, ending):
    a, b = socket.socketpair()
    a.setblocking(False)
    endings = {
        "data": lambda tasks: b.send(b"data"),
        "cancel": lambda tasks: [task.cancel() for task in tasks],
        "error": lambda tasks: b.close(),
        "close": lambda tasks: aio.close(a),
    }

    async def main():
        fd = a.fileno()
        for direction in (receive, fill_and_send)[: 1 if ending in ("data", "error") else 2]:
            if a.fileno() < 0:
                continue
            tasks = await waiting(backend, a, 1, direction)
            endings[ending](tasks)
            await outcomes(tasks)
            assert not backend.is_watched(fd)

    with a, b:
        backend.run(main)


async def fill_and_send(sock):
    fill(sock)
    return await send_one(sock)
