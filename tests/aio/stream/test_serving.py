# SPDX-License-Identifier: MIT
"""aio.connect_unix and aio.serve_unix: whatever is cancelled, and when, no socket and no path is left behind."""

import contextlib
import errno
import os
import socket
import sys

import pytest
from owning import free_descriptors

from lowsock import aio

LINUX = sys.platform.startswith("linux")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


class Status:
    """What a server calls as soon as it listens."""

    def __init__(self):
        self.is_listening = False

    def started(self):
        self.is_listening = True


async def listening(loops, backend, handler, path, **options):
    """A task that serves, as soon as it does."""
    status = Status()
    task = backend.start(lambda: aio.serve_unix(handler, path, task_status=status, **options))
    while not status.is_listening:
        await loops.tick()
        if task.done():
            raise await task.outcome()
    return task


async def echo(stream):
    while (message := await stream.receive_message()) is not None:
        with message.fds as fds:
            await stream.send_message(message.data, fds)


async def asked(path, data, **options):
    async with await aio.connect_unix(path, **options) as stream:
        await stream.send_message(data, [0])
        message = await stream.receive_message()
        with message.fds as fds:
            return message.data, len(fds)


def innermost(error):
    """trio puts what a nursery raises into a group."""
    while hasattr(error, "exceptions"):
        (error,) = error.exceptions
    return error


# ---- a server and its clients ----


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path], ids=["str", "bytes", "path"])
def test_what_clients_say_comes_back_and_the_path_goes_with_the_server(loops, backend, path, form):
    async def main():
        task = await listening(loops, backend, echo, form(path))
        got = await loops.together(*(lambda i=i: asked(form(path), b"%d" % i) for i in range(5)))
        task.cancel()
        return got, await task.outcome()

    assert loops.run(main) == ([(b"%d" % i, 1) for i in range(5)], "cancelled")
    assert not path.exists()


@pytest.mark.skipif(not LINUX, reason="the abstract namespace is Linux's")
def test_an_abstract_name_leaves_no_file(loops, backend):
    async def main():
        name = f"\0lowsock {os.getpid()}"
        task = await listening(loops, backend, echo, name)
        got = await asked(name.encode(), b"x")
        task.cancel()
        await task.outcome()
        return got

    assert loops.run(main) == (b"x", 1)


def test_the_limits_of_a_stream_are_those_that_were_told(loops, backend, path):
    reasons = []

    async def receive(stream):
        with pytest.raises(aio.BrokenStreamError) as caught:
            await stream.receive_message()
        reasons.append(str(caught.value))

    async def main():
        task = await listening(loops, backend, receive, path, max_fds=0, max_message=3)
        for data, fds in ((b"x", [0]), (b"more", [])):
            async with await aio.connect_unix(path) as stream:
                await stream.send_message(data, fds)
                with contextlib.suppress(ConnectionResetError):  # the server has not read all
                    assert await stream.receive_message() is None
        task.cancel()
        await task.outcome()

    loops.run(main)
    assert reasons == ["more than 0 descriptors came that nobody took", "a message of 4 bytes is to come: max_message is 3"]


def test_an_exception_of_a_handler_ends_the_server(loops, backend, path):
    """The other handlers are cancelled, and their streams closed."""

    async def handle(stream):
        if (await stream.receive()).data == b"fail":
            raise ZeroDivisionError
        await stream.receive()

    async def main():
        task = await listening(loops, backend, handle, path)
        async with await aio.connect_unix(path) as other, await aio.connect_unix(path) as stream:
            await other.send(b"wait")
            await stream.send(b"fail")
            outcome = await task.outcome()
            return innermost(outcome), (await other.receive()).data

    error, data = loops.run(main)
    assert (type(error), data, path.exists()) == (ZeroDivisionError, b"", False)


def test_a_path_that_exists_is_refused_and_stays(loops, path):
    path.write_text("mine")
    with pytest.raises(OSError) as caught:
        loops.run(aio.serve_unix, echo, path)
    assert (caught.value.errno, path.read_text()) == (errno.EADDRINUSE, "mine")


def test_a_path_that_is_anothers_by_now_stays(loops, backend, path):
    async def main():
        task = await listening(loops, backend, echo, path)
        path.unlink()
        path.write_text("mine")
        task.cancel()
        await task.outcome()

    loops.run(main)
    assert path.read_text() == "mine"


WRONG = [
    ({"backlog": -1}, ValueError, "backlog must not be negative"),
    ({"max_fds": "1"}, TypeError, "max_fds must be an int"),
    ({"max_message": 2**32}, OverflowError, "max_message is out of range"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_a_wrong_argument_is_named_before_anybody_can_connect(loops, path, options, error, words):
    with pytest.raises(error, match=words):
        loops.run(lambda: aio.serve_unix(echo, path, **options))
    assert not path.exists()


@pytest.mark.parametrize("call", [lambda path: aio.serve_unix(echo, path), aio.connect_unix], ids=["serve", "connect"])
def test_what_is_no_path_is_refused_by_name(loops, call):
    with pytest.raises(TypeError, match="path must be str, bytes or a path object, not int"):
        loops.run(call, 5)


def test_without_a_loop_there_is_nothing_to_serve_with(path):
    coroutine = aio.serve_unix(echo, path)
    with pytest.raises(RuntimeError, match="nothing to serve with"):
        coroutine.send(None)
    assert not path.exists()


@pytest.mark.skipif(not LINUX, reason="how many descriptors are left is Linux's to tell")
def test_without_a_descriptor_left_connections_wait(loops, backend, path, monkeypatch):
    monkeypatch.setattr("lowsock.aio._stream.serving._PAUSE", 0.01)

    async def main():
        task = await listening(loops, backend, echo, path)
        await backend.settle()
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        async with aio.UnixStream(sock) as stream:
            with free_descriptors(0):
                sock.connect(str(path))
                await stream.send_message(b"patience")
                await backend.settle()
                await backend.settle()
                assert not task.done()
            message = await stream.receive_message()
        task.cancel()
        await task.outcome()
        return message.data

    assert loops.run(main) == b"patience"


# ---- cancellation ----


@pytest.mark.parametrize("ticks", range(8))
def test_a_server_that_is_cancelled_leaves_nothing(loops, path, open_fds, ticks):
    """Wherever it is: before it listens, as it accepts, before a handler has begun, while handlers run."""
    before = open_fds()

    async def connect():
        for _ in range(ticks):
            await loops.tick()
            if path.exists():
                sock = socket.socket(socket.AF_UNIX)
                clients.append(sock)
                sock.setblocking(False)
                sock.connect(str(path))

    async def main():
        (finished, _), _ = await loops.together(lambda: loops.cancelled(ticks, aio.serve_unix, echo, path), connect)
        assert not finished
        async with await next_one() as stream:
            return stream.fileno()

    async def next_one():
        """The next server of the path can be made."""
        status = Status()
        task = loops._backend.start(lambda: aio.serve_unix(echo, path, task_status=status))
        while not status.is_listening:
            await loops.tick()
        stream = await aio.connect_unix(path)
        task.cancel()
        await task.outcome()
        return stream

    clients = []
    try:
        assert loops.run(main) > 0
    finally:
        for sock in clients:
            sock.close()
    assert (path.exists(), open_fds() - before) == (False, set())


def test_a_handler_that_takes_its_time_to_end_is_waited_for(loops, backend, path):
    ended = []

    async def handle(stream):
        try:
            await stream.receive()
        finally:
            ended.append(stream.fileno() >= 0)

    async def main():
        task = await listening(loops, backend, handle, path)
        async with await aio.connect_unix(path):
            await backend.settle()
            task.cancel()
            return await task.outcome(), ended[:]

    assert loops.run(main) == ("cancelled", [True])


@pytest.fixture
def full(path):
    """A path that listens and has no room for another connection."""
    clients = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        try:
            while True:
                clients.append(socket.socket(socket.AF_UNIX))
                clients[-1].setblocking(False)
                clients[-1].connect(str(path))
        except BlockingIOError:
            clients.pop().close()
        yield listener
        for sock in clients:
            sock.close()


@pytest.mark.skipif(not LINUX, reason="a full backlog is a refusal elsewhere")
@pytest.mark.parametrize("ticks", range(8))
def test_a_connection_that_is_cancelled_leaves_nothing(loops, full, path, open_fds, ticks):
    async def main():
        before = open_fds()
        assert await loops.cancelled(ticks, aio.connect_unix, path) == (False, None)
        assert open_fds() == before

        async def accept():
            await loops.tick(5)
            full.accept()[0].close()

        stream, _ = await loops.together(lambda: aio.connect_unix(path), accept)
        stream.close()

    loops.run(main)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNREFUSED])
def test_a_connection_that_fails_leaves_nothing(loops, path, open_fds, number):
    if number == errno.ECONNREFUSED:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    before = open_fds()
    with pytest.raises(OSError) as caught:
        loops.run(aio.connect_unix, path)
    assert (caught.value.errno, open_fds()) == (number, before)


def test_a_wrong_limit_of_a_connection_leaves_nothing(loops, backend, path):
    async def main():
        task = await listening(loops, backend, echo, path)
        with pytest.raises(ValueError, match="max_fds must not be negative"):
            await aio.connect_unix(path, max_fds=-1)
        task.cancel()
        await task.outcome()

    loops.run(main)
