# SPDX-License-Identifier: MIT
"""What calls in an old spelling end in: a `TypeError` or `AttributeError` that names the new one."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable, NoReturn, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

_COROUTINE = 0x80  # inspect.CO_COROUTINE
_Function: Any = type(lambda: None)


def refuse(function: str, names: Mapping[str, object], new: Mapping[str, str]) -> NoReturn:
    """Raises the `TypeError` for keywords that ``function`` does not take. ``new`` has what to use for the old ones."""
    for name in names:
        if name in new:
            raise TypeError(f"{function}() takes no {name}: {new[name]}")
    raise TypeError(f"{function}() got an unexpected keyword argument {next(iter(names))!r}")


def renamed(function: str, new: Mapping[str, str]) -> Callable[[F], F]:
    """A decorator for what is called now and then, for it costs a call: the keywords in ``new`` are refused. (A quick
    function has a twin that type checkers do not see, with ``**old``, and calls `refuse` itself.)"""

    def decorate(inner: Any) -> Any:
        def check(named: Mapping[str, object]) -> None:
            if not new.keys().isdisjoint(named):
                refuse(function, {name: None for name in named if name in new}, new)

        def call(*args: Any, **named: Any) -> Any:
            check(named)
            return inner(*args, **named)

        async def call_later(*args: Any, **named: Any) -> Any:
            check(named)
            return await inner(*args, **named)

        made: Any = call_later if inner.__code__.co_flags & _COROUTINE else call
        # With the names of the function's own module, in which its annotations are evaluated.
        return shown_as(inner)(_Function(made.__code__, inner.__globals__, inner.__name__, None, made.__closure__))

    return decorate


def shown_as(shown: Any) -> Callable[[F], F]:
    """A decorator: the name, docstring and annotations of ``shown``, and its signature, which `inspect` finds there."""

    def decorate(twin: Any) -> Any:
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
            setattr(twin, name, getattr(shown, name))
        twin.__wrapped__ = shown
        return twin

    return decorate


def missing(module: str, new: Mapping[str, str]) -> Callable[[Any, str], Any]:
    """A ``__getattr__`` for a class of ``module``: the attributes in ``new`` are gone, and the error says what to use."""

    def __getattr__(self: Any, name: str) -> Any:
        instead = f": {new[name]}" if name in new else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{instead}")

    __getattr__.__module__, __getattr__.__qualname__ = module, "__getattr__"
    return __getattr__
