# SPDX-License-Identifier: MIT
"""A transport whose socket has errors, whose error queue is not empty, or whose life is short."""

import asyncio
import errno
import socket

import pytest
from datagram_loops import NUMBERED, Whole, counted, nobody, of_lowsock, send_together, sending_to

from lowsock import aio, cmsg, errqueue, udp

# ---- errors ----


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
        transport._expect_batches()
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
        transport, protocol = await aio.create_datagram_endpoint(Whole, local_addr=(host, 0), recv_errors=True)
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
            await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0), recv_errors=True)

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

        @of_lowsock
        def broken():
            raise LookupError("recv")

        transport._expect_batches()
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
