# SPDX-License-Identifier: MIT
"""Every awaitable call is a checkpoint of trio: it gives way to others and can be cancelled, before it has done anything."""

import asyncio
import importlib
import socket

import pytest

import lowsock
from lowsock import aio
from lowsock.aio import _calls, errqueue, udp

trio = pytest.importorskip("trio", reason="trio is not installed")
importlib.import_module("trio.testing")


@pytest.fixture
def pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def sent(batch, data):
    batch.append(data)
    return batch


SENDS = {
    "sendmsg": lambda sock: aio.sendmsg(sock, [b"x"]),
    "send1msg": lambda sock: aio.send1msg(sock, b"x"),
    "sendmmsg": lambda sock: aio.sendmmsg(sock, [([b"x"],)]),
    "send_fds": lambda sock: aio.send_fds(sock, [b"x"], [0]),
    "send_batch": lambda sock: aio.send_batch(sent(lowsock.SendBatch(1, 9), b"x"), sock),
}
RECEIVES = {
    "recvmsg": lambda sock: aio.recvmsg(sock, 9),
    "recvmsg_into": lambda sock: aio.recvmsg_into(sock, [bytearray(9)]),
    "recv1msg": lambda sock: aio.recv1msg(sock),
    "recvmmsg": lambda sock: aio.recvmmsg(sock, 1, 9),
    "recv_batch (all)": lambda sock: aio.recv_batch(lowsock.RecvBatch(1, 9), sock, wait_all=True),
    "recv_fds": lambda sock: aio.recv_fds(sock, 9, 1),
    "recv_owned_fds": lambda sock: aio.recv_owned_fds(sock, 9),
    "recv_batch": lambda sock: aio.recv_batch(lowsock.RecvBatch(1, 9), sock),
}
STREAMS = {
    "send": lambda stream: stream.send(b"x"),
    "send nothing": lambda stream: stream.send(b""),
    "send_message": lambda stream: stream.send_message(b"x"),
    "flush": lambda stream: stream.flush(),
    "receive": lambda stream: stream.receive(),
    "receive_exactly": lambda stream: stream.receive_exactly(1),
    "receive_exactly nothing": lambda stream: stream.receive_exactly(0),
    "peek_exactly": lambda stream: stream.peek_exactly(1),
    "receive_message": lambda stream: stream.receive_message(),
}


async def checked(call, *args):
    """That a call does not wait, is a checkpoint, and is cancelled where it was to be before it began."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await call(*args)
    assert scope.cancelled_caught
    with trio.testing.assert_checkpoints():
        await call(*args)


@pytest.mark.parametrize("name", SENDS)
def test_a_call_that_sends_at_once(pair, name):
    trio.run(checked, SENDS[name], pair[0])
    assert pair[1].recv(9) == b"x"
    with pytest.raises(BlockingIOError):
        pair[1].recv(9)


@pytest.mark.parametrize("name", RECEIVES)
def test_a_call_that_receives_at_once(pair, name):
    pair[1].send(b"x")
    trio.run(checked, RECEIVES[name], pair[0])
    with pytest.raises(BlockingIOError):
        pair[0].recv(9)


@pytest.mark.parametrize("name", STREAMS)
def test_a_call_of_a_stream(streams, name):
    stream, peer = streams

    async def main():
        await peer.send_message(b"x" * 20)
        await checked(STREAMS[name], stream)

    trio.run(main)


def test_a_look_at_an_error_queue(udp_pair):
    udp_pair.a.setblocking(False)
    endpoint = udp.Endpoint(udp_pair.a)
    trio.run(checked, errqueue.read, udp_pair.a)
    trio.run(checked, endpoint.read_errors)
    trio.run(checked, endpoint.drain)
    trio.run(checked, endpoint.aclose)


def test_a_flood_leaves_others_their_turn_and_can_be_cancelled(pair):
    a, b = pair

    async def flood():
        while True:
            b.send(b"x")
            await aio.recvmsg(a, 9)

    async def main():
        with trio.move_on_after(0.02) as scope:
            await flood()
        return scope.cancelled_caught

    assert trio.run(main)


def test_what_is_sent_is_what_was_given(pair, monkeypatch):
    """A list that another task changes meanwhile is not looked at again."""
    given = [b"a", b"b"]

    async def checkpoint():
        given.clear()

    monkeypatch.setattr(_calls, "checkpoint", checkpoint)
    assert trio.run(aio.sendmsg, pair[0], given) == 2
    assert pair[1].recv(9) == b"ab"


# ---- trio in company ----


def test_both_loops_wait_where_trio_is_a_guest_of_asyncio(pair):
    a, b = pair

    async def as_guest():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio.send1msg, b, b"question")
            return (await aio.recv1msg(a))[0]

    async def as_host():
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        trio.lowlevel.start_guest_run(
            as_guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        waiting = asyncio.ensure_future(aio.recv1msg(b))
        question = (await ended).unwrap()
        await aio.send1msg(a, b"answer")
        return question, (await waiting)[0]

    assert asyncio.run(as_host()) == (b"question", b"answer")


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_anyio_cancels_and_groups_calls(pair, name):
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")
    a, b = pair
    received = []

    async def receive():
        received.append((await aio.recv1msg(a))[0])

    async def main():
        with anyio.move_on_after(0.001) as scope:
            await receive()
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            group.start_soon(receive)
            await aio.sendmmsg(b, [([b"0"],), ([b"1"],)])
        return scope.cancel_called

    assert anyio.run(main, backend=name)
    assert received == [b"0", b"1"]
