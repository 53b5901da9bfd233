# SPDX-License-Identifier: MIT
"""What calls in an old spelling end in: a `TypeError` or `AttributeError` that names the new one."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable, NoReturn, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

_COROUTINE = 0x80  # inspect.CO_COROUTINE
_VARIADIC = 0x04 | 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS
_Function: Any = type(lambda: None)


def refuse(function: str, names: Mapping[str, object], new: Mapping[str, str]) -> NoReturn:
    """Raises the `TypeError` for keywords that ``function`` does not take. ``new`` has what to use for the old ones."""
    for name in names:
        if name in new:
            raise TypeError(f"{function}() takes no {name}: {new[name]}")
    raise TypeError(f"{function}() got an unexpected keyword argument {next(iter(names))!r}")


def renamed(function: str, new: Mapping[str, str], after: int | None = None) -> Callable[[F], F]:
    """A decorator for what is called now and then, for it costs a call: the keywords in ``new`` are refused. Positional
    arguments after so many are taken for the first of them. (A quick function has a twin that type checkers do not see, with
    ``**old``, and calls `refuse` itself.)"""

    def decorate(inner: Any) -> Any:
        def check(count: int, named: Mapping[str, object]) -> None:
            if after is not None and count > after:
                refuse(function, {next(iter(new)): None}, new)
            if not new.keys().isdisjoint(named):
                refuse(function, {name: None for name in named if name in new}, new)

        def call(*args: Any, **named: Any) -> Any:
            check(len(args), named)
            return inner(*args, **named)

        async def call_later(*args: Any, **named: Any) -> Any:
            check(len(args), named)
            return await inner(*args, **named)

        made: Any = call_later if inner.__code__.co_flags & _COROUTINE else call
        # With the names of the function's own module, in which its annotations are evaluated.
        return shown_as(inner)(_Function(made.__code__, inner.__globals__, inner.__name__, None, made.__closure__))

    return decorate


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
