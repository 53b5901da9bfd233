# SPDX-License-Identifier: MIT
"""A zero-copy sender in a loop: what the kernel still reads is kept, and whoever waits for it waits alone."""

import errno
import inspect
import sys
import warnings

import pytest

from lowsock import aio, errqueue
from lowsock.aio import errqueue as awaitable
from lowsock.aio._zerocopy import finish

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MSG_ZEROCOPY is Linux's")

NAMES = sorted(name for name in vars(errqueue.ZeroCopySender) if not name.startswith("_") or name == "__init__")
AWAITABLE = {"send", "read", "wait", "drain", "aclose"}
LIMITED = "takes no timeout: limit the wait with asyncio.timeout, asyncio.wait_for or trio.move_on_after"


@pytest.fixture
def two(tcp_pair):
    tcp_pair.a.setblocking(False)
    tcp_pair.b.setblocking(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield tcp_pair


@pytest.mark.parametrize("name", NAMES)
def test_a_member_is_that_of_the_blocking_sender_but_for_timeouts(name):
    own = {"close": "aclose"}.get(name, name)
    ours = inspect.getattr_static(awaitable.ZeroCopySender, own)
    theirs = inspect.getattr_static(errqueue.ZeroCopySender, name)
    assert isinstance(ours, property) == isinstance(theirs, property)
    if not isinstance(ours, property):
        assert parameters(ours) == parameters(theirs) - {"timeout"}
        assert inspect.iscoroutinefunction(ours) == (own in AWAITABLE)


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_it_has_no_other_members():
    names = {name for name in vars(awaitable.ZeroCopySender) if not name.startswith("_")}
    assert names == {*NAMES, "aclose"} - {"__init__", "close"}


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


@pytest.mark.parametrize("by_key", [True, False])
def test_a_wait_ends_with_its_send(backend, two, by_key):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            sent = await sender.send(b"x" * 50000)
            with pytest.raises(ValueError, match="key: no send has the number 7 yet"):
                await sender.wait(key=7)
            waiting = (lambda: sender.wait(key=sent.key)) if by_key else sender.drain
            task = backend.start(waiting)
            await backend.settle()
            assert not task.done()
            await received(two.b, sent)
            return await task.outcome()

    assert backend.run(main) is True


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("method", ["wait", "drain"])
def test_a_wait_that_is_cancelled_leaves_the_sender_as_it_was(loops, two, method, ticks):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            sent = await sender.send(b"x" * 50000)
            assert await loops.cancelled(ticks, getattr(sender, method)) == (False, None)
            sent += await sender.send(b"y")
            await received(two.b, sent)
            assert await sender.drain()

    loops.run(main)


# ---- the end ----


async def left(sender):
    async with sender:
        pass


@pytest.mark.parametrize("ticks", range(1, 6))
@pytest.mark.parametrize("end", [awaitable.ZeroCopySender.aclose, left], ids=["aclose", "async with"])
def test_an_end_that_is_cancelled_is_one(loops, two, end, ticks):
    """Wherever it is cancelled: the sender is closed, what is in flight is kept and told, and the next one can be made."""

    async def main():
        sender = awaitable.ZeroCopySender(two.a)
        sent = await sender.send(b"x" * 50000)
        with pytest.warns(ResourceWarning, match="1 sends were incomplete: 50000 bytes are kept"):
            assert await loops.cancelled(ticks, end, sender) == (False, None)
        with pytest.raises(ValueError, match="this sender is closed"):
            await sender.send(b"x")
        await sender.aclose()
        async with awaitable.ZeroCopySender(two.a) as following:
            again = await following.send(b"y")
            assert (await received(two.b, sent + again), again.key) == (b"x" * 50000 + b"y", 1)

    loops.run(main)


@pytest.mark.parametrize("ticks", range(1, 6))
def test_an_end_that_is_cancelled_has_nothing_to_tell_if_all_is_complete(loops, two, ticks):
    async def main():
        sender = awaitable.ZeroCopySender(two.a)
        await received(two.b, await sender.send(b"x" * 50000))
        await loops.cancelled(ticks, sender.aclose)
        await awaitable.ZeroCopySender(two.a).aclose()

    loops.run(main)


def test_an_end_that_nobody_awaits_to_its_end_is_one(two):
    """A coroutine that is dropped in the middle, as a loop that stops does it."""
    sender = errqueue.ZeroCopySender(two.a)
    sender.send(b"x" * 50000)

    class Never:
        def __await__(self):
            yield

    async def attempt(*_):
        await Never()

    coroutine = finish(two.a, sender)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lowsock.aio._zerocopy.attempt", attempt)
        coroutine.send(None)
    with pytest.warns(ResourceWarning):
        coroutine.close()
    errqueue.ZeroCopySender(two.a).close()


def test_a_task_that_waits_hears_of_the_end(loops, two):
    async def main():
        sender = awaitable.ZeroCopySender(two.a)
        await sender.send(b"x" * 50000)

        async def wait():
            with pytest.raises(ValueError, match="this sender is closed"):
                await sender.drain()

        async def end():
            with pytest.warns(ResourceWarning):
                assert await loops.cancelled(3, sender.aclose) == (False, None)

        await loops.together(wait, sender.aclose, end)

    loops.run(main)


def test_a_socket_that_is_closed_first_ends_the_wait(loops, two):
    async def main():
        sender = awaitable.ZeroCopySender(two.a)
        await sender.send(b"x" * 50000)

        async def close():
            await loops.tick(4)
            aio.close(two.a)

        async def end():
            with pytest.warns(ResourceWarning), pytest.raises(OSError) as caught:
                await sender.aclose()
            assert caught.value.errno == errno.EBADF

        await loops.together(end, close)

    loops.run(main)


# ---- old spellings ----


def test_a_time_limit_is_the_loops(backend, two):
    async def main():
        with pytest.raises(TypeError, match=rf"ZeroCopySender\(\) {LIMITED}"):
            awaitable.ZeroCopySender(two.a, timeout=1)
        async with awaitable.ZeroCopySender(two.a) as sender:
            for arguments, named in (((1.0,), {}), ((), {"timeout": 1.0}), ((None, 0), {})):
                with pytest.raises(TypeError, match=rf"wait\(\) {LIMITED}"):
                    await sender.wait(*arguments, **named)
            with pytest.raises(AttributeError, match="close"):
                await sender.close()

    backend.run(main)


def test_an_address_by_position_is_told_to_be_one_by_keyword(backend, two):
    async def main():
        async with awaitable.ZeroCopySender(two.a) as sender:
            with pytest.raises(
                TypeError, match=r"send\(\) takes address and flags and ancdata by keyword: address=\.\.\., flags="
            ):
                await sender.send(b"x", None)

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
