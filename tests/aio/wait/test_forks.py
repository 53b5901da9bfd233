# SPDX-License-Identifier: MIT
"""What goes on beside a wait: a child that is forked, a thread that closes, a loop that is closed under its tasks."""

import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest
from waiting import receive

from lowsock import aio
from lowsock.aio._wait import closing as _closing
from lowsock.aio._wait.waiters import QUEUES


def in_child(do):
    """Does something in a forked child; whether it went well."""
    pid = os.fork()
    if not pid:
        try:
            do()
            os._exit(0)
        finally:
            os._exit(1)
    return not os.waitpid(pid, 0)[1]


# ---- forks ----


CHILDREN = {
    "ends its coroutine": lambda sock, coroutine: coroutine.close(),
    "closes the socket": lambda sock, coroutine: (aio.close(sock), closed_for_good()),
}


def closed_for_good():
    assert not any(QUEUES.values())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("what", CHILDREN)
def test_a_child_takes_no_wake_up_from_its_parent(backend, dgram, what):
    """An epoll is shared by both: what the child takes out of it is gone for the parent too."""
    a, b = dgram
    if backend.name == "trio" and what == "ends its coroutine":
        pytest.skip("a task of trio cannot be ended from outside")

    async def main():
        coroutine = receive(a)

        async def run():
            return await coroutine

        task = backend.start(run)
        await backend.settle()
        assert in_child(lambda: CHILDREN[what](a, coroutine))
        b.send(b"data")
        return await task.outcome()

    assert backend.run(main) == b"data"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_closes_at_once_what_its_parents_loop_waits_for(dgram):
    a, _ = dgram
    number = a.fileno()

    def child():
        aio.close(a)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    async def main():
        task = asyncio.ensure_future(receive(a))
        await asyncio.sleep(0)
        assert in_child(child)
        task.cancel()

    asyncio.run(main())


# ---- threads ----


class Late:
    """A socket in whose `close` another thread begins to wait, before it is closed."""

    def __init__(self, sock, begin):
        self._sock, self._begin = sock, begin
        self.fileno = sock.fileno

    def close(self):
        self._begin()
        self._sock.close()


@pytest.mark.parametrize("by", ["number", "object"])
def test_who_begins_to_wait_while_another_thread_closes_is_woken(backend, dgram, by):
    """Between the look whether somebody waits, and the end of the descriptor."""
    a, _ = dgram
    begins, waits = threading.Event(), threading.Event()
    closing = threading.Thread(target=lambda: aio.close(Late(a, lambda: (begins.set(), waits.wait(10)))))

    async def main():
        closing.start()
        begins.wait(10)
        task = backend.start(receive, a if by == "object" else a.fileno())
        await backend.settle()
        waits.set()
        return await task.outcome()

    assert isinstance(backend.run(main), OSError)
    closing.join()


class Seen(list):
    """What another thread has emptied, after this one saw that something was in it."""

    def __len__(self):
        return 1


def test_two_loops_that_end_at_once_close_once():
    """Each in its own thread finds that nobody is left."""
    deferred = _closing._DeferredClose(os.dup(0))
    deferred._fds = Seen(deferred._fds)
    deferred._close()
    deferred._close()


# ---- the end of a loop ----


PENDING = """
import asyncio, gc, socket, sys
from lowsock import aio
a, b = socket.socketpair()
a.setblocking(False)
stream = aio.UnixStream(a)
new = asyncio.new_event_loop
if sys.argv[1] == "uvloop":
    import uvloop
    new = uvloop.new_event_loop
loop = new()
loop.set_exception_handler(lambda loop, context: None)  # asyncio's own word about tasks that were never finished
async def main():
    global tasks
    tasks = [asyncio.ensure_future(stream.receive()) for _ in range(3)]
    tasks += [asyncio.ensure_future(stream.send(bytes(2**20))) for _ in range(3)]
    tasks += [asyncio.ensure_future(aio.recvmsg(b.fileno(), 1)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
loop.run_until_complete(main())
loop.close()
for task in tasks:
    task.get_coro().close()
del tasks, task
gc.collect()
stream.close()
b.close()
"""


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_loop_that_is_closed_under_its_tasks_says_nothing_of_ours(name, debug):
    if name == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PENDING, name],
        env={**os.environ, "PYTHONASYNCIODEBUG": debug},
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def collect_all():
    for _ in range(4):  # PyPy finalizes in steps
        gc.collect()


@pytest.mark.filterwarnings("ignore:an OwnedFds left:ResourceWarning")
def test_a_stream_that_nobody_closed_leaves_descriptors_to_the_collector(socks, open_fds):
    """Those that it held; its socket is the caller's."""

    async def hold():
        sender, stream = aio.UnixStream(socks[0]), aio.UnixStream(socks[1])
        await sender.send(b"data", [0, 0])
        return await stream.receive_exactly(1)

    before = open_fds()
    asyncio.run(hold())
    collect_all()
    assert open_fds() == before


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with CPython 3.12")
def test_eager_tasks_receive_in_their_order(dgram):
    a, b = dgram

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        tasks = [asyncio.create_task(receive(a)) for _ in range(3)]
        for i in range(3):
            await asyncio.create_task(aio.sendmsg(b, [b"%d" % i]))
        return [await task for task in tasks]

    assert asyncio.run(main()) == [b"0", b"1", b"2"]
