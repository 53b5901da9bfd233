# SPDX-License-Identifier: MIT
"""Addresses of the wrong family, shape or range: the error says so, as the socket module's does where it has one."""

import re
import socket
import sys
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import lowsock
from lowsock._memory import address as _address

PYPY = sys.implementation.name == "pypy"
TOO_LARGE = (2**63, 2**200)
SHAPELESS = (5, 1.5, object(), {}, {1})
FAMILIES: dict[str, Any] = {  # family: arguments of socket(), then by error the addresses that are wrong
    "inet": (
        (socket.AF_INET, socket.SOCK_DGRAM),
        {
            TypeError: (
                *SHAPELESS,
                "127.0.0.1",
                b"x",
                ["127.0.0.1", 9],
                (),
                ("127.0.0.1",),
                ("127.0.0.1", 9, 0),
                ("127.0.0.1", "9"),
                ("127.0.0.1", None),
                ("127.0.0.1", 9.0),
                (None, 9),
                (5, 9),
                ([], 9),
                (1.5, 9),
            ),
            OverflowError: [("127.0.0.1", port) for port in (-1, 65536, *TOO_LARGE)],
        },
    ),
    "inet6": (
        (socket.AF_INET6, socket.SOCK_DGRAM),
        {
            TypeError: (
                *SHAPELESS,
                "::1",
                ["::1", 9],
                (),
                ("::1",),
                ("::1", 9, 0, 0, 0),
                ("::1", "9"),
                ("::1", 9.0),
                (None, 9),
                ("::1", 9, "0"),
                ("::1", 9, None),
                ("::1", 9, 0, "lo"),
                ("::1", 9, 0, None),
                ("::1", 9, 0, 1.0),
            ),
            OverflowError: [("::1", -1), ("::1", 65536), ("::1", 9, 2**20), ("::1", 9, -1)],
        },
    ),
    "unix": (
        (socket.AF_UNIX, socket.SOCK_DGRAM),
        {
            TypeError: (*SHAPELESS, ("x",), ["x"], ("127.0.0.1", 9)),
            OSError: ("x" * 108, b"x" * 200, "\0" * 109, "x" * 100_000),
        },
    ),
    "netlink": (
        (getattr(socket, "AF_NETLINK", None), socket.SOCK_RAW),
        {TypeError: (*SHAPELESS, "x", (), (0,), (0, 0, 0), [0, 0], ("0", 0), (0, 0.0), (None, 0))},
    ),
    "packet": (
        (getattr(socket, "AF_PACKET", None), socket.SOCK_DGRAM),
        {
            TypeError: (*SHAPELESS, "lo", (), ("lo",), ["lo", 0], (5, 0), ("lo", "0"), ("lo", 0.0), ("lo", 0, 0, 0, 5)),
            ValueError: (("lo", 0, 0, 0, bytes(9)),),
            OverflowError: (("lo", -1), ("lo", 65536)),
        },
    ),
    "vsock": (
        (getattr(socket, "AF_VSOCK", None), socket.SOCK_DGRAM),
        {TypeError: (*SHAPELESS, "x", (), (0,), (0, 0, 0), [0, 0], ("0", 0), (0, 0.0), (None, 0))},
    ),
}
LOWSOCK_ONLY = {  # what the socket module lets through, cut off or without a word
    "inet": {ValueError: (("127.0.0.1\0.example", 9), (b"\0", 9), ("\0", 9))},
    "inet6": {ValueError: (("::1\0x", 9),), OverflowError: (("::1", 9, 0, 2**32), ("::1", 9, 0, -1))},
    "unix": {ValueError: ("a\0b", b"a\0")},
    "netlink": {OverflowError: ((2**32, 0), (0, 2**64))},
    "vsock": {OverflowError: ((2**32, 0), (0, 2**64))},
}
ADDRESSES = [
    pytest.param(family, address, error, table is FAMILIES, id=re.sub(" at 0x[0-9a-f]+", "", f"{family} {address!r:.60}"))
    for table in (FAMILIES, LOWSOCK_ONLY)
    for family, row in table.items()
    for error, addresses in (row[1] if table is FAMILIES else row).items()
    for address in addresses
]
SENDABLE = [row for row in ADDRESSES if row.values[0] not in ("packet", "vsock")]  # not everybody may make these


@pytest.fixture
def of_family() -> Iterator[Callable[[str], socket.socket]]:
    """A callable: the name of a family -> a new socket of it."""
    made = []

    def make(family: str) -> socket.socket:
        made.append(socket.socket(*FAMILIES[family][0]))
        return made[-1]

    yield make
    for sock in made:
        sock.close()


@pytest.mark.parametrize(("family", "address", "error", "as_socket"), ADDRESSES)
def test_a_bad_address_is_named(family: str, address: Any, error: type[Exception], as_socket: bool) -> None:
    if FAMILIES[family][0][0] is None:
        pytest.skip(f"the socket module has no {family}")
    with pytest.raises(error, match=r"address|path") as caught:
        _address.encode(FAMILIES[family][0][0], address)
    assert caught.type is error


@pytest.mark.parametrize(("family", "address", "error", "as_socket"), SENDABLE)
def test_a_bad_address_fails_as_it_does_for_the_socket_module(
    family: str, address: Any, error: type[Exception], as_socket: bool, of_family: Callable[[str], socket.socket]
) -> None:
    sock = of_family(family)
    for sender in (sock, sock.fileno()):
        with pytest.raises(error, match=r"address|path") as caught:
            lowsock.sendmsg(sender, [b"x"], [], 0, address)
        assert caught.type is error
    if as_socket and not PYPY:
        with pytest.raises(error):
            sock.sendmsg([b"x"], [], 0, address)
