# SPDX-License-Identifier: MIT
"""Exceptions out of the midst of an endpoint's calls: they come out unchanged, and nothing is sent or told twice."""

import errno
import os
import socket

import pytest

from lowsock import _udp_arrival as arriving
from lowsock import _udp_sending as sending
from lowsock import _zerocopy, cmsg, udp

LINUX = os.uname().sysname == "Linux"


class Alarmed(OSError):
    """What a signal handler raises, with an errno that the kernel refuses with."""


def then_alarmed(call, error=errno.EINVAL):
    """The call, and a signal handler that runs at its end."""

    def called(*args, **more):
        call(*args, **more)
        raise Alarmed(error, "alarmed")

    return called


@pytest.fixture
def pair():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        a.connect(b.getsockname())
        b.setblocking(False)
        yield a, b


def drained(sock):
    got = []
    while True:
        try:
            got.append(sock.recv(65536))
        except BlockingIOError:
            return got


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
def test_a_batch_that_went_is_not_sent_again_without_ecn(pair, monkeypatch, error):
    a, b = pair
    monkeypatch.setattr(sending, "sendmmsg", then_alarmed(sending.sendmmsg, error))
    one = udp.Endpoint(a)
    with pytest.raises(Alarmed):
        one.send_many([(b"1", None), (b"2", None)], ecn=cmsg.ECN.ECT_0)
    assert drained(b) == [b"1", b"2"]
    assert one.fallbacks.ecn is None


@pytest.mark.skipif(not LINUX, reason="MSG_ZEROCOPY is Linux's")
def test_a_zero_copy_send_that_went_is_not_sent_again(pair, monkeypatch):
    a, b = pair
    with udp.Endpoint(a, zerocopy=True) as one:
        with monkeypatch.context() as patch:
            patch.setattr(_zerocopy.ZeroCopySender, "send", then_alarmed(_zerocopy.ZeroCopySender.send))
            with pytest.raises(Alarmed):
                one.send(bytes(20000), segment_size=10000)
        assert drained(b) == [bytes(10000)] * 2
        assert one.fallbacks == udp.Fallbacks(None, None, {})


def test_memory_whose_news_were_not_learned_is_not_used_again(pair, monkeypatch):
    """Else the next datagram from there came with the source of the one before."""
    a, b = pair
    other = udp.Endpoint(b)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
        c.sendto(b"0", b.getsockname())
        assert other.recv()[0].address[1] == c.getsockname()[1]
    a.send(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(arriving, "persist", then_alarmed(arriving.persist, errno.EAGAIN))
        with pytest.raises(Alarmed):
            other.recv(socket.MSG_DONTWAIT)
    a.send(b"2")
    assert [(each.data, each.address) for each in other.recv()] == [(b"2", a.getsockname())]


def test_a_socket_that_has_nothing_costs_no_memory(pair):
    """A program drains until EAGAIN; the room for 64 KiB stays."""
    a, b = pair
    other = udp.Endpoint(b)
    boxes = []
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            other.recv()
        boxes.append([id(each) for each in other._receiver._free])
    assert boxes == [boxes[0]] * 3
    assert len(boxes[0]) == 1
