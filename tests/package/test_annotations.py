# SPDX-License-Identifier: MIT
"""Annotations of everything public can be evaluated, whoever asks first, and cost nothing until somebody asks."""

import collections.abc
import inspect
import sys
import typing

import pytest
from public_names import OBJECTS, is_class, run

import lowsock
import lowsock.typing
from lowsock._system.exports import Annotations

pytestmark = [pytest.mark.unsanitized, pytest.mark.smoke]

FUNCTION = type(lambda: None)


def functions_of(thing):
    """A function, or the methods of a class: its own and those of its private bases."""
    if type(thing) is FUNCTION:
        yield thing
    for base in thing.__mro__ if is_class(thing) else ():
        for name, member in vars(base).items() if base.__module__.startswith("lowsock") else ():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if type(function) is FUNCTION and (name[0] != "_" or name[-2:] == "__"):
                yield function


FUNCTIONS = {
    f"{module}.{function.__qualname__}": function
    for module, name in OBJECTS
    for function in functions_of(getattr(sys.modules[module], name))
    if "lowsock" in str(function.__module__)
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hints_of_every_function_and_method_can_be_evaluated(name):
    function = FUNCTIONS[name]
    hints = typing.get_type_hints(function)
    assert set(hints) == set(function.__annotations__)
    assert not [hint for hint in hints.values() if isinstance(hint, (str, typing.ForwardRef))]


CLASSES = {f"{m}.{n}": getattr(sys.modules[m], n) for m, n in OBJECTS if is_class(getattr(sys.modules[m], n))}


@pytest.mark.parametrize("name", CLASSES)
def test_hints_of_every_class_can_be_evaluated(name):
    typing.get_type_hints(CLASSES[name])


def test_hints_are_the_types_that_are_meant():
    hints = typing.get_type_hints(lowsock.send_fds)
    assert hints["sock"] == lowsock.typing.Socket
    assert hints["fds"] == collections.abc.Iterable[typing.Union[int, lowsock.typing.HasFileno]]
    assert typing.get_type_hints(lowsock.recv_owned_fds)["return"] is lowsock.ReceivedFds
    assert typing.get_type_hints(lowsock.ReceivedFds)["fds"] is lowsock.OwnedFds
    assert typing.get_type_hints(lowsock.OwnedFds.pidfd.fget)["return"] == typing.Optional[int]


def test_help_shows_what_was_written():
    assert inspect.signature(lowsock.recvmsg).parameters["sock"].annotation == "Socket"


def test_a_refused_argument_is_not_shown():
    """Of those that have `*old` to say what they take now."""
    for function in (lowsock.SendBatch.send, lowsock.RecvBatch.recv, lowsock.aio.recvmmsg, lowsock.aio.send_batch):
        assert "old" not in str(inspect.signature(function))
        assert "old" not in typing.get_type_hints(function)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="inspect.get_annotations came with Python 3.10")
def test_inspect_evaluates_them_too():
    found = inspect.get_annotations(lowsock.sendmsg, eval_str=True)
    assert found == typing.get_type_hints(lowsock.sendmsg)


FIRST = {
    "typing": "typing.get_type_hints(f)",
    "items": "dict(f.__annotations__.items())",
    "values": "list(f.__annotations__.values())",
    "get": "f.__annotations__.get('sock')",
    "copy": "f.__annotations__.copy()",
    "in": "'sock' in f.__annotations__",
    "iteration": "list(f.__annotations__)",
    "index": "f.__annotations__['sock']",
    "signature": "inspect.signature(f)",
    "repr": "repr(f.__annotations__)",
    "length": "len(f.__annotations__)",
}


@pytest.mark.parametrize("first", FIRST)
def test_whoever_looks_first_finds_the_same(first):
    program = (
        f"import inspect, typing, lowsock; f = lowsock.RecvBatch.recv; {FIRST[first]}; print(*typing.get_type_hints(f))"
    )
    assert run(program) == ["sock", "flags", "wait_all", "return"]


COSTS = """
import sys
before = set(sys.modules)
import lowsock
print(type(lowsock.sendmsg.__annotations__).__name__, "ast" in set(sys.modules) - before)
"""


def test_nothing_is_evaluated_before_somebody_asks():
    assert run(COSTS) == ["Annotations", "False"]


THREADS = """
import sys, threading, typing
import lowsock
sys.setswitchinterval(1e-6)
start, got = threading.Barrier(8), []

def look():
    start.wait()
    got.append(str(typing.get_type_hints(lowsock.sendmsg)))

threads = [threading.Thread(target=look) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(got), len(set(got)))
"""


def test_threads_that_ask_at_once_get_the_same():
    assert run(THREADS) == ["8", "1"]


def test_a_name_that_nothing_public_has_is_left_to_the_asker():
    def function(a: "Nobody") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    function.__annotations__ = Annotations(function, "lowsock", function.__globals__)
    assert function.__annotations__.get("a") == "Nobody"
    with pytest.raises(NameError, match="Nobody"):
        typing.get_type_hints(function)
