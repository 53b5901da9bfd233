# SPDX-License-Identifier: MIT
"""A transport that has carried very many datagrams: all were counted, and it holds no more than before."""

import asyncio
import gc
import os

import pytest

from lowsock import aio

DATAGRAMS, IN_FLIGHT, WARM = 10**6, 64, 2000
GROWTH = 8 * 2**20  # bytes that pools and caches of the interpreter may take


def resident():
    """The bytes of memory that this process has."""
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bouncing(asyncio.DatagramProtocol):
    """Sends back what comes, until all have been sent; sizes and ECN differ."""

    def connection_made(self, transport):
        self.transport, self.count, self.left, self.errors = transport, 0, 0, 0

    def datagram_received(self, data, addr):
        self.count += 1
        if self.left > 0:
            self.left -= 1
            ecn = 1 if self.left % 50 == 0 else None
            self.transport.sendto(data, addr, ecn=ecn)

    def error_received(self, exc):
        self.errors += 1


async def bounce(protocols, count):
    """So many more datagrams, from one to the other and back; all of them have come."""
    before = sum(protocol.count for protocol in protocols)
    for protocol in protocols:
        protocol.left += count // 2 - IN_FLIGHT // 2
    to = protocols[1].transport.get_extra_info("sockname")
    for i in range(IN_FLIGHT):
        protocols[0].transport.sendto(b"x" * (1 + i % 3), to)
    while any(protocol.left for protocol in protocols) or sum(protocol.count for protocol in protocols) - before < count:
        await asyncio.sleep(0)
    return sum(protocol.count for protocol in protocols) - before


@pytest.mark.soak
def test_nothing_grows_with_the_number_of_datagrams(asyncio_loop, soak_count):
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("memory is read from Linux's /proc")
    count = max(soak_count(DATAGRAMS), WARM)

    async def main():
        made = [await aio.create_datagram_endpoint(Bouncing, local_addr=("127.0.0.1", 0)) for _ in range(2)]
        protocols = [protocol for _, protocol in made]
        await bounce(protocols, WARM)
        before = resident()
        assert await bounce(protocols, count) == count
        assert resident() - before < GROWTH
        for transport, protocol in made:
            assert (transport.get_write_buffer_size(), len(transport._queue), protocol.errors) == (0, 0, 0)
            transport.close()
        await asyncio.sleep(0)

    asyncio_loop.run(main)
