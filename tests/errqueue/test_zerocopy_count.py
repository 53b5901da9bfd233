# SPDX-License-Identifier: MIT
"""The count of zero-copy sends: what completions release, near the wrap of 2**32 too."""

import sys

import pytest

from lowsock import constants
from lowsock.errqueue._events import ZeroCopyCompletion
from lowsock.errqueue._inflight import InFlight

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

TOP = 2**32
ZEROCOPY = constants.MSG_ZEROCOPY


# ---- the count ----


def completion(first, last=None, copied=False):
    return ZeroCopyCompletion(first, first if last is None else last, copied, [], 0)


def in_flight(first, count):
    sends = InFlight(first)
    for i in range(count):
        sends.add(sends.next_key, i)
    return sends


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
def test_numbers_go_on_and_wrap(first):
    sends = in_flight(first, 5)
    assert list(sends.regions) == [(first + i) % TOP for i in range(5)]
    assert sends.next_key == (first + 5) % TOP
    assert [sends.was_assigned((first + i) % TOP) for i in (-1, 0, 4, 5, 6)] == [True, True, True, False, False]


@pytest.mark.parametrize("first", [0, 7, TOP - 3, TOP - 1, 2**31 - 2])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 4), (1, 3), (4, 4)])
def test_a_completion_releases_its_range_and_nothing_else(first, begin, end):
    sends = in_flight(first, 5)
    sends.complete(completion((first + begin) % TOP, (first + end) % TOP))
    assert set(sends.regions.values()) == set(range(5)) - set(range(begin, end + 1))
    assert not sends.saw_foreign


def test_completions_may_come_in_any_order():
    sends = in_flight(TOP - 2, 4)
    for key, left in ((1, [0, 1, 2]), (TOP - 2, [1, 2]), (0, [1]), (TOP - 1, [])):
        sends.complete(completion(key))
        assert list(sends.regions.values()) == left


@pytest.mark.parametrize("copied", [False, True])
def test_copies_are_counted_once(copied):
    sends = in_flight(0, 4)
    for first, last in ((0, 1), (0, 1), (1, 2)):
        sends.complete(completion(first, last, copied))
    assert sends.copied == 3 * copied


def test_a_range_wider_than_what_is_in_flight():
    sends = in_flight(1000, 2)
    sends.complete(completion(0, 1001))
    assert not sends.regions


@pytest.mark.parametrize("first", [0, TOP - 1])
def test_a_number_that_was_not_given_stops_all_release(first):
    sends = in_flight(first, 2)
    sends.complete(completion((first + 2) % TOP))
    sends.complete(completion(first))
    assert (sends.saw_foreign, len(sends.regions)) == (True, 2)


@pytest.mark.parametrize("first", [0, 5, TOP - 1])
@pytest.mark.parametrize(("uncertain", "ahead"), [(1, 0), (2, 0), (2, 1)])
def test_refused_sends_may_have_been_counted(first, uncertain, ahead):
    sends = in_flight(first, 2)
    sends.uncertain = uncertain
    sends.complete(completion((first + 1) % TOP, (first + 2 + ahead) % TOP))
    assert (sends.saw_foreign, sends.next_key, list(sends.regions.values())) == (False, (first + 3 + ahead) % TOP, [0])
    assert sends.uncertain == uncertain - ahead - 1


@pytest.mark.parametrize("uncertain", [0, 1, 2])
def test_a_number_beyond_all_doubt_is_not_ours(uncertain):
    sends = in_flight(7, 2)
    sends.uncertain = uncertain
    sends.complete(completion(9 + uncertain))
    assert (sends.saw_foreign, len(sends.regions)) == (True, 2)
