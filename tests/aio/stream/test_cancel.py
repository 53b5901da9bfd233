# SPDX-License-Identifier: MIT
"""aio.UnixStream: whatever is cancelled or closed, and when, no byte and no descriptor is lost or comes twice."""

import errno
import os
import random
import socket

import pytest

from lowsock import aio

LARGE = 1_000_000  # more than the socket's buffer


async def received(stream, size):
    """So many bytes, and how many descriptors came with them."""
    data, count = b"", 0
    while len(data) < size:
        piece, fds, _ = await stream.receive()
        with fds:
            count += len(fds)
        data += piece
    return data, count


# ---- receives ----


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("method", ["receive", "receive_exactly", "receive_message"])
def test_a_cancelled_receive_takes_nothing(loops, streams, method, ticks):
    arguments = [] if method == "receive_message" else [12]

    async def send():
        await loops.tick(2)
        await streams[0].send_message(b"data", [0])

    async def main():
        receive = getattr(streams[1], method)
        (finished, got), _ = await loops.together(lambda: loops.cancelled(ticks, receive, *arguments), send)
        if not finished:
            got = await receive(*arguments)
        if method == "receive_exactly":
            assert got[8:] == b"data"
            streams[1].take_fds(1).close()
        else:
            got.fds.close()
            assert (got.data[-4:], len(got.fds)) == (b"data", 1)

    loops.run(main)


@pytest.mark.parametrize("method", ["receive_exactly", "receive_message"])
def test_what_came_before_a_cancellation_stays(loops, streams, method):
    whole = b"\0\0\0\x04\0\0\0\1data"

    async def main():
        await streams[0].send(whole[:10], [0])
        arguments = [len(whole)] if method == "receive_exactly" else []
        assert await loops.cancelled(5, getattr(streams[1], method), *arguments) == (False, None)
        await streams[0].send(whole[10:])
        got = await streams[1].receive_message()
        got.fds.close()
        assert (got.data, len(got.fds)) == (b"data", 1)

    loops.run(main)


@pytest.mark.parametrize("ticks", range(8))
def test_a_receiver_that_gives_up_lets_the_next_have_its_turn(loops, streams, ticks):
    async def send():
        await loops.tick(3)
        for i in range(3):
            await streams[0].send_message(b"%d" % i)

    async def main():
        cancelled = [lambda: loops.cancelled(ticks, streams[1].receive_message)] * 2
        first, second, third, _ = await loops.together(*cancelled, streams[1].receive_message, send)
        got = [message.data for finished, message in (first, second) if finished] + [third.data]
        assert sorted(got) == [b"0", b"1", b"2"][: len(got)]
        left = [(await streams[1].receive_message()).data for _ in range(3 - len(got))]
        assert sorted(got + left) == [b"0", b"1", b"2"]

    loops.run(main)


# ---- sends ----


def test_a_send_that_was_cut_goes_on_with_the_next(loops, streams):
    data = os.urandom(LARGE)

    async def main():
        assert await loops.cancelled(5, streams[0].send, data, [0, 1]) == (False, None)
        assert 0 < streams[0].unsent < LARGE
        _, got = await loops.together(lambda: streams[0].send(b"next", [0]), lambda: received(streams[1], LARGE + 4))
        assert got == (data + b"next", 3)
        assert streams[0].unsent == 0

    loops.run(main)


def test_a_send_that_was_cut_can_be_flushed(loops, streams):
    async def main():
        await streams[0].flush()  # nothing is left of nothing
        message = os.urandom(LARGE)
        await loops.cancelled(5, streams[0].send_message, message, [0])
        _, got = await loops.together(streams[0].flush, streams[1].receive_message)
        got.fds.close()
        assert (got.data == message, len(got.fds), streams[0].unsent) == (True, 1, 0)

    loops.run(main)


def test_a_flush_that_was_cut_goes_on_as_well(loops, streams):
    data = os.urandom(LARGE)

    async def main():
        await loops.cancelled(5, streams[0].send, data)
        before = streams[0].unsent
        assert await loops.cancelled(5, streams[0].flush) == (False, None)
        assert streams[0].unsent == before
        _, got = await loops.together(streams[0].flush, lambda: received(streams[1], LARGE))
        assert got == (data, 0)

    loops.run(main)


def test_a_send_that_was_cut_has_a_copy_of_what_is_left(loops, streams):
    data = bytearray(os.urandom(LARGE))
    copy = bytes(data)

    async def main():
        await loops.cancelled(5, streams[0].send, data)
        data[:] = b"changed"
        _, got = await loops.together(streams[0].flush, lambda: received(streams[1], LARGE))
        assert got == (copy, 0)

    loops.run(main)


def test_a_send_cancelled_before_its_turn_sends_nothing(loops, streams):
    async def second():
        await loops.tick(2)
        return await loops.cancelled(2, streams[0].send, b"2" * LARGE, [0])

    async def third():
        await loops.tick(4)
        await streams[0].send(b"3" * LARGE, [0])

    async def receive():
        await loops.tick(10)
        return await received(streams[1], 2 * LARGE)

    async def main():
        first = lambda: streams[0].send(b"1" * LARGE)  # noqa: E731 - `together` calls it
        _, cancelled, _, got = await loops.together(first, second, third, receive)
        assert cancelled == (False, None)
        assert got == (b"1" * LARGE + b"3" * LARGE, 1)

    loops.run(main)


# ---- the end ----


@pytest.mark.parametrize("method", ["receive", "receive_message", "send"])
def test_closing_wakes_who_waits(loops, streams, method):
    waiting = {"receive": lambda: streams[0].receive(), "receive_message": lambda: streams[0].receive_message()}

    async def wait():
        with pytest.raises(OSError) as caught:
            await waiting.get(method, lambda: streams[0].send(bytes(LARGE)))()
        assert caught.value.errno == errno.EBADF

    async def close():
        await loops.tick(5)
        streams[0].close()

    loops.run(loops.together, wait, wait, close)  # the second waits for its turn


def test_a_closed_stream_has_nothing_more(loops, streams, open_fds):
    async def main():
        before = open_fds()
        await streams[0].send(b"abcd", [0] * 5)
        await streams[1].receive_exactly(2)
        streams[1].close()
        streams[1].close()
        assert streams[1].fileno() == -1
        assert len(before - open_fds()) == 1
        for call in (streams[1].receive, streams[1].receive_message, lambda: streams[1].send(b"x")):
            with pytest.raises(OSError) as caught:
                await call()
            assert caught.value.errno == errno.EBADF

    loops.run(main)


def test_closing_drops_what_is_left_of_a_send(loops, streams):
    async def main():
        await loops.cancelled(5, streams[0].send_message, bytes(LARGE), [0])
        streams[0].close()
        assert streams[0].unsent == 0
        with pytest.raises(aio.BrokenStreamError, match="within a message"):
            await streams[1].receive_message()

    loops.run(main)


async def left(stream):
    async with stream:
        pass


@pytest.mark.parametrize("ticks", range(1, 5))
@pytest.mark.parametrize("end", [aio.UnixStream.aclose, left], ids=["aclose", "async with"])
def test_an_end_that_is_cancelled_is_one(loops, streams, open_fds, end, ticks):
    """Whatever was held is closed, and who waits hears of it."""

    async def wait():
        with pytest.raises(OSError) as caught:
            await streams[1].receive_exactly(10)
        assert caught.value.errno == errno.EBADF

    async def main():
        before = open_fds()
        await streams[0].send(b"abcd", [0] * 5)
        await streams[1].receive_exactly(2)
        await loops.together(lambda: loops.cancelled(ticks, end, streams[1]), wait)
        assert (streams[1].fileno(), len(before - open_fds()), len(open_fds() - before)) == (-1, 1, 0)
        await streams[1].aclose()

    loops.run(main)


@pytest.mark.parametrize("ticks", range(6))
def test_a_word_of_the_end_that_is_cancelled_was_not_told_or_was(loops, streams, ticks):
    """If it was not told, what was left of the send before it stays left, and the next word tells."""

    async def main():
        await loops.cancelled(5, streams[0].send, bytes(LARGE))
        finished, _ = await loops.cancelled(ticks, streams[0].send_eof)
        assert (finished, streams[0].unsent > 0) == (False, True)
        _, got = await loops.together(streams[0].send_eof, lambda: received(streams[1], LARGE))
        assert (len(got[0]), (await streams[1].receive()).data) == (LARGE, b"")

    loops.run(main)


def test_after_the_word_of_the_end_nothing_more_goes_one_way(loops, streams):
    async def main():
        await streams[0].send_message(b"last", [0])
        await streams[0].send_eof()
        await streams[0].send_eof()
        message = await streams[1].receive_message()
        message.fds.close()
        assert (message.data, await streams[1].receive_message()) == (b"last", None)
        with pytest.raises(BrokenPipeError):
            await streams[0].send(b"x")
        await streams[1].send(b"answer")
        assert (await streams[0].receive()).data == b"answer"
        streams[0].close()
        with pytest.raises(OSError) as caught:
            await streams[0].send_eof()
        assert caught.value.errno == errno.EBADF

    loops.run(main)


def test_a_word_of_the_end_goes_by_a_bare_descriptor_too(loops):
    a, b = socket.socketpair()

    async def main():
        async with aio.UnixStream(a.detach()) as one, aio.UnixStream(b.detach()) as other:
            await one.send_eof()
            assert (await other.receive()).data == b""

    loops.run(main)


def test_a_bare_descriptor_is_closed_too(loops):
    a, b = socket.socketpair()

    async def main():
        with aio.UnixStream(a.detach()) as one, aio.UnixStream(b.detach()) as other:
            await one.send(b"x", [0])
            (await other.receive()).fds.close()

    loops.run(main)


# ---- all of it ----


@pytest.mark.soak
def test_any_cancellation_loses_nothing(loops, streams, soak_count):
    """Messages of many sizes, sent and received by tasks that are cancelled at random, all come once and in order."""
    count = soak_count(3_000)
    dice = random.Random(count)
    got = []

    async def send():
        for i in range(count):
            message = b"%d " % i * dice.choice((1, 10, 30_000))
            finished = False
            while not finished and not streams[0].unsent:  # nothing has gone
                finished, _ = await loops.cancelled(dice.randrange(6), streams[0].send_message, message, [0] * (i % 4))
            while streams[0].unsent:
                await loops.cancelled(dice.randrange(6), streams[0].flush)

    async def receive():
        while len(got) < count:
            finished, message = await loops.cancelled(dice.randrange(6), streams[1].receive_message)
            if finished:
                message.fds.close()
                got.append((int(message.data.split(b" ")[0]), len(message.fds)))

    loops.run(loops.together, send, receive)
    assert got == [(i, i % 4) for i in range(count)]
