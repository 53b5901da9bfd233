# SPDX-License-Identifier: MIT
"""A signal handler that raises at a random moment of a call, and where lowsock was then."""

import dis
import os
import random
import signal
from collections.abc import Iterator
from types import CodeType
from typing import Any, Callable, NamedTuple, Optional

import pytest

import lowsock

PACKAGE = os.path.dirname(lowsock.__file__)


class Raised(Exception):
    """What the handler raises."""


class Storm:
    """Raises once in each call, at a random moment of it or near it."""

    def __init__(self) -> None:
        self._random = random.Random(2)
        self._armed = False

    def strike(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise Raised

    def over(self, call: Callable[[], Any]) -> Optional[Raised]:
        """The exception that came out of the call; None if it got through."""
        self._armed = True
        try:
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(2e-6, 6e-5))
            call()
            self._armed = False
        except Raised as raised:
            return raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None


class Place(NamedTuple):
    """Where lowsock was when a handler raised: the bytecode it had done (3.9, PyPy) or was at, and the next."""

    function: str
    bytecodes: list[str]

    def is_return(self) -> bool:
        return any(name.startswith("RETURN") for name in self.bytecodes)


def place(raised: Raised) -> Optional[Place]:
    """The innermost frame of lowsock's in the traceback; None: the call was over."""
    found = None
    traceback = raised.__traceback__
    while traceback is not None:
        code: CodeType = traceback.tb_frame.f_code
        if code.co_filename.startswith(PACKAGE):
            rest = [step.opname for step in dis.get_instructions(code) if step.offset >= traceback.tb_lasti]
            found = Place(code.co_name, rest[:2])
        traceback = traceback.tb_next
    return found


def may_lose(raised: Raised) -> bool:
    """The guarantee for bare descriptors ends at the ``return``."""
    where = place(raised)
    return where is None or where.is_return()


@pytest.fixture
def storm() -> Iterator[Storm]:
    storm = Storm()
    before = signal.signal(signal.SIGALRM, storm.strike)
    yield storm
    signal.signal(signal.SIGALRM, before)
