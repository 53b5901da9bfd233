# SPDX-License-Identifier: MIT
"""aio.UnixStream: peers that send too much or go away, a table that is full, and bad input."""

import errno
import socket
import sys

import pytest
from owning import free_descriptors

from lowsock import aio, constants

MOST = 253  # SCM_MAX_FD
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")


# ---- bad days ----


def test_the_end_is_no_bytes(loops, streams):
    async def main():
        await streams[0].send(b"abc", [0])
        streams[0].close()
        with pytest.raises(EOFError, match="ended after 3 of 4 bytes"):
            await streams[1].receive_exactly(4)
        with (await streams[1].receive()).fds as fds:
            assert len(fds) == 1  # what came before the end is still there
        assert [(await streams[1].receive()).data for _ in range(2)] == [b"", b""]

    loops.run(main)


@linux
def test_a_peer_that_left_bytes_unread_is_a_reset_and_then_the_end(loops, streams):
    async def main():
        await streams[1].send(b"unread")
        await streams[0].send(b"x")
        streams[0].close()
        assert (await streams[1].receive()).data == b"x"
        with pytest.raises(ConnectionResetError):
            await streams[1].receive()
        assert (await streams[1].receive()).data == b""
        with pytest.raises(BrokenPipeError):
            await streams[1].send(b"x")

    loops.run(main)


@linux
@pytest.mark.parametrize("way", ["receive", "receive_exactly", "receive_message"])
def test_lost_descriptors_break_the_stream_for_receiving_alone(loops, streams, way, open_fds):
    async def main():
        await streams[0].send_message(b"x", [0] * 10)
        before = open_fds()
        with free_descriptors(5), pytest.raises(aio.BrokenStreamError, match="MSG_CTRUNC"):
            await getattr(streams[1], way)(*[1] * (way != "receive_message"))
        assert open_fds() == before
        for again in (streams[1].receive, streams[1].receive_message):
            with pytest.raises(aio.BrokenStreamError, match="MSG_CTRUNC"):
                await again()
        await streams[1].send(b"sorry")
        assert (await streams[0].receive()).data == b"sorry"

    loops.run(main)


@pytest.mark.parametrize(("most", "sends"), [(0, [1]), (9, [10]), (9, [5, 5]), (2 * MOST, [MOST, MOST, 1])])
def test_more_descriptors_than_may_be_here_break_the_stream(loops, socks, most, sends, open_fds):
    async def main():
        with aio.UnixStream(socks[0]) as a, aio.UnixStream(socks[1], max_fds=most) as b:
            before = open_fds()
            for count in sends:
                await a.send(b"x", [0] * count)
            with pytest.raises(aio.BrokenStreamError, match=f"more than {most} descriptors"):
                await b.receive_exactly(len(sends))
            assert open_fds() == before

    loops.run(main)


@linux
def test_a_peer_that_refuses_descriptors_is_an_error_and_nothing_was_sent(loops, streams, socks):
    try:
        socks[1].setsockopt(socket.SOL_SOCKET, getattr(constants, "SO_PASSRIGHTS", 83), 0)
    except OSError as error:
        pytest.skip(f"the kernel has no SO_PASSRIGHTS: {error}")

    async def main():
        with pytest.raises(PermissionError):
            await streams[0].send(b"with", [0])
        await streams[0].send(b"without")
        assert (await streams[1].receive()).data == b"without"

    loops.run(main)


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((b"", [0]), ValueError, "byte of data"),
        ((b"x", [0] * 254), ValueError, "253"),
        ((b"x", [10**6]), ValueError, r"fds\[0\] is closed"),
        ((b"x", 3), TypeError, "fds"),
        (("x",), TypeError, "data"),
    ],
)
def test_bad_input_sends_nothing(loops, streams, arguments, error, words):
    async def main():
        with pytest.raises(error, match=words):
            await streams[0].send(*arguments)
        await streams[0].send(b"good")
        assert (await streams[1].receive()).data == b"good"

    loops.run(main)


def test_no_bytes_and_no_descriptors_are_nothing_to_do(loops, streams):
    loops.run(streams[0].send, b"")


@pytest.mark.parametrize(("method", "size"), [("receive", 0), ("receive", -1), ("receive_exactly", -1)])
def test_a_size_that_makes_no_sense_is_a_value_error(loops, streams, method, size):
    with pytest.raises(ValueError, match=r"max_bytes|size"):
        loops.run(getattr(streams[0], method), size)


@pytest.mark.parametrize("kind", ["unix-dgram", "tcp", "blocking", "timeout"])
def test_only_a_unix_stream_that_does_not_block_will_do(kind):
    family, type_ = {
        "unix-dgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
        "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    }.get(kind, (socket.AF_UNIX, socket.SOCK_STREAM))
    with socket.socket(family, type_) as sock:
        sock.settimeout({"blocking": None, "timeout": 5}.get(kind, 0))
        with pytest.raises(ValueError, match="sock must be"):
            aio.UnixStream(sock)


@pytest.mark.parametrize("argument", ["max_fds", "max_message"])
def test_a_limit_below_zero_is_a_value_error(socks, argument):
    with pytest.raises(ValueError, match=argument):
        aio.UnixStream(socks[0], **{argument: -1})


def test_a_closed_socket_is_an_os_error():
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.close()
    with pytest.raises(OSError) as caught:
        aio.UnixStream(sock)
    assert caught.value.errno == errno.EBADF
