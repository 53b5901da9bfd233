# SPDX-License-Identifier: MIT
"""What has come on a stream and was not asked for: no socket, bytes made by hand, descriptors of /dev/null."""

import os
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowsock import OwnedFds, cmsg
from lowsock.unix._incoming import MSG_CTRUNC, BrokenStreamError, Incoming

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these credentials are Linux's")


def new_fds(count):
    return OwnedFds([os.open(os.devnull, os.O_RDONLY) for _ in range(count)])


def arrival(data, count=0, uid=None):
    fds = new_fds(count)
    if uid is not None:
        fds.ancdata = [tuple(cmsg.Credentials(pid=1, uid=uid, gid=1))]
    return data, fds, 0


@pytest.fixture
def incoming():
    made = Incoming(10)
    yield made
    made.close()


# ---- laws ----


def test_what_is_added_is_taken_in_order(incoming):
    for piece in (b"abc", b"", b"d", b"ef"):
        incoming.add(*arrival(piece))
    assert (len(incoming), incoming.peek(2), incoming.take(4), incoming.take(2), len(incoming)) == (
        6,
        b"ab",
        b"abcd",
        b"ef",
        0,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10])
def test_some_ends_with_the_bytes_that_brought_descriptors(incoming, size):
    incoming.add(*arrival(b"abc", 1))
    incoming.add(*arrival(b"defg"))
    got = incoming.take_some(size)
    with got.fds as fds:
        assert (got.data, len(fds)) == (b"abc"[:size], 1)
    assert (len(incoming.take_some(1).fds), len(incoming)) == (0, 6 - len(got.data))


def test_bytes_before_those_with_descriptors_come_alone(incoming):
    incoming.add(*arrival(b"abc"))
    incoming.add(*arrival(b"def", 2))
    got = [incoming.take_some(10) for _ in range(2)]
    assert [(each.data, len(each.fds)) for each in got] == [(b"abc", 0), (b"def", 2)]
    got[1].fds.close()


def test_descriptors_can_be_taken_only_with_their_bytes(incoming):
    incoming.add(*arrival(b"abc"))
    incoming.add(*arrival(b"def", 2))
    incoming.take(3)
    assert len(incoming.take_fds(0)) == 0
    assert incoming.held == 2
    incoming.take(1)
    with incoming.take_fds(2) as fds:
        assert len(fds) == 2


def test_taking_from_several_keeps_the_order(incoming):
    numbers = []
    for count in (2, 3, 1):
        data, fds, flags = arrival(b"x", count)
        numbers += list(fds)
        incoming.add(data, fds, flags)
    incoming.take(2)
    with incoming.take_fds(4) as fds:
        assert list(fds) == numbers[:4]
    incoming.take(1)  # the fifth was surplus of bytes that were all taken
    with incoming.take_fds(1) as fds:
        assert list(fds) == numbers[5:]


def test_a_receive_that_holds_the_next_message_too_keeps_its_descriptors(incoming):
    _, fds, _ = arrival(b"", 3)
    numbers = list(fds)
    incoming.add(b"firstsecond", fds, 0)
    incoming.take(5)
    with incoming.take_fds(1) as first:
        assert list(first) == numbers[:1]
    incoming.take(6)
    with incoming.take_fds(2) as second:
        assert list(second) == numbers[1:]


class Model:
    """The same in few words: all bytes, and of each arrival where it stands and which descriptors are left."""

    def __init__(self):
        self.bytes, self.taken, self.brought = b"", 0, []

    def add(self, data, numbers):
        self.brought.append([len(self.bytes), len(self.bytes) + len(data), numbers])
        self.bytes += data

    def take(self, size):
        self.taken += size
        return self.bytes[self.taken - size : self.taken]

    def ready(self):
        return [number for start, _, numbers in self.brought if start < self.taken for number in numbers]

    def take_fds(self, count):
        expected = self.ready()[:count]
        for entry in self.brought:
            entry[2] = [] if entry[1] <= self.taken else [number for number in entry[2] if number not in expected]
        return expected

    def take_untouched(self):
        """Those of the arrival that begins with the next byte."""
        for entry in self.brought:
            if entry[0] == self.taken < entry[1]:
                numbers, entry[2] = entry[2], []
                return numbers
        return []


@given(st.integers(0, 2**64))
def test_whatever_is_taken_in_whatever_pieces_comes_in_order(seed):
    """Bytes and descriptors are those of a simple model, and in the end none is open."""
    dice, incoming, model = random.Random(seed), Incoming(100), Model()
    before = len(os.listdir("/dev/fd"))
    for step in range(dice.randrange(1, 20)):
        data, fds, _ = arrival(bytes([step]) * dice.randrange(1, 6), dice.choice((0, 0, 1, 3)))
        model.add(data, list(fds))
        incoming.add(data, fds, 0)
        what = dice.randrange(4)
        if what == 0:
            size = dice.randrange(len(incoming) + 1)
            assert (incoming.peek(size), incoming.take(size)) == (model.take(size),) * 2
        elif what == 1 and incoming:
            numbers, got = model.take_untouched(), incoming.take_some(dice.randrange(1, 8))
            with got.fds:
                assert (list(got.fds), got.data) == (numbers, model.take(len(got.data)))
                assert got.data
        elif what == 2:
            count = dice.randrange(len(model.ready()) + 1)
            with incoming.take_fds(count) as owned:
                assert list(owned) == model.take_fds(count)
    incoming.close()
    assert len(os.listdir("/dev/fd")) == before


# ---- what breaks it ----


def closed(fds):
    return fds.closed or not fds


@pytest.mark.parametrize("way", ["add", "pass_through"])
@pytest.mark.parametrize(("count", "flags", "words"), [(11, 0, "more than 10"), (1, MSG_CTRUNC, "MSG_CTRUNC")])
def test_too_many_and_too_few_are_closed_and_told_for_ever(incoming, way, count, flags, words):
    held, fds = new_fds(0 if way == "pass_through" else 3), new_fds(count)
    incoming.add(b"x" if held else b"", held, 0)
    with pytest.raises(BrokenStreamError, match=words):
        getattr(incoming, way)(b"data", fds, flags)
    assert (fds.closed, closed(held), incoming.held, len(incoming), incoming.can_pass_through) == (True, True, 0, 0, False)
    with pytest.raises(BrokenStreamError, match=words):
        incoming.refuse_broken()


def test_the_limit_counts_what_is_held(incoming):
    incoming.add(*arrival(b"x", 6))
    incoming.add(*arrival(b"x", 4))
    incoming.take(1)
    with incoming.take_fds(1):  # five of the six are closed as surplus
        pass
    incoming.add(*arrival(b"x", 6))
    with pytest.raises(BrokenStreamError, match="more than 10"):
        incoming.add(*arrival(b"x", 1))


def test_taking_more_than_came_closes_all(incoming):
    incoming.add(*arrival(b"x", 2))
    incoming.take(1)
    with pytest.raises(BrokenStreamError, match="3 descriptors were to come, and 2 came"):
        incoming.take_fds(3)
    assert incoming.held == 0


@linux
def test_senders_are_not_mixed(incoming):
    incoming.add(*arrival(b"ab", 1, uid=1))
    incoming.take(2)
    incoming.take_fds(0)
    incoming.add(*arrival(b"cd", uid=2))  # nothing of the first is left
    assert incoming.credentials.uid == 2
    incoming.add(*arrival(b"ef", uid=2))
    with pytest.raises(BrokenStreamError, match=r"uid=3.* came among those of .*uid=2"):
        incoming.add(*arrival(b"gh", 1, uid=3))


@pytest.mark.parametrize(
    ("data", "count", "whole"),
    [
        (b"\0\0\0\4\0\0\0\2data", 2, True),
        (b"\0\0\0\0\0\0\0\0", 0, True),
        (b"\0\0\0\4\0\0\0\2dat", 2, False),
        (b"\0\0\0\4\0\0\0\2data\0", 2, False),
        (b"\0\0\0\4\0\0\0\2data", 1, False),
        (b"\0\0\0\5\0\0\0\2data!", 2, False),  # too long
        (b"\0\0\0\4\0\0\0", 2, False),
        (b"", 0, False),
    ],
)
def test_only_one_whole_message_passes_at_once_and_the_rest_stays(incoming, data, count, whole):
    _, fds, _ = arrival(b"", count)
    got = incoming.pass_message(4, data, fds, 0)
    if whole:
        got.fds.close()
        assert (got.data, len(got.fds), len(incoming)) == (data[8:], count, 0)
    else:
        assert (got, len(incoming), incoming.held) == (None, len(data), count)


@linux
def test_at_the_end_nobody_has_sent_anything(incoming):
    assert incoming.pass_through(*arrival(b"", uid=0)).credentials is None


def test_an_exception_while_descriptors_are_moved_loses_none(incoming, open_fds):
    """A signal handler's, at any line: the stream is broken then, and everything closed."""
    before = open_fds()
    lines = 0
    for at in range(60):
        incoming = Incoming(10)
        incoming.add(*arrival(b"x", 2))
        incoming.add(*arrival(b"x", 3))
        incoming.take(2)
        left = [at]

        def trace(frame, event, argument, left=left):
            if event == "line" and frame.f_globals["__name__"] == Incoming.__module__:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return trace

        old = sys.gettrace()
        sys.settrace(trace)
        try:
            incoming.take_fds(4).close()
        except KeyboardInterrupt:
            lines += 1
        finally:
            sys.settrace(old)
        incoming.close()
        assert open_fds() == before
    assert lines > 10
