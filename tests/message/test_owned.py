# SPDX-License-Identifier: MIT
"""OwnedFds: what it lends, what it gives, and that it closes the rest once, whatever comes between."""

import collections.abc
import copy
import gc
import itertools
import os
import pickle
from contextlib import suppress

import pytest
from owning import is_open

import lowsock

pytestmark = pytest.mark.smoke

# ---- lending ----


def test_it_is_a_sequence_of_ints(owner, fds):
    assert isinstance(owner, collections.abc.Sequence)
    assert len(owner) == 5
    assert list(owner) == fds
    assert list(reversed(owner)) == fds[::-1]
    assert {type(fd) for fd in owner} == {int}
    assert fds[2] in owner
    assert -1 not in owner
    assert (owner.index(fds[3]), owner.count(fds[3])) == (3, 1)


@pytest.mark.parametrize("i", [0, 1, 4, -1, -5, True])
def test_an_index_is_that_of_a_list(owner, fds, i):
    assert owner[i] == fds[i]


@pytest.mark.parametrize("at", [slice(None), slice(1, 3), slice(-2, None), slice(None, None, -2), slice(9, 12)])
def test_a_slice_is_a_list(owner, fds, at):
    assert owner[at] == fds[at]


@pytest.mark.parametrize("i", [5, -6, 2**70])
@pytest.mark.parametrize("way", ["__getitem__", "take"])
def test_an_index_may_be_out_of_range(owner, way, i):
    with pytest.raises(IndexError, match=f"i is out of range: {i}, of 5 slots"):
        getattr(owner, way)(i)


@pytest.mark.parametrize(("way", "i"), [("__getitem__", None), *itertools.product(["__getitem__", "take"], ["0", 0.0])])
def test_an_index_must_be_an_int(owner, way, i):
    with pytest.raises(TypeError, match="i must be an int"):
        getattr(owner, way)(i)


def test_what_is_taken_is_one_slot(owner):
    with pytest.raises(TypeError, match="i must be an int, not slice"):
        owner.take(slice(0, 1))


class Longer(lowsock.OwnedFds):
    """Says that it has more slots than it has."""

    __slots__ = ()

    def __len__(self):
        return 10**9


def test_a_subclass_reaches_no_memory_but_its_own_slots(fds):
    with Longer(fds) as owner:
        for use in (owner.take, owner.__getitem__):
            with pytest.raises(IndexError, match="i is out of range: 5000, of 5 slots"):
                use(5000)
        assert owner[:] == list(owner) == fds
        assert repr(owner) == f"<lowsock.OwnedFds {fds}>"
        assert owner.detach() == fds


@pytest.mark.parametrize("way", ["__getitem__", "take"])
def test_slots_that_are_exchanged_midway_are_those_that_were_asked_for(owner, fds, way):
    class Exchanging:
        def __index__(self):
            owner.__init__()
            gc.collect()
            return 4

    got = None
    with suppress(ValueError):  # slot 4 is closed, unless the collector is late
        got = getattr(owner, way)(Exchanging())
    assert (got in (None, fds[4]), len(owner)) == (True, 0)


def test_what_is_lent_is_closed_by_its_owner(owner, fds):
    lent = list(owner)
    owner.close()
    assert not any(map(is_open, lent))


# ---- giving ----


@pytest.mark.parametrize("i", [0, 2, 4, -1])
def test_what_is_taken_is_the_takers(owner, fds, i):
    taken = owner.take(i)
    owner.close()
    assert taken == fds[i]
    assert [fd for fd in fds if is_open(fd)] == [taken]


def test_the_first_that_is_left_is_taken_if_none_is_named(owner, fds):
    owner.take(1)
    assert [owner.take() for _ in range(4)] == [fds[0], *fds[2:]]


def test_no_more_can_be_taken_than_there_are(owner):
    for _ in range(5):
        owner.take()
    with pytest.raises(ValueError, match="no descriptor is left: all 5 have been taken"):
        owner.take()


def test_of_an_owner_of_nothing_nothing_can_be_taken():
    with pytest.raises(ValueError, match="no descriptor is left: none came"):
        lowsock.OwnedFds().take()


def test_of_a_closed_owner_nothing_can_be_taken(owner):
    owner.take(0)
    owner.close()
    with pytest.raises(ValueError, match="this owner is closed"):
        owner.take()


def test_what_is_left_is_counted(owner):
    """Its length is that of the slots, which indexes count."""
    assert (owner.left, len(owner)) == (5, 5)
    owner.take(3)
    owner.take()
    assert (owner.left, len(owner)) == (3, 5)
    owner.close()
    assert (owner.left, len(owner)) == (0, 5)


LENDING = {
    "index": lambda owner: owner[2],
    "negative index": lambda owner: owner[-3],
    "slice": lambda owner: owner[1:4],
    "iteration": list,
    "take": lambda owner: owner.take(2),
}


@pytest.mark.parametrize("use", LENDING.values(), ids=LENDING)
def test_a_taken_slot_is_named(owner, fds, use):
    owner.take(2)
    with pytest.raises(ValueError, match="slot 2 has been taken"):
        use(owner)
    assert len(owner) == 5
    assert [owner[i] for i in (0, 1, 3, 4)] == [fds[i] for i in (0, 1, 3, 4)]


def test_what_is_left_is_detached(owner, fds):
    owner.take(1)
    assert owner.detach() == [fds[0], *fds[2:]]
    owner.close()
    assert all(map(is_open, fds))


def test_nothing_is_left_to_be_detached_twice(owner):
    owner.detach()
    assert owner.detach() == []


def test_an_owner_of_nothing_detaches_nothing():
    assert lowsock.OwnedFds().detach() == []


# ---- closing ----


def test_what_nobody_took_is_closed_at_the_end(fds):
    with lowsock.OwnedFds(fds) as owner:
        assert not owner.closed
    assert owner.closed
    assert not any(map(is_open, fds))


def test_what_nobody_took_is_closed_on_an_error(fds):
    owner, error = lowsock.OwnedFds(fds), KeyError("mine")
    taken = owner.take(3)
    with pytest.raises(KeyError) as caught, owner:
        raise error
    assert caught.value is error
    assert [fd for fd in fds if is_open(fd)] == [taken]


def test_it_may_be_closed_twice_and_the_second_time_closes_nothing(owner, fds):
    owner.close()
    reused = [os.dup(0) for _ in fds]
    owner.close()
    assert reused == fds
    assert all(map(is_open, reused))


CLOSED = {**LENDING, "detach": lambda owner: owner.detach()}


@pytest.mark.parametrize("use", CLOSED.values(), ids=CLOSED)
def test_a_closed_owner_says_so(owner, use):
    owner.close()
    with pytest.raises(ValueError, match=r"slot \d is closed|this owner is closed"):
        use(owner)
    assert len(owner) == 5


def test_a_descriptor_that_somebody_else_closed_is_no_error(owner, fds):
    os.close(fds[0])
    owner.close()
    assert not any(map(is_open, fds))


# ---- adopting ----


def closed_number():
    fd = os.dup(0)
    os.close(fd)
    return fd


BAD = {
    "a number": (lambda fds: 5, TypeError, "fds must be an iterable of int"),
    "no number": (lambda fds: [*fds, "x"], TypeError, r"fds\[5\] must be an int, not str"),
    "a negative one": (lambda fds: [*fds, -1], ValueError, r"fds\[5\] must not be negative"),
    "too great a one": (lambda fds: [*fds, 2**31], OverflowError, r"fds\[5\] is out of range"),
    "a bool": (lambda fds: [*fds, True], TypeError, r"fds\[5\] must be an int, not bool"),
    "a closed one": (lambda fds: [*fds, closed_number()], ValueError, r"fds\[5\] is closed: there is no descriptor \d+"),
    "one twice": (lambda fds: [*fds, fds[0]], ValueError, "fds must not name a descriptor twice"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_cannot_be_adopted_stays_the_callers(fds, bad):
    with pytest.raises(bad[1], match=bad[2]):
        lowsock.OwnedFds(bad[0](fds))
    gc.collect()
    assert all(map(is_open, fds))


@pytest.mark.parametrize("container", [tuple, iter, set, lambda fds: (fd for fd in fds)])
def test_any_iterable_may_be_adopted(fds, container):
    with lowsock.OwnedFds(container(fds)) as owner:
        assert sorted(owner) == fds


def test_an_owner_is_not_adopted_by_another(owner, fds):
    """It would be closed twice."""
    with pytest.raises(TypeError, match="fds must not be an OwnedFds"):
        lowsock.OwnedFds(owner)
    with lowsock.OwnedFds(owner.detach()) as other:
        owner.close()
        assert list(other) == fds
        assert all(map(is_open, fds))


def test_an_adopted_owner_has_no_control_messages(owner):
    assert (owner.ancdata, owner.pidfd) == ([], None)


# ---- what it shows, what it refuses ----


def test_its_repr_tells_what_is_in_it(fds):
    owner = lowsock.OwnedFds(fds[:3])
    owner.take(1)
    assert repr(owner) == f"<lowsock.OwnedFds [{fds[0]}, taken, {fds[2]}]>"
    owner.close()
    assert repr(owner) == "<lowsock.OwnedFds [closed, taken, closed]>"
    assert repr(lowsock.OwnedFds()) == "<lowsock.OwnedFds []>"


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": (lambda owner, n=n: pickle.dumps(owner, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("use", COPIES.values(), ids=COPIES)
def test_a_copy_would_be_a_second_owner(owner, use):
    with pytest.raises(TypeError, match="one owner"):
        use(owner)
