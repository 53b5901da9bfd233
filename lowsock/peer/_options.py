# SPDX-License-Identifier: MIT
"""What the kernel knows of a socket's peer: options read as bytes, numbers or a descriptor. See unix(7), socket(7)."""

from __future__ import annotations

import errno
from array import array
from typing import TYPE_CHECKING

from lowsock._message.owned import OwnedFds, new_slots, owner
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import fail, unsupported
from lowsock._system.ffi import ffi, lib
from lowsock._system.target import target

if TYPE_CHECKING:
    from typing import NoReturn

    from lowsock._system.types import Socket

_SOL_SOCKET = CONSTANTS["SOL_SOCKET"]
_GID = "I"  # gid_t, of Linux and of the BSDs
_FIRST_SIZE, _MAX_SIZE = 256, 2**20  # bytes: a label, a dozen groups; NGROUPS_MAX groups take a quarter of a MiB
_UNSUPPORTED = (-errno.ENOPROTOOPT, -errno.ENOSYS)


def identity(sock: Socket) -> tuple[int, int, int]:
    """Process (0: not told), user and group."""
    ids = ffi.new("long long[3]")
    answer = lib.lowsock_peer(target(sock)[0], ids)
    if answer == -errno.ENOSYS:
        _raise_unsupported("SO_PEERCRED", answer)
    if answer < 0:
        fail(answer)
    pid, uid, gid = ffi.unpack(ids, 3)
    return pid, uid, gid


def groups(sock: Socket) -> list[int]:
    answer, data = _read(sock, "SO_PEERGROUPS")
    if answer in _UNSUPPORTED:
        _raise_unsupported("SO_PEERGROUPS", answer)
    if answer < 0:
        fail(answer)
    return array(_GID, data).tolist()


def label(sock: Socket) -> bytes | None:
    """The bytes of the security label; None where nothing labels sockets."""
    answer, data = _read(sock, "SO_PEERSEC")
    if answer in _UNSUPPORTED:
        return None
    if answer < 0:
        fail(answer)
    return data


def pidfd(sock: Socket) -> OwnedFds:
    """A new pidfd. C puts it into a slot before any Python code can run, so that no exception can lose it."""
    option, slot = CONSTANTS.get("SO_PEERPIDFD"), new_slots(1)
    fds = owner(slot)
    try:
        answer = -errno.ENOSYS
        if option is not None:
            answer = lib.lowsock_owned_option(target(sock)[0], _SOL_SOCKET, option, slot)
        if answer in _UNSUPPORTED:
            _raise_unsupported("SO_PEERPIDFD", answer)
        if answer < 0:
            fail(answer)
        slot.pidfd = slot.count
        return fds
    except BaseException:
        fds.close()
        raise


def _read(sock: Socket, name: str) -> tuple[int, bytes]:
    """Reads an option of any length: 0 and its bytes, or -errno and none."""
    option = CONSTANTS.get(name)
    answer, size = -errno.ENOSYS if option is None else -errno.ERANGE, _FIRST_SIZE
    while answer == -errno.ERANGE and option is not None and size <= _MAX_SIZE:  # the kernel says: too small
        value = ffi.new("char[]", size)
        answer = lib.lowsock_read_option(target(sock)[0], _SOL_SOCKET, option, value, size)
        if answer >= 0:
            return 0, ffi.buffer(value)[:answer]
        size *= 4
    return answer, b""


def _raise_unsupported(name: str, answer: int) -> NoReturn:
    since = {"SO_PEERPIDFD": " (Linux 6.5)", "SO_PEERGROUPS": " (Linux 4.13)"}.get(name, "")
    unsupported(f"this system has no {name}{since}", -answer)
