# SPDX-License-Identifier: MIT
"""Writes the fuzzers' seeds: ``seeds.py FOLDER`` makes a folder in it for each harness."""

import pathlib
import socket
import struct
import sys

HEADER = struct.Struct("Nii")
ALIGNED = struct.calcsize("N")
SIZE_MAX = 2 ** (8 * ALIGNED) - 1
RIGHTS, CREDENTIALS, PIDFD = ((socket.SOL_SOCKET, kind) for kind in (1, 2, 4))
TTL, PKTINFO, IPV6_PKTINFO, RECVERR = (0, 2), (0, 8), (41, 50), (0, 11)

PAIRS, SIZES = 96, 6  # more than lowsock.cmsg registers: decode.py takes them modulo what there is
ONES = b"\1" * 64
THREE_FDS = struct.pack("3i", 3, 4, 5)
ERROR = struct.pack("=IBBBBII", 111, 2, 3, 3, 0, 0, 0) + struct.pack("=H14x", socket.AF_INET)


def packed(level, kind, data, length=None):
    """One control message; ``length`` is what its header says, if that is not the real length."""
    length = HEADER.size + len(data) if length is None else length
    return HEADER.pack(length, level, kind) + data + bytes(-len(data) % ALIGNED)


MESSAGES = {
    "none": [],
    "empty": [(1, 2, b"")],
    "descriptors": [(*RIGHTS, THREE_FDS)],
    "part-of-one": [(*RIGHTS, THREE_FDS[:7])],
    "both-kinds": [(*PIDFD, THREE_FDS[:4]), (*RIGHTS, THREE_FDS), (*CREDENTIALS, bytes(12)), (*RIGHTS, THREE_FDS[:8])],
    "datagram": [(*TTL, b"\x40\0\0\0"), (*PKTINFO, bytes(12)), (*IPV6_PKTINFO, bytes(20))],
    "error": [(*RECVERR, ERROR)],
    "odd-sizes": [(7, size, bytes([size]) * size) for size in range(12)],
    "many": [(5, 6, b"")] * 60,
    "large": [(*RIGHTS, struct.pack("253i", *range(253)))] * 2,
}
WHOLE = {name: b"".join(packed(*message) for message in messages) for name, messages in MESSAGES.items()}
MALFORMED = {
    "zero": bytes(64),
    "short": packed(*RIGHTS, THREE_FDS, HEADER.size - 1),
    "beyond": packed(*RIGHTS, THREE_FDS, HEADER.size + 100),
    "by-one": packed(*RIGHTS, THREE_FDS, HEADER.size + 17),
    "every-bit": packed(*RIGHTS, THREE_FDS, SIZE_MAX),
    "padding-overflows": packed(*RIGHTS, THREE_FDS, SIZE_MAX - ALIGNED + 1),
    "sign-bit": packed(*RIGHTS, THREE_FDS, SIZE_MAX // 2 + 1),
    "cut": WHOLE["both-kinds"][:-5],
    "header-cut": WHOLE["descriptors"] + HEADER.pack(HEADER.size, 1, 1)[:-1],
}
CONTROL = {**WHOLE, **MALFORMED}


def kernel(call, control, *, failures=0, failure=b"\1", room=2047, flags=0, msg_flags=0, n=9, name=b""):
    """The input of kernel.c: which call, its arguments, what the kernel then answers."""
    arguments = struct.pack(">BHBBIB6s", call, min(room, 2047), 0, 0, flags, 2, bytes(6))
    outcome = bytes([failures]) + failure + struct.pack(">I", msg_flags)
    receive = struct.pack(">HHI", len(name), len(control), n)
    return arguments + outcome + receive * (failures + 1) + name + control


def kernels():
    inet = struct.pack("=H", socket.AF_INET) + bytes(14)
    yield from ((f"{call}-{name}", kernel(call, control)) for call in (1, 2, 3, 5) for name, control in CONTROL.items())
    yield from ((f"{call}-plain", kernel(call, b"")) for call in range(6))
    yield from ((f"{call}-from", kernel(call, b"", name=inet)) for call in range(6))
    yield from ((f"{call}-refused", kernel(call, WHOLE["descriptors"], failures=1)) for call in range(6))
    yield from ((f"{call}-failed", kernel(call, b"", failures=2, failure=b"\0\0\x0a")) for call in range(6))
    yield from ((f"{call}-more", kernel(call, WHOLE["error"], msg_flags=0x28, n=2**31 - 1, name=inet)) for call in range(6))
    yield "more-control-than-room", kernel(2, WHOLE["both-kinds"], room=40)


def inboxes():
    """The input of inbox.c: a batch of up to five messages, all with the same control data."""
    for name, control in CONTROL.items():
        for failures in (0, 1):
            arguments = struct.pack(">HBIBBB", 255, 5, 0, 0, failures, 1) + b"\4" * (failures + 1)
            yield f"{failures}-{name}", arguments + 5 * (struct.pack(">BHII", 0, len(control), 9, 0) + control)


def outboxes():
    """The input of outbox.c: no control message, then up to 70 messages, sent in each of four ways."""
    for way in range(4):
        for count in (1, 5, 70):
            yield f"{way}-{count}", struct.pack(">BBBB", count - 1, way, 0, 0) + bytes(range(256)) * 2


def encodes():
    for name, messages in MESSAGES.items():
        table = b"".join(struct.pack(">IIH", level, kind, len(data)) for level, kind, data in messages)
        payload = b"".join(data for _, _, data in messages)
        for which in (1, 2, 3):
            yield f"{which}-{name}", struct.pack(">BBBHBB", which, 0, 0, 10, 65, len(messages)) + table + payload


def decodes():
    """The input of decode.py: triples in a row, and each size of each pair that it may know."""
    picks = ((choice, place) for choice in range(PAIRS) for place in range(SIZES))
    yield from ((f"{pick[0]}-{pick[1]}", b"\0" + struct.pack("<BiiH", pick[0], 0, 0, pick[1]) + ONES) for pick in picks)
    for name, messages in MESSAGES.items():
        triples = b"".join(struct.pack("<BiiH", 255, level, kind, len(data)) + data for level, kind, data in messages)
        yield name, b"\0" + triples
    yield from ((f"control-{name}", b"\1" + control) for name, control in CONTROL.items())


SEEDS = {
    "parse": CONTROL.items,
    "kernel": kernels,
    "encode": encodes,
    "inbox": inboxes,
    "outbox": outboxes,
    "decode": decodes,
}


def write(folder):
    for harness, seeds in SEEDS.items():
        place = pathlib.Path(folder, harness)
        place.mkdir(parents=True, exist_ok=True)
        for name, content in seeds():
            place.joinpath(f"seed-{name}").write_bytes(content)


if __name__ == "__main__":
    write(sys.argv[1])
