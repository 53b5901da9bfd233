# SPDX-License-Identifier: MIT
"""The blocking unix.UnixStream, and unix.connect: whole messages, and a timeout that leaves nothing half done."""

import errno
import inspect
import os
import signal
import socket
import sys
import threading
import time

import pytest

from lowsock import aio, cmsg, unix

LARGE = 1_000_000  # more than the socket's buffer
FRAME = b"\0\0\0\x04\0\0\0\1data"


@pytest.fixture
def streams():
    """Two streams connected to each other, which wait for at most 10 seconds."""
    socks = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for sock in socks:
        sock.settimeout(10)
    with unix.UnixStream(socks[0]) as a, unix.UnixStream(socks[1]) as b:
        yield a, b


def received(stream, size):
    """So many bytes, and how many descriptors came with them."""
    data, count = b"", 0
    while len(data) < size:
        piece, fds, _ = stream.receive()
        with fds:
            count += len(fds)
        data += piece
    return data, count


def test_a_member_is_that_of_the_awaitable_stream():
    blocking, awaitable = ({name for name in dir(cls) if name[0] != "_"} for cls in (unix.UnixStream, aio.UnixStream))
    assert awaitable - blocking == {"aclose"}
    assert blocking <= awaitable
    for name in blocking:
        ours, theirs = (inspect.getattr_static(cls, name) for cls in (unix.UnixStream, aio.UnixStream))
        if inspect.isfunction(ours):
            assert str(inspect.signature(ours)) == str(inspect.signature(theirs))


def test_a_message_comes_whole_with_its_descriptors(streams):
    for data, fds in ((b"one", [0]), (b"", []), (b"three", [0, 1, 2])):
        streams[0].send_message(data, fds)
    for data, count in ((b"one", 1), (b"", 0), (b"three", 3)):
        message = streams[1].receive_message()
        with message.fds as fds:
            assert (message.data, len(fds), message.credentials) == (data, count, None)
            assert all(os.path.samestat(os.fstat(fd), os.fstat(i)) for i, fd in enumerate(fds))
    streams[0].send_eof()
    assert streams[1].receive_message() is None


def test_bytes_and_messages_follow_each_other(streams):
    streams[0].send(b"hello\n", [0])
    streams[0].send_message(b"message", [0, 0])
    assert streams[1].peek_exactly(3) == b"hel"
    assert streams[1].receive_exactly(6) == b"hello\n"
    streams[1].take_fds(1).close()
    message = streams[1].receive_message()
    message.fds.close()
    assert (message.data, len(message.fds)) == (b"message", 2)
    streams[0].send(b"end")
    assert streams[1].receive(2).data == b"en"
    assert streams[1].receive().data == b"d"


def test_a_count_of_descriptors_has_to_be_told(streams):
    streams[0].send(b"a", [0])
    streams[1].receive_exactly(1)
    with pytest.raises(TypeError, match="count"):
        streams[1].take_fds()
    with streams[1].take_fds(1) as fds:
        assert len(fds) == 1
    with pytest.raises(unix.BrokenStreamError, match="1 descriptors were to come, and 0 came"):
        streams[1].take_fds(1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="credentials by SO_PASSCRED are Linux's")
def test_the_sender_is_told_and_can_be_given(streams):
    cmsg.enable(streams[1], cmsg.Credentials)
    streams[0].send_message(b"x", [0], cmsg.Credentials())
    message = streams[1].receive_message()
    message.fds.close()
    assert (message.credentials.pid, streams[1].credentials) == (os.getpid(), message.credentials)


def test_a_large_message_goes_while_another_thread_receives(streams):
    data = os.urandom(LARGE)
    thread = threading.Thread(target=lambda: streams[0].send_message(data, [0]))
    thread.start()
    message = streams[1].receive_message()
    thread.join()
    message.fds.close()
    assert (message.data == data, len(message.fds), streams[0].unsent) == (True, 1, 0)


# ---- what a timeout leaves ----


def test_a_send_that_was_cut_goes_on_with_the_next(streams):
    data = os.urandom(LARGE)
    streams[0]._sock.settimeout(0.01)
    with pytest.raises(socket.timeout):
        streams[0].send(data, [0, 0])
    assert 0 < streams[0].unsent < LARGE
    streams[0]._sock.settimeout(10)
    thread = threading.Thread(target=lambda: streams[0].send(b"next", [0]))
    thread.start()
    assert received(streams[1], LARGE + 4) == (data + b"next", 3)
    thread.join()
    streams[0].flush()
    assert streams[0].unsent == 0


@pytest.mark.parametrize("cut", [1, 8, 9, 11])
def test_a_receive_that_was_cut_has_taken_nothing(streams, cut):
    streams[1]._sock.settimeout(0.01)
    for call in (streams[1].receive, streams[1].receive_message):
        with pytest.raises(socket.timeout):
            call()
    streams[0].send(FRAME[:cut], [0])
    with pytest.raises(socket.timeout):
        streams[1].receive_message()
    with pytest.raises(socket.timeout):
        streams[1].peek_exactly(12)
    streams[0].send(FRAME[cut:])
    message = streams[1].receive_message()
    message.fds.close()
    assert (message.data, len(message.fds)) == (b"data", 1)


def test_a_socket_that_does_not_wait_leaves_nothing_half_done(streams):
    for stream in streams:
        stream._sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        streams[1].receive_message()
    data, sent = bytes(LARGE), False
    try:
        streams[0].send_message(data)
    except BlockingIOError:
        sent = streams[0].unsent > 0
    assert sent
    got = b""
    while len(got) < LARGE + 8:
        try:
            streams[0].flush()
        except BlockingIOError:
            pass
        got += streams[1].receive(2**20).data
    assert got[8:] == data


def test_an_exception_of_a_handler_leaves_nothing_half_done(streams):
    def raising(*_):
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, raising)
    try:
        streams[0].send(FRAME[:10], [0])
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(ZeroDivisionError):
            streams[1].receive_message()
    finally:
        signal.signal(signal.SIGALRM, before)
    streams[0].send(FRAME[10:])
    message = streams[1].receive_message()
    message.fds.close()
    assert (message.data, len(message.fds)) == (b"data", 1)


# ---- the end, and what goes wrong ----


def test_an_end_that_comes_too_soon_says_what_was_asked_for_and_what_is_there(streams):
    streams[0].send(b"abc", [0])
    streams[0].send_eof()
    for call in (streams[1].receive_exactly, streams[1].peek_exactly):
        with pytest.raises(EOFError, match=r"the stream ended after 3 of 8 bytes; receive\(\) returns those that came"):
            call(8)
    data, fds, _ = streams[1].receive()
    fds.close()
    assert (data, len(fds), streams[1].receive().data) == (b"abc", 1, b"")


def test_an_end_within_a_message_breaks_the_stream(streams):
    streams[0].send(FRAME[:9], [0])
    streams[0].close()
    for _ in range(2):
        with pytest.raises(
            unix.BrokenStreamError, match="the stream ended within a message, 9 bytes after it began"
        ) as caught:
            streams[1].receive_message()
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.errno is None


BROKEN = [
    ({"max_fds": 1}, b"x", 2, "more than 1 descriptors came"),
    ({"max_message": 3}, b"more", 0, "a message of 4 bytes is to come: max_message is 3"),
]


@pytest.mark.parametrize(("options", "data", "count", "words"), BROKEN)
def test_what_goes_beyond_a_limit_breaks_the_stream(streams, options, data, count, words):
    stream = unix.UnixStream(os.dup(streams[1].fileno()), **options)
    streams[0].send_message(data, [0] * count)
    with stream, pytest.raises(unix.BrokenStreamError, match=words):
        stream.receive_message()


def test_nothing_goes_over_a_closed_stream(streams):
    streams[0].send(b"abcd", [0])
    streams[1].receive_exactly(2)
    streams[1].close()
    streams[1].close()
    calls = (streams[1].receive, streams[1].receive_message, streams[1].send_eof)
    for call in (*calls, lambda: streams[1].send(b"x"), lambda: streams[1].receive_exactly(1)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert streams[1].fileno() == -1


def test_descriptors_need_a_byte(streams):
    with pytest.raises(ValueError, match="fds need a byte of data"):
        streams[0].send(b"", [0])
    streams[0].send(b"")
    with pytest.raises(ValueError, match="max_bytes must be more than 0"):
        streams[1].receive(0)


def test_another_kind_of_socket_is_refused(udp_pair):
    with pytest.raises(ValueError, match="sock must be an AF_UNIX stream"):
        unix.UnixStream(udp_pair.a)


# ---- connecting ----


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        sock.settimeout(10)
        yield sock


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path], ids=["str", "bytes", "path"])
@pytest.mark.parametrize("timeout", [None, 5.0])
def test_connect_gives_a_stream_with_the_timeout(listener, path, form, timeout):
    with unix.connect(form(path), timeout=timeout, max_fds=1, max_message=10) as stream:
        assert (type(stream), stream._sock.gettimeout()) == (unix.UnixStream, timeout)
        with unix.UnixStream(listener.accept()[0]) as other:
            other.send_message(b"hello", [0])
            with stream.receive_message().fds as fds:
                assert len(fds) == 1


def fill_backlog(path, waiting):
    while True:
        waiting.append(unix.connect(path, timeout=0.02))


def test_connect_waits_for_room_as_long_as_it_may(listener, path):
    if not sys.platform.startswith("linux"):
        pytest.skip("a full backlog is a refusal elsewhere")
    waiting = []
    with pytest.raises(socket.timeout):
        fill_backlog(path, waiting)
    with pytest.raises(BlockingIOError):
        unix.connect(path, timeout=0)

    def accept():
        time.sleep(0.02)
        listener.accept()[0].close()

    thread = threading.Thread(target=accept)
    thread.start()
    waiting.append(unix.connect(path))
    thread.join()
    for stream in waiting:
        stream.close()


WRONG = [
    ((5,), {}, TypeError, "path must be str, bytes or a path object, not int"),
    (("/nowhere",), {"timeout": -1}, ValueError, "timeout must not be negative"),
    (("/nowhere/at/all",), {}, FileNotFoundError, "No such file"),
]


@pytest.mark.parametrize(("arguments", "named", "error", "words"), WRONG)
def test_what_cannot_be_connected_to_leaves_nothing(open_fds, arguments, named, error, words):
    before = open_fds()
    with pytest.raises(error, match=words):
        unix.connect(*arguments, **named)
    assert open_fds() == before


def test_a_wrong_limit_leaves_nothing(listener, path, open_fds):
    before = open_fds()
    with pytest.raises(ValueError, match="max_message must not be negative"):
        unix.connect(path, max_message=-1)
    assert open_fds() == before
