# SPDX-License-Identifier: MIT
"""UDP echo on asyncio, with 1, 64 and 1024 datagrams in flight: the loop's own transport and lowsock's.

python benchmarks/echo.py [--smoke] [--json FILE] [--rounds N]

Client and server share a process and a loop, and use the same transport, so this counts the round trips of one core. The
client keeps that many datagrams of 64 bytes in flight: it sends one more for each answer. The best of many rounds counts;
their order rotates.
"""

import asyncio
import socket
import sys
from time import perf_counter
from typing import Any, Callable

from transports import ROWS, heading, parse_args, run, write

IN_FLIGHT = (1, 64, 1024)
SIZE = 64
SECONDS = 0.2  # of a round
BUFFER = 8 * 2**20  # receive buffer, so that 1024 small datagrams have room
_FORCE = getattr(socket, "SO_RCVBUFFORCE", 33)


class Server(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


class Client(asyncio.DatagramProtocol):
    """Counts answers until it is told to stop."""

    count = 0
    running = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.count += 1
        if self.running:
            self.transport.sendto(data)


async def echo(make: Callable[..., Any], in_flight: int, seconds: float) -> float:
    """Runs client and server; returns round trips a second."""
    server, _ = await make(Server, local_addr=("127.0.0.1", 0))
    client, protocol = await make(Client, remote_addr=server.get_extra_info("sockname"))
    for transport in (server, client):
        enlarge(transport.get_extra_info("socket"))
    start = perf_counter()
    for _ in range(in_flight):
        client.sendto(bytes(SIZE))
    await asyncio.sleep(seconds)
    protocol.running = False
    elapsed, count = perf_counter() - start, protocol.count
    server.close()
    client.close()
    await asyncio.sleep(0.001)
    return count / elapsed


def enlarge(sock: Any) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _FORCE, BUFFER)
    except PermissionError:  # then some get lost, and fewer are in flight: nothing is sent again
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def measure(in_flight: int, rounds: int, seconds: float) -> dict[str, float]:
    names, best = list(ROWS), dict.fromkeys(ROWS, 0.0)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            best[name] = max(best[name], run(name, echo, in_flight, seconds))
    return best


def main() -> int:
    args = parse_args(__doc__, 8)
    print(f"{heading()}; round trips a second, and times those of asyncio")
    print(f"{'in flight':10}" + "".join(f"{name:>26}" for name in ROWS))
    results = {}
    for in_flight in IN_FLIGHT:
        best = measure(in_flight, 1 if args.smoke else args.rounds, 0.01 if args.smoke else SECONDS)
        results[str(in_flight)] = best
        print(
            f"{in_flight:<10}" + "".join(f"{value:19.0f}{value / best['asyncio']:7.2f}" for value in best.values()),
            flush=True,
        )
    write(args.json, {"round trips a second": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
