# SPDX-License-Identifier: MIT
"""What an import costs: fresh interpreters in turn, the least of many, in milliseconds.

    python benchmarks/imports.py [OTHER_PYTHON ...]

Measures ``import lowsock`` beside ``import argparse``, ``import socket``, and ``import lowsock`` behind ``import socket``,
in this interpreter and in others, such as one that has another lowsock installed; the ratio is to the last of them.
"""

import argparse
import json
import subprocess
import sys

ROUNDS = 30
CASES = {  # name: what is there before, what is measured
    "lowsock": ("", "import lowsock"),
    "argparse": ("", "import argparse"),
    "socket": ("", "import socket"),
    "lowsock after socket": ("import socket", "import lowsock"),
    "from lowsock import aio, cmsg, udp": ("", "from lowsock import aio, cmsg, udp"),
}
PROGRAM = """
{before}
from time import perf_counter
begun = perf_counter()
{statement}
print(perf_counter() - begun)
"""


def once(python: str, case: str) -> float:
    before, statement = CASES[case]
    program = PROGRAM.format(before=before, statement=statement)
    done = subprocess.run([python, "-I", "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout) * 1000


def measure(pythons: list[str], rounds: int) -> dict[str, list[float]]:
    """The least time of each case, for each interpreter; all are measured in turn in each round."""
    least = {case: [float("inf")] * len(pythons) for case in CASES}
    for _ in range(rounds):
        for case, row in least.items():
            for i, python in enumerate(pythons):
                row[i] = min(row[i], once(python, case))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="OTHER_PYTHON", help="other interpreters to measure in turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"fresh interpreters for each figure ({ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--smoke", action="store_true", help="one round, to see that it works")
    arguments = parser.parse_args()
    pythons = [sys.executable, *arguments.pythons]
    least = measure(pythons, 1 if arguments.smoke else arguments.rounds)
    if arguments.json:
        print(json.dumps({"pythons": pythons, "milliseconds": least}, indent=2))
        return
    for case, row in least.items():
        ratio = f"{row[0] / row[-1]:8.2f}" if len(row) > 1 else ""
        print(f"{case:36}{''.join(f'{each:9.2f}' for each in row)}{ratio}")


if __name__ == "__main__":
    main()
