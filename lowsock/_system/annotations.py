# SPDX-License-Identifier: MIT
"""Annotations that ``typing.get_type_hints`` can evaluate, though the names in them are imported for type checkers only.

Loaded when somebody first reads annotations of something public: at import, `typing` would take longer than all of lowsock.
It finds the names that a function's module does not have, and puts them there, as ``if TYPE_CHECKING:`` would have done.
"""

from __future__ import annotations

import ast
import builtins
import sys

from lowsock._system.exports import PUBLIC

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_UNIONS = sys.version_info >= (3, 10)  # before that, `X | Y` of types is a TypeError
_HOMES = ("lowsock.typing", "lowsock._system.types", "collections.abc", "typing", "typing_extensions")


def read(owner: Any, written: Iterable[tuple[str, Any]], namespace: dict[str, Any], module: str) -> dict[str, Any]:
    """The annotations of a function or a class, so that they can be evaluated: of a function as they were written, with all
    names in them in its ``namespace``; of a class the types, for its ``__module__`` is not that of its source."""
    if isinstance(owner, type):
        names = {**namespace, **vars(sys.modules[module])}
        return {name: _evaluated(value, names, module) for name, value in written if name[0] != "_"}
    return {name: _readable(value, namespace, module) for name, value in written}


def _readable(value: Any, namespace: dict[str, Any], module: str) -> Any:
    """An annotation of a function, as it was written; ``namespace`` has all names in it from now on."""
    if type(value) is str:
        return _spelled(value, namespace, module)
    return _evaluated(value, dict(vars(sys.modules[module])), module)


def _evaluated(value: Any, names: dict[str, Any], module: str) -> Any:
    """The type that an annotation of a class means, or a field of a `typing.NamedTuple`."""
    text = getattr(value, "__forward_arg__", value)
    if type(text) is not str:
        return value
    try:
        found = eval(_spelled(text, names, module), names)
    except NameError:  # of something private; whoever wants it is told so
        return value
    return type(None) if found is None else found


def _spelled(text: str, namespace: dict[str, Any], module: str) -> str:
    """``text`` so that it can be evaluated in ``namespace``; the names that are not there are put there."""
    tree = ast.parse(text, mode="eval")
    if not _UNIONS and "|" in text:
        tree = ast.fix_missing_locations(_WithoutBars().visit(tree))
        text = ast.unparse(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in namespace and not hasattr(builtins, node.id):
            thing = _named(node.id, module)
            if thing is not None:
                namespace.setdefault(node.id, thing)
    return text


class _WithoutBars(ast.NodeTransformer):
    """Writes ``Union[X, Y]`` in the place of ``X | Y``."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        both = ast.Tuple([node.left, node.right], ast.Load())
        return ast.Subscript(ast.Name("Union", ast.Load()), both, ast.Load())


def _named(name: str, module: str) -> Any:
    """What a type checker would find under ``name``: a type of the standard library, or of a public module."""
    for home in (module, *_HOMES, *PUBLIC):
        found = getattr(_loaded(home), name, None)
        if found is not None:
            return found
    if name == "Self":  # before Python 3.11: what PEP 673 says that it is short for
        return sys.modules["typing"].TypeVar("Self")
    return None


def _loaded(module: str) -> Any:
    try:
        __import__(module)
    except ImportError:  # typing_extensions, mostly
        return None
    return sys.modules[module]
