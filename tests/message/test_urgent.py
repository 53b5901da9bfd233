# SPDX-License-Identifier: MIT
"""Out-of-band data and the mark: TCP and, since Linux 5.15, AF_UNIX streams."""

import os
import select
import socket

import pytest

import lowsock

OOB = socket.MSG_OOB


@pytest.fixture
def urgent_pair(stream_pair):
    """A pair that has sent ``before``, an urgent ``!`` and ``after``, all of it arrived."""
    stream_pair.a.send(b"before")
    try:
        lowsock.sendmsg(stream_pair.a, [b"!"], [], OOB)
    except OSError as error:
        pytest.skip(f"no out-of-band data on {stream_pair.kind}: {error}")
    stream_pair.a.send(b"after")
    waiting = select.poll()
    waiting.register(stream_pair.b, select.POLLPRI)
    assert waiting.poll(10_000)
    return stream_pair


RECEIVES = {
    "recvmsg": lambda sock, size, flags=0: lowsock.recvmsg(sock, size, 0, flags)[0],
    "recvmsg with room": lambda sock, size, flags=0: lowsock.recvmsg(sock, size, 100, flags)[0],
    "recv1msg": lambda sock, size, flags=0: lowsock.recv1msg(sock, size, flags=flags)[0],
    "recv_fds": lambda sock, size, flags=0: lowsock.recv_fds(sock, size, 1, flags)[0],
}


@pytest.fixture(params=RECEIVES)
def receive(request):
    return RECEIVES[request.param]


def test_the_urgent_byte_comes_out_of_band(urgent_pair, receive):
    assert receive(urgent_pair.b, 1, OOB) == b"!"
    assert receive(urgent_pair.b, 6) == b"before"
    assert receive(urgent_pair.b, 10) == b"after"


def test_the_urgent_byte_comes_once(urgent_pair, receive):
    receive(urgent_pair.b, 1, OOB)
    with pytest.raises(OSError, match="Invalid argument"):
        receive(urgent_pair.b, 1, OOB)


def test_the_mark_is_before_at_and_behind(urgent_pair, receive):
    assert lowsock.sockatmark(urgent_pair.b) is False
    assert receive(urgent_pair.b, 100) == b"before"  # a receive ends at the mark
    assert lowsock.sockatmark(urgent_pair.b) is True
    assert receive(urgent_pair.b, 1, OOB) == b"!"
    assert receive(urgent_pair.b, 100) == b"after"
    assert lowsock.sockatmark(urgent_pair.b) is False


def test_the_mark_is_told_in_every_way_to_pass_a_socket(urgent_pair, passed):
    sock = passed(urgent_pair.b)
    assert lowsock.sockatmark(sock) is False
    urgent_pair.b.recv(6)
    assert lowsock.sockatmark(sock) is True


def test_in_line_the_urgent_byte_comes_with_the_others(urgent_pair, receive):
    urgent_pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    assert receive(urgent_pair.b, 6) == b"before"
    assert lowsock.sockatmark(urgent_pair.b) is True
    assert receive(urgent_pair.b, 1) == b"!"
    assert receive(urgent_pair.b, 5) == b"after"


def test_the_last_byte_of_an_urgent_message_is_the_urgent_one(stream_pair, receive):
    try:
        lowsock.send1msg(stream_pair.a, b"abc", OOB)
    except OSError as error:
        pytest.skip(f"no out-of-band data on {stream_pair.kind}: {error}")
    assert receive(stream_pair.b, 10) == b"ab"
    assert lowsock.sockatmark(stream_pair.b) is True
    assert receive(stream_pair.b, 1, OOB) == b"c"


def test_a_stream_that_nothing_came_on_is_not_at_the_mark(stream_pair):
    assert lowsock.sockatmark(stream_pair.b) is False


def test_udp_has_no_mark(udp_pair):
    with pytest.raises(OSError, match=os.strerror(25)):  # ENOTTY
        lowsock.sockatmark(udp_pair.a)


def test_a_file_has_no_mark(tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match=os.strerror(25)):
        lowsock.sockatmark(file)


def test_a_descriptor_that_is_not_open_has_no_mark():
    with pytest.raises(OSError, match=os.strerror(9)):  # EBADF
        lowsock.sockatmark(-1)
