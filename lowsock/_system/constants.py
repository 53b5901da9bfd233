# SPDX-License-Identifier: MIT
"""The compiled constants. ``CONSTANTS`` has those of this platform, ``ABSENT`` the names of the others."""

from __future__ import annotations

from lowsock._system.ffi import ffi, lib

_names = ffi.string(lib.lowsock_names).decode().split()
_values: list[int] = ffi.unpack(lib.lowsock_values, len(_names))
_present: list[int] = ffi.unpack(lib.lowsock_present, len(_names))

CONSTANTS: dict[str, int] = dict(zip(_names, _values))
ABSENT: set[str] = {name for name, present in zip(_names, _present) if not present}
for _name in ABSENT:
    del CONSTANTS[_name]

MSG_DONTWAIT = CONSTANTS["MSG_DONTWAIT"]
MSG_TRUNC = CONSTANTS["MSG_TRUNC"]
MSG_ERRQUEUE = CONSTANTS.get("MSG_ERRQUEUE", 0)
