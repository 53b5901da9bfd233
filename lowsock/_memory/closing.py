# SPDX-License-Identifier: MIT
"""Closing received descriptors that nobody gets: something was raised after they came. See unix(7)."""

from __future__ import annotations

import os

from lowsock._memory.ancillary import INT_SIZE, SCM_RIGHTS, SOL_SOCKET
from lowsock._memory.recv_pool import Reply
from lowsock._system.constants import CONSTANTS
from lowsock._system.ffi import lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Ancillary

_CARRY_DESCRIPTORS = (SCM_RIGHTS, CONSTANTS.get("SCM_PIDFD", -1))


def close_received(reply: Reply, ancdata: Ancillary | None) -> None:
    """Closes the descriptors that a call received and will not return: those in ``ancdata``; if it is None, in ``reply``."""
    if ancdata is None:
        lib.lowsock_reply_close(reply.struct)
    else:
        close_all(descriptors(ancdata))


def close_all(fds: list[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:  # somebody closed it before
            pass


def descriptors(ancdata: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in received control messages, whole ones only."""
    fds: list[int] = []
    for level, kind, data in ancdata:
        if level == SOL_SOCKET and kind in _CARRY_DESCRIPTORS:
            fds += memoryview(data[: len(data) - len(data) % INT_SIZE]).cast("i")
    return fds
