# SPDX-License-Identifier: MIT
"""Network namespaces, and cables between them."""

import ctypes
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Callable

import pytest

CLONE_NEWNET = 0x40000000
NUMBERS = itertools.count()
# ip(8) does not get through under a sanitizer's library, which is there for the C source alone
OUTSIDE = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


class Namespace:
    """A network namespace with its loopback up; what is made in a ``with`` block of it stays in it."""

    def __init__(self) -> None:
        self.name = f"lowsock-{os.getpid()}-{next(NUMBERS)}"
        self._outside: list[int] = []
        subprocess.run(["ip", "netns", "add", self.name], check=True, capture_output=True, env=OUTSIDE)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """What ip(8) says in here."""
        command = ["ip", "-n", self.name, *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=OUTSIDE).stdout

    def index(self, interface: str) -> int:
        return int(self.ip("-oneline", "link", "show", "dev", interface).split(":")[0])

    def link(self, name: str, peer: "Namespace", mtu: int = 1500) -> None:
        """A cable to another namespace: on both ends an interface called ``name``, up, whose addresses need no probing."""
        self.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", peer.name)
        for end in (self, peer):
            end.sysctl(f"ipv6/conf/{name}/accept_dad", "0")
            end.ip("link", "set", name, "mtu", str(mtu), "up")

    def address(self, interface: str, *addresses: str) -> None:
        """Gives ``interface`` addresses, each with its prefix length, that can be used from now on."""
        for address in addresses:
            self.ip("addr", "add", address, "dev", interface, *(("nodad",) if ":" in address else ("brd", "+")))
        for address in addresses:
            self._settle(address.split("/")[0])

    def _settle(self, host: str) -> None:
        """Waits for the route to an IPv6 address of ours, which the kernel makes later, in a worker of its own."""
        deadline = time.monotonic() + 10
        while ":" in host and not self.ip("-6", "route", "show", "table", "local", host):
            assert time.monotonic() < deadline, f"{host} cannot be used yet"

    def sysctl(self, name: str, value: str) -> None:
        with self, open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
            file.write(value)

    def __enter__(self) -> "Namespace":
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        _set_namespace(fd)
        os.close(fd)
        return self

    def __exit__(self, *exc: object) -> None:
        outside = self._outside.pop()
        _set_namespace(outside)
        os.close(outside)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, env=OUTSIDE)


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def new_namespace() -> Iterator[Callable[[], Namespace]]:
    """A callable that makes a `Namespace`; skips where that is not allowed."""
    made: list[Namespace] = []

    def make() -> Namespace:
        if os.geteuid() or not shutil.which("ip"):
            pytest.skip("network namespaces want root and ip(8)")
        try:
            made.append(Namespace())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made: {error.stderr!r}")
        return made[-1]

    yield make
    for namespace in made:
        namespace.remove()
