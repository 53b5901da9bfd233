# SPDX-License-Identifier: MIT
"""The caller's arguments as plain ints, seconds and iterators. Every error names the argument."""

from __future__ import annotations

import math
from _operator import index  # operator takes longer to import

from lowsock._system.errors import raised_here

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


INT_MAX = 2**31 - 1
ZERO = 0  # an argument that is this very int needs no check; 0.0 and None are not


def checked_index(name: str, value: Any) -> int:
    """``value`` as an int; the error names the argument."""
    try:
        return int(index(value))  # before 3.10, index lets a subclass of int through
    except TypeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None


def iterated(name: str, of: str, value: Iterable[Any]) -> Iterator[Any]:
    """An iterator over ``value``; the error names the argument and what it iterates over."""
    try:
        return iter(value)
    except TypeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"{name} must be an iterable of {of}, not {type(value).__name__}") from None


def checked_int(name: str, value: Any, least: int = -INT_MAX - 1, most: int = INT_MAX) -> int:
    """``value`` as an int between ``least`` and ``most``; the error names the argument."""
    number = checked_index(name, value)
    if number < 0 <= least:
        raise ValueError(f"{name} must not be negative: {number}")
    if not least <= number <= most:
        raise OverflowError(f"{name} is out of range: {number}")
    return number


def checked_seconds(name: str, value: Any) -> float | None:
    """``value`` as a number of seconds, or None for no limit; the error names the argument."""
    if value is None:
        return None
    try:
        seconds = math.copysign(value, value)
    except (TypeError, OverflowError) as error:
        if not raised_here(error):
            raise
        if isinstance(error, OverflowError):
            raise OverflowError(f"{name} is out of range: {type(value).__name__}") from None
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}") from None
    if not seconds >= 0:
        raise ValueError(f"{name} must not be negative, or no number: {seconds}")
    return seconds


def checked_bool(name: str, value: Any) -> bool:
    """``value``, if it is True or False: an option that asks for something is not to be taken for the thing itself."""
    if value is not True and value is not False:
        raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    return bool(value)


def checked_field(name: str, value: Any, most: int) -> int:
    """``value`` as an unsigned field of an address; what does not fit raises `OverflowError`, as in the socket module."""
    number = checked_index(name, value)
    if not 0 <= number <= most:
        raise OverflowError(f"{name} is out of range: {number}")
    return number
