# SPDX-License-Identifier: MIT
"""What a strict type checker says of programs that use `lowsock.cmsg`: nothing of right ones, all of wrong ones."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: it is in the extra lint")
pytestmark = [
    pytest.mark.smoke,
    pytest.mark.unsanitized,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the classes are Linux's"),
]

RIGHT = """
import socket, sys
from ipaddress import ip_address
from typing import Optional

from typing_extensions import Self, assert_type

import lowsock
from lowsock import cmsg


@cmsg.register(4711, 1, sizes=[8])
class Cookie(cmsg.ControlMessage):
    __slots__ = ()

    def __new__(cls, *, cookie: int) -> Self:
        return cls.from_data(cookie.to_bytes(8, sys.byteorder))

    @property
    def cookie(self) -> int:
        return int.from_bytes(self.data, sys.byteorder)


class Near(cmsg.TTL):
    __slots__ = ()

    @property
    def near(self) -> bool:
        return self.hops > 200


def send(sock: socket.socket, address: tuple[str, int]) -> None:
    sent = [cmsg.TTL(hops=1), cmsg.PktInfo(local=ip_address("10.0.0.1")), Cookie(cookie=3), Near(hops=3)]
    sock.sendmsg([b"x"], sent, 0, address)
    lowsock.sendmsg(sock, [b"x"], sent, 0, address)


def receive(sock: socket.socket) -> None:
    room = cmsg.enable(sock, cmsg.HopCount, cmsg.TimestampNs, Cookie, fds=1, timestamping=cmsg.TimestampingFlags.OPT_ID)
    assert_type(room + cmsg.space(cmsg.Rights, fds=3), int)
    for ancdata in (sock.recvmsg(10, room)[1], lowsock.recvmsg(sock, 10, room)[1]):
        for message in cmsg.decode(ancdata):
            level, kind, data = message
            assert_type((message.level, level, message.data, data), tuple[int, int, bytes, bytes])
            if isinstance(message, cmsg.TOS):
                assert_type((message.dscp, message.ecn), tuple[int, cmsg.ECN])
            elif isinstance(message, Cookie):
                assert_type(message.cookie, int)
        assert_type(cmsg.find(ancdata, cmsg.PktInfo), Optional[cmsg.PktInfo])
        assert_type(cmsg.find(ancdata, cmsg.HopCount), Optional[cmsg.HopCount])
        assert_type(cmsg.arrival(ancdata).local, Optional[str])


assert_type(cmsg.towards(("::1", 1, 0, 0), cmsg.HopCount, hops=None), cmsg.HopCount)
assert_type(cmsg.towards(ip_address("::1"), cmsg.TrafficClass).ecn, cmsg.ECN)
assert_type(cmsg.PktInfo6(local=ip_address("::1")).local, str)
assert_type(cmsg.Rights(fds=[sys.stdin, 3]).fds, tuple[int, ...])
assert_type(Near.from_data(b"1"), Near)
"""

# A wrong line, and the code of mypy's error.
WRONG = [
    ("cmsg.PktInfoo", "attr-defined"),
    ("from lowsock.cmsg import Nobody", "attr-defined"),
    ("cmsg.TTL(hopz=3)", "call-arg"),
    ("cmsg.TTL(3)", "call-arg"),
    ("cmsg.TTL(hops='3')", "arg-type"),
    ("cmsg.PktInfo(local=3)", "arg-type"),
    ("cmsg.enable(3, cmsg.TTL(hops=3))", "arg-type"),
    ("cmsg.find([], 5)", "arg-type"),
    ("cmsg.towards('::1', int)", "type-var"),
    ("cmsg.find([], cmsg.TTL).hops", "union-attr"),
    ("cmsg.TTL(hops=3).hobs", "attr-defined"),
    ("cmsg.TTL(hops=3).hops = 4", "misc"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The errors of both programs: (file, line) -> codes."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "right.py").write_text(RIGHT, encoding="utf-8")
    (folder / "wrong.py").write_text("\n".join(["from lowsock import cmsg", *[line for line, _ in WRONG]]), encoding="utf-8")
    command = [sys.executable, "-I", "-m", "mypy", "--strict", "--no-incremental", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    errors = {}
    for file, line, code in re.findall(r"^(\w+)\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        errors.setdefault((file, int(line)), []).append(code)
    assert errors, done.stdout
    return errors


def test_a_right_program_needs_no_ignores(said):
    assert {place: codes for place, codes in said.items() if place[0] == "right"} == {}


@pytest.mark.parametrize(("line", "code"), WRONG)
def test_a_wrong_line_is_told(said, line, code):
    place = next(number for number, (each, _) in enumerate(WRONG, 2) if each == line)
    assert code in said.get(("wrong", place), [])
