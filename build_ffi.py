# SPDX-License-Identifier: MIT
"""Declares the extension module lowsock._native to cffi; setup.py names it in cffi_modules.

Run as a program, it prints the stub of the constants: ``python build_ffi.py > lowsock/constants.pyi``.

The declarations are files in lowsock/_csrc/: lowsock.h (our functions), system.cdef (the platform's structures),
constants.txt (every constant by name, with the kernel's ABI value for headers that are older than the kernel).
"""

import os
from typing import NamedTuple

from cffi import FFI

if os.name != "posix":
    raise SystemExit("lowsock needs a POSIX system: Windows has neither sendmsg(2) nor recvmsg(2)")

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.join("lowsock", "_csrc")  # relative: setuptools takes no absolute path for a source


# What lowsock/_system/layouts.py reads; the constants (lowsock/_system/constants.py) are plain arrays.
TABLES = """
struct lowsock_field { const char *struct_name; const char *name; const char *kind; int offset; int size; int struct_size; };
"""


class Constant(NamedTuple):
    """A row of constants.txt."""

    name: str
    fallback: str  # "-": none
    guard: str  # "", "generic" or "enum"


def read(name: str) -> str:
    with open(os.path.join(HERE, SOURCES, name), encoding="ascii") as file:
        return file.read()


def rows(name: str) -> list[list[str]]:
    """The rows of a table in lowsock/_csrc, as words; # starts a comment."""
    lines = (line.split("#")[0].split() for line in read(name).splitlines())
    return [words for words in lines if words]


def constants() -> list[Constant]:
    return [Constant(words[0], words[1], (words[2:] or [""])[0]) for words in rows("constants.txt")]


def fallback(row: Constant) -> str:
    """The header's value wins; where it has none, Linux's ABI value stands in."""
    generic = " && LOWSOCK_GENERIC_SOCKET_H" if row.guard == "generic" else ""
    return f"#if defined(__linux__) && !defined({row.name}){generic}\n#define {row.name} {row.fallback}\n#endif\n"


def constant_entry(row: Constant, present: str, absent: str) -> str:
    if row.guard == "enum":  # the preprocessor does not see enumerators
        return f"#ifdef __linux__\n{present},\n#else\n{absent},\n#endif\n"
    return f"#ifdef {row.name}\n{present},\n#else\n{absent},\n#endif\n"


def constant_value(row: Constant) -> str:
    value = row.fallback if row.guard == "enum" else row.name
    return constant_entry(row, f"(long long)({value})", "0")


def field_entry(words: list[str]) -> str:
    struct, field, kind = words[:3]
    place = f"offsetof(struct {struct}, {field}), sizeof(((struct {struct} *)0)->{field}), sizeof(struct {struct})"
    entry = f'{{"{struct}", "{field}", "{kind}", {place}}},\n'
    guard = {"linux": "__linux__"}.get(words[3], words[3]) if words[3:] else ""
    return f"#ifdef {guard}\n{entry}#endif\n" if guard else entry


def tables() -> tuple[str, str]:
    """The two tables as C source and as declarations for cffi."""
    known, fields = constants(), rows("layouts.txt")
    source = [fallback(row) for row in known if row.fallback != "-" and row.guard != "enum"]
    names = " ".join(row.name for row in known)
    source += [f'static const char lowsock_names[] = "{names}";\n', "static const long long lowsock_values[] = {\n"]
    source += map(constant_value, known)
    source += ["};\nstatic const unsigned char lowsock_present[] = {\n"]
    source += [constant_entry(row, "1", "0") for row in known]
    source += ["};\n", TABLES, "static const struct lowsock_field lowsock_fields[] = {\n"]
    source += map(field_entry, fields)
    source += ["{NULL, NULL, NULL, 0, 0, 0}};\n"]
    declared = ("char lowsock_names[]", "long long lowsock_values[]", "unsigned char lowsock_present[]")
    declared += ("struct lowsock_field lowsock_fields[]",)
    return "".join(source), TABLES + "".join(f"extern const {name};\n" for name in declared)


def stub() -> str:
    """lowsock/constants.pyi: every constant by name, for type checkers."""
    lines = ["__all__: list[str]", *(f"{row.name}: int" for row in sorted(constants()))]
    return "\n".join(
        ["# SPDX-License-Identifier: MIT", "# Made by `python build_ffi.py`; a test makes it anew.", *lines, ""]
    )


C_FILES = (
    "queries.c",
    "receive.c",
    "send.c",
    "owned.c",
    "peer.c",
    "batch_receive.c",
    "batch_send.c",
    "udp_receive.c",
    "udp_send.c",
)
HEADERS = ("system.h", "constants.h", "batch.h", "control.h", "internal.h", "lowsock.h")
TABLES_SOURCE, TABLES_CDEF = tables()
ffibuilder = FFI()
ffibuilder.cdef(read("lowsock.h") + read("system.cdef") + TABLES_CDEF)
ffibuilder.set_source(
    "lowsock._native",
    '#include "system.h"\n#include "constants.h"\n#include "lowsock.h"\n' + TABLES_SOURCE,
    sources=[os.path.join(SOURCES, name) for name in C_FILES],
    include_dirs=[SOURCES],
    depends=[os.path.join(SOURCES, name) for name in HEADERS],
    extra_compile_args=["-fvisibility=hidden"],
)

if __name__ == "__main__":
    print(stub(), end="")
