# SPDX-License-Identifier: MIT
"""How a transport receives: in batches, within bounds, and without a spin whatever state the socket is in."""

import asyncio
import errno
import socket
import time
from pathlib import Path

import pytest

from lowsock import aio, cmsg, errqueue, udp


class Whole:
    """A protocol that asks for all of what is known of datagrams."""

    def __init__(self):
        self.batches, self.events, self.log = [], [], []

    def connection_made(self, transport):
        self.transport = transport

    def datagrams_received(self, datagrams):
        self.batches.append(datagrams)

    def errors_received(self, events):
        self.events += events

    def error_received(self, exc):
        self.log.append(exc)

    def connection_lost(self, exc):
        self.log.append("lost")

    @property
    def datagrams(self):
        return [datagram for batch in self.batches for datagram in batch]

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, (self.batches, self.events, self.log)
            await asyncio.sleep(0)

    async def closed(self):
        self.transport.close()
        await self.until(lambda: "lost" in self.log)


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request, ipv6):
    return request.param


def sending_to(transport, host="127.0.0.1"):
    """A plain socket connected to a transport."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, transport.get_extra_info("sockname")[1]))
    return sock


def send_together(sock, pieces):
    """By one call, so that the kernel can hand them out by one as well."""
    assert udp.Endpoint(sock, gro=False).send(b"".join(pieces), segment_size=len(pieces[0])) == len(pieces)


LOOPBACK = int(Path("/sys/class/net/lo/ifindex").read_text())  # PyPy's socket module has no if_nametoindex
NUMBERED = [b"%04d" % i for i in range(40)]

# ---- whole datagrams ----


def test_a_protocol_that_asks_gets_lists_of_datagrams(asyncio_loop, host):
    async def main():
        wildcard = "::" if ":" in host else "0.0.0.0"
        transport, protocol = await aio.create_datagram_endpoint(Whole, local_addr=(wildcard, 0), timestamps=True)
        before = time.time_ns()
        with sending_to(transport, host) as sock:
            send_together(sock, NUMBERED)
            await protocol.until(lambda: len(protocol.datagrams) == 40)
            sender = sock.getsockname()
        assert [datagram.data for datagram in protocol.datagrams] == NUMBERED
        assert {type(datagram) for datagram in protocol.datagrams} == {udp.Datagram}
        assert {(datagram.address, datagram.local, datagram.ecn) for datagram in protocol.datagrams} == {(sender, host, 0)}
        assert {datagram.ifindex for datagram in protocol.datagrams} == {LOOPBACK}
        assert all(before <= datagram.timestamp <= time.time_ns() for datagram in protocol.datagrams)
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
                endpoint.send(b"%d" % ecn, ecn=ecn)
            await protocol.until(lambda: len(protocol.datagrams) == 4)
        assert [(datagram.data, datagram.ecn) for datagram in protocol.datagrams] == [(b"%d" % ecn, ecn) for ecn in cmsg.ECN]
        await protocol.closed()

    asyncio_loop.run(main)


def test_nothing_is_asked_of_the_kernel_that_nobody_wants(asyncio_loop, recorder):
    async def main():
        for protocol_class, options, told in (
            (recorder, {}, (False, False, False)),
            (Whole, {}, (True, True, False)),
            (Whole, {"ecn": False, "timestamps": True}, (False, True, True)),
            (recorder, {"ecn": True}, (True, False, False)),
        ):
            transport, protocol = await aio.create_datagram_endpoint(protocol_class, local_addr=("127.0.0.1", 0), **options)
            endpoint = transport.get_extra_info("endpoint")
            assert (endpoint.ecn, endpoint.local, endpoint.timestamps) == told
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
                self.transport.sendto(datagram.data, datagram.address, source=datagram.local, ecn=1)

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


# ---- errors ----


def nobody(host="127.0.0.1"):
    """An address that answers with an ICMP error."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[:2]


def counted(transport):
    """Counts the attempts to receive."""
    transport._expect_many()
    calls, receive = [], transport._recv

    def recv():
        calls.append(1)
        return receive()

    transport._recv = recv
    return calls


async def stuck(recorder, host, **options):
    """A transport whose error queue is not empty, since its user asked for one; and a socket that sends to it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    cmsg.enable(sock, cmsg.ExtendedError)
    transport, protocol = await aio.create_datagram_endpoint(recorder, sock=sock, **options)
    for _ in range(3):
        transport.sendto(b"to nobody", nobody(host))
        await asyncio.sleep(0)
    return transport, protocol, sending_to(transport, host)


def test_an_error_queue_that_nobody_reads_makes_no_spin(asyncio_loop, recorder, host):
    """Its events stay for the user, and datagrams come as before, also in batches and after long silence."""

    async def main():
        transport, protocol, sending = await stuck(recorder, host)
        with sending:
            await protocol.has("error")
            calls = counted(transport)
            await asyncio.sleep(0.1)
            assert len(calls) < 20
            for i in range(3):
                calls.clear()
                send_together(sending, NUMBERED)
                await protocol.has("data", 40 * (i + 1))
                await asyncio.sleep(0.02)
                assert len(calls) < 100
            assert protocol.told("data") == NUMBERED * 3
            transport.sendto(b"and out", sending.getsockname())
            sending.settimeout(20)
            await asyncio.sleep(0)
            assert sending.recv(100) == b"and out"
            events = errqueue.read(transport.get_extra_info("socket"))
            assert {type(event) for event in events} == {errqueue.IcmpError}
        await protocol.closed()

    asyncio_loop.run(main)


def test_a_stuck_transport_can_be_paused_and_flooded(asyncio_loop, recorder):
    """Edges are not lost by what stops in the middle."""

    class Pausing(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"0007":
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def main():
        transport, protocol, sending = await stuck(Pausing, "127.0.0.1")
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**21)
        with sending:
            await asyncio.sleep(0.01)
            for i in range(20):
                send_together(sending, [b"%04d" % k for k in range(60)])
                if i % 5 == 0:
                    await asyncio.sleep(0)
            assert await protocol.has("data", 1200) == [b"%04d" % k for k in range(60)] * 20
        await protocol.closed()

    asyncio_loop.run(main)


def test_a_stuck_transport_goes_on_after_an_exception(asyncio_loop, recorder):
    class Failing(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise LookupError(data)

    async def main():
        transport, protocol, sending = await stuck(Failing, "127.0.0.1")
        with sending:
            await asyncio.sleep(0.01)
            for i in range(3):
                for k in range(i + 1):
                    sending.send(b"%d" % k)
                await protocol.has("data", (i + 1) * (i + 2) // 2)
        await protocol.closed()

    asyncio_loop.run(main)
    assert {type(context["exception"]) for context in asyncio_loop.failures} == {LookupError}
    asyncio_loop.failures.clear()


def test_a_long_list_is_delivered_in_several_turns(asyncio_loop, recorder):
    """One call may bring thousands."""

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        transport._expect_many()
        datagrams = [udp.Datagram(b"%d" % i, ("127.0.0.1", 9)) for i in range(2000)]
        transport._recv = lambda: datagrams
        with sending_to(transport) as sock:
            sock.send(b"wake up")
            before, most = 0, 0
            while len(protocol.told("data")) < 2000:
                await asyncio.sleep(0)
                found = len(protocol.told("data"))
                before, most = found, max(most, found - before)
        assert most <= 1024
        assert protocol.told("data")[:2000] == [datagram.data for datagram in datagrams]
        transport.abort()
        await protocol.has("lost")

    asyncio_loop.run(main)


def test_a_protocol_may_have_the_error_queue_read(asyncio_loop, host):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Whole, local_addr=(host, 0), errors=True)
        target = nobody(host)
        transport.sendto(b"to nobody", target)
        await protocol.until(lambda: protocol.events)
        [event] = protocol.events
        assert type(event) is errqueue.IcmpError
        assert (event.errno, event.destination[:2], event.data) == (errno.ECONNREFUSED, target, b"to nobody")
        calls = counted(transport)
        await asyncio.sleep(0.05)
        assert len(calls) < 20
        assert errqueue.read(transport.get_extra_info("socket")) == []
        await protocol.closed()
        assert protocol.log == ["lost"]

    asyncio_loop.run(main)


def test_errors_take_a_protocol_that_wants_them(asyncio_loop, recorder):
    async def main():
        with pytest.raises(TypeError, match="errors_received"):
            await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0), errors=True)

    asyncio_loop.run(main)


def test_a_protocol_may_raise_when_it_hears_of_an_error(asyncio_loop, recorder):
    class Failing(recorder):
        def error_received(self, exc):
            super().error_received(exc)
            raise LookupError("error_received")

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Failing, remote_addr=nobody())
        for i in range(3):
            transport.sendto(b"%d" % i)
            await protocol.has("error", i + 1)
        await protocol.closed()

    asyncio_loop.run(main)
    assert {type(context["exception"]) for context in asyncio_loop.failures} == {LookupError}
    asyncio_loop.failures.clear()


def test_a_receive_that_should_not_fail_ends_the_connection(asyncio_loop, recorder):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))

        def broken():
            raise LookupError("recv")

        transport._expect_many()
        transport._recv = broken
        with sending_to(transport) as sock:
            sock.send(b"data")
            [error] = await protocol.has("lost")
        assert type(error) is LookupError
        assert [context["exception"] for context in asyncio_loop.failures] == [error]
        asyncio_loop.failures.clear()

    asyncio_loop.run(main)


# ---- the beginning and the end ----


def test_a_creation_that_is_cancelled_leaves_nothing(asyncio_loop, recorder):
    async def main():
        made = []

        def factory():
            made.append(recorder())
            return made[-1]

        task = asyncio.ensure_future(aio.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made[0].has("lost")
        assert made[0].log == [("made",), ("lost", None)]

    asyncio_loop.run(main)


def test_what_came_before_the_protocol_knew_of_its_connection_waits(asyncio_loop, recorder):
    async def main():
        sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            peer.send(b"early")
            _, protocol = await aio.create_datagram_endpoint(recorder, sock=sock)
            await protocol.has("data")
            assert protocol.log == [("made",), ("data", b"early", None)]
            await protocol.closed()

    asyncio_loop.run(main)


@pytest.mark.parametrize("method", ["close", "abort", "pause_reading"])
def test_a_protocol_may_end_it_at_once(asyncio_loop, recorder, method):
    class Ending(recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, method)()

    async def main():
        transport, protocol = await aio.create_datagram_endpoint(Ending, local_addr=("127.0.0.1", 0))
        assert not transport.is_reading()
        await protocol.closed()
        assert protocol.log == [("made",), ("lost", None)]

    asyncio_loop.run(main)


def test_a_socket_that_its_user_closes_fails_no_worse_than_the_loops_own(asyncio_loop, recorder):
    async def main():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        transport, protocol = await aio.create_datagram_endpoint(recorder, sock=sock)
        sock.close()
        transport.sendto(b"data", ("127.0.0.1", 9))
        await protocol.has("error")
        await protocol.closed()
        assert ("error", OSError, errno.EBADF) in protocol.log

    asyncio_loop.run(main)
