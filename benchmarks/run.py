# SPDX-License-Identifier: MIT
"""Runs every case with the stdlib, lowsock and C one after the other, in one process; prints the least of many rounds.

python benchmarks/run.py [--smoke] [--json FILE] [--rounds N] [CASE ...]
"""

import argparse
import json
import math
import platform
import sys
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import cloops
from batch_cases import BATCHES
from cases import CASES, EXTRA, PLAIN, Case
from sockets import KINDS
from udp_cases import OFFLOAD

ROUND_NS = 3_000_000  # about what one run of one loop takes


def iterations(case: Case) -> int:
    """How many iterations of the loop make a run of `ROUND_NS`."""
    n = 1
    while timed(case, "stdlib", n) < ROUND_NS:
        n *= 2
    return n


def timed(case: Case, name: str, n: int) -> int:
    start = perf_counter_ns()
    case.loops[name](n)
    return perf_counter_ns() - start


def measure(case: Case, rounds: int, smoke: bool, kinds: Sequence[str] = ("lowsock",)) -> dict[str, float]:
    """Nanoseconds a message for each implementation: the least of all rounds. Each round begins with another one."""
    n = 1 if smoke else iterations(case)
    names = [name for name in case.loops if name not in KINDS or name in kinds]
    least = dict.fromkeys(names, math.inf)
    for i in range(1 if smoke else rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            least[name] = min(least[name], timed(case, name, n) / n / case.messages)
    return least


def mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def row(name: str, least: dict[str, float]) -> str:
    times = "".join(f"{least[key]:9.0f}" for key in ("stdlib", "lowsock", "C"))
    ratios = f"{least['lowsock'] / least['stdlib']:9.2f}{least['lowsock'] / least['C']:9.2f}"
    others = "".join(f"{least[kind] / least['stdlib']:9.2f}" for kind in KINDS if kind != "lowsock" and kind in least)
    minus = f"{least['int'] - least['lowsock']:9.0f}" if "int" in least else ""
    return f"{name:16}{times}{ratios}{others}{minus}"


def run(names: list[str], kinds: list[str], rounds: int, smoke: bool) -> dict[str, dict[str, float]]:
    ffi, lib = cloops.load()
    print(f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}; ns a message")
    others = [kind for kind in KINDS if kind != "lowsock" and kind in kinds]
    heads = "".join(f"{head:>9}" for head in ("/stdlib", "/C", *others, *(["int - ns"] if "int" in others else [])))
    print(f"{'case':16}{'stdlib':>9}{'lowsock':>9}{'C':>9}{heads}")
    results = {}
    for make in CASES + EXTRA + BATCHES + OFFLOAD:
        if not names or make.__name__ in names:
            results[make.__name__] = measure(make(ffi, lib), rounds, smoke, kinds)
            print(row(make.__name__, results[make.__name__]), flush=True)
    return results


def summary(results: dict[str, dict[str, float]]) -> dict[str, Any]:
    named = {make.__name__ for make in CASES}
    ratios = {name: least["lowsock"] / least["stdlib"] for name, least in results.items() if name in named}
    others = {
        f"geometric mean and greatest of {kind} / stdlib": (round(mean(found), 3), round(max(found), 3))
        for kind in KINDS
        if kind != "lowsock"
        for found in [[row[kind] / row["stdlib"] for name, row in results.items() if name in named and kind in row]]
        if found
    }
    plain = [least["lowsock"] / least["C"] for name, least in results.items() if name in PLAIN]
    if not ratios:
        return dict(decoding(results))
    return {
        "geometric mean of lowsock / stdlib": round(mean(list(ratios.values())), 3),
        "greatest lowsock / stdlib": round(max(ratios.values()), 3),
        **others,
        "greatest lowsock / C of the plain cases": round(max(plain), 3) if plain else None,
        **decoding(results),
    }


def decoding(results: dict[str, dict[str, float]]) -> dict[str, int]:
    """What decoding three control messages and reading their fields adds to a receive."""
    if "typed" not in results:
        return {}
    return {"decoding adds, ns": round(results["typed"]["lowsock"] - results["typed"]["received"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="one iteration of each, to see that nothing rots")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--kinds",
        default=",".join(KINDS),
        help=f"kinds of the first argument, of {', '.join(KINDS)} (lowsock: a socket object)",
    )
    parser.add_argument("case", nargs="*", help="cases to run (all)")
    options = parser.parse_args()
    results = run(options.case, ["lowsock", *options.kinds.split(",")], options.rounds, options.smoke)
    totals = summary(results)
    for key, value in totals.items():
        print(f"{key}: {value}")
    if options.json:
        machine = {"python": sys.version, "kernel": platform.release(), "machine": platform.machine()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "ns": results, "summary": totals}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
