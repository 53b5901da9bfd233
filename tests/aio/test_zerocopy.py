# SPDX-License-Identifier: MIT
"""A zero-copy sender in a loop: what the kernel still reads is kept, and whoever waits for it waits alone."""

import inspect
import sys
import warnings

import pytest

from lowsock import aio, errqueue
from lowsock.aio import errqueue as awaitable

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

NAMES = sorted(name for name in vars(errqueue.ZeroCopySender) if not name.startswith("_") or name == "__init__")
AWAITABLE = {"send", "read", "wait", "close"}


@pytest.fixture
def two(tcp_pair):
    tcp_pair.a.setblocking(False)
    tcp_pair.b.setblocking(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tcp_pair


@pytest.mark.parametrize("name", NAMES)
def test_a_member_is_that_of_the_blocking_sender(name):
    ours, theirs = (inspect.getattr_static(cls, name) for cls in (awaitable.ZeroCopySender, errqueue.ZeroCopySender))
    assert isinstance(ours, property) == isinstance(theirs, property)
    if not isinstance(ours, property):
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert inspect.iscoroutinefunction(ours) == (name in AWAITABLE)


def test_it_has_no_other_members():
    assert {name for name in vars(awaitable.ZeroCopySender) if not name.startswith("_")} == set(NAMES) - {"__init__"}


async def received(sock, size):
    data = b""
    while len(data) < size:
        data += (await aio.recvmsg(sock, 2**20))[0]
    return data


def test_what_is_sent_arrives_and_is_let_go(backend, two):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            sent = await sender.send(b"x" * 50000)
            first = (sender.pending, sender.pending_bytes, sender.next_key)
            data = await received(two.b, sent)
            assert await sender.wait()
            (event,) = await sender.read()
            return sent.key, first, data, sender.pending, (event.first, event.last), sender.copied, sender.dropped

    key, first, data, pending, keys, copied, dropped = backend.run(main)
    assert (key, first, data) == (0, (1, 50000, 1), b"x" * 50000)
    assert (pending, keys, copied, dropped) == (0, (0, 0), 1, 0)  # a loopback copies, and says so


def test_a_send_that_finds_no_room_waits_for_it(backend, two):
    """Completions that come meanwhile make POLLERR; they are read, and the rest goes."""

    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            memory = sender.buffer(2**16)
            memory[:] = b"x" * 2**16

            async def send():
                total = 0
                while total < 2**24:
                    total += await sender.send(memory)
                return total

            sending = backend.start(send)
            await backend.settle()
            assert not sending.done()
            receiving = backend.start(received, two.b, 2**24)
            total = await sending.outcome()
            data = await receiving.outcome()
            return total - len(data) == len(await received(two.b, total - len(data)))

    assert backend.run(main)


def test_a_wait_ends_with_its_time_or_its_send(backend, two):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            sent = await sender.send(b"x" * 50000)
            assert not await sender.wait(0.002)
            with pytest.raises(ValueError, match="key: no send has the number 7 yet"):
                await sender.wait(None, 7)
            task = backend.start(sender.wait, None, sent.key)
            await backend.settle()
            assert not task.done()
            await received(two.b, sent)
            return await task.outcome()

    assert backend.run(main)


def test_a_close_that_is_cancelled_has_closed_nothing(backend, two):
    async def main():
        sender = awaitable.ZeroCopySender(two.a)
        sent = await sender.send(b"x" * 50000)
        task = backend.start(sender.close)
        await backend.settle()
        task.cancel()
        assert await task.outcome() == "cancelled"
        sent += await sender.send(b"y")
        await received(two.b, sent)
        await sender.close()
        with pytest.raises(ValueError, match="this sender is closed"):
            await sender.send(b"x")

    backend.run(main)


def test_leaving_with_an_exception_does_not_wait(backend, two):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            await sender.send(b"x" * 50000)
            raise ZeroDivisionError

    warnings.simplefilter("ignore", ResourceWarning)  # 50000 bytes are kept for good
    with pytest.raises(ZeroDivisionError):
        backend.run(main)


def test_memory_of_its_own_is_told_free_again(backend, two):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            memory = sender.buffer(1000)
            sent = await sender.send(memory)
            held = sender.pending
            await received(two.b, sent)
            await sender.wait()
            return held, sender.is_free(memory)

    assert backend.run(main) == (1, True)


def test_a_socket_with_a_timeout_is_refused(two):
    two.a.settimeout(1)
    with pytest.raises(ValueError, match="sock must be non-blocking"):
        awaitable.ZeroCopySender(two.a)
