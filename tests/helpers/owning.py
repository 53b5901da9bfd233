# SPDX-License-Identifier: MIT
"""Descriptors to be sent and owned, and a table that is nearly full."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import lowsock


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def fds():
    """Five descriptors to be owned; those that are left are closed."""
    numbers = [os.dup(0) for _ in range(5)]
    yield numbers
    for fd in filter(is_open, numbers):
        os.close(fd)


@pytest.fixture
def owner(fds):
    with lowsock.OwnedFds(fds) as owner:
        yield owner


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """No more than so many descriptors can be opened meanwhile, or a few more where the table has gaps."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def files(tmp_path):
    """Three descriptors of files that can be told apart."""
    fds = [os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in "abc"]
    yield fds
    for fd in fds:
        os.close(fd)
