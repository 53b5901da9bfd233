# SPDX-License-Identifier: MIT
"""How a transport sends: together what belongs together, each datagram once and in order, whatever the kernel says."""

import asyncio
import os
import socket

import pytest
from datagram_loops import Watched, connected, readable, sending_to

from lowsock import aio, cmsg, udp

# ---- on the kernel ----


def test_datagrams_of_one_turn_leave_together(asyncio_loop, recorder):
    async def main():
        transport, protocol, peer = await connected(recorder)
        watched = Watched(transport)
        with peer:
            for i in range(50):
                transport.sendto(b"%04d" % i)
            assert transport.get_write_buffer_size() == 200
            await asyncio.sleep(0)
            assert [peer.recv(100) for _ in range(50)] == [b"%04d" % i for i in range(50)]
            assert watched.calls == [("send_run", 50)]
            assert transport.get_write_buffer_size() == 0
            await protocol.closed()

    asyncio_loop.run(main)


def test_who_sends_one_in_each_turn_has_it_sent_at_once(asyncio_loop, recorder):
    """And is watched: as soon as there are more in a turn, they leave together again."""

    async def main():
        transport, protocol, peer = await connected(recorder)
        watched = Watched(transport)
        with peer:
            for _ in range(4):
                transport.sendto(b"alone")
                await asyncio.sleep(0)
            for _ in range(20):
                transport.sendto(b"alone")
                assert transport.get_write_buffer_size() == 0
                await asyncio.sleep(0)
            assert {peer.recv(100) for _ in range(24)} == {b"alone"}
            watched.calls.clear()
            for turn in range(3):
                for i in range(40):
                    transport.sendto(b"%d %04d" % (turn, i))
                await asyncio.sleep(0)
            assert [peer.recv(100) for _ in range(120)] == [b"%d %04d" % (turn, i) for turn in range(3) for i in range(40)]
            assert watched.calls[-1] == ("send_run", 40)
            assert len(watched.calls) < 20
            await protocol.closed()

    asyncio_loop.run(main)


def test_answers_leave_together_before_the_turn_ends(asyncio_loop, recorder):
    class Echo(recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        transport._expect_batches()
        watched = Watched(transport)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(20)
            peer.connect(transport.get_extra_info("sockname"))
            assert (
                udp.Endpoint(peer, gro=False).send(b"".join(b"%04d" % i for i in range(40)), address=None, segment_size=4)
                == 160
            )
            await protocol.until(lambda: sum(count for _, count in watched.calls) == 40)
            assert [peer.recv(100) for _ in range(40)] == [b"%04d" % i for i in range(40)]
        if transport.get_extra_info("endpoint").gro:
            assert watched.calls == [("send_run", 40)]
        await protocol.closed()

    asyncio_loop.run(main)


def test_an_answer_with_ecn_is_not_overtaken_by_one_without(asyncio_loop, recorder):
    """The first answer to a datagram that came alone is sent at once, but not before what waits."""

    class Answering(recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(b"1", addr, ecn=1)
            self.transport.sendto(b"2", addr)
            self.transport.sendto(b"34", addr, segment_size=1)
            self.transport.sendto(b"5", addr)

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
        with sending_to(transport) as peer:
            for _ in range(5):
                peer.send(b"ask")
                await protocol.until(lambda: readable(peer))
                assert [peer.recv(10) for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]
        await protocol.closed()

    asyncio_loop.run(main)


def test_a_turn_does_not_pile_up_without_bound(asyncio_loop, recorder):
    async def main():
        transport, protocol, peer = await connected(recorder)
        with peer:
            most = 0
            for _ in range(1000):
                transport.sendto(bytes(1000))
                most = max(most, transport.get_write_buffer_size())
            assert most < 300_000
            await protocol.closed()
        assert protocol.log == [("made",), ("lost", None)]

    asyncio_loop.run(main)


def test_an_empty_datagram_is_one(asyncio_loop, recorder):
    """As on CPython 3.13; the loops of earlier ones, and uvloop, send none."""

    async def main():
        transport, protocol, peer = await connected(recorder)
        with peer:
            for data in (b"", b"", b"end"):
                transport.sendto(data)
            await asyncio.sleep(0)
            assert [peer.recv(10) for _ in range(3)] == [b"", b"", b"end"]
            await protocol.closed()

    asyncio_loop.run(main)


def test_close_and_abort_send_what_the_kernel_takes(asyncio_loop, recorder):
    async def main(end):
        transport, protocol, peer = await connected(recorder)
        with peer:
            for i in range(5):
                transport.sendto(b"%d" % i)
            end(transport)
            assert [peer.recv(10) for _ in range(5)] == [b"%d" % i for i in range(5)]
            await protocol.has("lost")

    asyncio_loop.run(main, lambda transport: transport.close())
    asyncio_loop.run(main, lambda transport: transport.abort())


# ---- what UDP sockets can do beside ----


def test_a_datagram_may_have_ecn_and_a_source(asyncio_loop, recorder, host):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(
            recorder, local_addr=("::" if ":" in host else "0.0.0.0", 0)
        )
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            peer.settimeout(20)
            endpoint, to = udp.Endpoint(peer), peer.getsockname()
            for i in range(4):
                transport.sendto(b"%d" % i, to, ecn=i, local=host)
            transport.sendto(b"plain", to)
            await asyncio.sleep(0)
            found = []
            while len(found) < 5:
                found += endpoint.recv()
            assert [(datagram.data, datagram.ecn) for datagram in found] == [(b"%d" % i, i) for i in range(4)] + [
                (b"plain", 0)
            ]
            assert {datagram.address[0] for datagram in found} == {host}
        await protocol.closed()

    asyncio_loop.run(main)


@pytest.mark.parametrize("way", ["connected", "unconnected"])
def test_all_that_is_sent_may_have_ecn(asyncio_loop, recorder, host, way):
    """The DSCP stays what it was, and a datagram may have its own."""

    async def main():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((host, 0))
            peer.settimeout(20)
            endpoint, to = udp.Endpoint(peer), peer.getsockname()
            sock = socket.socket(peer.family, socket.SOCK_DGRAM)
            level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if ":" in host else (socket.IPPROTO_IP, socket.IP_TOS)
            sock.setsockopt(level, option, 0x28)
            if way == "connected":
                sock.connect(to)
            transport, protocol = await aio.create_datagram_endpoint(recorder, sock=sock, default_ecn=cmsg.ECN.ECT_0)
            address = None if way == "connected" else to
            transport.sendto(b"one", address)
            transport.sendto(b"two", address, ecn=cmsg.ECN.CE)
            transport.sendto(b"abcd", address, segment_size=1)
            await asyncio.sleep(0)
            found = []
            while len(found) < 6:
                found += endpoint.recv()
            assert [datagram.ecn for datagram in found] == [2, 3, 2, 2, 2, 2]
            assert sock.getsockopt(level, option) == 0x2A
            await protocol.closed()

    asyncio_loop.run(main)


def test_a_segment_size_cuts_data_into_datagrams(asyncio_loop, recorder):
    async def main():
        transport, protocol, peer = await connected(recorder)
        watched = Watched(transport)
        with peer:
            data = os.urandom(100_050)
            transport.sendto(data, segment_size=1000)
            transport.sendto(data[:50], segment_size=1000, ecn=cmsg.ECN.ECT_0)
            transport.sendto(b"", segment_size=5)
            await asyncio.sleep(0)
            assert [peer.recv(2000) for _ in range(101)] == [data[i : i + 1000] for i in range(0, len(data), 1000)]
            assert [peer.recv(2000) for _ in range(2)] == [data[:50], b""]
            assert watched.calls[0] == ("send_run", 101)
            await protocol.closed()

    asyncio_loop.run(main)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"ecn": 4}, OverflowError),
        ({"ecn": "1"}, TypeError),
        ({"local": "no address"}, ValueError),
        ({"local": "::1"}, ValueError),
        ({"local": 5}, TypeError),
        ({"segment_size": 0}, ValueError),
        ({"segment_size": "1"}, TypeError),
        ({"addr": ("localhost", 1)}, ValueError),
        ({"addr": ("127.0.0.1", 70_000)}, OverflowError),
        ({"addr": "127.0.0.1"}, TypeError),
    ],
    ids=str,
)
def test_wrong_arguments_raise_and_nothing_is_lost(asyncio_loop, recorder, given, error):
    """A host name too: to look it up would block."""

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        mine = transport.get_extra_info("sockname")
        transport.sendto(b"before", mine)
        with pytest.raises(error):
            transport.sendto(b"wrong", **{"addr": mine, **given})
        transport.sendto(b"after", mine)
        assert await protocol.has("data", 2) == [b"before", b"after"]
        await protocol.closed()

    asyncio_loop.run(main)


def test_an_address_that_is_equal_to_the_last_one_is_the_last_one(asyncio_loop, recorder):
    """Whatever its types are: nothing that the kernel's door refuses gets that far."""

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        host, port = transport.get_extra_info("sockname")
        for address in ((host, port), (host, float(port)), (host, port)):
            transport.sendto(b"data", address)
        assert await protocol.has("data", 3) == [b"data"] * 3
        await protocol.closed()

    asyncio_loop.run(main)


def test_unix_sockets_have_no_ecn(asyncio_loop, recorder):
    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            transport, protocol = await aio.create_datagram_endpoint(recorder, sock=sock)
            with pytest.raises(ValueError, match="UDP socket"):
                transport.sendto(b"data", ecn=1)
            transport.sendto(b"abcdef", segment_size=4)
            await protocol.closed()
            assert [peer.recv(10) for _ in range(2)] == [b"abcd", b"ef"]

    asyncio_loop.run(main)


@pytest.mark.parametrize("options", [{"recv_ecn": True}, {"recv_timestamps": True}, {"default_ecn": 1}])
def test_a_unix_endpoint_cannot_be_asked_for_them(asyncio_loop, recorder, options):
    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer, sock, pytest.raises(ValueError, match="UDP"):
            await aio.create_datagram_endpoint(recorder, sock=sock, **options)

    asyncio_loop.run(main)
