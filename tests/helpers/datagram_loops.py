# SPDX-License-Identifier: MIT
"""Loops that datagram transports run on, and a protocol that writes down what they call it with."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest


class Recorder(asyncio.DatagramProtocol):
    """Writes down what a transport calls it with, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.log.append(("made",))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.log.append(("data", data, addr))

    def error_received(self, exc: Exception) -> None:
        self.log.append(("error", type(exc), getattr(exc, "errno", None)))

    def pause_writing(self) -> None:
        self.log.append(("pause",))

    def resume_writing(self) -> None:
        self.log.append(("resume",))

    def connection_lost(self, exc: Any) -> None:
        self.log.append(("lost", exc))

    def told(self, kind: str) -> list[Any]:
        """What came of one kind: the first thing beside its name."""
        return [row[1] if len(row) > 1 else None for row in self.log if row[0] == kind]

    async def until(self, condition: Callable[[], object]) -> None:
        """Lets the loop run until a condition holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"it did not come: {self.log[-5:]}"
            await asyncio.sleep(0)

    async def has(self, kind: str, count: int = 1) -> list[Any]:
        """Waits for so many of one kind."""
        await self.until(lambda: len(self.told(kind)) >= count)
        return self.told(kind)

    async def closed(self) -> None:
        """Closes the transport and waits for the end."""
        self.transport.close()
        await self.has("lost")


class Loop:
    """Runs coroutines on an asyncio loop in debug mode. What its exception handler was told is in `failures`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures: list[dict[str, Any]] = []
        self._new = asyncio.SelectorEventLoop if name == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def run(self, main: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = self._new()
        loop.set_debug(True)
        loop.set_exception_handler(lambda _, context: self.failures.append(context))
        before = self._watched(loop)
        try:
            result = loop.run_until_complete(asyncio.wait_for(main(*args, **options), 60))
            assert self._watched(loop) == before, "a reader or writer is left"
            return result
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _watched(self, loop: Any) -> int:
        return len(loop._selector.get_map()) if self.name == "asyncio" else 0


@pytest.fixture
def recorder() -> type[Recorder]:
    """The class of a protocol that writes down what happens to it."""
    return Recorder


@pytest.fixture(params=("asyncio", "uvloop"))
def asyncio_loop(request: pytest.FixtureRequest, libuv_ready: None) -> Iterator[Loop]:
    """asyncio's own loop and uvloop in turn. Nothing may have failed in it that the test did not take from `failures`."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed (there is none for PyPy)")
    loop = Loop(request.param)
    yield loop
    assert not loop.failures
