# SPDX-License-Identifier: MIT
"""aio.UnixStream: bytes, and descriptors and credentials with them. Messages are in test_messages.py, bad
days in test_limits.py.
"""

import os
import socket
import sys

import pytest

import lowsock
from lowsock import aio, cmsg, constants

MOST = 253  # SCM_MAX_FD
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")


def same(fds, others):
    return [os.path.sameopenfile(*both) for both in zip(fds, others)] == [True] * len(others) == [True] * len(fds)


async def received(stream, size):
    """So many bytes by `receive`, and for each that brought descriptors, where and how many."""
    data, brought = b"", []
    while len(data) < size:
        piece, fds, _ = await stream.receive()
        with fds:
            if fds:
                brought.append((len(data), len(fds)))
        data += piece
    return data, brought


# ---- together ----


def test_descriptors_come_with_their_bytes(loops, streams, files):
    async def main():
        await streams[0].send(b"data", files)
        data, fds, credentials = await streams[1].receive()
        with fds:
            assert (data, credentials, same(fds, files)) == (b"data", None, True)
            assert [os.get_inheritable(fd) for fd in fds] == [False] * 3

    loops.run(main)


def test_a_receive_waits_for_the_first_byte(loops, streams):
    async def send():
        await loops.tick(3)
        await streams[0].send(b"late")

    async def main():
        (got, _) = await loops.together(streams[1].receive, send)
        assert got[0] == b"late"

    loops.run(main)


@pytest.mark.parametrize("kind", ["file", "owner", "iterator"])
def test_descriptors_may_be_given_in_any_way(loops, streams, files, kind, tmp_path):
    async def main():
        with open(tmp_path / "a", "rb") as file, lowsock.OwnedFds([os.dup(files[0])]) as owner:
            await streams[0].send(b"x", {"file": [file], "owner": owner, "iterator": iter(files[:1])}[kind])
            with (await streams[1].receive()).fds as fds:
                assert same(fds, files[:1])

    loops.run(main)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_what_is_larger_than_the_buffer_goes_whole_and_its_descriptors_once(loops, streams, make):
    data = os.urandom(1_000_000)

    async def main():
        _, got = await loops.together(lambda: streams[0].send(make(data), [0, 1]), lambda: received(streams[1], len(data)))
        assert got[0] == data
        assert got[1] == [(0, 2)]
        assert streams[0].unsent == 0

    loops.run(main)


def test_sends_of_several_tasks_do_not_interleave(loops, streams):
    pieces = [bytes([i]) * 300_000 for i in range(5)]

    async def main():
        sends = [lambda piece=piece: streams[0].send(piece, [0]) for piece in pieces]
        *_, got = await loops.together(*sends, lambda: received(streams[1], 1_500_000))
        order = [got[0][at] for at in range(0, 1_500_000, 300_000)]
        assert got[0] == b"".join(pieces[i] for i in order)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert sum(count for _, count in got[1]) == 5

    loops.run(main)


def test_receives_of_several_tasks_are_whole(loops, streams):
    async def send():
        for i in range(3):
            for _ in range(4):
                await streams[0].send(bytes([i]) * 25)
                await loops.tick()

    async def main():
        *got, _ = await loops.together(*[lambda: streams[1].receive_exactly(100)] * 3, send)
        assert sorted(got) == [bytes([i]) * 100 for i in range(3)]

    loops.run(main)


# ---- the boundaries of descriptors ----


@linux
def test_a_receive_ends_behind_bytes_that_brought_descriptors(loops, streams, files):
    async def main():
        for data, fds in ((b"1", []), (b"2", files[:1]), (b"3", []), (b"4", files[1:]), (b"5", [])):
            await streams[0].send(data, fds)
        for data, expected in ((b"12", files[:1]), (b"34", files[1:]), (b"5", [])):
            got = await streams[1].receive()
            with got.fds:
                assert (got.data, same(got.fds, expected)) == (data, True)

    loops.run(main)


def test_descriptors_come_with_the_first_of_their_bytes(loops, streams):
    async def main():
        await streams[0].send(b"abc", [0])
        for data, count in ((b"a", 1), (b"b", 0), (b"c", 0)):
            got = await streams[1].receive(1)
            with got.fds:
                assert (got.data, len(got.fds)) == (data, count)

    loops.run(main)


def test_bytes_that_were_read_ahead_keep_their_descriptors(loops, streams, files):
    async def main():
        await streams[0].send(b"1")
        await streams[0].send(b"2345", files[:2])
        await streams[0].send(b"67", files[2:])
        assert await streams[1].receive_exactly(1) == b"1"
        with streams[1].take_fds(2) as fds:  # they came with the first byte, or one of those after it
            assert same(fds, files[:2])
        assert (await streams[1].receive(3)).data == b"234"
        assert await streams[1].receive_exactly(1) == b"5"
        with (await streams[1].receive()).fds as fds:
            assert same(fds, files[2:])

    loops.run(main)


def test_a_protocol_takes_descriptors_by_the_count_it_was_told(loops, streams, files):
    async def main():
        await streams[0].send(b"aaaa", files)
        await streams[0].send(b"bbbb", files[:1])
        assert await streams[1].receive_exactly(4) == b"aaaa"
        with streams[1].take_fds(2) as fds:
            assert same(fds, files[:2])
        assert await streams[1].receive_exactly(4) == b"bbbb"
        with streams[1].take_fds(1) as fds:
            assert same(fds, files[:1])  # the surplus of the one before is no longer there
        assert list(streams[1].take_fds(0)) == []

    loops.run(main)


def test_a_count_of_descriptors_has_to_be_told(loops, streams, open_fds):
    """Without one, `take_fds` once closed all that had come."""

    async def main():
        await streams[0].send(b"aaaa", [0, 0])
        await streams[1].receive_exactly(4)
        before = open_fds()
        with pytest.raises(TypeError, match="count"):
            streams[1].take_fds()
        assert open_fds() == before
        with streams[1].take_fds(2) as fds:
            assert len(fds) == 2

    loops.run(main)


def test_surplus_descriptors_are_closed_at_once(loops, streams, open_fds):
    async def main():
        before = open_fds()
        await streams[0].send(b"aaaa", [0] * 10)
        await streams[1].receive_exactly(4)
        assert len(open_fds() - before) == 10
        with streams[1].take_fds(3):
            assert len(open_fds() - before) == 3

    loops.run(main)


def test_descriptors_of_several_receives_are_taken_together(loops, streams, files):
    async def main():
        await streams[0].send(b"aa", files[:2])
        await streams[0].send(b"aa", files[2:])
        assert await streams[1].receive_exactly(4) == b"aaaa"
        with streams[1].take_fds(3) as fds:
            assert same(fds, files)

    loops.run(main)


def test_more_descriptors_wanted_than_came_breaks_the_stream(loops, streams):
    async def main():
        await streams[0].send(b"aaaa", [0])
        await streams[1].receive_exactly(4)
        with pytest.raises(aio.BrokenStreamError, match="2 descriptors were to come, and 1 came"):
            streams[1].take_fds(2)

    loops.run(main)


@linux
def test_a_pidfd_comes_with_a_receive_of_its_own(loops, streams, socks):
    try:
        socks[1].setsockopt(socket.SOL_SOCKET, getattr(constants, "SO_PASSPIDFD", 0), 1)
    except OSError as error:
        pytest.skip(f"the kernel has no SO_PASSPIDFD: {error}")

    async def main():
        await streams[0].send(b"ab", [0])
        await streams[0].send(b"cd", [0])
        with (await streams[1].receive()).fds as fds:
            assert (len(fds), fds.pidfd) == (2, fds[1])
        await streams[1].receive_exactly(2)
        with streams[1].take_fds(1) as fds:
            assert (len(fds), fds.pidfd) == (1, None)

    loops.run(main)


# ---- who sent it ----


@linux
def test_credentials_are_the_senders(loops, streams, socks):
    cmsg.enable(socks[1], cmsg.Credentials)
    own = cmsg.Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())

    async def main():
        await streams[0].send(b"1")
        await streams[0].send(b"2", [0], own)
        with (await streams[1].receive(1)).fds, (await streams[1].receive()).fds:
            assert streams[1].credentials == own
        streams[0].close()
        assert (await streams[1].receive()).credentials is None  # the kernel says 0, 0, 0 then

    loops.run(main)


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root may tell another uid")
def test_credentials_go_with_every_part(loops, streams, socks):
    cmsg.enable(socks[1], cmsg.Credentials)
    claimed = cmsg.Credentials(uid=65534)

    async def main():
        data = bytes(1_000_000)
        _, got = await loops.together(
            lambda: streams[0].send(data, [0], claimed), lambda: streams[1].receive_exactly(len(data))
        )
        assert (got, streams[1].credentials) == (data, claimed)
        streams[1].take_fds(1).close()

    loops.run(main)


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root may tell another uid")
def test_another_senders_bytes_are_kept_apart_and_never_joined(loops, streams, socks):
    cmsg.enable(socks[1], cmsg.Credentials)

    async def main():
        for data, uid in ((b"aa", 1), (b"bb", 2), (b"cc", 2), (b"dd", 3)):
            await streams[0].send(data, (), cmsg.Credentials(uid=uid))
        got = await streams[1].receive()
        assert (got.data, got.credentials.uid) == (b"aa", 1)
        assert (await streams[1].receive_exactly(4), streams[1].credentials.uid) == (b"bbcc", 2)
        await streams[0].send(b"ee", (), cmsg.Credentials(uid=4))
        with pytest.raises(aio.BrokenStreamError, match=r"Credentials\(.*uid=4.* came among those of .*uid=3"):
            await streams[1].receive_exactly(3)

    loops.run(main)
