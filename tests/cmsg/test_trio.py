# SPDX-License-Identifier: MIT
"""Typed messages through trio's sockets, which have the socket module's calls."""

import socket
import sys

import pytest

from lowsock import cmsg

trio = pytest.importorskip("trio", reason="trio is not installed")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the messages are Linux's")


async def exchange(sent):
    """What comes beside a datagram, by `recvmsg` and by `recvmsg_into`."""
    with trio.socket.socket(type=socket.SOCK_DGRAM) as a, trio.socket.socket(type=socket.SOCK_DGRAM) as b:
        if not hasattr(a, "sendmsg"):
            pytest.skip("this socket module has no sendmsg")
        await b.bind(("127.0.0.1", 0))
        room = cmsg.enable(b, cmsg.LocalAddress, cmsg.HopCount, cmsg.TrafficClass)
        with trio.fail_after(20):
            for _ in range(2):
                assert await a.sendmsg([b"data"], sent, 0, b.getsockname()) == 4
            return (await b.recvmsg(100, room))[1], (await b.recvmsg_into([bytearray(100)], room))[1]


def test_trio_sends_typed_messages_and_receives_what_decode_takes():
    sent = [cmsg.TTL(hops=9), cmsg.TOS(dscp=10, ecn=cmsg.ECN.CE), cmsg.PktInfo(local="127.0.0.1")]
    for ancdata in trio.run(exchange, sent):
        told = cmsg.arrival(ancdata)
        assert (told.local, told.hops, told.dscp, told.ecn) == ("127.0.0.1", 9, 10, cmsg.ECN.CE)
        assert {type(message) for message in cmsg.decode(ancdata)} == {cmsg.TTL, cmsg.TOS, cmsg.PktInfo}
