# SPDX-License-Identifier: MIT
"""Waiting: in order, in either direction, and until somebody closes what is waited for."""

import errno
import os
import socket

import pytest

import lowsock
from lowsock import aio
from lowsock.aio._queue import QUEUES


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


@pytest.fixture(autouse=True)
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


def fill(sock):
    sent = 0
    while True:
        try:
            sent += sock.send(bytes(1024))
        except BlockingIOError:
            return sent


async def send_one(sock):
    return await aio.sendmsg(sock, [b"x"])


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


# ---- closing ----


def closed_as(kind, sock):
    """What to pass for a socket, and what to close."""
    if kind == "socket":
        return sock, sock
    fd = sock.detach()
    return fd, fd


@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_close_wakes_whoever_waits_with_an_error(backend, quiet, kind):
    async def main():
        sock, fd = closed_as(kind, quiet.a)
        tasks = await waiting(backend, sock, 3)
        number = fd if kind == "descriptor" else sock.fileno()
        aio.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        assert not backend.is_watched(number)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def test_close_wakes_readers_and_writers(backend, stream_pair):
    a = stream_pair.a
    a.setblocking(False)

    async def main():
        fill(a)
        tasks = [*await waiting(backend, a, 2), *await waiting(backend, a, 2, send_one)]
        aio.close(a)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def test_close_closes_what_nobody_waits_for(backend):
    a, b = socket.socketpair()
    aio.close(a)
    aio.close(a)
    assert a.fileno() == -1
    aio.close(b.detach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        aio.close(-1)
    with pytest.raises(TypeError, match="sock must be an int"):
        aio.close("no")


def test_data_that_had_come_is_not_preferred_to_a_close(backend, dgram):
    """A task that was woken, and finds the socket closed when it runs, says so."""
    a, b = dgram

    async def main():
        tasks = await waiting(backend, a, 2)
        b.send(b"data")
        aio.close(a)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def reused(number):
    """A pair of sockets, of which the first has this number."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if a.fileno() != number:
        os.dup2(a.fileno(), number, inheritable=False)
        a.close()
        a = socket.socket(fileno=number)
    a.setblocking(False)
    return a, b


@pytest.mark.parametrize("function", [receive, send_one], ids=["read", "write"])
def test_a_number_that_is_used_again_is_another_socket(backend, dgram, function):
    """Closed behind our back: who waits on the new socket gets what comes there, who waited on the old one an error."""
    a, _ = dgram

    async def main():
        number = a.detach()
        fill_number(number)
        old = [*await waiting(backend, number, 2), *await waiting(backend, number, 1, send_one)]
        os.close(number)
        new, peer = reused(number)
        with new, peer:
            if function is send_one:
                fill(new)
            tasks = await waiting(backend, number, 2, function)
            assert all(map(is_closed, await outcomes(old)))
            if function is send_one:
                for _ in range(1000):
                    try:
                        peer.recv(2048, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        break
                    await backend.settle()
            for i in range(2):
                peer.send(b"%d" % i)
            return await outcomes(tasks)

    assert backend.run(main) == ([b"0", b"1"] if function is receive else [1, 1])


def fill_number(number):
    while True:
        try:
            lowsock.sendmsg(number, [bytes(1024)], (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


def test_a_number_may_be_used_again_at_once_after_close(backend, dgram):
    a, _ = dgram

    async def main():
        number = a.fileno()
        old = await waiting(backend, a, 1)
        aio.close(a)
        new, peer = reused(number)
        with new, peer:
            tasks = await waiting(backend, new, 1)
            peer.send(b"new")
            return await outcomes(old + tasks)

    closed, data = backend.run(main)
    assert is_closed(closed)
    assert data == b"new"


def test_an_object_that_lost_its_descriptor_is_closed_for_its_task_only(backend, dgram):
    a, b = dgram

    async def main():
        by_object = await waiting(backend, a, 1)
        number = a.detach()
        by_number = await waiting(backend, number, 1)
        b.send(b"data")
        told = await outcomes(by_object + by_number)
        os.close(number)
        return told

    closed, data = backend.run(main)
    assert is_closed(closed)
    assert data == b"data"
