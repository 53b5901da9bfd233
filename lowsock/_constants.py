# SPDX-License-Identifier: MIT
"""The compiled constants. ``CONSTANTS`` has those of this platform, ``ABSENT`` the names that it lacks."""

from collections.abc import Iterator

from lowsock._ffi import ffi, lib


def _rows() -> Iterator[tuple[str, int, bool]]:
    """The compiled table: name, value, and whether the platform has it. A NULL name ends it."""
    index = 0
    while lib.lowsock_constants[index].name:
        row = lib.lowsock_constants[index]
        yield ffi.string(row.name).decode(), row.value, bool(row.present)
        index += 1


CONSTANTS: dict[str, int] = {}
ABSENT: set[str] = set()

for _name, _value, _present in _rows():
    if _present:
        CONSTANTS[_name] = _value
    else:
        ABSENT.add(_name)
