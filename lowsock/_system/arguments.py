# SPDX-License-Identifier: MIT
"""The caller's arguments as plain ints, seconds and iterators. Every error names the argument."""

from __future__ import annotations

import math
from operator import index

from lowsock._system.errors import raised_here

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn, TypeVar

    F = TypeVar("F")

INT_MAX = 2**31 - 1
_VARIADIC = 0x04 | 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS
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


def checked_field(name: str, value: Any, most: int) -> int:
    """``value`` as an unsigned field of an address; what does not fit raises `OverflowError`, as in the socket module."""
    number = checked_index(name, value)
    if not 0 <= number <= most:
        raise OverflowError(f"{name} is out of range: {number}")
    return number


def refuse_old(call: str, *names: str) -> NoReturn:
    """Raises `TypeError` for arguments that ``call`` took by position once: ``names`` are those that it takes by keyword."""
    spelled = ", ".join(f"{name}=..." for name in names)
    raise TypeError(f"{call}() takes {' and '.join(names)} by keyword: {spelled}")


def keyword_only(function: F) -> F:
    """Hides ``*old`` and ``**old`` from `inspect.signature` and help(): ``function`` has them only to refuse what it took
    once, by `refuse_old`."""
    plain: Any = function
    code = plain.__code__
    bare = type(plain)(
        code.replace(co_flags=code.co_flags & ~_VARIADIC),
        plain.__globals__,
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    hidden = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
    bare.__annotations__ = {name: kind for name, kind in plain.__annotations__.items() if name not in hidden}
    bare.__kwdefaults__ = plain.__kwdefaults__
    plain.__annotations__, plain.__wrapped__ = bare.__annotations__, bare
    return function
