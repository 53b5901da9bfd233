# SPDX-License-Identifier: MIT
"""Kernel structures as :mod:`struct` formats, made from the offsets and sizes that the compiler filled in."""

from __future__ import annotations

import struct

from lowsock._system.ffi import ffi, lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Callable, NoReturn

_LETTERS = {("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "Q", ("i", 4): "i", ("i", 8): "q"}


class Field:
    """A field of a kernel structure: ``kind`` is u (unsigned), i (signed) or b (bytes)."""

    __slots__ = ("kind", "name", "offset", "size")

    def __init__(self, name: str, kind: str, offset: int, size: int) -> None:
        self.name, self.kind, self.offset, self.size = name, kind, offset, size

    def format(self) -> str:
        return f"{self.size}s" if self.kind == "b" else _LETTERS[self.kind, self.size]


class Layout:
    """Packs and unpacks one structure; its fields are in the order of ``_csrc/layouts.txt``."""

    def __init__(self, size: int, fields: list[Field]) -> None:
        in_memory = sorted(fields, key=lambda field: field.offset)
        self.size = size
        self.offsets = {field.name: field.offset for field in fields}
        self.sizes = {field.name: field.size for field in fields}
        self._kinds = {field.name: field.kind for field in fields}
        self._to_memory = [fields.index(field) for field in in_memory]
        self._from_memory = [in_memory.index(field) for field in fields]
        self._struct = struct.Struct("=" + "".join(_formats(size, in_memory)))

    def pack(self, *values: Any) -> bytes:
        return self._struct.pack(*(values[index] for index in self._to_memory))

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        """The fields of ``data``. Longer data is cut; shorter data is padded with zeros."""
        values = self._struct.unpack(data[: self.size].ljust(self.size, b"\0"))
        return tuple(values[index] for index in self._from_memory)

    def reader(self, name: str) -> Callable[[bytes], tuple[Any]]:
        """The quick way to one field: a function from data, as long as this structure or longer, to a tuple of that field.

        If the platform lacks the structure, the tuple is empty: unpacking it raises `ValueError`.
        """
        if name not in self.offsets:
            return lambda data: ()  # type: ignore[return-value]
        field = Field(name, self._kinds[name], self.offsets[name], self.sizes[name])
        return struct.Struct(f"={field.offset}x{field.format()}").unpack_from


def _formats(size: int, in_memory: list[Field]) -> Iterator[str]:
    at = 0
    for field in in_memory:
        yield f"{field.offset - at}x"
        yield field.format()
        at = field.offset + field.size
    yield f"{size - at}x"


class _Layouts(dict[str, Layout]):
    """The structures of this platform by their names. The compiled table is read when the first is asked for; from then on
    ``LAYOUTS[name]`` runs in C."""

    def _filled(self) -> _Layouts:
        if not len(self):
            self.update(_read_table())
        return self

    def __missing__(self, name: str) -> Layout:
        return dict.__getitem__(self._filled(), name) if name in self else _raise_missing(name)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self._filled(), name)

    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self._filled())

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self._filled(), name, default)


def _raise_missing(name: str) -> NoReturn:
    raise KeyError(name)


def _read_table() -> dict[str, Layout]:
    sizes: dict[str, int] = {}
    fields: dict[str, list[Field]] = {}
    index = 0
    while lib.lowsock_fields[index].name:
        row = lib.lowsock_fields[index]
        struct_name, name, kind = (ffi.string(text).decode() for text in (row.struct_name, row.name, row.kind))
        sizes[struct_name] = row.struct_size
        fields.setdefault(struct_name, []).append(Field(name, kind, row.offset, row.size))
        index += 1
    return {name: Layout(sizes[name], fields[name]) for name in fields}


LAYOUTS = _Layouts()
