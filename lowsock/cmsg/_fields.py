# SPDX-License-Identifier: MIT
"""Fields of payloads: addresses as text, numbers in range, names for numbers that the kernel has names for."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import Any, TypeVar

from lowsock._system.arguments import checked_int
from lowsock._system.errors import raised_here
from lowsock._system.layouts import LAYOUTS, Layout

E = TypeVar("E", bound=IntEnum)

UINT8, UINT16, UINT32, UINT64 = 2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1
INT_SIZE = struct.calcsize("i")
INT = struct.Struct("i")
UINT = struct.Struct("I")
SECOND = 10**9  # nanoseconds

_MAX_CACHED = 4096
TEXT_CACHE: dict[bytes, str] = {}  # of addresses, as `address_text` made them


def layout(name: str) -> Layout:
    """The layout of a structure; one that the platform lacks has a size of 0 and no fields; its classes are not shown."""
    return LAYOUTS.get(name) or Layout(0, [])


class Named(IntEnum):
    """An `IntEnum` whose repr is an expression."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def named(names: type[E], number: int) -> E | int:
    """The member of an enumeration, or the plain number where it has no name."""
    member: Any = names._value2member_map_.get(number, number)  # a call would raise and be caught, a handler's error too
    return member


def number(name: str, value: Any, most: int) -> int:
    """``value`` as an unsigned field; the error names it."""
    return checked_int(name, value, least=0, most=most)


def address_text(address: bytes) -> str:
    """An IPv4 or IPv6 address, 4 or 16 bytes, as text."""
    text = TEXT_CACHE.get(address)
    if text is None:
        text = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        if len(TEXT_CACHE) >= _MAX_CACHED:
            TEXT_CACHE.clear()
        TEXT_CACHE[address] = text
    return text


def is_multicast(address: bytes) -> bool:
    """Whether an address, 4 or 16 bytes, is a group's, which nothing can be sent from."""
    return address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 14


def host_text(name: str, value: Any) -> str:
    """An address, given as text or as an object of the `ipaddress` module, as text; the error names the field."""
    text = str(value) if type(value).__module__ == "ipaddress" else value
    if not isinstance(text, str):
        raise TypeError(f"{name} must be an address, a str or of the ipaddress module, not {type(value).__name__}")
    return text


def address_bytes(name: str, value: Any, family: int) -> bytes:
    """The bytes of an address given as text or as an object of the `ipaddress` module; the error names the field."""
    text = host_text(name, value)
    if "%" in text:
        raise ValueError(f"{name} must have no scope, the interface is named by its number: {value!r:.60}")
    try:
        if "\0" in text:
            raise ValueError  # PyPy's inet_pton stops there
        return socket.inet_pton(family, text)
    except (OSError, ValueError) as error:
        if not raised_here(error):
            raise
        kind = "IPv4" if family == socket.AF_INET else "IPv6"
        raise ValueError(f"{name} must be a numeric {kind} address, not {value!r:.60}") from None


_SIN, _SIN6 = layout("sockaddr_in"), layout("sockaddr_in6")
_TUPLE_FORMS: dict[int, str] = {socket.AF_INET: "(host, port)", socket.AF_INET6: "(host, port[, flowinfo[, scope_id]])"}


def socket_address(name: str, value: Any, family: int) -> bytes:
    """The ``struct sockaddr`` of an address tuple with a numeric host; the error names the field."""
    if not isinstance(value, tuple) or not 2 <= len(value) <= (2 if family == socket.AF_INET else 4):
        raise TypeError(f"{name} must be a tuple {_TUPLE_FORMS[family]}, not {value!r:.60}")
    host = address_bytes(f"{name} host", value[0], family)
    port = number(f"{name} port", value[1], UINT16).to_bytes(2, "big")
    if family == socket.AF_INET:
        return _SIN.pack(family, port, host)
    flow, scope = (*value[2:], 0, 0)[:2]
    flowinfo = number(f"{name} flowinfo", flow, UINT32).to_bytes(4, "big")
    return _SIN6.pack(family, port, flowinfo, host, number(f"{name} scope_id", scope, UINT32))


def inet_tuple(name: bytes) -> tuple[str, int]:
    """The address tuple of a ``struct sockaddr_in``."""
    _, port, host = _SIN.unpack(name)
    return address_text(host), int.from_bytes(port, "big")


def inet6_tuple(name: bytes) -> tuple[str, int, int, int]:
    """The address tuple of a ``struct sockaddr_in6``."""
    _, port, flowinfo, host, scope = _SIN6.unpack(name)
    return address_text(host), int.from_bytes(port, "big"), int.from_bytes(flowinfo, "big"), scope
