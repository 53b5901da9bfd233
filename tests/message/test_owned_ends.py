# SPDX-License-Identifier: MIT
"""OwnedFds at its end: by the collector, by the interpreter's, in a forked child, and while threads race for it."""

import gc
import os
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from functools import partial

import pytest
from owning import is_open

import lowsock

pytestmark = pytest.mark.collecting

PYPY = sys.implementation.name == "pypy"
ROUNDS = 300  # of threads that race


# ---- the collector ----


def collect():
    for _ in range(4):  # PyPy finalizes in steps
        gc.collect()


@pytest.mark.parametrize("left", [1, 3, 5])
def test_what_the_collector_has_to_close_is_counted(fds, left):
    owner = lowsock.OwnedFds(fds)
    for i in range(5 - left):
        owner.take(i)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del owner
        collect()
    assert [(w.category, str(w.message)) for w in caught] == [
        (ResourceWarning, f"an OwnedFds left {left} unclosed to the collector")
    ]
    assert [is_open(fd) for fd in fds] == [True] * (5 - left) + [False] * left


@pytest.mark.parametrize("end", ["close", "detach"])
def test_who_leaves_nothing_is_not_warned(fds, end):
    owner = lowsock.OwnedFds(fds)
    getattr(owner, end)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del owner
        collect()


def adopted(fds):
    return lowsock.OwnedFds(fds)


def received(fds):
    a, b = socket.socketpair()
    with a, b:
        lowsock.send_fds(a, [b"x"], fds)
        owner = lowsock.recv_owned_fds(b, 1).fds
    for fd in fds:
        os.close(fd)
    return owner


USES = {
    "nothing": lambda owner: None,
    "lend": list,
    "repr": repr,
    "close": lambda owner: owner.close(),
    "take": lambda owner: os.close(owner.take(1)),
    "detach": lambda owner: list(map(os.close, owner.detach())),
}


class Node:
    """Uses an owner in its own finalizer."""

    def __init__(self, use):
        self.use, self.itself = use, self

    def __del__(self):
        try:
            self.use(self.owner)
        except ValueError:  # it was closed before
            pass


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("make", [adopted, received])
@pytest.mark.parametrize("first", [True, False], ids=["owner first", "owner last"])
def test_a_cycle_is_no_hiding_place(fds, open_fds, make, use, first):
    """Finalizers run in any order: what one of them uses is still there, though it may be closed."""
    before = open_fds() - set(fds)
    owner = make(fds) if first else None
    nodes = [Node(USES[use])]
    nodes[0].owner = owner if first else make(fds)
    del owner
    gone = weakref.ref(nodes[0].owner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nodes.clear()
        collect()
    assert open_fds() == before
    assert all(w.category is ResourceWarning for w in caught)
    if use in ("nothing", "lend", "repr"):
        assert [str(w.message) for w in caught] == ["an OwnedFds left 5 unclosed to the collector"]
    caught.clear()  # a warning holds what it is about
    collect()
    assert gone() is None


def test_a_warning_that_is_an_error_closes_all_the_same(fds, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    owner = lowsock.OwnedFds(fds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del owner
        collect()
    assert not any(map(is_open, fds))
    assert [type(one.exc_value) for one in seen] == [ResourceWarning]


def test_one_that_never_came_to_be_is_collected_in_silence(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    lowsock.OwnedFds.__new__(lowsock.OwnedFds)
    collect()
    assert seen == []


SHUTDOWN = """
import os, sys, lowsock
reading, writing = os.pipe()
kept = lowsock.OwnedFds([writing])
{where}
os.set_inheritable(reading, True)
"""
PLACES = {
    "a global": "",
    "a cycle": "cycle = [kept]; cycle.append(cycle); del kept",
    "a module": "sys.modules['os'].kept = kept; del kept",
    "a builtin": "import builtins; builtins.kept = kept; del kept",
    "a thread": "import threading; threading.current_thread().kept = kept; del kept",
    "an atexit function": "import atexit; atexit.register(lambda kept: None, kept); del kept",
    "a class": "Kept = type('Kept', (), {'kept': kept}); del kept",
}


@pytest.mark.parametrize("flags", [[], ["-W", "always"], ["-W", "error"]], ids=["ignored", "shown", "an error"])
@pytest.mark.parametrize("where", PLACES.values(), ids=PLACES)
def test_the_end_of_the_interpreter_makes_no_noise(where, flags):
    """A warning is all that may be said."""
    program = SHUTDOWN.format(where=where)
    done = subprocess.run([sys.executable, "-I", *flags, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    expected = ("ResourceWarning", "Exception ignored in", "Traceback") if flags else ()
    assert [line for line in lines if not any(word in line for word in expected)] == []
    if flags and done.stderr:
        assert "left 1 unclosed" in done.stderr


# ---- processes and threads ----


def test_a_forked_child_has_copies_of_its_own(owner, fds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            had = all(map(is_open, owner))
            owner.close()
            status = 0 if had and not any(map(is_open, fds)) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert all(map(is_open, fds))


def race(*calls):
    """Runs the calls at the same time; returns what they returned, or raised."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(i, call):
        barrier.wait()
        try:
            results[i] = call()
        except ValueError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def switching():
    """Threads take turns after every few bytecodes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def taken(results):
    """The descriptors among what a race returned."""
    flat = [item for result in results for item in (result if isinstance(result, list) else [result])]
    return [item for item in flat if isinstance(item, int)]


@pytest.mark.usefixtures("switching")
def test_of_threads_that_take_the_same_slot_one_gets_it():
    for _ in range(ROUNDS):
        with lowsock.OwnedFds([os.dup(0)]) as owner:
            results = race(*[owner.take] * 4)
        (fd,) = taken(results)
        os.close(fd)
        assert sum(isinstance(result, ValueError) for result in results) == 3


@pytest.mark.usefixtures("switching")
def test_threads_that_take_the_first_that_is_left_get_one_each():
    for _ in range(ROUNDS):
        with lowsock.OwnedFds([os.dup(0) for _ in range(3)]) as owner:
            results = race(*[owner.take] * 4)
        got = taken(results)
        assert len(set(got)) == 3
        for fd in got:
            os.close(fd)
        assert sum(isinstance(result, ValueError) for result in results) == 1


@pytest.mark.usefixtures("switching")
def test_threads_that_take_detach_and_close_have_each_descriptor_once(open_fds):
    """A number that was closed comes back as somebody else's at once, and is left alone."""
    before = open_fds()
    for _ in range(ROUNDS):
        owner = lowsock.OwnedFds([os.dup(0) for _ in range(4)])
        results = race(partial(owner.take, 2), owner.close, owner.detach, owner.close, partial(os.dup, 0))
        got = taken(results)
        assert len(set(got)) == len(got)
        assert all(map(is_open, got))
        for fd in got:
            os.close(fd)
        assert open_fds() == before
