# SPDX-License-Identifier: MIT
"""What an endpoint says of calls in the spelling of before 0.2. Type checkers see none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock._system.spellings import refuse

if TYPE_CHECKING:
    from typing import NoReturn

OLD_OPTIONS = {
    "ecn": "recv_ecn=... asks for it, send(..., ecn=...) sets it",
    "local": "recv_pktinfo=...",
    "timestamps": "recv_timestamps=...",
    "errors": "recv_errors=...",
    "txtime": "txtime_clock=...",
}
OLD_PROPERTIES = {name: f"use {text.partition('=')[0]}" for name, text in OLD_OPTIONS.items()}
OLD_SEND = {
    "source": "local=...",
    "txtime": "txtime_ns=...",
}
OLD_RECV = {"size": "flags=... is by keyword, and a whole datagram is returned", "flags by position": "flags=..."}
MISSING: Any = object()


def refuse_send(old: dict[str, Any], by_position: tuple[Any, ...]) -> NoReturn:
    """Raises for a `send` in the old spelling, whose result would be taken for a number of datagrams."""
    if old:
        refuse("send", old, OLD_SEND)
    what = "takes no address by position" if by_position else "takes the address by keyword"
    raise TypeError(f"send() {what}: address=... (None: to the peer), and it returns bytes: data[sent:] is the rest")
