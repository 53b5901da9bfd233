# SPDX-License-Identifier: MIT
"""Loops in several threads, and the end of a program: nothing crashes, nothing is left."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from lowsock import aio
from lowsock.aio._wait.waiters import QUEUES

THREADS, ROUNDS = 4, 200


async def receive(sock):
    return (await aio.recvmsg(sock, 100))[0]


def in_threads(functions):
    """Runs each in a thread of its own; returns what they returned."""
    results = [None] * len(functions)

    def run(i):
        results[i] = functions[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return results


def run_in_new_loop(function, *args):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(function(*args), 30))
    finally:
        loop.close()


def test_each_thread_has_its_own_loop():
    async def play(rounds):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with a, b:
            a.setblocking(False)
            b.setblocking(False)
            for i in range(rounds):
                task = asyncio.ensure_future(receive(a))
                await asyncio.sleep(0)
                await aio.sendmsg(b, [b"%d" % i])
                assert await task == b"%d" % i
            return rounds

    results = in_threads([lambda: run_in_new_loop(play, ROUNDS)] * THREADS)
    assert results == [ROUNDS] * THREADS
    assert not any(QUEUES.values())


def test_loops_of_several_threads_wait_for_one_socket():
    """Each message goes to one of them, whoever is quicker."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)

    async def collect():
        received = []
        while (data := await receive(a)) != b"end":
            received.append(data)
        return received

    def feed():
        for i in range(ROUNDS):
            b.send(b"%d" % i)
        for _ in range(THREADS):
            b.send(b"end")

    with a, b:
        *received, _ = in_threads([lambda: run_in_new_loop(collect)] * THREADS + [feed])
    assert sorted(int(data) for part in received for data in part) == list(range(ROUNDS))


@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_close_in_another_thread_wakes_who_waits(kind):
    """The number stays in use until the loops have heard of it."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)
    sock = a if kind == "socket" else a.detach()
    number = a.fileno() if kind == "socket" else sock
    waiting = threading.Barrier(THREADS + 1)

    async def wait_for_it():
        task = asyncio.ensure_future(receive(sock))
        await asyncio.sleep(0)
        waiting.wait(30)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await task

    def close():
        waiting.wait(30)
        aio.close(sock)

    with b:
        in_threads([lambda: run_in_new_loop(wait_for_it)] * THREADS + [close])
    with pytest.raises(OSError, match="Bad file descriptor") as closed:
        os.fstat(number)
    assert closed.value.errno == errno.EBADF


def test_a_loop_that_is_gone_does_not_keep_a_descriptor_open():
    """Its task was never finished; whoever closes the socket later is not kept waiting."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)
    number = a.fileno()

    async def leave_behind():
        coroutine = receive(a)
        coroutine.send(None)
        return coroutine

    coroutine = run_in_new_loop(leave_behind)
    aio.close(a)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    coroutine.close()
    assert not any(QUEUES.values())
    b.close()


def test_a_loop_that_stands_still_is_touched_at_once():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)
    loop = asyncio.new_event_loop()

    async def begin():
        task = asyncio.ensure_future(receive(a))
        await asyncio.sleep(0)
        return task

    with b:
        task = loop.run_until_complete(begin())
        aio.close(a)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.run_until_complete(task)
        loop.close()


# ---- the end of a program ----


HEAD = """
import asyncio, os, socket, sys, threading

from lowsock import aio
from lowsock.aio import errqueue
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.setblocking(False)
b.setblocking(False)
"""
ENDS = {
    "run cancels": """
        async def main():
            asyncio.ensure_future(aio.recvmsg(a, 100))
            asyncio.ensure_future(errqueue.wait(a))
            await asyncio.sleep(0.01)
        asyncio.run(main())
    """,
    "exit in a task": """
        async def main():
            asyncio.ensure_future(aio.recvmsg(a, 100))
            await asyncio.sleep(0.01)
            sys.exit(0)
        asyncio.run(main())
    """,
    "a coroutine left": """
        async def main():
            global left
            left = aio.recvmsg(a, 100)
            left.send(None)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    """,
    "a thread with a loop": """
        def run():
            async def main():
                asyncio.ensure_future(aio.recvmsg(a, 100))
                ready.set()
                await aio.recvmsg(b, 100)
            try:
                asyncio.run(main())
            except RuntimeError:
                pass
        ready = threading.Event()
        threading.Thread(target=run, daemon=True).start()
        ready.wait(30)
    """,
    "os._exit": """
        async def main():
            asyncio.ensure_future(aio.recvmsg(a, 100))
            await asyncio.sleep(0)
            os._exit(0)
        asyncio.run(main())
    """,
    "trio": """
        import trio
        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(aio.recvmsg, a, 100)
                nursery.start_soon(errqueue.wait, a)
                await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        trio.run(main)
    """,
    "uvloop": """
        import uvloop
        async def main():
            task = asyncio.ensure_future(aio.recvmsg(a, 100))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait({task})
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    """,
    "uvloop, a coroutine left": """
        import uvloop
        async def main():
            global left
            left = aio.recvmsg(a, 100)
            left.send(None)
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    """,
}


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_quietly_while_tasks_wait(end, debug):
    for name in ("trio", "uvloop"):
        if end.startswith(name):
            pytest.importorskip(name, reason=f"{name} is not installed")
    program = HEAD + textwrap.dedent(ENDS[end])
    closing = "" if end in ("a thread with a loop", "os._exit") else "\na.close()\nb.close()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", program + closing],
        env={**os.environ, "PYTHONASYNCIODEBUG": debug},
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_waits_in_a_loop_that_is_dropped_goes_with_it():
    """Nothing global keeps a queue, so neither its loop nor its tasks."""
    import gc
    import weakref

    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)

    async def begin():
        coroutine = receive(a)
        coroutine.send(None)
        return weakref.ref(asyncio.get_running_loop()), coroutine

    found, coroutine = run_in_new_loop(begin)
    del coroutine
    for _ in range(4):
        gc.collect()
    assert found() is None
    assert not any(QUEUES.values())
    a.close()
    b.close()


def test_descriptors_cross_between_loops_in_two_threads(open_fds):
    """Every one that is sent arrives, and is closed by its owner."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    a.setblocking(False)
    b.setblocking(False)

    async def send():
        for _ in range(ROUNDS):
            await aio.send_fds(a, [b"x"], [0, 1])

    async def take():
        count = 0
        while count < 2 * ROUNDS:
            with (await aio.recv_owned_fds(b, 1)).fds as owner:
                count += len(owner)
        return count

    with a, b:
        before = open_fds()
        results = in_threads([lambda: run_in_new_loop(send), lambda: run_in_new_loop(take)])
        assert results[1] == 2 * ROUNDS
        assert open_fds() == before
