# SPDX-License-Identifier: MIT
"""Loops and datagram transports side by side, for the benchmarks of asyncio programs."""

import argparse
import asyncio
import json
import platform
import sys
from typing import Any, Callable

from lowsock import aio

try:
    import uvloop
except ImportError:  # there is none for PyPy
    uvloop = None


def loops_own(*args: Any, **options: Any) -> Any:
    """Makes the loop's own endpoint."""
    return asyncio.get_running_loop().create_datagram_endpoint(*args, **options)


# name of the row -> (how a loop is made, how an endpoint is made)
ROWS: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
    "asyncio": (asyncio.SelectorEventLoop, loops_own),
    "asyncio+lowsock": (asyncio.SelectorEventLoop, aio.create_datagram_endpoint),
}
if uvloop is not None:
    ROWS["uvloop"] = uvloop.new_event_loop, loops_own
    ROWS["uvloop+lowsock"] = uvloop.new_event_loop, aio.create_datagram_endpoint


def run(row: str, main: Callable[..., Any], *args: Any) -> Any:
    """Runs a coroutine function on the row's loop. Its first argument is how the row makes an endpoint."""
    new_loop, make = ROWS[row]
    loop = new_loop()
    try:
        return loop.run_until_complete(main(make, *args))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def parse_args(doc: str, rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="one short round of each, to see that nothing rots")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser.parse_args()


def heading() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}"


def write(path: "str | None", results: Any) -> None:
    if path:
        machine = {"python": sys.version, "kernel": platform.release(), "machine": platform.machine()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, **results}, file, indent=2)
