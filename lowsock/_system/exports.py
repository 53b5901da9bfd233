# SPDX-License-Identifier: MIT
"""The names that a public module shows: its own and no others, some of them imported when they are first used."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable

_NOTHING: dict[str, str] = {}


def public(
    module: str, later: Mapping[str, str] = _NOTHING, *, gone: Mapping[str, str] = _NOTHING
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a public module, for the end of it (PEP 562).

    ``later`` maps a name to the module that has it; a name whose module is MODULE.NAME is a submodule. A name that was used
    stays in the module: it is imported once, with all that it needs, so no call imports anything. ``gone`` maps a name that
    the module had once to what replaced it, for the error: ``{"send_rights": "use send_fds"}``.

    The functions and classes in ``__all__`` get this module as ``__module__``: pickles and help() name nothing private.
    """
    namespace = vars(sys.modules[module])

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
    if "._" in getattr(value, "__module__", ""):
        value.__module__ = module
        for member in vars(value).values() if isinstance(value, type) else ():
            function = getattr(member, "__func__", member)  # of a class or static method
            if type(function) is type(public) and "._" in str(function.__module__):
                function.__module__ = module
    return value
