# SPDX-License-Identifier: MIT
"""Descriptors a second over an AF_UNIX stream on asyncio: lowsock.aio beside anyio's send_fds and receive_fds.

python benchmarks/descriptors.py [--smoke] [--json FILE] [--rounds N] [--loop asyncio|uvloop] [CASE ...]

One task sends and another receives, both in one loop, so neither waits long. Each message is 8 bytes and its descriptors,
which the receiver closes. It needs anyio: pip install '.[integration]'.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import sys
from contextlib import closing
from functools import partial
from time import perf_counter
from typing import Any, Callable

import anyio

from lowsock import aio

MESSAGE = b"8 bytes."
ROUND = 0.05  # seconds: about what one run of one candidate takes
CASES = {"one": 1, "four": 4, "sixteen": 16, "sixty-four": 64, "all": 253}  # descriptors in a message


class Calls:
    """lowsock.aio's calls on sockets."""

    def __init__(self, a: socket.socket, b: socket.socket) -> None:
        self._a, self._b = a, b

    async def send(self, fds: list[int]) -> None:
        await aio.send_fds(self._a, [MESSAGE], fds)

    async def receive(self) -> int:
        with (await aio.recv_owned_fds(self._b, 8)).fds as fds:
            return len(fds)


class Numbers(Calls):
    """The same, received as plain numbers, which is all that anyio returns."""

    async def receive(self) -> int:
        return close_all((await aio.recv_fds(self._b, 8, 253))[1])


class Stream:
    """UnixStream, bytes."""

    def __init__(self, a: socket.socket, b: socket.socket) -> None:
        self._a, self._b = aio.UnixStream(a), aio.UnixStream(b)

    async def send(self, fds: list[int]) -> None:
        await self._a.send(MESSAGE, fds)

    async def receive(self) -> int:
        with (await self._b.receive(8)).fds as fds:
            return len(fds)


class Messages(Stream):
    """UnixStream, messages."""

    async def send(self, fds: list[int]) -> None:
        await self._a.send_message(MESSAGE, fds)

    async def receive(self) -> int:
        message = await self._b.receive_message()
        assert message is not None
        with message.fds as fds:
            return len(fds)


class Anyio:
    """anyio's streams. They must be made in a loop, and close their sockets, so they get copies."""

    def __init__(self, a: socket.socket, b: socket.socket) -> None:
        self._socks = a.dup(), b.dup()
        self._streams: list[Any] = []

    async def _stream(self, i: int) -> Any:
        if not self._streams:
            wrap = anyio.abc.UNIXSocketStream.from_socket
            self._streams = [await wrap(sock) for sock in self._socks]
        return self._streams[i]

    async def send(self, fds: list[int]) -> None:
        await (await self._stream(0)).send_fds(MESSAGE, fds)

    async def receive(self) -> int:
        return close_all((await (await self._stream(1)).receive_fds(8, 253))[1])

    async def close(self) -> None:
        for stream in self._streams:
            await stream.aclose()


CANDIDATES: dict[str, Callable[..., Any]] = {
    "anyio": Anyio,
    "aio.recv_fds": Numbers,
    "aio.recv_owned_fds": Calls,
    "UnixStream": Stream,
    "messages": Messages,
}


def close_all(fds: list[int]) -> int:
    for fd in fds:
        os.close(fd)
    return len(fds)


async def exchange(candidate: Any, fds: list[int], count: int) -> float:
    """Sends and receives ``count`` messages; returns the seconds that they took."""

    async def send() -> None:
        for _ in range(count):
            await candidate.send(fds)

    async def receive() -> None:
        for _ in range(count):
            assert await candidate.receive() == len(fds)

    start = perf_counter()
    await asyncio.gather(send(), receive())
    return perf_counter() - start


async def measure(fds: list[int], rounds: int, smoke: bool) -> dict[str, float]:
    """Descriptors a second of each candidate: the best of the rounds, whose order rotates."""
    names = list(CANDIDATES)
    best = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 1 if smoke else 16)
    for i in range(1 if smoke else rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seconds = await once(CANDIDATES[name], fds, counts[name])
            if i or smoke:  # the first round finds out how many messages make a round
                best[name] = max(best[name], counts[name] * len(fds) / seconds)
            else:
                counts[name] = max(1, int(counts[name] * ROUND / seconds))
    return best


async def once(make: Callable[..., Any], fds: list[int], count: int) -> float:
    a, b = socket.socketpair()
    with closing(a), closing(b):
        a.setblocking(False)
        b.setblocking(False)
        candidate = make(a, b)
        try:
            await exchange(candidate, fds, 1)
            return await exchange(candidate, fds, count)
        finally:
            if isinstance(candidate, Anyio):
                await candidate.close()


def run(names: list[str], rounds: int, smoke: bool, loop: str) -> dict[str, dict[str, float]]:
    print(f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}, {loop}")
    print(f"{'descriptors a second':22}" + "".join(f"{name:>17}" for name in CANDIDATES))
    results = {}
    for name, count in CASES.items():
        if not names or name in names:
            results[name] = run_in(loop, partial(measure, [0] * count, rounds, smoke))
            print(row(f"{name} a message", results[name]), flush=True)
    return results


def run_in(name: str, main: Callable[..., Any]) -> Any:
    if name == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    with closing(loop):
        return loop.run_until_complete(main())


def row(name: str, best: dict[str, float]) -> str:
    cells = [f"{value:10.0f} ({value / best['anyio']:.2f})" for value in best.values()]
    return f"{name:22}" + "".join(f"{cell:>17}" for cell in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="one iteration of each, to see that nothing rots")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("case", nargs="*", help=f"cases to run (all): {', '.join(CASES)}")
    args = parser.parse_args()
    results = run(args.case, args.rounds, args.smoke, args.loop)
    if args.json:
        machine = {"python": sys.version, "kernel": platform.release(), "machine": platform.machine(), "loop": args.loop}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "descriptors a second": results}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
