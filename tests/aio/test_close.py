# SPDX-License-Identifier: MIT
"""Whoever waits hears that a socket is closed, and gets nothing of another that has its number."""

import os
import socket

import pytest
from waiting import fill, is_closed, outcomes, receive, send_one, waiting

import lowsock
from lowsock import aio

pytestmark = pytest.mark.usefixtures("nobody_stays")


def closed_as(kind, sock):
    """What to pass for a socket, and what to close."""
    if kind == "socket":
        return sock, sock
    fd = sock.detach()
    return fd, fd


@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_close_wakes_whoever_waits_with_an_error(backend, quiet, kind):
    async def main():
        sock, fd = closed_as(kind, quiet.a)
        tasks = await waiting(backend, sock, 3)
        number = fd if kind == "descriptor" else sock.fileno()
        aio.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        assert not backend.is_watched(number)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def test_close_wakes_readers_and_writers(backend, stream_pair):
    a = stream_pair.a
    a.setblocking(False)

    async def main():
        fill(a)
        tasks = [*await waiting(backend, a, 2), *await waiting(backend, a, 2, send_one)]
        aio.close(a)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def test_close_closes_what_nobody_waits_for(backend):
    a, b = socket.socketpair()
    aio.close(a)
    aio.close(a)
    assert a.fileno() == -1
    aio.close(b.detach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        aio.close(-1)
    with pytest.raises(TypeError, match="sock must be an int"):
        aio.close("no")


def test_data_that_had_come_is_not_preferred_to_a_close(backend, dgram):
    """A task that was woken, and finds the socket closed when it runs, says so."""
    a, b = dgram

    async def main():
        tasks = await waiting(backend, a, 2)
        b.send(b"data")
        aio.close(a)
        return await outcomes(tasks)

    assert all(map(is_closed, backend.run(main)))


def reused(number):
    """A pair of sockets, of which the first has this number."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if a.fileno() != number:
        os.dup2(a.fileno(), number, inheritable=False)
        a.close()
        a = socket.socket(fileno=number)
    a.setblocking(False)
    return a, b


@pytest.mark.parametrize("function", [receive, send_one], ids=["read", "write"])
def test_a_number_that_is_used_again_is_another_socket(backend, dgram, function):
    """Closed behind our back: who waits on the new socket gets what comes there, who waited on the old one an error."""
    a, _ = dgram

    async def main():
        number = a.detach()
        fill_number(number)
        old = [*await waiting(backend, number, 2), *await waiting(backend, number, 1, send_one)]
        os.close(number)
        new, peer = reused(number)
        with new, peer:
            if function is send_one:
                fill(new)
            tasks = await waiting(backend, number, 2, function)
            assert all(map(is_closed, await outcomes(old)))
            if function is send_one:
                for _ in range(1000):
                    try:
                        peer.recv(2048, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        break
                    await backend.settle()
            for i in range(2):
                peer.send(b"%d" % i)
            return await outcomes(tasks)

    assert backend.run(main) == ([b"0", b"1"] if function is receive else [1, 1])


def fill_number(number):
    while True:
        try:
            lowsock.sendmsg(number, [bytes(1024)], (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


def test_a_number_may_be_used_again_at_once_after_close(backend, dgram):
    a, _ = dgram

    async def main():
        number = a.fileno()
        old = await waiting(backend, a, 1)
        aio.close(a)
        new, peer = reused(number)
        with new, peer:
            tasks = await waiting(backend, new, 1)
            peer.send(b"new")
            return await outcomes(old + tasks)

    closed, data = backend.run(main)
    assert is_closed(closed)
    assert data == b"new"


def test_an_object_that_lost_its_descriptor_is_closed_for_its_task_only(backend, dgram):
    a, b = dgram

    async def main():
        by_object = await waiting(backend, a, 1)
        number = a.detach()
        by_number = await waiting(backend, number, 1)
        b.send(b"data")
        told = await outcomes(by_object + by_number)
        os.close(number)
        return told

    closed, data = backend.run(main)
    assert is_closed(closed)
    assert data == b"data"
