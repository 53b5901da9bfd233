# SPDX-License-Identifier: MIT
"""Arguments that are gone: whoever still passes one is told what to write."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, NoReturn, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def without(_after: int | None = None, /, **gone: str) -> Callable[[F], F]:
    """A decorator: the keywords in ``gone`` raise a `TypeError` with the text beside them, and so does a positional argument
    after so many, which is taken for the first of them. For functions that are called now and then: it costs a call."""

    def decorate(function: F) -> F:
        owner, _, own = function.__qualname__.rpartition(".")
        name = owner.rpartition(".")[2] if own in ("__new__", "__init__") else own

        def refuse(count: int, named: dict[str, Any]) -> None:
            old = next((name for name in named if name in gone), None)
            if old is None and _after is not None and count > _after:
                old = next(iter(gone))
            if old is not None:
                raise TypeError(f"{name}() takes no {old}: {gone[old]}")

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def checked(*args: Any, **named: Any) -> Any:
                refuse(len(args), named)
                return await function(*args, **named)

        else:

            @functools.wraps(function)
            def checked(*args: Any, **named: Any) -> Any:
                refuse(len(args), named)
                return function(*args, **named)

        return cast("F", checked)

    return decorate


def refuse_positional(name: str, spelling: str) -> NoReturn:
    """Raises the `TypeError` for arguments by position that are by keyword only. A function on a quick path takes them as
    ``*old`` and calls this if there are any."""
    raise TypeError(f"{name}() takes these by keyword only: {spelling}")
