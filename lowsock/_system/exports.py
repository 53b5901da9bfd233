# SPDX-License-Identifier: MIT
"""The names that a public module shows: its own and no others, some of them imported when they are first used."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Callable

_Function = type(lambda: None)
_NOTHING: dict[str, str] = {}

PUBLIC: list[str] = ["lowsock"]  # the public modules that are known so far


def public(
    module: str, later: Mapping[str, str] = _NOTHING, *, gone: Mapping[str, str] = _NOTHING
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a public module, for the end of it (PEP 562).

    ``later`` maps a name to the module that has it; a name whose module is MODULE.NAME is a submodule. A name that was used
    stays in the module: it is imported once, with all that it needs, so no call imports anything. ``gone`` maps a name that
    the module had once to what replaced it, for the error: ``{"send_rights": "use send_fds"}``.

    The functions and classes in ``__all__`` get this module as ``__module__``: pickles and help() name nothing private. From
    then on their annotations can be evaluated, see `annotations`.
    """
    namespace = vars(sys.modules[module])
    PUBLIC.extend(origin for name, origin in later.items() if origin == f"{module}.{name}")

    def __getattr__(name: str) -> Any:
        origin = later.get(name)
        if origin is None:
            instead = f": {gone[name]}" if name in gone else ""
            raise AttributeError(f"module {module!r} has no attribute {name!r}{instead}")
        __import__(origin)
        value = sys.modules[origin]
        if origin != f"{module}.{name}":
            value = _owned(getattr(value, name), module)
        namespace[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*namespace["__all__"], *later, "__version__"} & {*namespace, *later})

    for name in namespace["__all__"]:
        if name in namespace:
            _owned(namespace[name], module)
    return __getattr__, __dir__


def _owned(value: Any, module: str) -> Any:
    """``value``, which says that it is of ``module`` from now on, unless it is of another public one; its methods too."""
    home = getattr(value, "__module__", "")
    if "._" in home:
        value.__module__ = module
        if "__firstlineno__" in vars(value):  # from 3.13 on inspect.getsource would look at that line of another file
            del value.__firstlineno__
    elif home != module:
        return value
    if isinstance(value, type):
        _watch(value, module, home)
        _own_members(value, module)
    elif type(value) is _Function:
        _watch(value, module, home)
    return value


def _own_members(cls: type, module: str) -> None:
    """The same for the methods of a class, and for those of its private bases, which go on saying where they are from."""
    for base in cls.__mro__:
        if base is not cls and "._" not in base.__module__:
            continue
        if base is not cls:
            _watch(base, module, base.__module__)
        for name, member in list(vars(base).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))  # of a class method, of a property
            if type(function) is not _Function:
                continue
            if base is cls and "._" in str(function.__module__):
                function.__module__ = module
            if name[0] != "_" or name[-2:] == "__":
                _watch(function, module, "")


# ---- annotations ----


def _watch(thing: Any, module: str, home: str) -> None:
    """Lets the annotations of a function or a class be evaluated. ``module`` is the public one that shows it, ``home`` has
    the source of a class."""
    if isinstance(thing, type):
        written, namespace = vars(thing).get("__annotations__"), vars(sys.modules[home])
    else:
        inner = thing
        while type(vars(inner).get("__wrapped__")) is _Function:
            inner = inner.__wrapped__  # in whose module `typing` evaluates annotations
        written, namespace = thing.__annotations__, inner.__globals__
    if written and type(written) is dict:
        thing.__annotations__ = Annotations(thing, module, namespace)
    wrapped = vars(thing).get("__wrapped__")
    if type(wrapped) is _Function:  # see `spellings.keyword_only`
        _watch(wrapped, module, home)


class Annotations(dict):  # type: ignore[type-arg]
    """The annotations of ``owner``, a function or a class of ``namespace``, which nobody has looked at yet.

    The first look reads them, by `annotations`; from then on the owner has a plain dict.
    """

    __slots__ = ("_module", "_namespace", "_owner")

    def __init__(self, owner: Any, module: str, namespace: dict[str, Any]) -> None:
        dict.__init__(self, owner.__annotations__)
        self._owner, self._module, self._namespace = owner, module, namespace

    def _read(self) -> dict[str, Any]:
        __import__("lowsock._system.annotations")  # it takes `typing`
        read = sys.modules["lowsock._system.annotations"].read
        found: dict[str, Any] = read(self._owner, dict.items(self), self._namespace, self._module)
        self._owner.__annotations__ = found
        return found

    def keys(self) -> Any:
        return self._read().keys()

    def values(self) -> Any:
        return self._read().values()

    def items(self) -> Any:
        return self._read().items()

    def get(self, name: Any, default: Any = None) -> Any:
        return self._read().get(name, default)

    def copy(self) -> dict[str, Any]:
        return self._read()

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __repr__(self) -> str:
        return repr(self._read())
