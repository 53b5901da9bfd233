# SPDX-License-Identifier: MIT
"""A kernel that refuses a datagram or has no room for it: the others go, once and in order."""

import asyncio
import errno
import random
import socket
import subprocess

import pytest
from batching import force_room
from datagram_loops import Watched, connected, of_lowsock

from lowsock import aio

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


@pytest.mark.parametrize("given", [{}, {"ecn": 1}, {"segment_size": 60_000, "ecn": 1}], ids=str)
def test_each_of_a_run_that_is_too_long_is_told_and_the_others_go(asyncio_loop, recorder, given):
    """No segment can be as long, so offload must not be asked for it."""

    async def main():
        transport, protocol, peer = await connected(recorder)
        with peer:
            force_room(peer)
            transport.sendto(b"before")
            for _ in range(5):
                transport.sendto(bytes(70_000), **{**given, "segment_size": given.get("segment_size")})
            transport.sendto(b"after")
            await protocol.until(lambda: not transport.get_write_buffer_size())
            assert not transport.is_closing()
            cut = [60_000, 10_000] * 5 if "segment_size" in given else []
            assert [len(peer.recv(2**16)) for _ in range(2 + len(cut))] == [6, *cut, 5]
            assert protocol.log[1:] == [("error", OSError, errno.EMSGSIZE)] * (0 if cut else 5)
            await protocol.closed()

    asyncio_loop.run(main)


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

        @of_lowsock
        def broken(*_):
            raise LookupError("broken")

        transport._backend.send_run = broken
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


# ---- what a protocol does in error_received ----


TOO_LONG = bytes(70_000)


def failing(recorder):
    class Failing(recorder):
        def error_received(self, exc):
            super().error_received(exc)
            raise LookupError("error_received")

    return Failing


@pytest.mark.parametrize("method", ["close", "abort"])
def test_a_protocol_that_raises_at_the_last_datagram_hears_of_the_end_all_the_same(asyncio_loop, recorder, method):
    """And whoever ends the connection does not hear of its exception: the loop does."""

    async def main():
        transport, protocol, peer = await connected(failing(recorder))
        with peer:
            for data in (TOO_LONG, b"between", TOO_LONG):
                transport.sendto(data)
            getattr(transport, method)()
            await protocol.has("lost")
            assert protocol.told("error") == [OSError] * 2
            assert peer.recv(10) == b"between"

    asyncio_loop.run(main)
    assert [type(context["exception"]) for context in asyncio_loop.failures] == [LookupError] * 2
    asyncio_loop.failures.clear()


def test_a_protocol_that_raises_while_there_is_no_room_gets_no_stuck_transport(asyncio_loop, recorder, tmp_path):
    """What waits is tried again by a timer then: an exception must not be the end of that."""

    async def main():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(tmp_path / "other"))
            other.setblocking(False)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
                full.bind(str(tmp_path / "full"))
                transport, protocol = await aio.create_datagram_endpoint(
                    failing(recorder), local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
                )
                while not transport.get_write_buffer_size():
                    transport.sendto(b"data", str(tmp_path / "full"))
                    await asyncio.sleep(0)
                transport.sendto(b"to another", str(tmp_path / "other"))
                await protocol.until(lambda: transport._timer is not None)
            await protocol.until(lambda: not transport.get_write_buffer_size())
            assert other.recv(20) == b"to another"
            await protocol.closed()

    asyncio_loop.run(main)
    assert {type(context["exception"]) for context in asyncio_loop.failures} == {LookupError}
    asyncio_loop.failures.clear()


def test_a_protocol_that_sends_again_what_is_refused_does_not_starve_the_loop(asyncio_loop, recorder):
    class Stubborn(recorder):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.sendto(TOO_LONG)

    async def main():
        transport, protocol, peer = await connected(Stubborn)
        with peer:
            transport.sendto(TOO_LONG)
            for _ in range(20):
                before = len(protocol.told("error"))
                await asyncio.sleep(0)
                assert len(protocol.told("error")) - before <= 2
            await protocol.has("error", 5)
            transport.abort()
            await protocol.has("lost")

    asyncio_loop.run(main)


def test_empty_datagrams_do_not_pile_up_without_bound(asyncio_loop, recorder):
    async def main():
        transport, protocol, peer = await connected(recorder)
        with peer:
            for _ in range(280_000):
                transport.sendto(b"")
            assert 0 < transport.get_write_buffer_size() <= 2**18
            assert len(transport._queue) <= 2**18
            transport.abort()
            await protocol.has("lost")

    asyncio_loop.run(main)
