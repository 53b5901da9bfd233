# SPDX-License-Identifier: MIT
"""Exceptions out of the midst of an endpoint's calls: they come out unchanged, and nothing is sent or told twice."""

import contextlib
import errno
import os
import random
import socket

import pytest

from lowsock import cmsg, udp
from lowsock._system.ffi import ffi
from lowsock.errqueue import _zerocopy
from lowsock.udp import _receiving as receiving
from lowsock.udp import _send_many as many
from lowsock.udp import _sending as sending

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
    monkeypatch.setattr(many, "deliver", then_alarmed(many.deliver, error))
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
                one.send(bytes(20000), address=None, segment_size=10000)
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
        patch.setattr(receiving, "retry", then_alarmed(receiving.retry, errno.EAGAIN))
        with pytest.raises(Alarmed):
            other.recv(flags=socket.MSG_DONTWAIT)
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


class Moody:
    """A kernel that refuses offload, ECN, or anything for a while, takes a part of a batch, and is interrupted."""

    def __init__(self, seed):
        self.random, self.took = random.Random(seed), []

    def offloaded(self, fd, data, size, control, *_):
        answer = self.random.choice([size] * 3 + [-error for error in REFUSALS])
        if answer >= 0:
            self._take(data, size, SEGMENT)
        return answer

    def each(self, fd, data, size, segment, control, *_):
        error = self.random.choice([0] * 5 + list(REFUSALS))
        if error:
            return -error
        most = self.random.choice([1, 3, 64, 1024])
        self._take(data, min(size, most * segment), segment)
        return max(min(-(-size // segment), most), 1)

    def _take(self, data, size, segment):
        whole = data[:size] if isinstance(data, bytes) else bytes(ffi.buffer(data, size))
        self.took += [whole[at : at + segment] for at in range(0, size, segment)] or [b""]


REFUSALS = errno.EAGAIN, errno.EINTR, errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOBUFS
SEGMENT = 8


@pytest.mark.parametrize("kind", [bytes, bytearray], ids=["bytes", "bytearray"])
def test_whatever_is_refused_when_each_datagram_goes_once_and_in_order(pair, monkeypatch, kind):
    a, _ = pair
    a.setblocking(False)
    for seed in range(500):
        moody = Moody(seed)
        monkeypatch.setattr(sending, "_udp_send", moody.offloaded)
        monkeypatch.setattr(sending, "_send_each", moody.each)
        one, sent = udp.Endpoint(a), 0
        data = moody.random.randbytes(moody.random.choice([0, 1, 8, 9, 800, 1024, 1025, 8192, 20001]))
        while sent < len(data) or not moody.took:
            with contextlib.suppress(OSError):
                sent += one.send(kind(data[sent:]), address=None, segment_size=SEGMENT, ecn=moody.random.choice([None, 2]))
            assert sent == sum(map(len, moody.took)), seed
        assert b"".join(moody.took) == data, seed
        assert all(len(each) == SEGMENT for each in moody.took[:-1]), seed
