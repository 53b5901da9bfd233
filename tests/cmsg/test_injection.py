# SPDX-License-Identifier: MIT
"""An exception at every bytecode of `lowsock.cmsg.enable`: it comes out as it is, and all options are set or none."""

import socket
import sys

import injecting
import pytest

from lowsock import cmsg
from lowsock.cmsg._base import pair

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the options are Linux's")

OPTIONS = ("SO_TIMESTAMP", "SO_TIMESTAMPNS", "IP_RECVTTL", "IP_RECVTOS")
ALL, NONE = [0, 1, 1, 1], [1, 0, 0, 0]


class World:
    """A socket that has the time that another one will replace."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(*pair("SO_TIMESTAMP"), 1)

    def close(self):
        self.sock.close()


def ask(world):
    cmsg.enable(world.sock, cmsg.TimestampNs, cmsg.HopCount, cmsg.TOS)


@pytest.mark.parametrize("make", [injecting.Raised, injecting.Failed, KeyboardInterrupt])
def test_all_options_are_set_or_none_whatever_is_raised_wherever(make):
    states = []
    for world, error, outcome in injecting.at_every_step(ask, make, World):
        state = [world.sock.getsockopt(*pair(name)) for name in OPTIONS]
        assert outcome.raised in (error, None), outcome
        assert state in (ALL, NONE), outcome
        assert outcome.raised is error or state == ALL
        states.append(state)
    assert states.count(NONE) > 100
