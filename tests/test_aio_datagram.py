# SPDX-License-Identifier: MIT
"""The datagram transport is a drop-in: what happens to a protocol is what happens on the loop's own endpoint.

Each scenario runs on the loop's own endpoint and on ours, and what it returns must be the same.
"""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import socket
import sys

import pytest

from lowsock import aio
from lowsock.aio._datagrams import create_datagram_endpoint

HOSTS = {"ipv4": "127.0.0.1", "ipv6": "::1"}
NUMBERS = itertools.count()


def own(*args, **options):
    return asyncio.get_running_loop().create_datagram_endpoint(*args, **options)


@pytest.fixture
def alike(asyncio_loop, recorder):
    """A callable: runs a scenario on both; what it returned, which was the same. Loops named by ``but`` do
    something else with their own endpoints, which are left out."""

    def compare(scenario, *args, but=()):
        ours = asyncio_loop.run(scenario, aio.create_datagram_endpoint, recorder, *args)
        if asyncio_loop.name not in but:
            assert ours == asyncio_loop.run(scenario, own, recorder, *args)
        return ours

    return compare


@pytest.fixture(params=HOSTS)
def host(request, ipv6):
    return HOSTS[request.param]


async def opened(make, recorder, **options):
    transport, protocol = await make(recorder, **options)
    assert protocol.transport is transport
    return transport, protocol


async def closed(*protocols):
    for protocol in protocols:
        await protocol.closed()


def shapes(protocol):
    """The log with addresses by their shapes."""
    return [(row[0], row[1], len(row[2])) if row[0] == "data" else row for row in protocol.log]


# ---- sending and receiving ----


async def exchange(make, recorder, host):
    server, at_server = await opened(make, recorder, local_addr=(host, 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname")[:2])
    for i in range(5):
        client.sendto(b"ask %d" % i)
    await at_server.has("data", 5)
    assert {row[2] for row in at_server.log[1:]} == {client.get_extra_info("sockname")}
    for _, data, address in at_server.log[1:6]:
        server.sendto(data.replace(b"ask", b"answer"), address)
    await at_client.has("data", 5)
    infos = [client.get_extra_info(name) is None for name in ("sockname", "peername", "socket", "nothing")]
    infos += [server.get_extra_info("peername"), client.is_closing()]
    assert client.get_extra_info("peername") == server.get_extra_info("sockname")
    await closed(at_client, at_server)
    return shapes(at_server), shapes(at_client), infos, client.is_closing()


def test_datagrams_come_and_go_in_order(alike, host):
    at_server, at_client, *_ = alike(exchange, host)
    assert [row[1] for row in at_client[1:-1]] == [b"answer %d" % i for i in range(5)]
    assert at_server[0] == ("made",)
    assert at_server[-1] == ("lost", None)


async def buffers(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    changed = bytearray(b"bytearray")
    for data in (b"bytes", changed, memoryview(b"memoryview")):
        client.sendto(data)
    changed[:] = b"different"
    found = await at_server.has("data", 3)
    client.sendto(b"to the same", server.get_extra_info("sockname"))
    found = await at_server.has("data", 4)
    await closed(at_client, at_server)
    return found


def test_any_bytes_can_be_sent_and_are_taken_as_they_are(alike):
    assert alike(buffers)[:3] == [b"bytes", b"bytearray", b"memoryview"]


async def several_peers(make, recorder, host):
    servers = [await opened(make, recorder, local_addr=(host, 0)) for _ in range(3)]
    client, at_client = await opened(make, recorder, local_addr=(host, 0))
    for i in range(30):
        client.sendto(b"%d" % i, servers[i % 7 % 3][0].get_extra_info("sockname"))
    logs = [await protocol.has("data", sum(i % 7 % 3 == k for i in range(30))) for k, (_, protocol) in enumerate(servers)]
    await closed(at_client, *(protocol for _, protocol in servers))
    return logs


def test_each_peer_gets_its_own_in_order(alike, host):
    alike(several_peers, host)


async def names(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("localhost", 0), family=socket.AF_INET)
    port = server.get_extra_info("sockname")[1]
    client, at_client = await opened(make, recorder, remote_addr=("localhost", port), family=socket.AF_INET)
    client.sendto(b"by name")
    found, peer = await at_server.has("data"), client.get_extra_info("peername")
    await closed(at_client, at_server)
    return found, peer[0]


def test_names_are_looked_up(alike):
    assert alike(names) == ([b"by name"], "127.0.0.1")


async def broadcast(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    target = server.get_extra_info("sockname")
    client, at_client = await opened(make, recorder, remote_addr=target, allow_broadcast=True)
    option = client.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    client.sendto(b"to", target)
    found = await at_server.has("data")
    await closed(at_client, at_server)
    return option, found


def test_broadcast_may_be_allowed(alike):
    assert alike(broadcast) == (1, [b"to"])


def test_with_broadcast_the_socket_is_not_connected_and_the_address_is_the_default(asyncio_loop, recorder):
    """As on the stock loop; uvloop's own endpoint connects."""

    async def main():
        server, at_server = await opened(aio.create_datagram_endpoint, recorder, local_addr=("127.0.0.1", 0))
        target = server.get_extra_info("sockname")
        client, at_client = await opened(aio.create_datagram_endpoint, recorder, remote_addr=target, allow_broadcast=True)
        assert client.get_extra_info("peername") is None
        client.sendto(b"to")
        assert await at_server.has("data") == [b"to"]
        with pytest.raises(ValueError, match=r"^addr must be None or"):
            client.sendto(b"other", ("127.0.0.1", 9))
        await closed(at_client, at_server)

    asyncio_loop.run(main)


async def shared_port(make, recorder):
    first, at_first = await opened(make, recorder, local_addr=("127.0.0.1", 0), reuse_port=True)
    second, at_second = await opened(
        make, recorder, local_addr=("127.0.0.1", first.get_extra_info("sockname")[1]), reuse_port=True
    )
    await closed(at_first, at_second)
    return shapes(at_first)


def test_a_port_may_be_shared(alike):
    alike(shared_port)


# ---- a socket that is given ----


async def given(make, recorder, family, host):
    peer = socket.socket(family, socket.SOCK_DGRAM)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    with peer:
        peer.bind((host, 0))
        sock.bind((host, 0))
        sock.connect(peer.getsockname())
        peer.sendto(b"early", sock.getsockname())
        peer.sendto(b"and late", sock.getsockname())
        transport, protocol = await opened(make, recorder, sock=sock)
        found = await protocol.has("data", 2)
        transport.sendto(b"back")
        await protocol.until(lambda: readable(peer))
        back = peer.recv(100)
        await closed(protocol)
        return found, back, sock.gettimeout(), sock.fileno()


def readable(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_may_be_given_and_is_closed_in_the_end(alike, family, ipv6):
    host = HOSTS["ipv4" if family == socket.AF_INET else "ipv6"]
    assert alike(given, family, host) == ([b"early", b"and late"], b"back", 0.0, -1)


def named_pair():
    """Unix sockets connected to each other: with those of socketpair(2), which have no names, the stock loop cannot send."""
    names = [f"\0lowsock-{os.getpid()}-{next(NUMBERS)}" for _ in range(2)]
    pair = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in names]
    for sock, name in zip(pair, names):
        sock.bind(name)
    for sock, name in zip(pair, reversed(names)):
        sock.connect(name)
    return pair


async def unix_pair(make, recorder, pair):
    a, b = pair()
    (left, at_left), (right, at_right) = [await opened(make, recorder, sock=sock) for sock in (a, b)]
    for i in range(5):
        left.sendto(b"%d" % i)
    await at_right.has("data", 5)
    right.sendto(b"x" * 100_000)
    await at_left.has("data")
    await closed(at_left, at_right)
    return at_left.told("data"), at_right.told("data")


def test_a_pair_of_unix_sockets(alike):
    alike(unix_pair, named_pair)


def test_a_pair_of_unix_sockets_without_names(asyncio_loop, recorder):
    asyncio_loop.run(
        unix_pair, aio.create_datagram_endpoint, recorder, lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    )


# ---- unix paths: uvloop's own endpoint takes none ----


async def unix_paths(make, recorder, folder, stale):
    number = next(NUMBERS)
    if stale:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
            old.bind(f"{folder}/server-{number}")
    path = f"{folder}/server-{number}" if stale else f"\0lowsock-{os.getpid()}-{number}"
    mine = f"{folder}/client-{number}"
    server, at_server = await opened(make, recorder, local_addr=path, family=socket.AF_UNIX)
    client, at_client = await opened(make, recorder, local_addr=mine, remote_addr=path, family=socket.AF_UNIX)
    client.sendto(b"ask")
    await at_server.has("data")
    [address] = {row[2] for row in at_server.log[1:]}
    server.sendto(b"answer", address)
    await at_client.has("data")
    await closed(at_client, at_server)
    return address == mine, [row[1] for row in at_client.log[1:]]


@pytest.mark.parametrize("stale", [False, True])
def test_unix_paths_and_abstract_names(alike, tmp_path, stale):
    """A path that another has left behind is taken."""
    assert alike(unix_paths, tmp_path, stale, but=["uvloop"]) == (True, [b"answer", None])


# ---- errors ----


async def refused(make, recorder, host, connected):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind((host, 0))
        target = nobody.getsockname()[:2]
    transport, protocol = await opened(make, recorder, remote_addr=target)
    transport.sendto(b"to nobody")
    await protocol.has("error")
    transport.sendto(b"again")
    await protocol.has("error", 2)
    await closed(protocol)
    return protocol.log


def test_an_icmp_error_is_told_and_the_transport_goes_on(alike, host):
    """On uvloop too, whose own readers end at the first error of a socket."""
    log = alike(refused, host, True)
    assert log[1] == ("error", ConnectionRefusedError, errno.ECONNREFUSED)


async def too_long(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    for data in (b"first", bytes(70_000), b"second", b"third"):
        client.sendto(data)
    found = await at_server.has("data", 3)
    await closed(at_client, at_server)
    return found, at_client.log


def test_a_datagram_that_is_refused_is_told_and_the_rest_goes_on(alike):
    found, log = alike(too_long)
    assert found == [b"first", b"second", b"third"]
    assert log[1] == ("error", OSError, errno.EMSGSIZE)


async def raising(make, recorder):
    class Failing(recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data in (b"1", b"3"):
                raise RuntimeError(data)

    server, at_server = await opened(make, Failing, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    for i in range(6):
        client.sendto(b"%d" % i)
    found = await at_server.has("data", 6)
    await closed(at_client, at_server)
    return found


def test_a_protocol_that_raises_gets_the_next_datagrams_all_the_same(asyncio_loop, alike):
    assert alike(raising, but=["uvloop"]) == [b"%d" % i for i in range(6)]  # uvloop's own transport ends there
    told = [context["exception"] for context in asyncio_loop.failures]
    assert [type(error) for error in told] == [RuntimeError] * (4 if asyncio_loop.name == "asyncio" else 2)
    asyncio_loop.failures.clear()


async def wrong_calls(make, recorder):
    server, at_server = await opened(make, recorder, local_addr=("127.0.0.1", 0))
    client, at_client = await opened(make, recorder, remote_addr=server.get_extra_info("sockname"))
    raised = []
    for args in (("text",), (5,), (b"data", ("127.0.0.1", 1)), (None,)):
        try:
            client.sendto(*args)
            raised.append(None)
        except Exception as error:
            raised.append(type(error))
    await closed(at_client, at_server)
    return raised


def test_wrong_arguments_of_sendto(alike):
    """uvloop says nothing to what is false, such as None."""
    assert alike(wrong_calls, but=["uvloop"]) == [TypeError, TypeError, ValueError, TypeError]


STREAM = object()


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, (ValueError,)),
        ({"local_addr": "127.0.0.1"}, (TypeError,)),
        ({"local_addr": ("127.0.0.1", 0, 0)}, (TypeError,)),
        ({"remote_addr": ("127.0.0.1",)}, (TypeError,)),
        ({"local_addr": ("192.0.2.1", 0)}, (OSError,)),
        ({"local_addr": ("no such host.invalid", 1)}, (OSError,)),
        ({"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)}, (ValueError, OSError)),
        ({"sock": STREAM}, (ValueError,)),
        ({"sock": socket.SOCK_DGRAM, "local_addr": ("127.0.0.1", 0)}, (ValueError,)),
        ({"sock": socket.SOCK_DGRAM, "family": socket.AF_INET}, (ValueError,)),
        ({"sock": socket.SOCK_DGRAM, "allow_broadcast": True}, (ValueError,)),
    ],
    ids=str,
)
def test_what_cannot_be_made(asyncio_loop, recorder, options, kinds):
    async def main(make):
        sock, given = None, dict(options)
        if "sock" in given:
            sock = socket.socket(type=socket.SOCK_STREAM if given["sock"] is STREAM else socket.SOCK_DGRAM)
            given["sock"] = sock
        try:
            with pytest.raises(kinds) as caught:
                await make(recorder, **given)
            return caught.value
        finally:
            if sock is not None:
                sock.close()

    ours = asyncio_loop.run(main, aio.create_datagram_endpoint)
    if asyncio_loop.name == "asyncio":  # uvloop leaves sockets open
        theirs = asyncio_loop.run(main, own)
        assert type(ours) is type(theirs)
        assert getattr(ours, "errno", 0) == getattr(theirs, "errno", 0)


def test_a_unix_path_is_a_str(asyncio_loop, recorder):
    async def main():
        with pytest.raises(TypeError, match="remote_addr must be a str"):
            await aio.create_datagram_endpoint(recorder, remote_addr=b"path", family=socket.AF_UNIX)

    asyncio_loop.run(main)


def test_a_factory_that_raises_leaves_nothing(asyncio_loop):
    def factory():
        raise LookupError("no protocol")

    async def main(make):
        with pytest.raises(LookupError):
            await make(factory, local_addr=("127.0.0.1", 0))

    asyncio_loop.run(main, aio.create_datagram_endpoint)


def test_it_takes_a_running_loop(recorder):
    coroutine = create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
    with pytest.raises(RuntimeError, match="running asyncio loop"):
        coroutine.send(None)


def test_trio_is_refused(recorder):
    trio = pytest.importorskip("trio", reason="trio is not installed")

    async def main():
        with pytest.raises(RuntimeError, match="running asyncio loop"):
            await create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))

    trio.run(main)


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
    but += ["asyncio"] if sys.version_info[:2] == (3, 13) else []  # it counts wrong: CPython's gh-127529
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
