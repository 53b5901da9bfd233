# SPDX-License-Identifier: MIT
"""An error queue that is not empty: no loop spins on it, and its events are nobody's but the one's who reads them."""

import errno
import inspect
import select
import socket
import sys
import time

import pytest

from lowsock import aio, cmsg, errqueue
from lowsock.aio import errqueue as awaitable
from lowsock.aio._wait import waiters as _queue
from lowsock.constants import MSG_ERRQUEUE

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="error queues are Linux's")


@pytest.fixture
def sock():
    """A socket that sends to a port where nobody is, and wants to know."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        cmsg.enable(sock, cmsg.ExtendedError)
        yield sock


@pytest.fixture
def nowhere():
    """An address where nobody is."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


@pytest.fixture
def attempts(monkeypatch):
    """Grows by one with each sleep that begins, in all queues."""
    begun = []
    arm = _queue.Queue.arm
    monkeypatch.setattr(_queue.Queue, "arm", lambda *args: (begun.append(args), arm(*args))[1])
    return begun


def refuse(sock, nowhere):
    """One event in the queue, and no error pending."""
    sock.sendto(b"x", nowhere)
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(10000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def fill(sock, address):
    try:
        while True:
            sock.sendto(b"x", address)
    except BlockingIOError:
        pass


async def receive(sock):
    return (await aio.recvmsg(sock, 100))[0]


def test_a_signature_is_that_of_the_blocking_function_but_for_the_timeout():
    for name in ("read", "wait"):
        ours, theirs = (set(inspect.signature(getattr(module, name)).parameters) for module in (awaitable, errqueue))
        assert ours == theirs - {"timeout"}
        assert inspect.iscoroutinefunction(getattr(awaitable, name))


def test_what_events_are_made_of_is_here_too():
    assert {name for name in errqueue.__all__ if getattr(awaitable, name) is getattr(errqueue, name)} == {
        *errqueue.__all__
    } - {"read", "wait", "ZeroCopySender"}


# ---- no spin ----


def test_waiting_for_data_does_not_spin_while_there_are_events(backend, sock, nowhere, attempts):
    """How often a task was woken in the time that the pauses need to grow to their longest: less than once for each of them,
    and a few times more."""
    refuse(sock, nowhere)

    async def main():
        task = backend.start(receive, sock)
        begun = time.monotonic()
        while len(attempts) < 10:
            await backend.settle()
        spent = time.monotonic() - begun
        sock.sendto(b"data", sock.getsockname())
        assert await task.outcome() == b"data"
        return spent

    assert backend.run(main) > 0.06  # 1 + 2 + 4 + ... + 32 ms, at least
    assert len(attempts) < 16
    (event,) = errqueue.read(sock)
    assert event.errno == errno.ECONNREFUSED


def test_sending_to_a_full_peer_does_not_spin_either(backend, attempts):
    """An unconnected sender is told again and again that it may send: poll(2) does not know to whom."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a:
        b.bind("")
        a.setblocking(False)
        b.setblocking(False)
        fill(a, b.getsockname())

        async def main():
            task = backend.start(aio.sendmsg, a, [b"last"], (), 0, b.getsockname())
            while len(attempts) < 5:
                await backend.settle()
            waited = not task.done()
            while await receive(b) != b"last":
                pass
            return waited, await task.outcome()

        assert backend.run(main) == (True, 4)


def test_one_wake_up_for_nothing_is_no_reason_to_pause(backend, attempts):
    """Somebody else was quicker: from then on the loop tells when there is data, as before."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.setblocking(False)

        async def main():
            task = backend.start(receive, a)
            await backend.settle()
            for _ in range(3):
                b.send(b"stolen")
                if backend.name != "trio":
                    await backend.step()
                a.recv(100)
                await backend.settle()
            woken = len(attempts)
            time.sleep(0.01)  # not to wait for anything: for pauses to end, if there were any
            await backend.settle()
            assert len(attempts) == woken
            b.send(b"data")
            return await task.outcome()

        assert backend.run(main) == b"data"


# ---- the events ----


def test_events_are_not_lost_to_those_who_wait_for_data(backend, sock, nowhere):
    async def main():
        task = backend.start(receive, sock)
        await backend.settle()
        sock.sendto(b"x", nowhere)
        assert isinstance(await task.outcome(), ConnectionRefusedError)  # the error that is pending is told once
        task = backend.start(receive, sock)
        await backend.settle()
        events = await awaitable.read(sock)
        sock.sendto(b"data", sock.getsockname())
        return events, await task.outcome()

    (event,), data = backend.run(main)
    assert (event.errno, data) == (errno.ECONNREFUSED, b"data")


def test_wait_returns_what_read_would(backend, sock, nowhere):
    async def main():
        task = backend.start(awaitable.wait, sock)
        await backend.settle()
        assert not task.done()
        sock.sendto(b"x", nowhere)
        return await task.outcome(), await awaitable.read(sock)

    (event,), left = backend.run(main)
    assert (type(event), event.errno, left) == (errqueue.IcmpError, errno.ECONNREFUSED, [])


def test_wait_returns_at_once_what_is_there(backend, sock, nowhere):
    refuse(sock, nowhere)
    assert len(backend.run(awaitable.wait, sock)) == 1


@pytest.mark.parametrize("ticks", range(5))
def test_a_wait_that_is_cancelled_took_nothing_and_holds_nobody_up(loops, sock, nowhere, ticks):
    async def main():
        assert await loops.cancelled(ticks, awaitable.wait, sock) == (False, None)
        refuse(sock, nowhere)
        return await awaitable.wait(sock, limit=5)

    assert len(loops.run(main)) == 1


@pytest.mark.parametrize(("arguments", "named"), [((1.0,), {}), ((None,), {}), ((), {"timeout": 1.0})])
def test_a_time_limit_is_the_loops(backend, sock, arguments, named):
    async def main():
        with pytest.raises(TypeError, match=r"wait\(\) takes no timeout: limit the wait with asyncio\.timeout"):
            await awaitable.wait(sock, *arguments, **named)

    backend.run(main)


def test_data_wakes_nobody_who_waits_for_events(backend, sock, nowhere):
    async def main():
        task = backend.start(awaitable.wait, sock)
        await backend.settle()
        sock.sendto(b"data", sock.getsockname())
        await backend.settle()
        assert not task.done()
        assert await receive(sock) == b"data"
        sock.sendto(b"x", nowhere)
        return await task.outcome()

    assert len(backend.run(main)) == 1


def test_a_receive_from_the_error_queue_waits_for_events(backend, sock, nowhere):
    async def main():
        task = backend.start(aio.recvmsg, sock, 100, 512, MSG_ERRQUEUE)
        await backend.settle()
        sock.sendto(b"data", sock.getsockname())
        await backend.settle()
        assert not task.done()
        sock.sendto(b"x", nowhere)
        return await task.outcome()

    data, ancdata, flags, address = backend.run(main)
    assert (data, flags & MSG_ERRQUEUE) == (b"x", MSG_ERRQUEUE)


def test_close_wakes_those_who_wait_for_events(backend, sock):
    async def main():
        task = backend.start(awaitable.wait, sock)
        await backend.settle()
        aio.close(sock)
        return await task.outcome()

    assert backend.run(main).errno == errno.EBADF


@pytest.mark.parametrize("call", [awaitable.wait, awaitable.read])
def test_a_socket_with_a_timeout_is_refused(backend, sock, call):
    sock.settimeout(1)
    with pytest.raises(ValueError, match="sock must be non-blocking"):
        backend.run(call, sock)
