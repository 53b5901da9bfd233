# SPDX-License-Identifier: MIT
"""The count of zero-copy sends: what completions release, near the wrap of 2**32 too."""

import sys

import pytest

from lowsock import constants
from lowsock.errqueue._events import ZeroCopyCompletion
from lowsock.errqueue._inflight import Ledger

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


# ---- the count ----


def told(first, last=None, copied=False):
    return ZeroCopyCompletion(first, first if last is None else last, copied, [], 0)


def ledger(first, count):
    made = Ledger(first)
    for i in range(count):
        made.put(made.next, i)
    return made


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
def test_numbers_go_on_and_wrap(first):
    made = ledger(first, 5)
    assert list(made.pieces) == [(first + i) % TOP for i in range(5)]
    assert made.next == (first + 5) % TOP
    assert [made.was_given((first + i) % TOP) for i in (-1, 0, 4, 5, 6)] == [True, True, True, False, False]


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 4), (1, 3), (4, 4)])
def test_a_completion_releases_its_range_and_nothing_else(first, begin, end):
    made = ledger(first, 5)
    made.settle(told((first + begin) % TOP, (first + end) % TOP))
    assert set(made.pieces.values()) == set(range(5)) - set(range(begin, end + 1))
    assert not made.astray


def test_completions_may_come_in_any_order():
    made = ledger(TOP - 2, 4)
    for key, left in ((1, [0, 1, 2]), (TOP - 2, [1, 2]), (0, [1]), (TOP - 1, [])):
        made.settle(told(key))
        assert list(made.pieces.values()) == left


@pytest.mark.parametrize("copied", [False, True])
def test_copies_are_counted_once(copied):
    made = ledger(0, 4)
    for first, last in ((0, 1), (0, 1), (1, 2)):
        made.settle(told(first, last, copied))
    assert made.copied == 3 * copied


def test_a_range_wider_than_what_is_in_flight():
    made = ledger(1000, 2)
    made.settle(told(0, 1001))
    assert not made.pieces


@pytest.mark.parametrize("first", [0, TOP - 1])
def test_a_number_that_was_not_given_stops_all_release(first):
    made = ledger(first, 2)
    made.settle(told((first + 2) % TOP))
    made.settle(told(first))
    assert (made.astray, len(made.pieces)) == (True, 2)


@pytest.mark.parametrize("first", [0, 5, TOP - 1])
@pytest.mark.parametrize(("doubt", "ahead"), [(1, 0), (2, 0), (2, 1)])
def test_refused_sends_may_have_been_counted(first, doubt, ahead):
    made = ledger(first, 2)
    made.doubt = doubt
    made.settle(told((first + 1) % TOP, (first + 2 + ahead) % TOP))
    assert (made.astray, made.next, list(made.pieces.values())) == (False, (first + 3 + ahead) % TOP, [0])
    assert made.doubt == doubt - ahead - 1


@pytest.mark.parametrize("doubt", [0, 1, 2])
def test_a_number_beyond_all_doubt_is_not_ours(doubt):
    made = ledger(7, 2)
    made.doubt = doubt
    made.settle(told(9 + doubt))
    assert (made.astray, len(made.pieces)) == (True, 2)
