# SPDX-License-Identifier: MIT
"""What a datagram transport says of errors, as the loop's own endpoint does, and what it refuses."""

import errno
import socket

import pytest
from datagram_loops import closed, opened, own

from lowsock import aio
from lowsock.aio._datagram.endpoint import create_datagram_endpoint


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
        ({"local_addr": ("127.0.0.1", 70_000)}, (OverflowError,)),
        ({"remote_addr": ("::1", -1)}, (OverflowError,)),
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


async def factory_raises(make, _):
    def factory():
        raise LookupError("no protocol")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(LookupError):
            await make(factory, sock=sock)
        return sock.fileno() >= 0


def test_a_socket_that_was_given_stays_its_owners_if_there_is_no_endpoint(alike):
    assert alike(factory_raises, but=["uvloop"])  # whose own leaves a transport


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
