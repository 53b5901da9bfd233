# SPDX-License-Identifier: MIT
"""Any bytes, any lengths: the parser beside another one, the decoder by the laws that tests/fuzz/ runs for hours."""

import importlib.util
import socket
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import FUZZ

import lowsock
from lowsock._memory import ancillary as _ancillary
from lowsock._memory import closing

INT_MAX = 2**31 - 1
HEADER = lowsock.CMSG_LEN(0)
LENGTH = HEADER - 8  # bytes of cmsg_len with its padding, before two ints
MOST = 2 ** (8 * LENGTH) - 1
RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS

EXAMPLES = 60 if sys.implementation.name == "pypy" else 200  # Hypothesis is slow before the JIT knows it
anything = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"lowsock_fuzz_{name}", FUZZ / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


laws, seeds = loaded("laws"), loaded("seeds")


# ---- a parser of cmsg(3) that shares nothing with ours ----


def model(control):
    """The control messages in a buffer: lengths cut at its end, and the end where no header is left or one is too short."""
    messages = []
    while len(control) >= HEADER:
        length = int.from_bytes(control[:LENGTH], sys.byteorder)
        if length < HEADER:
            break
        level, kind = struct.unpack_from("=ii", control, LENGTH)
        data = control[HEADER:length]
        messages.append((level, kind, data))
        control = control[lowsock.CMSG_SPACE(len(data)) :]
    return messages


def header(length, level, kind):
    return length.to_bytes(LENGTH, sys.byteorder) + struct.pack("=ii", level, kind)


def laid_out(length, level, kind, data, padding):
    """A message whose header says ``length``, and whose padding need not be zeros."""
    return (header(length, level, kind) + data).ljust(lowsock.CMSG_SPACE(len(data)), padding)


ints = st.one_of(st.integers(-(2**31), INT_MAX), st.sampled_from([0, 1, 2, 4, -1, INT_MAX]))
pairs = st.one_of(st.sampled_from([RIGHTS, (RIGHTS[0], 4)]), st.tuples(ints, ints))
payload = st.binary(max_size=40)
padding = st.sampled_from([b"\0", b"\xff"])
true = st.builds(lambda pair, data, pad: laid_out(HEADER + len(data), *pair, data, pad), pairs, payload, padding)
# every length around what is there, around what a header is, and around the end of the type
lengths = st.one_of(
    st.integers(0, 2 * HEADER + 40),
    st.integers(MOST - 2 * HEADER, MOST),
    st.integers(MOST // 2 - HEADER, MOST // 2 + HEADER),
    st.integers(0, MOST),
)
lying = st.builds(lambda n, pair, data, pad: laid_out(n, *pair, data, pad), lengths, pairs, payload, padding)
zeros = st.builds(bytes, st.integers(0, 3 * HEADER))
pieces = st.lists(st.one_of(true, true, lying, zeros, st.binary(max_size=24)), max_size=6).map(b"".join)
controls = st.builds(
    lambda control, cut: control[: max(0, len(control) - cut)], pieces, st.sampled_from([0, 0, 1, 3, 4, 7, 8, 15, 30])
)


@anything
@given(controls)
def test_the_parser_reads_what_another_one_reads(control):
    assert _ancillary.parse(control) == model(control)


@pytest.mark.parametrize("control", seeds.CONTROL.values(), ids=seeds.CONTROL)
def test_the_seeds_are_read_as_another_parser_reads_them(control):
    assert _ancillary.parse(control) == model(control)


@anything
@given(st.integers(0, 3), st.lists(true, max_size=3).map(b"".join), st.binary(max_size=HEADER - 1))
def test_less_than_a_header_at_the_end_is_nothing(zeroed, control, rest):
    assert _ancillary.parse(control + rest) == model(control) == _ancillary.parse(control + bytes(zeroed * HEADER))


@anything
@given(controls)
def test_descriptors_are_those_of_the_rows(control):
    rows = model(control)
    assert closing.descriptors(_ancillary.parse(control)) == [
        fd
        for level, kind, data in rows
        if level == RIGHTS[0] and kind in closing._CARRY_DESCRIPTORS
        for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4])
    ]


@anything
@given(st.lists(st.tuples(pairs, payload), max_size=6))
def test_what_is_encoded_is_parsed_again(messages):
    given_messages = [(*pair, data) for pair, data in messages]
    control = _ancillary.encode(given_messages)
    rows, data = iter(control.table), control.payload
    buffer = b""
    for level, kind, length in zip(rows, rows, rows):
        buffer += laid_out(HEADER + length, level, kind, data[:length], b"\0")
        data = data[length:]
    assert _ancillary.parse(buffer) == given_messages


# ---- the decoder ----


def registered(target):
    """Triples of one registered pair, of the sizes that matter to it; many bits set, none, or any."""
    level, kind, sizes = target
    fills = st.one_of(st.binary(max_size=max(sizes)), st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80\0", b"\2\0"]))
    size = st.sampled_from(sizes)
    return st.builds(lambda n, fill: (level, kind, (fill * (n // max(1, len(fill)) + 1))[:n].ljust(n, b"\0")), size, fills)


known_triples = st.sampled_from(laws.TARGETS).flatmap(registered)
near_triples = st.builds(lambda item, off: (item[0], item[1] + off, item[2]), known_triples, st.sampled_from([-1, 1]))
any_triples = st.tuples(ints, ints, st.binary(max_size=300))
triples = st.lists(st.one_of(known_triples, known_triples, near_triples, any_triples), max_size=4)


@anything
@given(triples)
def test_the_decoder_takes_any_triples(messages):
    laws.check_decoder(messages)


@anything
@given(controls)
def test_the_decoder_takes_whatever_the_parser_found(control):
    laws.check_control(control)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x7f", b"\x80"], ids=bytes.hex)
@pytest.mark.parametrize("target", laws.TARGETS, ids=lambda target: f"{target[0]}-{target[1]}")
def test_every_registered_pair_is_decoded_at_every_size_that_matters(target, fill):
    level, kind, sizes = target
    laws.check_decoder([(level, kind, fill * size) for size in sizes])
