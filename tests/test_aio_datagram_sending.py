# SPDX-License-Identifier: MIT
"""How a transport sends: together what belongs together, each datagram once and in order, whatever the kernel says."""

import asyncio
import os
import random
import socket
import subprocess

import pytest

from lowsock import aio, cmsg, udp

# ---- on the kernel ----


class Watched:
    """The calls that a transport's carrier got, which go through."""

    def __init__(self, transport):
        self.calls = []
        carrier = transport._carrier
        for name in ("one", "run", "many", "beside"):
            setattr(carrier, name, self._watched(name, getattr(carrier, name)))

    def _watched(self, name, call):
        def watched(first, *rest):
            self.calls.append((name, 1 if name == "one" else len(first)))
            return call(first, *rest)

        return watched


async def connected(recorder, **options):
    """A transport connected to a blocking socket with a timeout; the protocol, and the socket."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(20)
    transport, protocol = await aio.create_datagram_endpoint(recorder, remote_addr=peer.getsockname(), **options)
    return transport, protocol, peer


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
            assert watched.calls == [("run", 50)]
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
            assert watched.calls[-1] == ("run", 40)
            assert len(watched.calls) < 20
            await protocol.closed()

    asyncio_loop.run(main)


def test_answers_leave_together_before_the_turn_ends(asyncio_loop, recorder):
    class Echo(recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        transport._expect_many()
        watched = Watched(transport)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(20)
            peer.connect(transport.get_extra_info("sockname"))
            assert udp.Endpoint(peer, gro=False).send(b"".join(b"%04d" % i for i in range(40)), segment_size=4) == 40
            await protocol.until(lambda: sum(count for _, count in watched.calls) == 40)
            assert [peer.recv(100) for _ in range(40)] == [b"%04d" % i for i in range(40)]
        if transport.get_extra_info("endpoint").gro:
            assert watched.calls == [("run", 40)]
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


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request, ipv6):
    return request.param


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
                transport.sendto(b"%d" % i, to, ecn=i, source=host)
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
            assert watched.calls[0] == ("run", 101)
            await protocol.closed()

    asyncio_loop.run(main)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"ecn": 4}, OverflowError),
        ({"ecn": "1"}, TypeError),
        ({"source": "no address"}, ValueError),
        ({"source": "::1"}, ValueError),
        ({"source": 5}, TypeError),
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


@pytest.mark.parametrize("options", [{"ecn": True}, {"timestamps": True}, {"default_ecn": 1}])
def test_a_unix_endpoint_cannot_be_asked_for_them(asyncio_loop, recorder, options):
    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer, sock, pytest.raises(ValueError, match="UDP"):
            await aio.create_datagram_endpoint(recorder, sock=sock, **options)

    asyncio_loop.run(main)


# ---- errors ----


class Reacting:
    """What a protocol may do in ``error_received``."""

    @staticmethod
    def send(transport):
        transport.sendto(b"sent in error_received")

    @staticmethod
    def close(transport):
        transport.close()

    @staticmethod
    def abort(transport):
        transport.abort()

    @staticmethod
    def fail(transport):
        raise LookupError("error_received")


@pytest.mark.parametrize(
    ("reaction", "found"),
    [
        (Reacting.send, [b"1", b"2", b"3", b"4", b"sent in error_received"]),
        (Reacting.close, [b"1", b"2", b"3", b"4"]),
        (Reacting.abort, [b"1", b"2"]),
        (Reacting.fail, [b"1", b"2", b"3", b"4"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_protocol_may_do_anything_when_it_hears_of_an_error(asyncio_loop, recorder, reaction, found):
    class Protocol(recorder):
        def error_received(self, exc):
            super().error_received(exc)
            reaction(self.transport)

    async def main():
        transport, protocol, peer = await connected(Protocol)
        with peer:
            for data in (b"1", b"2", bytes(70_000), b"3", b"4"):
                transport.sendto(data)
            await protocol.has("error")
            await asyncio.sleep(0)
            await protocol.closed()
            assert [peer.recv(100) for _ in found] == found
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(100)
        assert protocol.told("error") == [OSError]

    asyncio_loop.run(main)
    assert [type(context["exception"]) for context in asyncio_loop.failures] == [LookupError] * (reaction is Reacting.fail)
    asyncio_loop.failures.clear()


def test_a_protocol_that_cannot_pause_is_told_to_the_loop(asyncio_loop, recorder):
    class Protocol(recorder):
        def pause_writing(self):
            raise LookupError("pause_writing")

    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            transport, protocol = await aio.create_datagram_endpoint(Protocol, sock=sock)
            transport.set_write_buffer_limits(0)
            while not asyncio_loop.failures:
                transport.sendto(b"data")
                await asyncio.sleep(0)
            transport.abort()
            await protocol.has("lost")
        assert [type(context["exception"]) for context in asyncio_loop.failures] == [LookupError]
        asyncio_loop.failures.clear()

    asyncio_loop.run(main)


def test_what_should_not_be_ends_the_connection(asyncio_loop, recorder):
    async def main():
        transport, protocol, peer = await connected(recorder)

        def broken(*_):
            raise LookupError("broken")

        transport._carrier.run = broken
        with peer:
            for _ in range(5):
                transport.sendto(b"data")
            [error] = await protocol.has("lost")
            assert type(error) is LookupError
        assert [context["exception"] for context in asyncio_loop.failures] == [error]
        asyncio_loop.failures.clear()

    asyncio_loop.run(main)


# ---- no room ----


def test_whatever_happens_all_datagrams_of_a_reliable_socket_arrive_in_order(asyncio_loop, recorder, soak_count):
    """Random sizes, limits and pauses on both ends of a pair of unix sockets, whose kernel loses nothing."""
    chance = random.Random(soak_count(10**6))

    async def main():
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        (left, at_left), (right, at_right) = [await aio.create_datagram_endpoint(recorder, sock=sock) for sock in pair]
        sent = 0
        for _ in range(soak_count(10_000)):
            for _ in range(chance.choice([0, 1, 1, 2, 40])):
                left.sendto((b"%d " % sent).ljust(chance.choice([10, 10, 10, 500]), b"."))
                sent += 1
            act = chance.randrange(12)
            if act == 0:
                right.pause_reading()
            elif act == 1:
                left.set_write_buffer_limits(chance.choice([0, 100, 10_000]))
            elif act < 6:
                right.resume_reading()
            await asyncio.sleep(0)
        right.resume_reading()
        left.close()
        await at_left.has("lost")
        await at_right.has("data", sent)
        assert [int(data.split()[0]) for data in at_right.told("data")] == list(range(sent))
        paused = [row for row in at_left.log if row[0] in ("pause", "resume")]
        assert paused == [("pause",), ("resume",)] * (len(paused) // 2) + [("pause",)] * (len(paused) % 2)
        await at_right.closed()

    asyncio_loop.run(main)


def test_a_unix_peer_that_does_not_read_makes_no_spin(asyncio_loop, recorder, tmp_path):
    """A socket that is not connected is writable for poll(2), whatever its peer's queue."""

    async def main():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(str(tmp_path / "peer"))
            transport, protocol = await aio.create_datagram_endpoint(
                recorder, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
            )
            watched, sent = Watched(transport), 0
            while not transport.get_write_buffer_size():
                transport.sendto(b"%d" % sent, str(tmp_path / "peer"))
                sent += 1
                await asyncio.sleep(0)
            watched.calls.clear()
            await asyncio.sleep(0.1)
            assert len(watched.calls) < 20
            peer.settimeout(20)
            found = [await asyncio.get_running_loop().run_in_executor(None, peer.recv, 100) for _ in range(sent)]
            assert found == [b"%d" % i for i in range(sent)]
            await protocol.closed()

    asyncio_loop.run(main)


@pytest.fixture
def slow_link(new_namespace):
    """Two namespaces with a link between them that carries 8 Mbit a second."""
    left, right = new_namespace(), new_namespace()
    left.link("wire", right)
    left.address("wire", "192.0.2.1/24")
    right.address("wire", "192.0.2.2/24")
    shaped = ["tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", "8mbit", "burst", "16kb", "latency", "10s"]
    try:
        subprocess.run(["ip", "netns", "exec", left.name, *shaped], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the link cannot be slowed down: {error}")
    return left, right


def test_a_slow_link_makes_the_protocol_pause_and_loses_nothing(asyncio_loop, recorder, slow_link):
    """The socket's send buffer is full, and EAGAIN comes in the middle of batches."""
    left, right = slow_link

    async def main():
        with right:
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with left:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
            peer.bind(("192.0.2.2", 0))
            peer.settimeout(20)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            sock.connect(peer.getsockname())
            transport, protocol = await aio.create_datagram_endpoint(recorder, sock=sock)
            transport.set_write_buffer_limits(20_000)
            sizes = [1000, 1000, 1000, 1000, 300, 1200, 500]
            sent = [(b"%06d" % i).ljust(sizes[i % 7], b".") for i in range(140)]
            for data in sent:
                transport.sendto(data)
            await protocol.has("resume")
            await protocol.closed()
            assert [peer.recv(2000) for _ in sent] == sent
            assert protocol.log == [("made",), ("pause",), ("resume",), ("lost", None)]

    asyncio_loop.run(main)
