# SPDX-License-Identifier: MIT
"""How a transport receives: in batches, within bounds, and without a spin whatever state the socket is in."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
from datagram_loops import NUMBERED, Whole, send_together, sending_to

from lowsock import aio, cmsg, udp

LOOPBACK = int(Path("/sys/class/net/lo/ifindex").read_text())  # PyPy's socket module has no if_nametoindex

# ---- whole datagrams ----


def test_a_protocol_that_asks_gets_lists_of_datagrams(asyncio_loop, host):
    async def main():
        wildcard = "::" if ":" in host else "0.0.0.0"
        transport, protocol = await aio.create_datagram_endpoint(Whole, local_addr=(wildcard, 0), recv_timestamps=True)
        before = time.time_ns()
        with sending_to(transport, host) as sock:
            send_together(sock, NUMBERED)
            await protocol.until(lambda: len(protocol.datagrams) == 40)
            sender = sock.getsockname()
        assert [datagram.data for datagram in protocol.datagrams] == NUMBERED
        assert {type(datagram) for datagram in protocol.datagrams} == {udp.Datagram}
        assert {(datagram.address, datagram.local, datagram.ecn) for datagram in protocol.datagrams} == {(sender, host, 0)}
        assert {datagram.ifindex for datagram in protocol.datagrams} == {LOOPBACK}
        assert all(before <= datagram.timestamp_ns <= time.time_ns() for datagram in protocol.datagrams)
        if transport.get_extra_info("endpoint").gro:
            assert len(protocol.batches) == 1
        await protocol.closed()

    asyncio_loop.run(main)


def test_ecn_comes_in(asyncio_loop, host):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Whole, local_addr=(host, 0))
        with sending_to(transport, host) as sock:
            endpoint = udp.Endpoint(sock)
            for ecn in cmsg.ECN:
                endpoint.send(b"%d" % ecn, address=None, ecn=ecn)
            await protocol.until(lambda: len(protocol.datagrams) == 4)
        assert [(datagram.data, datagram.ecn) for datagram in protocol.datagrams] == [(b"%d" % ecn, ecn) for ecn in cmsg.ECN]
        await protocol.closed()

    asyncio_loop.run(main)


def test_nothing_is_asked_of_the_kernel_that_nobody_wants(asyncio_loop, recorder):
    async def main():
        for protocol_class, options, told in (
            (recorder, {}, (False, False, False)),
            (Whole, {}, (True, True, False)),
            (Whole, {"recv_ecn": False, "recv_timestamps": True}, (False, True, True)),
            (recorder, {"recv_ecn": True}, (True, False, False)),
        ):
            transport, protocol = await aio.create_datagram_endpoint(protocol_class, local_addr=("127.0.0.1", 0), **options)
            endpoint = transport.get_extra_info("endpoint")
            assert (endpoint.recv_ecn, endpoint.recv_pktinfo, endpoint.recv_timestamps) == told
            await protocol.closed()

    asyncio_loop.run(main)


def test_offload_can_be_left_out(asyncio_loop, recorder):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0), gso=False, gro=False)
        with sending_to(transport) as sock:
            send_together(sock, NUMBERED)
            assert await protocol.has("data", 40) == NUMBERED
        endpoint = transport.get_extra_info("endpoint")
        assert (endpoint.max_gso_segments, endpoint.gro) == (1, False)
        await protocol.closed()

    asyncio_loop.run(main)


def test_unix_sockets_give_whole_datagrams_too(asyncio_loop):
    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            for i in range(5):
                peer.send(b"%d" % i)
            transport, protocol = await aio.create_datagram_endpoint(Whole, sock=sock)
            assert transport.get_extra_info("endpoint") is None
            await protocol.until(lambda: len(protocol.datagrams) == 5)
            assert protocol.batches[0] == [udp.Datagram(b"%d" % i, None) for i in range(5)]
            await protocol.closed()

    asyncio_loop.run(main)


def test_who_gets_one_at_a_time_has_the_short_way_until_there_are_several(asyncio_loop, recorder):
    """Only then the kernel joins datagrams, so none is taken for one that is several."""

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            has_offload = udp.Endpoint(other).gro
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        with sending_to(transport) as sock:
            for i in range(200):
                sock.send(b"%d" % i)
                await protocol.has("data", i + 1)
            assert not transport.get_extra_info("endpoint").gro
            for i in range(10):
                send_together(sock, NUMBERED)
                await protocol.has("data", 200 + 40 * (i + 1))
            assert protocol.told("data") == [b"%d" % i for i in range(200)] + NUMBERED * 10
            assert transport.get_extra_info("endpoint").gro == has_offload
        await protocol.closed()

    asyncio_loop.run(main)


# ---- in the middle of a batch ----


class Stopping:
    """What a protocol may do in the middle of a batch."""

    @staticmethod
    def pause(protocol, _):
        protocol.transport.pause_reading()
        assert not protocol.transport.is_reading()
        asyncio.get_running_loop().call_later(0.001, protocol.transport.resume_reading)

    @staticmethod
    def pause_twice(protocol, _):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        protocol.transport.pause_reading()
        asyncio.get_running_loop().call_soon(protocol.transport.resume_reading)

    @staticmethod
    def other_protocol(protocol, second):
        second.transport = protocol.transport
        protocol.transport.set_protocol(second)

    @staticmethod
    def fail(protocol, _):
        raise LookupError("datagram_received")


@pytest.mark.parametrize("act", [Stopping.pause, Stopping.pause_twice, Stopping.other_protocol, Stopping.fail])
def test_nothing_of_a_batch_is_lost_or_comes_twice(asyncio_loop, recorder, act):
    class Protocol(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data[-1:] in b"37":
                act(self, second)

    second = recorder()

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        with sending_to(transport) as sock:
            send_together(sock, NUMBERED)
            await protocol.until(lambda: len(protocol.told("data") + second.told("data")) == 40)
            assert protocol.told("data") + second.told("data") == NUMBERED
            assert bool(second.told("data")) == (act is Stopping.other_protocol)
            sock.send(b"last")
            await protocol.until(lambda: (protocol.told("data") + second.told("data"))[-1] == b"last")
        transport.close()
        await protocol.until(lambda: protocol.told("lost") or second.told("lost"))

    asyncio_loop.run(main)
    assert {type(context["exception"]) for context in asyncio_loop.failures} == (
        {LookupError} if act is Stopping.fail else set()
    )
    asyncio_loop.failures.clear()


def test_the_rest_of_a_batch_goes_to_a_protocol_that_wants_whole_datagrams(asyncio_loop, recorder):
    class Giving(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"0003":
                whole.connection_made(self.transport)
                self.transport.set_protocol(whole)

    whole = Whole()

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Giving, local_addr=("127.0.0.1", 0))
        with sending_to(transport) as sock:
            send_together(sock, NUMBERED)
            await whole.until(lambda: len(protocol.told("data") + whole.datagrams) == 40)
            assert protocol.told("data") + [datagram.data for datagram in whole.datagrams] == NUMBERED
        await whole.closed()

    asyncio_loop.run(main)


def test_what_comes_while_reading_is_paused_comes_later(asyncio_loop, recorder):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        transport.pause_reading()
        with sending_to(transport) as sock:
            sock.send(b"early")
            for _ in range(5):
                await asyncio.sleep(0)
            assert protocol.told("data") == []
            transport.resume_reading()
            transport.resume_reading()
            assert await protocol.has("data") == [b"early"]
        await protocol.closed()
        transport.pause_reading()
        transport.resume_reading()

    asyncio_loop.run(main)


def test_answers_of_whole_batches_leave_before_the_next(asyncio_loop):
    class Echo(Whole):
        def datagrams_received(self, datagrams):
            super().datagrams_received(datagrams)
            for datagram in datagrams:
                self.transport.sendto(datagram.data, datagram.address, local=datagram.local, ecn=1)

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Echo, local_addr=("0.0.0.0", 0))
        with sending_to(transport) as sock:
            endpoint = udp.Endpoint(sock)
            sock.settimeout(20)
            send_together(sock, NUMBERED)
            await protocol.until(lambda: len(protocol.datagrams) == 40)
            found = []
            while len(found) < 40:
                found += endpoint.recv()
            assert [(datagram.data, datagram.ecn) for datagram in found] == [(data, 1) for data in NUMBERED]
        await protocol.closed()

    asyncio_loop.run(main)


# ---- within bounds ----


@pytest.mark.parametrize("together", [False, True])
def test_a_flood_does_not_starve_the_loop(asyncio_loop, recorder, together):
    """Each datagram makes two more, so that the socket is never empty: another task has its turns all the same."""

    class Flooded(recorder):
        def datagram_received(self, data, addr):
            nonlocal received
            received += 1
            if together and received % 32 == 0:
                send_together(flood, [data] * 64)
            elif not together:
                flood.send(data)
                flood.send(data)

    async def other_task(protocol):
        least, most, turns, before = received, 0, 0, received
        while received < 20_000:
            await asyncio.sleep(0)
            most, turns, before = max(most, received - before), turns + 1, received
            assert received > least or turns < 10_000
        return most, turns

    async def main():
        nonlocal flood
        transport, protocol = await aio.create_datagram_endpoint(Flooded, local_addr=("127.0.0.1", 0))
        with sending_to(transport) as flood:
            send_together(flood, [bytes(100)] * 64)
            most, turns = await other_task(protocol)
            transport.abort()
            await protocol.has("lost")
        assert most <= 1024, f"{most} datagrams between two turns of another task"  # 512 and what one call brings
        assert turns >= 20

    received, flood = 0, None
    asyncio_loop.run(main)
