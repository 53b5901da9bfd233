# SPDX-License-Identifier: MIT
"""Probes of control messages over IP, with datagrams and streams. See ip(7), ipv6(7), udp(7), socket(7)."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any, Callable, NamedTuple

from lowsock import cmsg, recvmsg, sendmsg
from lowsock._command.loopback import TIMEOUT, Missing, Sockets
from lowsock._command.probing import Probe, age, exchange, expect, greatest, pair, succeeds

V4, V6 = socket.AF_INET, socket.AF_INET6

Describe = Callable[[Any, socket.socket], str]  # of a control message, and the socket that received it


class ControlMessageProbe(NamedTuple):
    """A control message that comes with a datagram once its option is set.

    ``kind`` is the name of its class; ``sent`` are the fields of a message of the same class that is sent with the datagram.
    """

    name: str
    family: int
    kind: str
    describe: Describe
    needs: str = ""
    sent: dict[str, int] | None = None

    def run(self, sockets: Sockets) -> str:
        sender, receiver = sockets.udp(self.family)
        kind = getattr(cmsg, self.kind)
        sent = [kind(**self.sent)] if self.sent else []
        return self.describe(exchange(sender, receiver, kind, *sent), receiver)


# ---- what the control messages say ----


def _number(field: str, expected: int) -> Describe:
    """Checks that a number arrives as it was sent."""

    def describe(message: Any, _: socket.socket) -> str:
        number = getattr(message, field)
        if number != expected:
            raise Missing(f"sent {expected}, received {number}")
        return f"{expected} came as it went"

    return describe


def _traffic(message: Any, _: socket.socket) -> str:
    traffic = {"dscp": message.dscp, "ecn": message.ecn}
    if traffic != _TRAFFIC:
        raise Missing(f"sent {_TRAFFIC}, received {traffic}")
    return f"DSCP {message.dscp} and ECN {message.ecn:d} came as they went"


def _local(message: Any, receiver: socket.socket) -> str:
    host = receiver.getsockname()[0]
    if message.local != host:
        raise Missing(f"sent to {host}, which became {message.local}")
    return f"came to {host} through interface {message.ifindex}"


def _original(message: Any, receiver: socket.socket) -> str:
    address = message.address
    if address != receiver.getsockname():
        raise Missing(f"sent to {receiver.getsockname()}, which became {address}")
    return f"{address[0]} port {address[1]}"


def _timestamp_age(message: Any, _: socket.socket) -> str:
    return f"taken {age(message.timestamp_ns):.0f} us before it was read"


# ---- what takes more than one datagram ----


def _software_timestamp(sockets: Sockets) -> str:
    """The kernel begins to stamp a moment after the first socket has asked: the first datagrams may have none."""
    sender, receiver = sockets.udp()
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(Missing):
            return _timestamp_age(exchange(sender, receiver, cmsg.Timestamping), receiver)
        time.sleep(0.001)
    raise Missing("no SCM_TIMESTAMPING message came")


def _drops(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel makes it its least
    for _ in range(64):
        sendmsg(sender, [bytes(1000)])
    received = _drain(receiver)
    dropped = exchange(sender, receiver, cmsg.Drops).dropped
    if received + dropped != 64:
        raise Missing(f"{received} of 64 datagrams were received, and {dropped} counted as dropped")
    return f"64 datagrams sent into a small buffer, {received} received, {dropped} counted as dropped"


def _drain(receiver: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while recvmsg(receiver.fileno(), 1000, 0, socket.MSG_DONTWAIT):
            count += 1
    return count


def _source_address(sockets: Sockets) -> str:
    """Any address of 127.0.0.0/8 is local on Linux; elsewhere there is only the one."""
    receiver = sockets.bound(V4, socket.SOCK_DGRAM)
    sender = sockets.open(V4, socket.SOCK_DGRAM)
    address = receiver.getsockname()
    sendmsg(sender, [b"x"], [cmsg.towards(address, cmsg.LocalAddress, local="127.0.0.2")], 0, address)
    host = recvmsg(receiver, 1)[3][0]
    if host != "127.0.0.2":
        raise Missing(f"to be sent from 127.0.0.2, received from {host}")
    return f"one datagram was sent from {host}"


def _ipv6(sockets: Sockets) -> str:
    receiver, sender = (sockets.bound(V6, socket.SOCK_DGRAM) for _ in range(2))
    sendmsg(sender, [b"x"], address=receiver.getsockname())
    address = recvmsg(receiver, 1)[3]
    if address != sender.getsockname():
        raise Missing(f"sent from {sender.getsockname()}, received from {address}")
    return f"a datagram came from {address[0]} port {address[1]}"


def _mark_sent(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    sendmsg(sender, [b"x"], [cmsg.Mark(mark=7)])
    return f"{len(recvmsg(receiver, 1)[0])} datagram was sent with a mark of its own"


def _queued(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    room = cmsg.enable(receiver, cmsg.Inq)
    sendmsg(sender, [b"0123456789"])
    data, ancdata, _, _ = recvmsg(receiver, 4, room)
    left = expect(ancdata, cmsg.Inq).queued
    if left != 6:
        raise Missing(f"{len(data)} of 10 bytes were read, and {left} were said to be left")
    return f"{len(data)} of 10 bytes read, {left} told to be left"


def _fragments(sockets: Sockets) -> str:
    """Only what is longer than 64 KiB is cut on Linux's loopback interface: IPv4 has nothing that long."""
    sender, receiver = sockets.udp(V6)
    sender.setsockopt(*pair("IPV6_MTU"), 8000)
    room = cmsg.enable(receiver, cmsg.FragSize6)
    sendmsg(sender, [bytes(65500)])
    data, ancdata, _, _ = recvmsg(receiver, 65500, room)
    size = expect(ancdata, cmsg.FragSize6).size
    if not 7000 < size <= 8000:
        raise Missing(f"{len(data)} bytes were to be cut at 8000, and the largest fragment was said to be of {size}")
    return f"{len(data)} bytes came in fragments of at most {size}"


def _dual_stack(sockets: Sockets) -> str:
    """One set of questions for both families: asked of an IPv6 socket, answered by IPv4's messages."""
    receiver = sockets.open(V6, socket.SOCK_DGRAM)
    receiver.setsockopt(*pair("IPV6_V6ONLY"), 0)
    receiver.bind(("::", 0))
    room = cmsg.enable(receiver, cmsg.LocalAddress, cmsg.HopCount, cmsg.TrafficClass)
    sender = sockets.bound(V4, socket.SOCK_DGRAM)
    address = "127.0.0.1", receiver.getsockname()[1]
    sent = cmsg.towards(address, cmsg.HopCount, hops=7), cmsg.towards(address, cmsg.TrafficClass, **_TRAFFIC)
    sendmsg(sender, [b"x"], sent, 0, address)
    _, ancdata, _, source = recvmsg(receiver, 1, room)
    arrival = cmsg.arrival(ancdata)
    if (arrival.local, arrival.hops, arrival.dscp, arrival.ecn) != (address[0], 7, *_TRAFFIC.values()):
        raise Missing(f"what came tells of {arrival}")
    sendmsg(receiver, [b"y"], [cmsg.towards(source, cmsg.LocalAddress, local=arrival.local)], 0, source)
    if recvmsg(sender, 1)[3] != address:
        raise Missing("the answer came from elsewhere")
    return f"{source[0]} reached {arrival.local} with 7 hops left, DSCP 46 and ECN 2, and was answered from there"


# ---- segmentation offload ----


def send_segments(sender: socket.socket, size: int, count: int) -> None:
    sendmsg(sender, [bytes(size * count)], [cmsg.Segment(size=size)])


def _segments(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    send_segments(sender, 100, 3)
    sizes = [len(recvmsg(receiver, 1000)[0]) for _ in range(3)]
    if sizes != [100, 100, 100]:
        raise Missing(f"3 segments of 100 bytes became datagrams of {sizes}")
    return f"at most {greatest(lambda n: succeeds(lambda: send_segments(sender, 1, n)), 1024)} segments in one message"


def _coalesced(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    room = cmsg.enable(receiver, cmsg.Gro)
    send_segments(sender, 100, 3)
    data, ancdata, _, _ = recvmsg(receiver, 65535, room)
    segment = expect(ancdata, cmsg.Gro).size
    if (len(data), segment) != (300, 100):
        raise Missing(f"3 datagrams of 100 bytes came as {len(data)} bytes in segments of {segment}")
    return f"{len(data) // segment} datagrams came in one message"


_DESTINATION_NEEDS = "Linux or FreeBSD"
_MARK_NEEDS = "CAP_NET_ADMIN or CAP_NET_RAW"
_MARKS_NEED = f"{_MARK_NEEDS}; Linux 5.19"
_HOPS = {"hops": 7}
_TRAFFIC = {"dscp": 46, "ecn": cmsg.ECN.ECT_0}  # expedited forwarding, ECN-capable

CONTROL_MESSAGES = [
    ControlMessageProbe("timestamps (SO_TIMESTAMP)", V4, "Timestamp", _timestamp_age),
    ControlMessageProbe("timestamps (SO_TIMESTAMPNS)", V4, "TimestampNs", _timestamp_age, "Linux"),
    ControlMessageProbe("packet info", V4, "PktInfo", _local),
    ControlMessageProbe("packet info, IPv6", V6, "PktInfo6", _local),
    ControlMessageProbe("TTL", V4, "TTL", _number("hops", 7), "", _HOPS),
    ControlMessageProbe("hop limit, IPv6", V6, "HopLimit", _number("hops", 7), "", _HOPS),
    ControlMessageProbe("TOS and ECN", V4, "TOS", _traffic, "", _TRAFFIC),
    ControlMessageProbe("traffic class and ECN, IPv6", V6, "TClass", _traffic, "", _TRAFFIC),
    ControlMessageProbe("original destination", V4, "OrigDstAddr", _original, _DESTINATION_NEEDS),
    ControlMessageProbe("original destination, IPv6", V6, "OrigDstAddr6", _original, _DESTINATION_NEEDS),
    ControlMessageProbe("mark, received", V4, "Mark", _number("mark", 0), "Linux 5.19"),
    ControlMessageProbe("mark, sent and received", V4, "Mark", _number("mark", 7), _MARKS_NEED, {"mark": 7}),
    ControlMessageProbe("priority", V4, "Priority", _number("priority", 5), "Linux 6.14", {"priority": 5}),
]


def _probe(row: ControlMessageProbe) -> Probe:
    return Probe(row.name, row.run, row.needs)


PROBES: list[Probe] = [
    Probe("IPv6", _ipv6, "an IPv6 loopback address"),
    *map(_probe, CONTROL_MESSAGES),
    Probe("IPv4 on an IPv6 socket", _dual_stack, "IPv6 sockets that take IPv4 as well"),
    Probe("fragment size, IPv6", _fragments, "Linux 4.10"),
    Probe("timestamps (SO_TIMESTAMPING)", _software_timestamp, "Linux"),
    Probe("source address of one datagram", _source_address, "Linux"),
    Probe("mark, sent", _mark_sent, _MARK_NEEDS),
    Probe("drop counter", _drops, "Linux"),
    Probe("bytes still queued", _queued, "Linux 4.18"),
    Probe("segmentation offload, sending", _segments, "Linux 4.18"),
    Probe("segmentation offload, receiving", _coalesced, "Linux 5.0"),
]
