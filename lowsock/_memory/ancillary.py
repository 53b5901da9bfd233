# SPDX-License-Identifier: MIT
"""Ancillary data: three-tuples ``(level, type, bytes)`` to and from a control buffer. See cmsg(3)."""

from __future__ import annotations

from _collections_abc import Sequence
from _socket import AF_UNIX, SOCK_STREAM
from struct import pack

from lowsock._memory.buffers import as_bytes
from lowsock._memory.recv_pool import Reply
from lowsock._system.arguments import INT_MAX, checked_index, checked_int, iterated
from lowsock._system.constants import CONSTANTS
from lowsock._system.ffi import ffi, lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import Ancillary, ControlMessage

NO_ANCDATA: tuple[ControlMessage, ...] = ()

SOL_SOCKET = CONSTANTS["SOL_SOCKET"]
SCM_RIGHTS = CONSTANTS["SCM_RIGHTS"]
INT_SIZE = ffi.sizeof("int")
_HEADER = lib.lowsock_cmsg_len(0)
_INFO, _ROW = lib.LOWSOCK_INFO, lib.LOWSOCK_ROW


def CMSG_LEN(length: int) -> int:
    """The value of ``cmsg_len`` for a control message that carries ``length`` bytes: header and data, no padding.

    Raises `OverflowError` where the kernel's types cannot hold it, as `socket.CMSG_LEN` does. See cmsg(3).
    """
    return lib.lowsock_cmsg_len(_checked_length("CMSG_LEN", length, INT_MAX - lib.lowsock_cmsg_len(0)))


def CMSG_SPACE(length: int) -> int:
    """The bytes that a control message of ``length`` bytes takes up in a buffer: header, data and padding.

    Raises `OverflowError` where the kernel's types cannot hold it, as `socket.CMSG_SPACE` does. See cmsg(3).
    """
    return lib.lowsock_cmsg_space(_checked_length("CMSG_SPACE", length, INT_MAX - lib.lowsock_cmsg_space(1)))


def _checked_length(macro: str, length: int, most: int) -> int:
    number = checked_index("length", length)
    if not 0 <= number <= most:
        raise OverflowError(f"{macro}() argument out of range: {number}")
    return number


class Control:
    """Control messages ready to be sent: ``table`` holds level, type and length of each of the ``rows``, ``payload`` their
    payloads in a row; ``descriptors`` says whether they carry any."""

    __slots__ = ("descriptors", "payload", "rows", "table")

    def __init__(self, payload: bytes, table: list[int], rows: int, descriptors: bool) -> None:
        self.payload, self.table, self.rows, self.descriptors = payload, table, rows, descriptors


NO_CONTROL = Control(b"", [], 0, False)


def encode_rights(fds: list[int]) -> Control:
    """A control message with these descriptors; without any, no message."""
    if not fds:
        return NO_CONTROL
    return Control(pack(f"{len(fds)}i", *fds), [SOL_SOCKET, SCM_RIGHTS, len(fds) * INT_SIZE], 1, True)


def encode(ancdata: Iterable[Any], name: str = "ancdata") -> Control:
    """Checks and copies the caller's three-tuples; the error names the wrong one."""
    items = iterated(name, "(level, type, data)", ancdata)
    messages = [message(f"{name}[{i}]", item) for i, item in enumerate(items)]
    table = [number for level, kind, data in messages for number in (level, kind, len(data))]
    descriptors = any(level == SOL_SOCKET and kind == SCM_RIGHTS and data for level, kind, data in messages)
    return Control(b"".join([data for _, _, data in messages]), table, len(messages), descriptors)


def message(name: str, item: Any) -> tuple[int, int, bytes]:
    """``item``, checked and copied; the error says what is wrong with ``name``."""
    if isinstance(item, (str, bytes)) or not isinstance(item, Sequence) or len(item) != 3:
        raise TypeError(f"{name} must be a three-tuple (level, type, data), not {item!r:.60}")
    level, kind, data = item
    data = as_bytes(f"{name} data", data)
    if len(data) > INT_MAX - 2 * _HEADER:
        raise OverflowError(f"{name} data is too long: {len(data)} bytes")
    return checked_int(f"{name} level", level), checked_int(f"{name} type", kind), data


def decode(reply: Reply, info: Sequence[int]) -> Ancillary:
    """The control messages of a reply, by its unpacked ``info``."""
    control, ancdata, at, end = reply.control, [], _INFO, len(info)
    while at < end:
        ancdata.append((info[at], info[at + 1], control[info[at + 2] : info[at + 3]]))
        at += _ROW
    return ancdata


def parse(control: bytes) -> Ancillary:
    """The control messages in any bytes, read by C as after a receive."""
    reply = Reply(0, len(control))
    ffi.memmove(reply.struct.control, control, len(control))
    answer = lib.lowsock_parse(reply.struct, len(control))
    return decode(reply, ffi.unpack(reply.info, -answer - lib.LOWSOCK_MORE))


def refuse_without_data(fd: int, name: str = "buffers (or data)") -> None:
    """Raises `ValueError` for an ``AF_UNIX`` stream: without a byte of data Linux silently loses descriptors there."""
    if lib.lowsock_option(fd, SOL_SOCKET, CONSTANTS["SO_TYPE"]) != SOCK_STREAM:
        return
    if lib.lowsock_family(fd) == AF_UNIX:
        raise ValueError(f"{name} must hold at least one byte: a stream socket loses descriptors that come without data")
