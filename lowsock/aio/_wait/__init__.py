# SPDX-License-Identifier: MIT
"""Waiting in an event loop: a call is tried, and tried again when its descriptor is ready.

In: a socket, a direction (`READ`, `WRITE`, `ERROR`), and a call that does not block. Out: what the call returns, or raises.
Called by: the modules of `aio`, and its wing `_stream`. Every call goes through `attempts.attempt`, or is written like it.

`attempts.py`: the attempt, the wait, the next attempt. `waiters.py`: the calls that wait for one descriptor, their order,
spurious wake-ups, forks. `asyncio.py`, `trio.py`: how each framework sleeps, watches and wakes. `closing.py`: `aio.close`,
also while other threads wait. `task_lock.py`: a fair lock of tasks.
"""
