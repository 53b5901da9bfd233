# SPDX-License-Identifier: MIT
"""Measures UDP in bulk for the charts of the documentation, and draws them.

python benchmarks/chart.py measure FILE [--rounds N]   writes JSON
python benchmarks/chart.py draw FILE DIRECTORY         writes SVG of what is in FILE; wants matplotlib, and nothing else
python benchmarks/chart.py --smoke                     both with one iteration of a few points, to see that nothing rots
"""

import argparse
import importlib.util
import json
import math
import pathlib
import platform
import socket
import sys
import tempfile
from typing import Any, Callable

Chart = dict[str, Any]
Lines = dict[str, list[float]]

SIZE, ROOM = 1200, 2048
COUNTS = [1 << i for i in range(10)]
SIZES = [1 << i for i in range(6, 15)]
BUFFER = 1 << 22  # bytes to ask for: more than a batch of 512 takes, if the system gives as much
PAYLOAD, SEGMENTS = 65000, 128  # at most, of one send

# ---- measuring ----


def measured(rounds: int, smoke: bool) -> Chart:
    import cloops  # what is below needs a compiler and lowsock; drawing needs neither

    ffi, lib = cloops.load()
    counts, sizes = (COUNTS[:1] + COUNTS[-1:], SIZES[:1]) if smoke else (COUNTS, SIZES)
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "batches": points(counts, lambda count: batches(lib, count), rounds, smoke),
        "sizes": points(sizes, lambda size: offload(ffi, lib, size), rounds, smoke),
    }


def points(values: list[int], make: Callable[[int], Any], rounds: int, smoke: bool) -> Chart:
    """For each value the ns a datagram of each way."""
    from run import measure

    done, times = [], {}
    for value in values:
        case = make(value)
        if case:
            done.append(value)
            for name, ns in measure(case, rounds, smoke).items():
                times.setdefault(name, []).append(round(ns, 1))
            print(value, {name: column[-1] for name, column in times.items()}, flush=True)
    return {"x": done, "ns": times}


def batches(lib: Any, count: int) -> Any:
    """All are sent, then all are received; None if the socket cannot hold so many."""
    from cases import Case
    from sockets import checked, udp_pair

    import lowsock

    a, b = udp_pair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    pieces = [bytes([i & 255]) * SIZE for i in range(count)]
    messages = [([piece],) for piece in pieces]
    out, into = lowsock.SendBatch(count, SIZE), lowsock.RecvBatch(count, ROOM)
    if lowsock.sendmmsg(a, messages) + len(lowsock.recvmmsg(b, count, ROOM)) != 2 * count:
        return None

    def stdlib(n: int) -> None:
        for _ in range(n):
            for piece in pieces:
                a.sendmsg([piece])
            for _piece in pieces:
                b.recvmsg(ROOM)

    def functions(n: int) -> None:
        for _ in range(n):
            lowsock.sendmmsg(a, messages)
            lowsock.recvmmsg(b, count, ROOM)

    def reused(n: int) -> None:
        for _ in range(n):
            out.extend(pieces)
            out.send(a)
            into.recv(b)
            for _datagram in into.messages():
                pass

    def c(n: int) -> None:
        checked(lib.loop_batch(a.fileno(), b.fileno(), SIZE, count, n))

    loops = {"stdlib": stdlib, "sendmmsg, recvmmsg": functions, "SendBatch, RecvBatch": reused, "C": c}
    return Case(loops, messages=count)


def offload(ffi: Any, lib: Any, size: int) -> Any:
    """As many datagrams of a size as one send takes."""
    from cases import Case
    from udp_cases import bulk_loop, c_loop, stdlib_loop

    count = min(PAYLOAD // size, SEGMENTS)
    loops = {
        "stdlib": stdlib_loop(size, count),
        "Endpoint, recv": bulk_loop("recv", size, count),
        "Endpoint, recv_coalesced": bulk_loop("recv_coalesced", size, count),
        "C": c_loop(ffi, lib, size, count),
    }
    return Case(loops, messages=count)


# ---- drawing ----

COLOURS = ("#888888", "#d95f02", "#1b6ca8", "#000000")
MARKS = ("o", "s", "^", "x")
RC = {"svg.hashsalt": "lowsock", "svg.fonttype": "none", "font.size": 11, "figure.facecolor": "white"}


def draw(chart: Chart, directory: pathlib.Path) -> None:
    batches, sizes = chart["batches"], chart["sizes"]
    where = f"{chart['python']}, {chart['kernel']}, loopback"
    plot(
        directory / "batches.svg",
        f"One datagram of {SIZE} bytes, sent and received\n{where}",
        ("datagrams in a batch", "nanoseconds"),
        batches["x"],
        batches["ns"],
    )
    rates = {name: [8 * size / ns for size, ns in zip(sizes["x"], column)] for name, column in sizes["ns"].items()}
    plot(
        directory / "throughput.svg",
        f"Throughput of one core that sends and receives\n{where}",
        ("bytes in a datagram", "Gbit/s"),
        sizes["x"],
        rates,
        log=True,
    )


def plot(path: pathlib.Path, title: str, labels: tuple[str, str], x: list[int], lines: Lines, log: bool = False) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(RC):
        figure, axes = pyplot.subplots(figsize=(8, 5))
        for (name, y), colour, mark in zip(lines.items(), COLOURS, MARKS):
            axes.plot(x, y, label=name, color=colour, marker=mark, markersize=5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, labels=[str(value) for value in x])
        scale(axes, lines) if log else axes.set_ylim(bottom=0)
        axes.minorticks_off()
        axes.set_title(title)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def scale(axes: Any, lines: Lines) -> None:
    axes.set_yscale("log")
    ticks = nice_ticks(min(map(min, lines.values())), max(map(max, lines.values())))
    axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])


def nice_ticks(least: float, most: float) -> list[float]:
    """1, 2 and 5 of each power of ten, from below the least to above the most."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    low = max(tick for tick in ticks if tick <= least)
    high = min((tick for tick in ticks if tick >= most), default=ticks[-1])
    return [tick for tick in ticks if low <= tick <= high]


# ---- the command ----


def smoke() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "figures.json")
        file.write_text(json.dumps(measured(1, smoke=True)))
        if importlib.util.find_spec("matplotlib"):
            draw(json.loads(file.read_text()), file.parent)
        else:
            print("not drawn: there is no matplotlib")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="one iteration of a few points, to see that nothing rots")
    ways = parser.add_subparsers(dest="way")
    measuring, drawing = ways.add_parser("measure"), ways.add_parser("draw")
    for each in (measuring, drawing):
        each.add_argument("file", type=pathlib.Path)
    measuring.add_argument("--rounds", type=int, default=100)
    drawing.add_argument("directory", type=pathlib.Path)
    options = parser.parse_args()
    if options.smoke:
        smoke()
    elif options.way == "measure":
        options.file.write_text(json.dumps(measured(options.rounds, smoke=False), indent=1) + "\n")
    elif options.way == "draw":
        draw(json.loads(options.file.read_text()), options.directory)
    else:
        parser.error("measure, draw or --smoke")
    return 0


if __name__ == "__main__":
    sys.exit(main())
