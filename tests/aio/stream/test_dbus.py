# SPDX-License-Identifier: MIT
"""aio.UnixStream on a real program: D-Bus clients on a private dbus-daemon, who pass descriptors to each other.

The clients are those of docs/listings/dbus_client.py. `.ci/run` installs what this needs, and fails where it is missing.
"""

import os
import runpy
import shutil
import socket
import subprocess
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from places import LISTINGS

from lowsock import aio

jeepney = pytest.importorskip("jeepney", reason="jeepney is not installed: pip install '.[integration]'")
pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="dbus-daemon is not installed (Debian package dbus)")

LISTING = LISTINGS / "dbus_client.py"
FIELDS = jeepney.HeaderFields


@pytest.fixture
def listing():
    return SimpleNamespace(**runpy.run_path(str(LISTING)))


@pytest.fixture
def bus(listing, tmp_path):
    """The path of a bus that is nobody's but ours."""
    path = tmp_path / "bus"
    config = tmp_path / "bus.conf"
    config.write_text(listing.BUS.format(path), encoding="utf-8")
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline().startswith(b"unix:path=")  # it listens
        yield str(path)
        process.terminate()


@pytest.fixture
def clients(listing, bus):
    """Two connections to the bus, not logged in."""
    with stream_to(bus) as one, stream_to(bus) as other:
        yield listing.Client(one), listing.Client(other)


def stream_to(bus):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(bus)
    sock.setblocking(False)
    return aio.UnixStream(sock)


def call(name, signature, body):
    return jeepney.new_method_call(jeepney.DBusAddress("/", name, "org.example.Files"), "Take", signature, body)


async def call_to(client):
    """The next call to a client, past the signals of the bus."""
    while True:
        message, fds = await client.receive()
        if message.header.fields.get(FIELDS.member) == "Take":
            return message, fds
        fds.close()


def contents(fds):
    return [os.pread(fd, 100, 0) for fd in fds]


@pytest.fixture
def files(tmp_path):
    """Sixteen open files that each say their number: as many as a bus lets through in one message."""
    for i in range(16):
        (tmp_path / str(i)).write_bytes(b"%d" % i)
    with ExitStack() as stack:
        yield [stack.enter_context(open(tmp_path / str(i), "rb")) for i in range(16)]


def test_a_descriptor_goes_there_and_another_comes_back(loops, listing, clients):
    server, client = clients

    async def main():
        name = await server.log_in()
        await client.log_in()
        answer, _ = await loops.together(lambda: listing.ask(client, name), lambda: listing.serve(server))
        assert answer == b"what is in the file"[::-1]

    loops.run(main)


def test_each_message_has_its_own_descriptors_in_order(loops, clients, files):
    server, client = clients
    counts = (1, 0, 16, 2, 0, 0, 5)

    async def main():
        name = await server.log_in()
        await client.log_in()
        for count in counts:
            await client.send(call(name, "ah", (files[:count],)))
        for count in counts:
            message, fds = await call_to(server)
            with fds:
                assert contents(message.body[0]) == [b"%d" % i for i in range(count)]
                assert list(fds) == message.body[0]

    loops.run(main)


def test_a_large_message_brings_its_descriptors(loops, clients, files):
    server, client = clients
    data = os.urandom(2_000_000)

    async def main():
        name = await server.log_in()
        await client.log_in()
        sending = lambda: client.send(call(name, "hayh", (files[0], data, files[1])))  # noqa: E731 - `together` calls it
        _, (message, fds) = await loops.together(sending, lambda: call_to(server))
        with fds:
            assert message.body[1] == data
            assert contents(fds) == contents((message.body[0], message.body[2])) == [b"0", b"1"]

    loops.run(main)


def test_a_client_that_gives_up_and_comes_back_has_lost_nothing(loops, clients, files):
    server, client = clients

    async def give_up():
        got = []
        for ticks in range(40):
            finished, received = await loops.cancelled(ticks % 5, call_to, server)
            got += [received] if finished else []
        while len(got) < 10:
            got.append(await call_to(server))
        return got

    async def send(name):
        for i in range(10):
            await client.send(call(name, "uh", (i, files[i])))
            await loops.tick(3)

    async def main():
        name = await server.log_in()
        await client.log_in()
        got, _ = await loops.together(give_up, lambda: send(name))
        for i, (message, fds) in enumerate(got):
            with fds:
                assert (message.body[0], contents(fds)) == (i, [b"%d" % i])

    loops.run(main)


def test_the_bus_hangs_up_on_whoever_sends_more_than_it_lets_through(loops, clients):
    _, client = clients

    async def main():
        name = await client.log_in()
        await client.send(call(name, "ah", ([0] * 17,)))
        with pytest.raises((EOFError, ConnectionResetError)):
            await call_to(client)

    loops.run(main)


def test_a_bus_that_goes_away_is_the_end_of_the_stream(loops, listing):
    """What a client sees is `EOFError`, between messages and within one."""
    ours, theirs = socket.socketpair()
    client = listing.Client.__new__(listing.Client)
    ours.setblocking(False)

    async def main():
        with aio.UnixStream(ours) as client.stream:
            theirs.sendall(b"l\2\1\1\0\0\0\0")
            theirs.close()
            with pytest.raises(EOFError, match="8 of 16"):
                await client.receive()

    loops.run(main)
