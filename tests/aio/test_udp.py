# SPDX-License-Identifier: MIT
"""The awaitable endpoint: what `lowsock.udp.Endpoint` does, without blocking a loop."""

import inspect
import socket
import sys
import warnings

import pytest

from lowsock import aio, udp
from lowsock.aio import errqueue
from lowsock.aio import udp as awaitable

SIZE = 1200
NAMES = [name for name in vars(udp.Endpoint) if not name.startswith("_") or name in ("__init__",)]
AWAITABLE = {"send", "send_many", "recv", "recv_coalesced", "recv_into", "read_errors", "close"}

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the offload is Linux's")


@pytest.fixture
def two(udp_pair):
    udp_pair.a.setblocking(False)
    udp_pair.b.setblocking(False)
    return udp_pair.a, udp_pair.b


# ---- the same names ----


@pytest.mark.parametrize("name", NAMES)
def test_a_member_is_that_of_the_blocking_endpoint(name):
    ours, theirs = (inspect.getattr_static(cls, name) for cls in (awaitable.Endpoint, udp.Endpoint))
    assert isinstance(ours, property) == isinstance(theirs, property)
    if not isinstance(ours, property):
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert inspect.iscoroutinefunction(ours) == (name in AWAITABLE)


def test_it_has_no_other_members():
    assert {name for name in vars(awaitable.Endpoint) if not name.startswith("_")} == set(NAMES) - {"__init__"}


def test_its_properties_are_told(two):
    blocking, ours = udp.Endpoint(two[0]), awaitable.Endpoint(two[0])
    for name in NAMES:
        if isinstance(inspect.getattr_static(udp.Endpoint, name), property):
            assert getattr(ours, name) == getattr(blocking, name)
    assert (ours.fileno(), ours.gettimeout()) == (two[0].fileno(), 0)


@pytest.mark.parametrize("timeout", [None, 2.0])
def test_a_socket_with_a_timeout_is_refused(udp_pair, timeout):
    udp_pair.a.settimeout(timeout)
    with pytest.raises(ValueError, match="sock must be non-blocking"):
        awaitable.Endpoint(udp_pair.a)


# ---- datagrams ----


RECEIVES = {
    "recv": lambda endpoint: endpoint.recv(),
    "recv_coalesced": lambda endpoint: endpoint.recv_coalesced(),
    "recv_into": lambda endpoint: endpoint.recv_into(iter([bytearray(65536)])),
}


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("name", RECEIVES)
def test_datagrams_arrive(backend, two, name, waits):
    a, b = map(awaitable.Endpoint, two)

    async def main():
        task = backend.start(RECEIVES[name], a) if waits else None
        await backend.settle()
        assert await b.send(bytes(3 * SIZE), segment_size=SIZE) == 3
        return await (task.outcome() if waits else RECEIVES[name](a))

    received = backend.run(main)
    if name == "recv":
        assert {len(datagram.data) for datagram in received} == {SIZE}
    else:
        assert received.segment_size == SIZE


def test_receives_stand_in_one_line_with_other_calls(backend, two):
    a, b = awaitable.Endpoint(two[0]), two[1]

    async def main():
        tasks = []
        for call in (a.recv, lambda: aio.recvmsg(two[0], 100), a.recv_coalesced):
            tasks.append(backend.start(call))
            await backend.settle()
        for i in range(3):
            b.send(b"%d" % i)
            await backend.settle()
        return [await task.outcome() for task in tasks]

    [first], second, third = backend.run(main)
    assert (first.data, second[0], third.data) == (b"0", b"1", b"2")


def test_many_go_to_many(backend, two):
    a, b = two

    async def main():
        with socket.socket(a.family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            endpoint = awaitable.Endpoint(sock)
            return await endpoint.send_many(iter([(b"%d" % i, to.getsockname()) for i, to in enumerate((a, b))]))

    assert backend.run(main) == 2


def test_a_host_name_is_refused(backend, two):
    async def main():
        with pytest.raises(ValueError, match="to look up 'localhost' would block"):
            await awaitable.Endpoint(two[0]).send(b"x", ("localhost", 9))

    backend.run(main)


def test_close_wakes_a_receive(backend, two):
    async def main():
        task = backend.start(awaitable.Endpoint(two[0]).recv)
        await backend.settle()
        aio.close(two[0])
        return await task.outcome()

    assert isinstance(backend.run(main), OSError)


# ---- the error queue ----


@linux
def test_errors_are_read_and_waited_for(backend):
    with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = nobody.getsockname()
        nobody.close()
        sock.setblocking(False)

        async def main():
            async with awaitable.Endpoint(sock, errors=True) as endpoint:
                assert await endpoint.read_errors() == []
                task = backend.start(errqueue.wait, endpoint)
                await backend.settle()
                await endpoint.send(b"x", nowhere)
                return await task.outcome(), await endpoint.read_errors()

        (event,), left = backend.run(main)
        assert (event.data, left) == (b"x", [])


@linux
def test_leaving_waits_for_what_was_sent_by_zerocopy(backend, two):
    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with awaitable.Endpoint(two[0], zerocopy=True) as endpoint:
                if not endpoint.zerocopy:
                    pytest.skip("this kernel has no zero-copy sends of UDP")
                await endpoint.send(bytes(60000))
                task = backend.start(endpoint.close)
                await backend.settle()
                assert (await aio.recvmsg(two[1], 65536))[0] == bytes(60000)
                assert await task.outcome() is None

    backend.run(main)


def test_closing_without_zerocopy_does_nothing(backend, two):
    async def main():
        endpoint = awaitable.Endpoint(two[0])
        await endpoint.close()
        return await endpoint.send(b"x")

    assert backend.run(main) == 1
