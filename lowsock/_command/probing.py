# SPDX-License-Identifier: MIT
"""What all probes share. Constants go by name where a platform may lack them: its AttributeError is then the answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, TypeVar

from lowsock import cmsg, constants, recvmsg, sendmsg
from lowsock._command.loopback import Missing, Sockets
from lowsock.cmsg._base import row_of

M = TypeVar("M", bound=cmsg.ControlMessage)


class Probe(NamedTuple):
    """A feature, the function that makes it happen and tells what it saw (or raises), and what it takes."""

    name: str
    run: Callable[[Sockets], str]
    needs: str = ""


class Row(NamedTuple):
    """What came of a probe."""

    name: str
    available: bool
    detail: str


_LEVELS = {"SO": "SOL_SOCKET", "IPV6": "IPPROTO_IPV6", "TCP": "SOL_TCP"}


def pair(name: str) -> tuple[int, int]:
    """Level and number of an option, by the kernel's name."""
    return getattr(constants, _LEVELS[name.split("_")[0]]), getattr(constants, name)


def beside(sender: socket.socket, receiver: socket.socket, wanted: type[M], *sent: cmsg.ControlMessage) -> M:
    """Asks for a message of a class and sends one byte, with control messages; returns what then came beside it."""
    room = cmsg.enable(receiver, wanted)
    sendmsg(sender, [b"x"], sent)
    return came(recvmsg(receiver, 1, room)[1], wanted)


def came(ancdata: Iterable[Any], wanted: type[M]) -> M:
    """The first message of a class."""
    for message in cmsg.decode(ancdata):
        if isinstance(message, wanted):
            return message
    raise Missing(f"no {row_of(wanted).name} message came")


def age(nanoseconds: int | None) -> float:
    """How many microseconds ago a timestamp was taken; one of more than a minute or in the future is no timestamp."""
    passed = (time.time_ns() - (nanoseconds or 0)) / 1e9
    if not -0.1 < passed < 60:
        raise Missing(f"the timestamp is {passed:.3f} s old")
    return passed * 1e6


def greatest(works: Callable[[int], bool], limit: int) -> int:
    """The greatest number below ``limit`` that works, found by halving."""
    least = 0
    while limit - least > 1:
        middle = (least + limit) // 2
        least, limit = (middle, limit) if works(middle) else (least, middle)
    return least


def takes(call: Callable[[], object]) -> bool:
    """Whether the kernel takes a call."""
    try:
        call()
    except OSError:
        return False
    return True
