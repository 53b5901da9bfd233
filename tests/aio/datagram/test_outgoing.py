# SPDX-License-Identifier: MIT
"""The queue of a datagram transport: what goes by one call, each datagram once, whatever the kernel answers."""

import errno

import pytest
from datagram_loops import of_lowsock
from hypothesis import given, settings
from hypothesis import strategies as st

from lowsock.aio._datagram.send_queue import Outgoing

A, B = ("127.0.0.1", 1), ("127.0.0.1", 2)


def alike(pieces):
    """Offload's own law: one size, and only the last may be shorter, though not empty."""
    assert {len(piece) for piece in pieces[:-1]} <= {len(pieces[0])}
    assert len(pieces) == 1 or 0 < len(pieces[-1]) <= len(pieces[0])


class Kernel:
    """A backend that does what it is told: takes so many datagrams, has no room, or refuses."""

    min_run = 3

    def __init__(self, answers):
        self.answers, self.taken, self.calls = list(answers), [], []

    @of_lowsock
    def _take(self, name, items):
        self.calls.append((name, len(items)))
        answer = self.answers.pop(0) if self.answers else len(items)
        if isinstance(answer, OSError):
            raise answer
        gone = items[: max(1, min(answer, len(items)))]
        self.taken += gone
        return len(gone)

    @of_lowsock
    def send_one(self, data, address):
        return self._take("send_one", [(data, address)])

    @of_lowsock
    def send_run(self, pieces, address):
        alike(pieces)
        return self._take("send_run", [(piece, address) for piece in pieces])

    @of_lowsock
    def send_with_control(self, pieces, address, control):
        alike(pieces)
        return self._take("send_with_control", [(piece, address, control) for piece in pieces])

    @of_lowsock
    def send_many(self, pairs):
        assert all(len(pair) == 2 for pair in pairs)
        return self._take("send_many", list(pairs))


REFUSALS = [BlockingIOError(errno.EAGAIN, "no room"), OSError(errno.EMSGSIZE, "too long"), OSError(errno.EPERM, "not you")]
ITEMS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([A, B, None]), st.sampled_from([None, None, (1, None), (2, "::1")])),
    max_size=60,
)
ANSWERS = st.lists(st.one_of(st.integers(1, 20), st.sampled_from(REFUSALS)), max_size=40)


def put(out, items):
    for i, (size, address, control) in enumerate(items):
        data = (b"%d" % i).rjust(10 * size, b".") if size else b""
        out.queue.append((data, address) if control is None else (data, address, control))
        out.size += len(data) or 1
        out.with_control += control is not None
    return list(out.queue)


@settings(max_examples=300, deadline=None)
@given(ITEMS, ANSWERS)
def test_each_datagram_goes_once_and_in_order_or_is_refused_by_name(items, answers):
    kernel, refused = Kernel(answers), []
    out = Outgoing(kernel, lambda error: refused.append((len(kernel.taken), error)), pytest.fail)
    waiting = put(out, items)
    while not out.flush():
        assert out.queue, "there was no room for nothing"
    for count, (at, _) in enumerate(refused):  # the datagram that stood at the head of those not taken
        kernel.taken.insert(at + count, None)
    assert [got or item for got, item in zip(kernel.taken, waiting)] == waiting
    assert len(kernel.taken) == len(waiting)
    assert ([*out.queue], out.size, out.with_control) == ([], 0, 0)


@pytest.mark.parametrize(
    ("items", "calls"),
    [
        ([], []),
        ([(1, A, None)], [("send_one", 1)]),
        ([(1, A, None)] * 9, [("send_run", 9)]),
        ([(2, A, None)] * 8 + [(1, A, None)], [("send_run", 9)]),
        ([(2, A, None)] * 8 + [(1, B, None)], [("send_run", 8), ("send_one", 1)]),
        ([(1, A, None)] * 8 + [(2, A, None)] * 8, [("send_run", 8), ("send_run", 8)]),
        ([(1, A, None), (1, B, None)] * 8, [("send_many", 16)]),
        ([(1, A, None), (1, B, None)] * 4 + [(1, A, None)] * 8, [("send_many", 8), ("send_run", 8)]),
        ([(0, A, None)] * 4, [("send_many", 4)]),
        ([(1, A, None), (1, A, None), (1, B, None)] * 2, [("send_many", 6)]),
        ([(1, A, None), (1, A, None), (1, A, None), (1, B, None)] * 2, [("send_run", 3), ("send_one", 1)] * 2),
        ([(1, A, (1, None))] * 5, [("send_with_control", 5)]),
        ([(1, A, (1, None))] * 5 + [(1, A, (2, None))] * 5, [("send_with_control", 5), ("send_with_control", 5)]),
        (
            [(1, A, None)] * 5 + [(1, A, (2, None))] * 5 + [(1, A, None)],
            [("send_run", 5), ("send_with_control", 5), ("send_one", 1)],
        ),
        ([(1, A, None), (1, B, None), (1, A, (2, None))], [("send_many", 2), ("send_with_control", 1)]),
        ([(1, None, None)] * 2000 + [(2, None, None)], [("send_run", 1024), ("send_run", 976), ("send_one", 1)]),
        ([(1, A, None), (1, B, None)] * 1000, [("send_many", 1024), ("send_many", 976)]),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_goes_by_one_call(items, calls):
    kernel = Kernel([])
    out = Outgoing(kernel, pytest.fail, pytest.fail)
    put(out, items)
    assert out.flush()
    assert kernel.calls == calls


def test_a_refusal_that_sends_more_does_not_disturb_the_order():
    kernel = Kernel([OSError(errno.EPERM, "no")])
    out = Outgoing(kernel, lambda _: put(out, [(2, B, None)]), pytest.fail)
    put(out, [(1, A, None)] * 3)
    assert out.flush()
    assert out.flush()
    assert [address for _, address in kernel.taken] == [A, A, B]


def test_who_sends_again_what_is_refused_does_not_keep_the_loop():
    kernel = Kernel([OSError(errno.EPERM, "no")] * 1000)
    out = Outgoing(kernel, lambda _: put(out, [(1, A, None)]), pytest.fail)
    put(out, [(1, A, None)] * 3)
    assert out.flush()
    assert len(kernel.calls) == 3
    assert len(out.queue) == 3


def test_many_refusals_are_not_prepared_together_each_time():
    """Or the work grows with the square of their number."""
    kernel, refused = Kernel([OSError(errno.EPERM, "no")] * 1000), []
    out = Outgoing(kernel, refused.append, pytest.fail)
    put(out, [(1, A, None)] * 1500)
    assert out.flush()
    assert len(refused) == 1000
    assert len(kernel.taken) == 500
    assert sum(count for _, count in kernel.calls) < 1500 + 1500
    assert kernel.calls[-1][1] > 100


def test_what_is_no_error_of_the_kernel_is_a_failure():
    class Broken(Kernel):
        @of_lowsock
        def send_one(self, data, address):
            raise LookupError("broken")

    failures = []
    out = Outgoing(Broken([]), pytest.fail, lambda error: (failures.append(error), out.clear()))
    put(out, [(1, A, None)])
    assert out.flush()
    assert [type(error) for error in failures] == [LookupError]


def test_where_there_is_no_offload_nothing_is_gained_by_runs():
    kernel = Kernel([])
    kernel.min_run = 1 << 30
    out = Outgoing(kernel, pytest.fail, pytest.fail)
    put(out, [(1, A, None), (1, A, None), (1, A, None), (1, B, None)] * 3)
    assert out.flush()
    assert kernel.calls == [("send_many", 12)]
