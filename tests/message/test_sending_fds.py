# SPDX-License-Identifier: MIT
"""send_fds: descriptors go out by name, or not at all."""

import array
import gc
import os
import select
import socket
import tempfile

import pytest

import lowsock

MOST = 253  # SCM_MAX_FD


def test_objects_with_a_fileno_are_taken(unix_pair, files):
    with socket.socket() as sock, tempfile.TemporaryFile() as file, select.epoll() as epoll:
        items = [sock, files[0], file, epoll]
        numbers = [sock.fileno(), files[0], file.fileno(), epoll.fileno()]
        lowsock.send_fds(unix_pair.a, [b"x"], iter(items))
        with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
            assert [os.path.sameopenfile(*both) for both in zip(numbers, owner)] == [True] * 4


def test_an_owner_lends(unix_pair, files, open_fds):
    with lowsock.OwnedFds(map(os.dup, files)) as lender:
        before = open_fds()
        lowsock.send_fds(unix_pair.a, [b"x"], lender)
        assert open_fds() == before
        with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
            assert [os.path.sameopenfile(*both) for both in zip(files, owner)] == [True] * 3


class Fleeting:
    """Closes its descriptor when it is collected."""

    def __init__(self):
        self._fd = os.dup(0)

    def fileno(self):
        gc.collect()
        return self._fd

    def __del__(self):
        os.close(self._fd)


def test_objects_live_as_long_as_the_call(unix_pair):
    """Nobody but the call has them."""
    lowsock.send_fds(unix_pair.a, [b"x"], (Fleeting() for _ in range(3)))
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert len(owner) == 3


class Odd:
    """An object whose ``fileno`` returns or raises something."""

    def __init__(self, result):
        self._result = result

    def fileno(self):
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


def closed(item):
    item.close()
    return item


def closed_number():
    fd = os.dup(0)
    os.close(fd)
    return fd


def named():
    return tempfile.NamedTemporaryFile()


REFUSED = {
    "a closed number": (closed_number, ValueError, r"fds\[1\] is closed: there is no descriptor \d+"),
    "a negative number": (lambda: -1, ValueError, r"fds\[1\] is closed"),
    "a closed socket": (lambda: closed(socket.socket()), ValueError, r"fds\[1\] is closed"),
    "a closed file": (lambda: closed(os.fdopen(os.dup(0))), ValueError, r"fds\[1\] is closed"),
    "a closed wrapper": (lambda: closed(named()), ValueError, r"fds\[1\] is closed"),
    "a closed epoll": (lambda: closed(select.epoll()), ValueError, r"fds\[1\] is closed"),
    "a bool": (lambda: True, TypeError, r"fds\[1\] must be an int .* not bool"),
    "a str": (lambda: "0", TypeError, r"fds\[1\] must be an int .* not str"),
    "None": (lambda: None, TypeError, r"fds\[1\] must be an int .* not NoneType"),
    "a float": (lambda: 0.0, TypeError, r"fds\[1\] must be an int .* not float"),
    "too great": (lambda: 2**31, OverflowError, r"fds\[1\]"),
    "fileno() of a str": (lambda: Odd("0"), TypeError, r"fds\[1\]\.fileno\(\) must return an int, not str"),
    "fileno() too great": (lambda: Odd(2**40), OverflowError, r"fds\[1\]\.fileno\(\)"),
    "fileno() closed": (lambda: Odd(-1), ValueError, r"fds\[1\] is closed"),
    "an error of its own": (lambda: Odd(ValueError("mine")), ValueError, "^mine$"),
    "another": (lambda: Odd(KeyError("mine")), KeyError, "mine"),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_sent_is_named_and_nothing_is_sent(unix_pair, open_fds, make):
    item, before = make[0](), open_fds()
    with pytest.raises(make[1], match=make[2]):
        lowsock.send_fds(unix_pair.a, [b"x"], [0, item])
    assert open_fds() == before
    with pytest.raises(BlockingIOError):
        unix_pair.b.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("fds", [5, None, 1.0])
def test_what_is_no_iterable_is_named(unix_pair, fds):
    with pytest.raises(TypeError, match="fds must be an iterable"):
        lowsock.send_fds(unix_pair.a, [b"x"], fds)


def test_more_than_the_kernel_takes_are_refused(unix_pair):
    assert lowsock.send_fds(unix_pair.a, [b"x"], [0] * MOST) == 1
    with pytest.raises(ValueError, match="fds must not be more than 253 in one message: 254"):
        lowsock.send_fds(unix_pair.a, [b"x"], [0] * (MOST + 1))
    with lowsock.recv_owned_fds(unix_pair.b, 10).fds as owner:
        assert len(owner) == MOST


@pytest.mark.parametrize("buffers", [[], [b""], [bytearray()] * 100, iter([])])
def test_a_stream_would_lose_descriptors_without_data(unix_pair, buffers):
    if unix_pair.stream:
        with pytest.raises(ValueError, match="without data"):
            lowsock.send_fds(unix_pair.a, buffers, [0])
        return
    assert lowsock.send_fds(unix_pair.a, buffers, [0]) == 0
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert len(owner) == 1


@pytest.mark.parametrize("fds", [[0], []])
def test_who_will_not_wait_is_told_so(unix_pair, fds):
    def fill():
        while True:
            lowsock.send_fds(unix_pair.a, [bytes(4096)], fds)

    unix_pair.a.setblocking(False)
    with pytest.raises(BlockingIOError):
        fill()


def test_a_closed_descriptor_is_refused_where_the_kernel_would_not_look(tcp_pair, drain):
    with pytest.raises(ValueError, match=r"fds\[1\] is closed"):
        lowsock.send_fds(tcp_pair.a, [b"x"], [0, closed_number()])
    assert drain(tcp_pair.b) == b""


def test_a_closed_socket_is_an_error_of_the_kernels(unix_pair):
    unix_pair.a.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        lowsock.send_fds(unix_pair.a, [b"x"], [0])


def test_flags_of_sending_are_honoured(unix_pair):
    def fill():
        while True:
            lowsock.send_fds(unix_pair.a, [bytes(4096)], [], socket.MSG_DONTWAIT)

    with pytest.raises(BlockingIOError):
        fill()


def test_an_array_may_hold_them(unix_pair):
    lowsock.send_fds(unix_pair.a, [b"x"], array.array("i", [0, 1]))
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert len(owner) == 2
