# SPDX-License-Identifier: MIT
"""What all probes share. Constants that a platform may lack are looked up by name: the `AttributeError` is the answer."""

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
    """A feature, the function that tries it and says what it saw (or raises), and what the feature needs."""

    name: str
    run: Callable[[Sockets], str]
    needs: str = ""


class Row(NamedTuple):
    """The result of a probe."""

    name: str
    available: bool
    detail: str


_LEVELS = {"SO": "SOL_SOCKET", "IPV6": "IPPROTO_IPV6", "TCP": "SOL_TCP"}


def pair(name: str) -> tuple[int, int]:
    """Level and number of an option, by the kernel's name."""
    return getattr(constants, _LEVELS[name.split("_")[0]]), getattr(constants, name)


def exchange(sender: socket.socket, receiver: socket.socket, wanted: type[M], *sent: cmsg.ControlMessage) -> M:
    """Enables a class of messages and sends one byte with the control messages ``sent``; returns the message that came."""
    room = cmsg.enable(receiver, wanted)
    sendmsg(sender, [b"x"], sent)
    return expect(recvmsg(receiver, 1, room)[1], wanted)


def expect(ancdata: Iterable[Any], wanted: type[M]) -> M:
    """Returns the first message of a class; raises `Missing` if there is none."""
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


def succeeds(call: Callable[[], object]) -> bool:
    """Whether a call raises no `OSError`."""
    try:
        call()
    except OSError:
        return False
    return True
