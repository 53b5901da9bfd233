# SPDX-License-Identifier: MIT
"""The datagram transport is a drop-in: what happens to a protocol is what happens on the loop's own endpoint.

Each scenario runs on the loop's own endpoint and on ours, and what it returns must be the same.
"""

import os
import socket

import pytest
from datagram_loops import HOSTS, NUMBERS, closed, named_pair, opened, readable

from lowsock import aio


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


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_may_be_given_and_is_closed_in_the_end(alike, family, ipv6):
    host = HOSTS["ipv4" if family == socket.AF_INET else "ipv6"]
    assert alike(given, family, host) == ([b"early", b"and late"], b"back", 0.0, -1)


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
