# SPDX-License-Identifier: MIT
"""What all probes share. Constants go by name where a platform may lack them: its AttributeError is then the answer."""

from typing import Callable, NamedTuple

from lowsock import CMSG_SPACE, constants
from lowsock._loopback import Missing, Sockets

ROOM = CMSG_SPACE(512)  # for control messages: more than any probe asks for


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


_LEVELS = {
    "SCM": "SOL_SOCKET",
    "SO": "SOL_SOCKET",
    "IP": "IPPROTO_IP",
    "IPV6": "IPPROTO_IPV6",
    "UDP": "SOL_UDP",
    "TCP": "SOL_TCP",
    "PACKET": "SOL_PACKET",
}


def pair(name: str) -> tuple[int, int]:
    """Level and number of an option, or level and type of a control message, by the kernel's name."""
    return getattr(constants, _LEVELS[name.split("_")[0]]), getattr(constants, name)


def payload(ancdata: list[tuple[int, int, bytes]], name: str) -> bytes:
    """The bytes of the first control message of this name."""
    wanted = pair(name)
    for level, kind, data in ancdata:
        if (level, kind) == wanted:
            return data
    raise Missing(f"no {name} message came")


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
