# SPDX-License-Identifier: MIT
"""The decoder of control messages under atheris, which looks for bytes that reach new code.

The first byte of an input says what follows: an even one, triples; an odd one, a control buffer.
"""

import struct
import sys

import atheris

with atheris.instrument_imports(include=["lowsock"]):
    import laws

_TRIPLE = struct.Struct("<BiiH")
EXPLICIT = 255  # level, type and size as they stand; a smaller number picks from what is registered


def triple(content, at):
    """The three-tuple whose description stands at ``at``, and where the next one stands."""
    choice, level, kind, size = _TRIPLE.unpack_from(content, at)
    at += _TRIPLE.size
    if choice != EXPLICIT:
        level, kind, sizes = laws.TARGETS[choice % len(laws.TARGETS)]
        size = sizes[size % len(sizes)]
    return (level, kind, content[at : at + size].ljust(min(size, len(content)), b"\0")), at + size


def triples(content):
    at, found = 0, []
    while len(content) - at >= _TRIPLE.size:
        item, at = triple(content, at)
        found.append(item)
    return found


def test_one_input(content):
    if content[:1] < b"\1" or content[0] % 2 == 0:
        laws.check_decoder(triples(content[1:]))
    else:
        laws.check_control(content[1:])


if __name__ == "__main__":
    print(f"{len(laws.TARGETS)} pairs of level and type, {len(laws.CLASSES)} classes", file=sys.stderr)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
