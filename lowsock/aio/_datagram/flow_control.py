# SPDX-License-Identifier: MIT
"""Flow control: when a protocol must stop writing, and when it may go on."""

from __future__ import annotations

import asyncio
from typing import Any

_HIGH = 64 * 1024  # bytes, as in asyncio


class Flow:
    """Calls ``pause_writing`` and ``resume_writing`` of the transport's protocol alternately."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._paused = False
        self.limit(None, None)

    def limit(self, high: int | None, low: int | None) -> None:
        """Sets both, as asyncio does: if one is None, ``high`` is four times ``low``."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"limits must be high >= low >= 0, not {high!r} and {low!r}")
        self.high, self.low = high, low

    def pause_if_full(self, size: int) -> None:
        if size > self.high and not self._paused:
            self._paused = True
            self._call("pause_writing")

    def resume_if_empty(self, size: int) -> None:
        if self._paused and size <= self.low:
            self._paused = False
            self._call("resume_writing")

    def _call(self, name: str) -> None:
        protocol = self._transport.get_protocol()
        try:
            getattr(protocol, name)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {
                    "message": f"protocol.{name}() raised",
                    "exception": error,
                    "transport": self._transport,
                    "protocol": protocol,
                }
            )
