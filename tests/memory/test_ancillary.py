# SPDX-License-Identifier: MIT
"""lowsock._memory.ancillary: control messages in bytes, hand-built and any, without a socket."""

import array
import socket
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowsock
from lowsock._memory import ancillary as _ancillary
from lowsock._memory import closing

INT_MAX = 2**31 - 1
HEADER = lowsock.CMSG_LEN(0)
LENGTH = HEADER - 8  # bytes of cmsg_len with its padding, before two ints

anything = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def header(length, level, kind):
    return length.to_bytes(LENGTH, sys.byteorder) + struct.pack("=ii", level, kind)


def packed(level, kind, data):
    """One control message as the kernel lays it out, padding included."""
    return (header(lowsock.CMSG_LEN(len(data)), level, kind) + data).ljust(lowsock.CMSG_SPACE(len(data)), b"\0")


def buffer_of(messages):
    return b"".join(packed(*message) for message in messages)


def unpacked(control):
    """The messages of an encoded `Control`."""
    rows, payload = iter(control.table), control.payload
    messages = []
    for level, kind, length in zip(rows, rows, rows):
        messages.append((level, kind, payload[:length]))
        payload = payload[length:]
    assert (len(messages), payload) == (control.rows, b"")
    return messages


# ---- sizes ----


@pytest.mark.parametrize("name", ["CMSG_LEN", "CMSG_SPACE"])
def test_sizes_are_those_of_the_socket_module(name):
    ours, theirs = getattr(lowsock, name), getattr(socket, name)
    lengths = [*range(300), *(2**power + off for power in range(9, 31) for off in (-1, 0, 1))]
    assert [ours(length) for length in lengths] == [theirs(length) for length in lengths]


def largest(function):
    """The largest length that a size function takes."""
    least, most = 0, 2**32
    while least < most:
        middle = (least + most + 1) // 2
        try:
            function(middle)
            least = middle
        except OverflowError:
            most = middle - 1
    return least


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy sets another limit")
@pytest.mark.parametrize("name", ["CMSG_LEN", "CMSG_SPACE"])
def test_sizes_end_where_the_socket_modules_do(name):
    assert largest(getattr(lowsock, name)) == largest(getattr(socket, name))


@pytest.mark.parametrize("name", ["CMSG_LEN", "CMSG_SPACE"])
@pytest.mark.parametrize("length", [-1, INT_MAX, 2**31, 2**63, 2**64, -(2**70)])
def test_a_size_beyond_the_kernels_types_is_an_overflow(name, length):
    with pytest.raises(OverflowError, match=name):
        getattr(lowsock, name)(length)


def test_a_size_takes_whatever_is_an_index():
    class Index:
        def __index__(self):
            return 5

    assert lowsock.CMSG_LEN(Index()) == lowsock.CMSG_LEN(5)
    assert lowsock.CMSG_SPACE(True) == lowsock.CMSG_SPACE(1)


# ---- encoding ----

DATA = {
    "bytes": b"\1\0\0\0",
    "bytearray": bytearray(b"\1\0\0\0"),
    "memoryview": memoryview(b"\1\0\0\0"),
    "array": array.array("i", [1]),
    "view of an array": memoryview(array.array("i", [1])),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_data_of_any_kind_is_encoded_as_its_bytes(data):
    assert unpacked(_ancillary.encode([(1, 2, data)])) == [(1, 2, bytes(memoryview(data).cast("B")))]


CONTAINERS = {"list": list, "tuple": tuple, "iterator": iter, "generator": lambda items: (item for item in items)}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_any_iterable_of_messages_is_encoded(container):
    messages = [(1, 2, b"abc"), (-5, INT_MAX, b""), (3, 4, b"x" * 1000)]
    assert unpacked(_ancillary.encode(container(messages))) == messages


def test_a_message_may_be_any_sequence_of_three():
    class Triple(tuple):
        pass

    messages = [[1, 2, b"a"], Triple((1, 2, b"a"))]
    assert unpacked(_ancillary.encode(messages)) == [(1, 2, b"a")] * 2


def test_what_carries_descriptors_is_known():
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    assert _ancillary.encode([(1, 2, b""), (*rights, b"\0" * 4)]).descriptors
    assert not _ancillary.encode([(*rights, b"")]).descriptors
    assert not _ancillary.encode([(rights[0] + 1, rights[1], b"\0" * 4)]).descriptors


def test_the_data_is_copied():
    data = bytearray(b"abcd")
    control = _ancillary.encode([(1, 2, data)])
    data[:] = b"efgh"
    assert control.payload == b"abcd"


def test_no_messages_are_no_control_data():
    control = _ancillary.encode([])
    assert (control.payload, control.table, control.rows, control.descriptors) == (b"", [], 0, False)


# ---- parsing hand-built buffers ----

ONE, TWO = (1, 2, b"first"), (3, 4, b"the second one")
WHOLE = packed(*ONE)
HAND_BUILT = {
    "nothing": (b"", []),
    "one": (WHOLE, [ONE]),
    "one without its padding": (WHOLE[: lowsock.CMSG_LEN(5)], [ONE]),
    "two": (WHOLE + packed(*TWO), [ONE, TWO]),
    "no data": (packed(1, 2, b""), [(1, 2, b"")]),
    "no data at the end": (WHOLE + packed(1, 2, b""), [ONE, (1, 2, b"")]),
    "no data between": (packed(1, 2, b"") + WHOLE, [(1, 2, b""), ONE]),
    "negative level and type": (packed(-1, -2, b"x"), [(-1, -2, b"x")]),
    "length of zero": (WHOLE + header(0, 1, 2) + bytes(32), [ONE]),
    "zeros for ever": (bytes(4096), []),
    "length below a header": (WHOLE + header(HEADER - 1, 1, 2) + bytes(32), [ONE]),
    "length of one header": (WHOLE + header(HEADER, 7, 8), [ONE, (7, 8, b"")]),
    "length beyond the buffer": (WHOLE + header(HEADER + 100, 7, 8) + b"rest", [ONE, (7, 8, b"rest")]),
    "length beyond the buffer by one": (header(HEADER + 5, 7, 8) + b"rest", [(7, 8, b"rest")]),
    "length beyond the buffer, no data": (header(HEADER + 100, 7, 8), [(7, 8, b"")]),
    "length beyond any memory": (WHOLE + header(2 ** (8 * min(LENGTH, 4)) - 1, 7, 8) + b"x", [ONE, (7, 8, b"x")]),
    "length with every bit": (WHOLE + b"\xff" * LENGTH + struct.pack("=ii", 7, 8) + b"x", [ONE, (7, 8, b"x")]),
    "length whose padding overflows": (
        WHOLE + (2 ** (8 * LENGTH) - 8).to_bytes(LENGTH, sys.byteorder) + struct.pack("=ii", 7, 8),
        [ONE, (7, 8, b"")],
    ),
    "length with the sign bit": (
        (2 ** (8 * LENGTH - 1)).to_bytes(LENGTH, sys.byteorder) + struct.pack("=ii", 7, 8) + b"x",
        [(7, 8, b"x")],
    ),
    "last header cut": (WHOLE + packed(*TWO)[: HEADER - 1], [ONE]),
    "one byte of a header": (WHOLE + b"\x20", [ONE]),
    "data cut": (WHOLE + packed(*TWO)[: HEADER + 3], [ONE, (3, 4, b"the")]),
    "end in the padding": (WHOLE[:-1], [ONE]),
    "odd end": (WHOLE + b"\0\0\0", [ONE]),
    "many": (packed(5, 6, b"") * 500, [(5, 6, b"")] * 500),
    "descriptors, whole and a part": (
        packed(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\1\0\0\0\2"),
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\1\0\0\0\2")],
    ),
}


@pytest.mark.parametrize(("control", "messages"), HAND_BUILT.values(), ids=HAND_BUILT)
def test_parse_reads_what_is_there(control, messages):
    assert _ancillary.parse(control) == messages


def test_parsing_closes_no_descriptor(open_fds):
    before = open_fds()
    fds = array.array("i", sorted(before)).tobytes()
    _ancillary.parse(packed(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds))
    assert open_fds() == before


def test_descriptors_are_whole_ones():
    data = array.array("i", [7, 8]).tobytes()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    assert closing.descriptors([(*rights, data + b"\1\2"), (9, 9, data), (*rights, b"")]) == [7, 8]


def test_a_pidfd_is_a_descriptor():
    messages = [(socket.SOL_SOCKET, 4, array.array("i", [7]).tobytes())]  # SCM_PIDFD
    assert closing.descriptors(messages) == ([7] if sys.platform.startswith("linux") else [])


# ---- any bytes ----

ints = st.integers(-(2**31), INT_MAX)
message = st.tuples(ints, ints, st.binary(max_size=40))
messages = st.lists(message, max_size=6)
# what a truncated or hostile buffer looks like: true messages, then headers with any length, then anything
length = st.one_of(st.integers(0, 64), st.integers(0, 2 ** (8 * LENGTH) - 1))
broken = st.builds(lambda n, level, kind, rest: header(n, level, kind) + rest, length, ints, ints, st.binary(max_size=48))
hostile = st.builds(lambda good, bad: buffer_of(good) + b"".join(bad), messages, st.lists(broken, max_size=3))


def check_inside(control):
    """Every payload stands in the buffer, one behind the other."""
    at = 0
    for level, kind, data in _ancillary.parse(control):
        start = at + HEADER
        assert control[start - 8 : start] == struct.pack("=ii", level, kind)
        assert control[start : start + len(data)] == data
        at += lowsock.CMSG_SPACE(len(data))
    assert at < len(control) + lowsock.CMSG_SPACE(1)


@anything
@given(st.one_of(st.binary(max_size=300), hostile))
def test_parse_takes_any_bytes_and_stays_inside(control):
    check_inside(control)


@anything
@given(messages)
def test_parse_undoes_encoding(given_messages):
    control = unpacked(_ancillary.encode(given_messages))
    assert _ancillary.parse(buffer_of(control)) == given_messages


@anything
@given(messages, st.binary(max_size=60))
def test_whole_messages_before_a_broken_end_are_kept(given_messages, rest):
    assert _ancillary.parse(buffer_of(given_messages) + rest)[: len(given_messages)] == given_messages


@anything
@given(messages, st.data())
def test_a_cut_buffer_gives_the_messages_before_the_cut(given_messages, data):
    control = buffer_of(given_messages)
    cut = data.draw(st.integers(0, len(control)))
    parsed = _ancillary.parse(control[:cut])
    assert len(parsed) <= len(given_messages)
    for ours, true in zip(parsed, given_messages):
        assert ours[:2] == true[:2]
        assert true[2].startswith(ours[2])
    for ours, true in zip(parsed[:-1], given_messages):
        assert ours == true
