# SPDX-License-Identifier: MIT
"""Asking for control messages: the options that make them arrive, and the room that they take."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from lowsock._memory.ancillary import CMSG_SPACE
from lowsock._system.arguments import checked_int
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import fail, unsupported
from lowsock._system.ffi import lib
from lowsock._system.spellings import renamed
from lowsock._system.target import target
from lowsock.cmsg._base import NO_OPTION, ControlMessage, Row, pair, row_of
from lowsock.cmsg._fields import INT_SIZE
from lowsock.cmsg._ip import LINUX
from lowsock.cmsg._portable import all_answers, answers, is_question
from lowsock.cmsg._times import RECEIVE_BY_SOFTWARE

if TYPE_CHECKING:
    from lowsock._system.types import Socket

Kind = type[ControlMessage]  # a name in public annotations
MAX_FDS = 253  # Linux: SCM_MAX_FD
_V6ONLY = socket.IPPROTO_IPV6, CONSTANTS["IPV6_V6ONLY"]
_TYPE = socket.SOL_SOCKET, socket.SO_TYPE
_EXCLUSIVE = {"SO_TIMESTAMP", "SO_TIMESTAMPNS"}  # setting either clears the other
_NEW = ("SO_TIMESTAMP_NEW", "SO_TIMESTAMPNS_NEW", "SO_TIMESTAMPING_NEW")
_TIME_OPTIONS = (*_EXCLUSIVE, "SO_TIMESTAMPING", *_NEW)  # setting one can clear any other
_UNSUPPORTED = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)


@renamed("space", {"fds": "max_fds=..."})
def space(*classes: type[ControlMessage], max_fds: int = 0) -> int:
    """The ``ancbufsize`` for one message of each of ``classes`` beside ``max_fds`` descriptors.

    A question (`HopCount`) counts with all its answers, `Rights` as 253 descriptors unless ``max_fds`` says how many. Times
    count twice: a 32-bit libc delivers both widths. Raises `TypeError` for what is no class of messages. See cmsg(3).
    """
    max_fds = checked_int("max_fds", max_fds, least=0, most=MAX_FDS)
    rows = [row_of(answer) for cls in classes for answer in _with_answers(cls)]
    rooms = [row.room for row in rows if not max_fds or row.name != "SCM_RIGHTS"]
    return sum(map(CMSG_SPACE, rooms)) + (CMSG_SPACE(max_fds * INT_SIZE) if max_fds else 0)


@renamed("enable", {"fds": "max_fds=..."})
def enable(sock: Socket, *classes: type[ControlMessage], max_fds: int = 0, timestamping: int = RECEIVE_BY_SOFTWARE) -> int:
    """Sets the socket options that make messages of ``classes`` arrive; returns the ``ancbufsize`` that holds them.

    A question is put as the socket's family has it, on a dual-stack IPv6 socket for both families. ``timestamping`` is
    added to the flags that `Timestamping` has on this socket. All are set or none. (To ask for what arrives elsewhere, on
    the error queue or in `lowsock.recv_owned_fds`, is as good: the size is then of no use.)

    Raises `lowsock.UnsupportedError` naming the option that the platform or the running kernel lacks, for this kind of
    socket at least; `ValueError` for a class that is only ever sent, and for `Timestamp` with `TimestampNs`, of which a
    socket has one; `OSError` as the kernel says it. See setsockopt(2).
    """
    size, timestamping = space(*classes, max_fds=max_fds), checked_int("timestamping", timestamping, least=0)
    fd = target(sock)[0]
    wanted = [answer for cls in classes for answer in _classes_for(fd, cls)]
    if len(_EXCLUSIVE.intersection(row_of(cls).option for cls in wanted)) > 1:
        raise ValueError(f"classes: {' and '.join(sorted(_EXCLUSIVE))} exclude each other")
    before: dict[tuple[int, int], int] = {}
    try:
        for cls in wanted:
            _set_option(fd, cls, timestamping, before)
    except BaseException:
        restore_options(fd, before)
        raise
    return size


def _with_answers(cls: Any) -> tuple[Any, ...]:
    """The classes that count for ``cls``; `row_of` refuses what is no class at all."""
    return all_answers(cls) if isinstance(cls, type) else (cls,)


def _classes_for(fd: int, cls: Kind) -> list[Kind]:
    """The classes that answer ``cls`` on this socket."""
    if not is_question(cls):
        return [cls]
    family = lib.lowsock_family(fd)
    if family < 0:
        fail(family)
    asked = [*answers(cls, family)]
    if LINUX and family == socket.AF_INET6 and _is_dual_stack(fd):
        asked += answers(cls, socket.AF_INET)  # BSD tells of IPv4 by IPv6's messages, and has no options of IPv4 there
    return list(dict.fromkeys(asked))


def _is_dual_stack(fd: int) -> bool:
    """Whether an IPv6 socket takes IPv4 and its options as well: a raw one does not, whatever IPV6_V6ONLY says."""
    return lib.lowsock_option(fd, *_TYPE) != socket.SOCK_RAW and not lib.lowsock_option(fd, *_V6ONLY)


def _set_option(fd: int, cls: Kind, timestamping: int, before: dict[tuple[int, int], int]) -> None:
    """Sets the option of one class, and notes in ``before`` the value of it and of the options that it clears."""
    row = row_of(cls)
    row.sent_pair()
    if row.option is None:
        raise ValueError(f"classes: {cls.__name__} is only sent")
    if row.setting is None and row.option == NO_OPTION:
        return
    option = pair(row.option) if row.setting is None else row.setting[:2]
    if option is None:
        unsupported(f"{cls.__name__}: this platform has no {row.option}")
    times = [each for each in map(pair, _TIME_OPTIONS) if each is not None]
    for affected in (option, *(times if option in times else ())):
        if affected not in before:
            before[affected] = max(lib.lowsock_option(fd, *affected), 0)
    value = 1 if row.setting is None else row.setting[2]
    if row.option == "SO_TIMESTAMPING":
        value = max(lib.lowsock_option(fd, *option), 0) | _flags(cls, timestamping)
    answer = lib.lowsock_set_option(fd, *option, value)
    if answer < 0:
        _raise_refused(answer, cls, row)


def restore_options(fd: int, before: dict[tuple[int, int], int]) -> None:
    """Sets options to what they were. Zeros first: they clear the option that excludes theirs, too. What did not change is
    left alone: writing it restarts OPT_ID."""
    for (level, option), value in sorted(before.items(), key=lambda item: item[1] != 0):
        if lib.lowsock_option(fd, level, option) != value:
            lib.lowsock_set_option(fd, level, option, value)


def _flags(cls: Kind, timestamping: int) -> int:
    """What to add to the flags of SO_TIMESTAMPING: the caller's for the times, a class's own for what comes with them."""
    own: int | None = getattr(cls, "_flags", None)
    return timestamping if own is None else own


def _raise_refused(answer: int, cls: Kind, row: Row) -> NoReturn:
    if -answer in _UNSUPPORTED:
        since = f", which came with {row.since}" if row.since else ""
        reason = os.strerror(-answer)
        name = row.option or f"option {row.setting}"
        unsupported(f"{cls.__name__}: this kernel has no {name} for this socket{since} ({reason})", -answer)
    fail(answer)
