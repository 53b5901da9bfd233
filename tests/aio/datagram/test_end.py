# SPDX-License-Identifier: MIT
"""Flow control and the end of a datagram transport, as on the loop's own endpoint."""

import asyncio
import contextlib
import gc
import sys

import pytest
from datagram_loops import closed, named_pair, opened, readable

from lowsock import aio

# ---- flow control ----


async def limits(make, recorder):
    transport, protocol = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    found = [transport.get_write_buffer_limits(), transport.get_write_buffer_size()]
    for given in ({}, {"high": 400}, {"low": 10}, {"high": 5, "low": 5}, {"high": 0}, {"high": 3, "low": 4}, {"high": -1}):
        try:
            transport.set_write_buffer_limits(**given)
            found.append(transport.get_write_buffer_limits())
        except ValueError:
            found.append(ValueError)
    await closed(protocol)
    return found


def test_the_limits_of_the_write_buffer(alike):
    assert alike(limits, but=["uvloop"])[-1] is ValueError


async def filled(make, recorder, high, end):
    """A unix socket whose peer does not read, until the protocol is told to pause."""
    sock, peer = named_pair()
    with peer:
        transport, protocol = await opened(make, recorder, sock=sock)
        transport.set_write_buffer_limits(high)
        sent = 0
        while not protocol.told("pause") and sent < 10_000:
            transport.sendto(b"%08d" % sent)
            sent += 1
            await asyncio.sleep(0)
        transport.sendto(b"%08d" % sent)
        waiting = transport.get_write_buffer_size()
        end(transport)
        found = []
        while not protocol.told("lost") and not protocol.told("resume"):
            found += drained(peer)
            await asyncio.sleep(0)
        await closed(protocol)
        found += drained(peer)
        return protocol.log, waiting >= high, found == [b"%08d" % i for i in range(sent + 1)], len(found) < sent


def drained(sock):
    found = []
    while readable(sock):
        found.append(sock.recv(65536))
    return found


@pytest.mark.parametrize("end", ["pass", "close", "abort"])
def test_a_protocol_pauses_at_the_mark_and_goes_on_when_there_is_room(alike, end):
    """``close`` sends first what waits, ``abort`` drops it."""
    act = {"pass": lambda _: None, "close": lambda t: t.close(), "abort": lambda t: t.abort()}[end]
    but = ["uvloop"] if end == "abort" else []  # it goes on sending
    but += ["asyncio"] if sys.version_info[:2] == (3, 13) else []  # it counts wrong: CPython's gh-135444
    log, full, whole, less = alike(filled, 100, act, but=but)
    assert full
    assert log[:2] == [("made",), ("pause",)]
    assert (whole, less) == ((False, True) if end == "abort" else (True, False))


# ---- the end ----


async def after_the_end(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    client.sendto(b"before")
    client.close()
    client.close()
    client.sendto(b"after")
    assert client.is_closing()
    await at_client.has("lost")
    client.sendto(b"long after")
    client.abort()
    found = await at_server.has("data")
    await closed(at_server)
    return found, at_client.log


def test_what_is_sent_before_close_goes_and_what_comes_after_is_dropped(alike):
    assert alike(after_the_end) == ([b"before"], [("made",), ("lost", None)])


async def closed_while_receiving(make, recorder):
    class Once(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.close()

    server, at_server = await opened(make, Once, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    for i in range(5):
        client.sendto(b"%d" % i)
    await at_server.has("lost")
    await closed(at_client)
    return [row[:2] for row in at_server.log]


def test_nothing_is_received_after_close(alike):
    assert alike(closed_while_receiving) == [("made",), ("data", b"0"), ("lost", None)]


async def aborted(make, recorder):
    transport, protocol = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    transport.abort()
    transport.abort()
    transport.close()
    await protocol.has("lost")
    return protocol.log, transport.is_closing()


def test_abort_ends_it_once(alike):
    assert alike(aborted) == ([("made",), ("lost", None)], True)


async def protocols(make, recorder):
    server, first = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    second = recorder()
    client.sendto(b"1")
    await first.has("data")
    server.set_protocol(second)
    assert server.get_protocol() is second
    client.sendto(b"2")
    await second.has("data")
    server.close()
    await second.has("lost")
    await closed(at_client)
    return first.told("data"), second.told("data"), len(second.told("lost"))


def test_the_protocol_may_be_another_from_now_on(alike):
    assert alike(protocols) == ([b"1"], [b"2"], 1)


def test_a_transport_that_is_not_closed_warns(recorder):
    """And closes its socket."""

    async def main():
        transport, _ = await opened(aio.create_datagram_endpoint, recorder, local_addr=("127.0.0.1", 0))
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            transport.__del__()
        assert transport.get_extra_info("socket").fileno() == -1
        transport._sock = None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


def test_a_transport_may_outlive_its_loop(libuv_ready, recorder):
    """Its socket is closed all the same, and nothing else is said."""
    made = [asyncio.SelectorEventLoop]
    with contextlib.suppress(ImportError):
        made.append(__import__("uvloop").new_event_loop)
    for new_loop in made:
        loop = new_loop()
        pair = loop.run_until_complete(aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0)))
        sock = pair[0].get_extra_info("socket")
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport"):  # noqa: PT031  # PyPy finalizes in steps
            del pair, loop
            [gc.collect() for _ in range(4)]
        assert sock.fileno() == -1


def test_datagrams_for_a_closed_transport_are_logged_at_last(asyncio_loop, recorder, caplog):
    async def main():
        transport, protocol = await opened(aio.create_datagram_endpoint, recorder, local_addr=("127.0.0.1", 0))
        await closed(protocol)
        for _ in range(7):
            transport.sendto(b"late", ("127.0.0.1", 9))

    asyncio_loop.run(main)
    assert len([record for record in caplog.records if "transport that is closed" in record.getMessage()]) == 2


def test_it_is_a_transport_of_asyncio(asyncio_loop, recorder):
    async def main():
        transport, protocol = await opened(aio.create_datagram_endpoint, recorder, local_addr=("127.0.0.1", 0))
        assert isinstance(transport, asyncio.DatagramTransport)
        assert f"fd={transport.get_extra_info('socket').fileno()}" in repr(transport)
        await closed(protocol)
        assert "closed" in repr(transport)

    asyncio_loop.run(main)
