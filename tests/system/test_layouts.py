# SPDX-License-Identifier: MIT
"""lowsock._system.layouts: structures as the compiler sees them, packed and unpacked."""

import ctypes
import socket
import sys

import pytest

from lowsock._system.layouts import LAYOUTS, Field, Layout

NAMES = sorted(LAYOUTS)
SIZES = {"sockaddr": 16, "sockaddr_in": 16, "sockaddr_in6": 28}  # the same on every system


def raw_name(sock):
    """The bytes of a socket's own address, from getsockname(2) itself."""
    name, size = ctypes.create_string_buffer(256), ctypes.c_uint32(256)
    assert ctypes.CDLL(None).getsockname(sock.fileno(), name, ctypes.byref(size)) == 0
    return name.raw[: size.value]


@pytest.mark.parametrize("name", NAMES)
def test_fields_lie_inside_and_do_not_overlap(name):
    layout = LAYOUTS[name]
    at = 0
    for field in sorted(layout.offsets, key=layout.offsets.__getitem__):
        assert layout.offsets[field] >= at
        at = layout.offsets[field] + layout.sizes[field]
    assert at <= layout.size


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_system(name):
    assert LAYOUTS[name].size == SIZES[name]


def sample(layout):
    """A value for each field: bytes for a field of bytes, else a number."""
    values = layout.unpack(bytes(layout.size))
    return tuple(
        bytes(range(1, len(value) + 1)) if isinstance(value, bytes) else place + 1 for place, value in enumerate(values)
    )


@pytest.mark.parametrize("name", NAMES)
def test_unpack_undoes_pack(name):
    values = sample(LAYOUTS[name])
    packed = LAYOUTS[name].pack(*values)
    assert len(packed) == LAYOUTS[name].size
    assert LAYOUTS[name].unpack(packed) == values


@pytest.mark.parametrize("name", NAMES)
def test_unpack_takes_no_notice_of_what_follows(name):
    values = sample(LAYOUTS[name])
    assert LAYOUTS[name].unpack(LAYOUTS[name].pack(*values) + b"more") == values


@pytest.mark.parametrize("name", NAMES)
def test_unpack_takes_what_is_missing_as_zero(name):
    assert LAYOUTS[name].unpack(b"") == LAYOUTS[name].unpack(bytes(LAYOUTS[name].size))


def test_values_are_given_in_the_order_of_the_table_not_of_the_memory():
    layout = Layout(8, [Field("late", "u", 4, 2), Field("early", "b", 1, 3)])
    assert layout.pack(5, b"abc") == b"\0abc" + (5).to_bytes(2, sys.byteorder) + b"\0\0"
    assert layout.unpack(layout.pack(5, b"abc")) == (5, b"abc")


def test_numbers_have_the_sign_of_their_kind():
    layout = Layout(8, [Field("signed", "i", 0, 4), Field("unsigned", "u", 4, 4)])
    assert layout.unpack(b"\xff" * 8) == (-1, 2**32 - 1)


def test_the_layout_is_what_the_kernel_fills():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        family, port, host = LAYOUTS["sockaddr_in"].unpack(raw_name(sock))
        assert (family, int.from_bytes(port, "big"), host) == (
            socket.AF_INET,
            sock.getsockname()[1],
            socket.inet_aton("127.0.0.1"),
        )
