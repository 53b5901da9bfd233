# SPDX-License-Identifier: MIT
"""A link to a neighbour that does not answer: what is sent stays in flight for as long as we like."""

import os
import socket
import subprocess
import sys

import pytest

import lowsock
from lowsock import constants

MAKE = """
import socket, sys, lowsock
made = socket.socket(*map(int, sys.argv[2:]))
with made, socket.socket(fileno=int(sys.argv[1])) as way:
    lowsock.send_fds(way, [b"!"], [made.fileno()])
"""
SILENT = "10.78.0.9"


class Wire:
    """A namespace with one link, whose other end belongs to nobody."""

    def __init__(self):
        self.name = f"lowsock-wire-{os.getpid()}"
        self.run("netns", "add", self.name)
        self.inside("link", "add", "near", "type", "veth", "peer", "name", "end")
        self.inside("addr", "add", "10.78.0.1/24", "dev", "near")
        for device in ("near", "end", "lo"):
            self.inside("link", "set", device, "up")

    @staticmethod
    def run(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)

    def inside(self, *words):
        self.run("-n", self.name, *words)

    def hold(self):
        """Datagrams wait for the neighbour to be found."""
        self.inside("neigh", "flush", "dev", "near")
        subprocess.run(["ip", "-n", self.name, "neigh", "del", SILENT, "dev", "near"], check=False, capture_output=True)

    def release(self):
        self.inside("neigh", "replace", SILENT, "lladdr", "02:00:00:00:00:09", "dev", "near", "nud", "permanent")

    def write(self, path, value):
        script = f"echo {value} > /proc/sys/{path}"
        subprocess.run(["ip", "netns", "exec", self.name, "sh", "-c", script], check=True, timeout=30)

    def make(self, *kind):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            words = map(str, (theirs.fileno(), *map(int, kind)))
            inside = ["ip", "netns", "exec", self.name, sys.executable, "-I", "-c", MAKE, *words]
            subprocess.run(inside, check=True, pass_fds=[theirs.fileno()], timeout=30)
            _, (fd,), _, _ = lowsock.recv_fds(ours, 1, 1)
        return socket.socket(*kind, fileno=fd)

    def socket(self):
        made = self.make(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((SILENT, 4444))
        return made

    def listen(self):
        """Hears what arrives at the other end."""
        made = self.make(constants.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        made.settimeout(10)
        return made

    def remove(self):
        self.run("netns", "del", self.name)


@pytest.fixture(scope="module")
def wires():
    try:
        made = Wire()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', b'') or error}")
    yield made
    made.remove()


@pytest.fixture
def wire(wires):
    wires.hold()
    return wires


@pytest.fixture
def held(wire):
    """A UDP socket whose datagrams are held back until `release`."""
    with wire.socket() as sock:
        yield sock
        wire.release()
