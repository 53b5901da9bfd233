# SPDX-License-Identifier: MIT
"""The awaitable endpoint: what `lowsock.udp.Endpoint` does, without blocking a loop."""

import errno
import inspect
import socket
import sys
import warnings

import pytest
from datagram_loops import Full, of_lowsock

from lowsock import aio, cmsg, udp
from lowsock.aio import errqueue
from lowsock.aio import udp as awaitable
from lowsock.errqueue import ZeroCopySender
from lowsock.errqueue._events import READERS
from lowsock.udp import _sending as sending

SIZE = 1200
NAMES = [name for name in vars(udp.Endpoint) if (not name.startswith("_") and name != "close") or name == "__init__"]
AWAITABLE = {"send", "send_many", "recv", "recv_coalesced", "recv_into", "read_errors", "drain"}

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
        if name != "drain":  # without a timeout: scopes are that
            assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert inspect.iscoroutinefunction(ours) == (name in AWAITABLE)


def test_it_has_no_other_members():
    assert {name for name in vars(awaitable.Endpoint) if not name.startswith("_")} == set(NAMES) - {"__init__"} | {"aclose"}


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
        assert await b.send(bytes(3 * SIZE), address=None, segment_size=SIZE) == 3 * SIZE
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


@linux
def test_one_of_which_a_part_went_is_finished(backend, two, monkeypatch):
    """Nothing goes twice, and control messages of an iterator are there at each attempt."""
    a, b = two
    full = Full(0, refill=1)
    monkeypatch.setattr(sending, "_send_each", full.each)

    hops = (cmsg.TTL if a.family == socket.AF_INET else cmsg.HopLimit)(hops=7)

    def batch():
        yield udp.Transmit(b"abcde", None, segment_size=2, ancdata=iter([hops]))
        yield udp.Transmit(b"last", None, ecn=1)

    async def main():
        return await awaitable.Endpoint(a, gso=False).send_many(batch())

    assert backend.run(main) == 2
    assert full.sent == [b"ab", b"cd", b"e"]
    assert len(full.controls) == 1
    assert full.controls != {b""}
    assert b.recv(9) == b"last"


def test_a_host_name_is_refused(backend, two):
    async def main():
        with pytest.raises(ValueError, match="to look up 'localhost' would block"):
            await awaitable.Endpoint(two[0]).send(b"x", address=("localhost", 9))

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
            async with awaitable.Endpoint(sock, recv_errors=True) as endpoint:
                assert await endpoint.read_errors() == []
                task = backend.start(errqueue.wait, endpoint)
                await backend.settle()
                await endpoint.send(b"x", address=nowhere)
                return await task.outcome(), await endpoint.read_errors()

        (event,), left = backend.run(main)
        assert (event.data, left) == (b"x", [])


# ---- the end ----


def opened(kind, sock):
    """An endpoint around a socket, or around its bare descriptor."""
    return awaitable.Endpoint(sock if kind == "socket" else sock.detach())


@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_it_owns_its_socket(backend, two, kind):
    """`aclose` wakes a receive, and may be called again; then calls fail as on a closed socket."""

    async def main():
        endpoint = opened(kind, two[0])
        task = backend.start(endpoint.recv)
        await backend.settle()
        await endpoint.aclose()
        await endpoint.aclose()
        error = await task.outcome()
        assert (type(error), error.errno) == (OSError, errno.EBADF)
        for call in (endpoint.recv, lambda: endpoint.send(b"x", address=None), endpoint.read_errors):
            with pytest.raises(OSError) as info:
                await call()
            assert info.value.errno == errno.EBADF
        with pytest.raises(ValueError, match="this endpoint is closed"):
            endpoint.detach()
        assert await endpoint.drain()
        return endpoint.fileno()

    assert backend.run(main) == -1


def test_detach_gives_the_socket_back(backend, two):
    async def main():
        async with awaitable.Endpoint(two[0]) as endpoint:
            assert endpoint.detach() is two[0]
        async with awaitable.Endpoint(two[0]) as endpoint:  # the next one
            await endpoint.send(b"x", address=None)
        return two[0].fileno()

    assert backend.run(main) == -1


async def flying(where):
    """An endpoint with a zero-copy send in flight."""
    where.sock.setblocking(False)
    endpoint = awaitable.Endpoint(where.sock, zerocopy=True)
    if not endpoint.zerocopy:
        pytest.skip("this kernel has no zero-copy sends of UDP")
    assert await endpoint.send(bytes(30_000), address=where.to, segment_size=1000) == 30_000
    return endpoint


@linux
@pytest.mark.parametrize("how", ["aclose", "leaving"])
def test_closing_waits_for_what_is_in_flight(backend, in_flight, how):
    async def leave(endpoint):
        async with endpoint:
            pass

    async def main():
        endpoint = await flying(in_flight)
        tasks = [backend.start(endpoint.drain)]
        await backend.settle()
        tasks.append(backend.start(leave, endpoint) if how == "leaving" else backend.start(endpoint.aclose))
        await backend.settle()
        assert [task.done() for task in tasks] == [False, False]
        in_flight.let_go()
        assert [await task.outcome() for task in tasks] == [True, None]
        return endpoint.fileno()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend.run(main) == -1


@linux
def test_an_end_while_a_drain_begins_is_ebadf(backend, in_flight, monkeypatch):
    real = ZeroCopySender.wait

    async def main():
        endpoint = await flying(in_flight)

        @of_lowsock
        def wait(sender, timeout):
            endpoint._close()
            return real(sender, timeout)

        monkeypatch.setattr(ZeroCopySender, "wait", wait)
        with pytest.warns(ResourceWarning), pytest.raises(OSError) as info:
            await endpoint.drain()
        return info.value.errno

    assert backend.run(main) == errno.EBADF


@linux
def test_tasks_may_close_it_at_once(backend, in_flight):
    async def main():
        endpoint = await flying(in_flight)
        tasks = [backend.start(endpoint.aclose) for _ in range(3)]
        await backend.settle()
        in_flight.let_go()
        return [await task.outcome() for task in tasks]

    assert backend.run(main) == [None] * 3


@linux
@pytest.mark.filterwarnings("ignore:a ZeroCopySender was closed:ResourceWarning")
@pytest.mark.parametrize("zerocopy", [False, True])
@pytest.mark.parametrize("ticks", [1, 2, 3, 5, 8])
def test_a_cancelled_close_closes(loops, backend, in_flight, zerocopy, ticks):
    """At each await: the socket is closed, no watch and no sender is left, and the next can be made."""
    in_flight.sock.setblocking(False)
    in_flight.other.setblocking(False)

    async def main():
        before = len(READERS)
        endpoint = await flying(in_flight) if zerocopy else awaitable.Endpoint(in_flight.sock)
        fd = endpoint.fileno()
        done, _ = await loops.cancelled(ticks, endpoint.aclose)
        if not done and backend.name == "trio" and endpoint.fileno() >= 0:
            pytest.skip("cancelled before its first step")
        assert in_flight.sock.fileno() == endpoint.fileno() == -1
        assert len(READERS) == before
        assert not backend.is_watched(fd)
        assert not (done and zerocopy)
        async with awaitable.Endpoint(in_flight.other) as after:
            return await after.send(b"x", address=in_flight.to)

    assert backend.run(main) == 1


@linux
@pytest.mark.parametrize("how", ["cancelled", "raised", "waits"])
def test_leaving_by_an_exception_closes_and_says_what_is_kept(backend, in_flight, how):
    """An exception in the body, a cancellation there, and one while leaving waits."""

    async def body():
        async with await flying(in_flight) as endpoint:
            if how == "raised":
                raise ZeroDivisionError
            if how == "cancelled":
                await endpoint.recv()

    async def main():
        task = backend.start(body)
        await backend.settle()
        task.cancel()
        return await task.outcome()

    with pytest.warns(ResourceWarning, match="30000 bytes are kept for good"):
        outcome = backend.run(main)
    assert outcome == "cancelled" or type(outcome) is ZeroDivisionError
    assert in_flight.sock.fileno() == -1


@linux
def test_a_socket_that_was_given_back_takes_the_next_sender(backend, in_flight):
    async def main():
        endpoint = await flying(in_flight)
        with pytest.warns(ResourceWarning, match="kept for good"):
            sock = endpoint.detach()
        in_flight.let_go()
        async with awaitable.Endpoint(sock, zerocopy=True) as after:
            assert after.zerocopy

    backend.run(main)


# ---- old spellings ----


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda endpoint: endpoint.recv(1500), TypeError, r"recv\(\) takes no size: flags="),
        (lambda endpoint: endpoint.recv_coalesced(0), TypeError, r"recv_coalesced\(\) takes no size: flags="),
        (lambda endpoint: endpoint.recv_into([bytearray(9)], 0), TypeError, r"recv_into\(\) .*: flags="),
        (lambda endpoint: endpoint.send(b"x", ("::1", 9)), TypeError, r"send\(\) takes no address by position: address="),
        (lambda endpoint: endpoint.send(b"x"), TypeError, r"send\(\) takes the address by keyword: address=.*data\[sent:\]"),
        (lambda endpoint: endpoint.send(b"x", address=None, txtime=1), TypeError, r"send\(\) takes no txtime: txtime_ns="),
        (lambda endpoint: endpoint.send_many([], source="::1"), TypeError, r"send_many\(\) takes no source: local="),
        (lambda endpoint: endpoint.close(), AttributeError, "'close': use await aclose"),
        (lambda endpoint: endpoint.timestamps, AttributeError, "'timestamps': use recv_timestamps"),
        (lambda endpoint: awaitable.Endpoint(endpoint, errors=True), TypeError, "takes no errors: recv_errors="),
        (lambda endpoint: awaitable.Received, AttributeError, "'Received': use Scattered"),
    ],
)
def test_an_old_spelling_is_told_the_new_one(backend, two, call, error, said):
    async def main():
        with pytest.raises(error, match=said):
            await call(awaitable.Endpoint(two[0]))

    backend.run(main)


@pytest.mark.parametrize("name", ["Coalesced", "Datagram", "Fallbacks", "Scattered", "Transmit"])
def test_its_data_classes_are_those_of_the_blocking_module(name):
    assert getattr(awaitable, name) is getattr(udp, name)
