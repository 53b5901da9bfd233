# SPDX-License-Identifier: MIT
"""aio.UnixStream: messages on a stream, beside ordinary bytes, and peers that break them."""

import os
import struct
import sys

import pytest

import lowsock
from lowsock import aio, cmsg

MOST = 253  # SCM_MAX_FD
HEADER = struct.Struct("!II")
root = pytest.mark.skipif(
    os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root on Linux may tell another uid"
)


@pytest.fixture
def files(tmp_path):
    """Ten descriptors of files that can be told apart."""
    fds = [os.open(tmp_path / str(i), os.O_CREAT | os.O_RDWR) for i in range(10)]
    yield fds
    for fd in fds:
        os.close(fd)


def same(fds, others):
    return [os.path.sameopenfile(*both) for both in zip(fds, others)] == [True] * len(others) == [True] * len(fds)


# ---- what is sent comes ----


@pytest.mark.parametrize("count", [0, 1, 10, MOST])
@pytest.mark.parametrize("size", [0, 1, 8, 65536, 2**20])
def test_a_message_comes_whole_with_its_descriptors(loops, streams, size, count):
    data = os.urandom(size)

    async def main():
        _, got = await loops.together(lambda: streams[0].send_message(data, [0] * count), streams[1].receive_message)
        with got.fds:
            assert (got.data == data, len(got.fds)) == (True, count)

    loops.run(main)


def test_each_message_has_its_own_descriptors(loops, streams, files):
    counts = [0, 3, 0, 0, 1, 2, 0, 10, 1, 0]

    async def send():
        for i, count in enumerate(counts):
            await streams[0].send_message(b"%d" % i, files[:count])

    async def receive():
        for i, count in enumerate(counts):
            data, fds, _ = await streams[1].receive_message()
            with fds:
                assert (data, same(fds, files[:count])) == (b"%d" % i, True)

    async def main():
        await send()  # all are there before the first is received
        await receive()
        await loops.together(receive, send)

    loops.run(main)


def test_messages_and_bytes_may_follow_each_other(loops, streams, files):
    async def main():
        await streams[0].send(b"VERSION 1\n")
        await streams[0].send_message(b"first", files[:1])
        await streams[0].send(b"RAW", files[1:3])
        await streams[0].send_message(b"last", files[3:])
        assert await streams[1].receive_exactly(10) == b"VERSION 1\n"
        got = [await streams[1].receive_message()]
        assert await streams[1].receive_exactly(3) == b"RAW"
        with streams[1].take_fds(2) as fds:
            assert same(fds, files[1:3])
        got.append(await streams[1].receive_message())
        with got[0].fds, got[1].fds:
            assert [message.data for message in got] == [b"first", b"last"]
            assert same(got[0].fds, files[:1])
            assert same(got[1].fds, files[3:])

    loops.run(main)


def test_the_frame_is_the_documented_one(loops, streams):
    async def main():
        await streams[0].send_message(b"data", [0, 1])
        got = await streams[1].receive()
        got.fds.close()
        assert (got.data, len(got.fds)) == (b"\0\0\0\4\0\0\0\2data", 2)

    loops.run(main)


@pytest.mark.parametrize("step", [1, 3, 8, 9])
def test_a_message_may_come_in_pieces(loops, streams, socks, step):
    whole = HEADER.pack(20, 1) + bytes(range(20))

    async def send():
        for at in range(0, len(whole), step):
            lowsock.send_fds(socks[0], [whole[at : at + step]], [0] * (at == 0))
            await loops.tick()

    async def main():
        got, _ = await loops.together(streams[1].receive_message, send)
        with got.fds:
            assert (got.data, len(got.fds)) == (bytes(range(20)), 1)

    loops.run(main)


def test_receivers_get_whole_messages_in_turn(loops, streams):
    messages = [bytes([i]) * 100_000 for i in range(4)]

    async def send():
        for message in messages:
            await streams[0].send_message(message, [0])

    async def main():
        *got, _ = await loops.together(*[streams[1].receive_message] * 4, send)
        for message in got:
            message.fds.close()
        assert sorted(message.data for message in got) == messages
        assert [len(message.fds) for message in got] == [1] * 4

    loops.run(main)


def test_the_stream_ends_with_none(loops, streams):
    async def main():
        await streams[0].send_message(b"last")
        streams[0].close()
        assert (await streams[1].receive_message()).data == b"last"
        assert [await streams[1].receive_message() for _ in range(2)] == [None, None]

    loops.run(main)


@root
def test_a_message_tells_who_sent_it(loops, streams, socks):
    cmsg.enable(socks[1], cmsg.Credentials)

    async def main():
        for uid in (1, 2):
            await streams[0].send_message(b"x" * uid, [0] * uid, cmsg.Credentials(uid=uid))
        for uid in (1, 2):
            got = await streams[1].receive_message()
            with got.fds:
                assert (got.data, len(got.fds), got.credentials.uid) == (b"x" * uid, uid, uid)

    loops.run(main)


# ---- peers that break it ----


def broken(loops, streams, words):
    """The next message is an error, now and then again; the descriptors that came are closed."""

    async def main():
        for _ in range(2):
            with pytest.raises(aio.BrokenStreamError, match=words):
                await streams[1].receive_message()

    loops.run(main)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 11])
def test_an_end_within_a_message_is_an_error(loops, streams, socks, cut):
    lowsock.send_fds(socks[0], [(HEADER.pack(4, 2) + b"data")[:cut]], [0, 1])
    socks[0].close()
    broken(loops, streams, f"within a message, {cut} bytes")


@pytest.mark.parametrize("size", [2**20 + 1, 2**31, 2**32 - 1])
def test_a_message_that_is_too_long_is_refused_by_its_first_bytes(loops, streams, socks, size):
    lowsock.send_fds(socks[0], [HEADER.pack(size, 0)], [0])
    broken(loops, streams, f"a message of {size} bytes")


def test_the_longest_message_is_taken(loops, socks):
    async def main():
        with aio.UnixStream(socks[0]) as a, aio.UnixStream(socks[1], max_message=4) as b:
            await a.send_message(b"1234")
            assert (await b.receive_message()).data == b"1234"
            await a.send_message(b"12345")
            with pytest.raises(aio.BrokenStreamError, match="max_message is 4"):
                await b.receive_message()

    loops.run(main)


@pytest.mark.parametrize(("told", "came"), [(1, 0), (2, 1), (2**32 - 1, 253)])
def test_fewer_descriptors_than_told_are_an_error(loops, streams, socks, told, came):
    lowsock.send_fds(socks[0], [HEADER.pack(4, told) + b"data"], [0] * came)
    broken(loops, streams, f"{told} descriptors were to come, and {came} came")


def test_surplus_descriptors_are_closed_and_never_another_messages(loops, streams, socks, files, open_fds):
    for at in (0, 9):  # with the header, with the last byte
        message = HEADER.pack(2, 0) + b"xx"
        lowsock.send_fds(socks[0], [message[:at] or message[:1]], files if at == 0 else [])
        lowsock.send_fds(socks[0], [message[at or 1 :]], files if at else [])
    lowsock.send_fds(socks[0], [HEADER.pack(4, 1) + b"last"], files[5:6])

    async def main():
        before = open_fds()
        for _ in range(2):
            got = await streams[1].receive_message()
            with got.fds:
                assert (got.data, len(got.fds)) == (b"xx", 0)
        assert open_fds() == before
        got = await streams[1].receive_message()
        with got.fds:
            assert (got.data, same(got.fds, files[5:6])) == (b"last", True)

    loops.run(main)


def test_descriptors_with_every_byte_are_not_hoarded(loops, streams, socks, open_fds):
    before = open_fds()
    message = HEADER.pack(100, 0) + bytes(100)
    for at in range(100):
        lowsock.send_fds(socks[0], [message[at : at + 1]], [0] * 20)
    broken(loops, streams, "more than 506 descriptors")
    assert open_fds() == before


@root
def test_bytes_of_another_sender_within_a_message_are_an_error(loops, streams, socks):
    cmsg.enable(socks[1], cmsg.Credentials)
    lowsock.sendmsg(socks[0], [HEADER.pack(4, 0) + b"da"], [cmsg.Credentials(uid=1)])
    lowsock.sendmsg(socks[0], [b"ta"], [cmsg.Credentials(uid=2)])
    broken(loops, streams, "uid=2.* came among those of .*uid=1")


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((b"", [0] * 254), ValueError, "253"),
        ((b"x", [10**6]), ValueError, r"fds\[0\] is closed"),
        ((b"x", 3), TypeError, "fds"),
        (("x",), TypeError, "data"),
        ((memoryview(b"abcd")[::2],), BufferError, "data"),
    ],
)
def test_bad_input_sends_nothing(loops, streams, arguments, error, words):
    async def main():
        with pytest.raises(error, match=words):
            await streams[0].send_message(*arguments)
        await streams[0].send_message(b"good")
        assert (await streams[1].receive_message()).data == b"good"

    loops.run(main)


@pytest.mark.parametrize(("old", "new"), [("BrokenStream", "BrokenStreamError"), ("Received", "UnixMessage")])
def test_an_old_name_names_the_new_one(old, new):
    with pytest.raises(AttributeError, match=f"module 'lowsock.aio' has no attribute '{old}': use {new}"):
        getattr(aio, old)
