# SPDX-License-Identifier: MIT
"""Each framework that `lowsock.aio` waits with, and what a test does in it."""

import asyncio
import importlib

import pytest


class AsyncioBackend:
    """A loop of asyncio, or one that is like it. `run` makes one, runs a coroutine function in it and closes it."""

    def __init__(self, name: str) -> None:
        self.name, self._debug = name, name.endswith("debug")
        self._module = importlib.import_module(name.partition("-")[0])

    def run(self, function, *args):
        self.loop = self._module.new_event_loop()
        self.loop.set_debug(self._debug)
        try:
            return self.loop.run_until_complete(asyncio.wait_for(function(*args), 10))
        finally:
            self.loop.close()

    def start(self, function, *args):
        return AsyncioTask(self.loop.create_task(function(*args)))

    async def settle(self) -> None:
        """Lets all tasks run until they wait, and what is ready be heard of."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def step(self) -> None:
        """Lets others run, once."""
        await asyncio.sleep(0)

    def is_watched(self, fd: int) -> bool:
        return any([self.loop.remove_reader(fd), self.loop.remove_writer(fd)])


class AsyncioTask:
    def __init__(self, task) -> None:
        self._task = task
        self.cancel, self.done = task.cancel, task.done

    async def outcome(self):
        """The result, the exception, or "cancelled"."""
        await asyncio.wait({self._task})
        return "cancelled" if self._task.cancelled() else self._task.exception() or self._task.result()


class TrioBackend:
    """The same of trio."""

    name = "trio"

    def __init__(self) -> None:
        self._trio = importlib.import_module("trio")
        importlib.import_module("trio.testing")

    def run(self, function, *args):
        async def main():
            with self._trio.fail_after(10):
                async with self._trio.open_nursery() as self._nursery:
                    await self.settle()
                    self._watched = self._count()
                    try:
                        return await function(*args), None
                    except Exception as error:  # past the nursery, which would put it into a group
                        self._nursery.cancel_scope.cancel()
                        return None, error

        value, error = self._trio.run(main)
        if error is not None:
            raise error
        return value

    def start(self, function, *args):
        task = TrioTask(self._trio)
        self._nursery.start_soon(task.run, function, args)
        return task

    async def settle(self) -> None:
        await self._trio.testing.wait_all_tasks_blocked(0.002)

    async def step(self) -> None:
        await self._trio.lowlevel.checkpoint()

    def is_watched(self, fd: int) -> bool:
        return self._count() > self._watched

    def _count(self) -> int:
        statistics = self._trio.lowlevel.current_statistics().io_statistics
        return statistics.tasks_waiting_read + statistics.tasks_waiting_write


class TrioTask:
    def __init__(self, trio) -> None:
        self._scope, self._event = trio.CancelScope(), trio.Event()
        self.cancel, self.done = self._scope.cancel, self._event.is_set

    async def run(self, function, args):
        with self._scope:
            try:
                self._value = await function(*args)
            except Exception as error:
                self._value = error
        self._event.set()

    async def outcome(self):
        await self._event.wait()
        return "cancelled" if self._scope.cancelled_caught else self._value


@pytest.fixture(scope="session")
def libuv_ready() -> None:
    """libuv opens a pipe with its first loop, and keeps it."""
    try:
        importlib.import_module("uvloop").new_event_loop().close()
    except ImportError:
        pass


@pytest.fixture(params=("asyncio", "asyncio-debug", "uvloop", "trio"))
def backend(request: pytest.FixtureRequest, libuv_ready: None):
    """Each framework that `lowsock.aio` waits with: ``run(function, *args)`` runs a coroutine function in it."""
    pytest.importorskip(request.param.partition("-")[0], reason=f"{request.param} is not installed")
    return TrioBackend() if request.param == "trio" else AsyncioBackend(request.param)


class Loops:
    """A backend, and ways to do several things in it."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.run = backend.run

    async def together(self, *functions):
        """Calls all of them at once; a list of their results. The first exception is raised, after all have ended."""
        tasks = [self._backend.start(function) for function in functions]
        results = [await task.outcome() for task in tasks]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def tick(self, count=1) -> None:
        """Lets others run, so many times."""
        for _ in range(count):
            await self._backend.step()

    async def cancelled(self, ticks, function, *args):
        """Calls ``function`` and cancels it so many ticks later: whether it had finished, and its result."""
        task = self._backend.start(function, *args)
        await self.tick(ticks)
        task.cancel()
        result = await task.outcome()
        if isinstance(result, BaseException):
            raise result
        return (False, None) if result == "cancelled" else (True, result)


@pytest.fixture
def loops(backend) -> Loops:
    """`backend`, with `Loops.together`, `Loops.tick` and `Loops.cancelled`."""
    return Loops(backend)
