# SPDX-License-Identifier: MIT
"""Probes of the error queue: ICMP errors, transmit timestamps, zero-copy completions. See ip(7), recvmsg(2)."""

import errno
import os
import socket
import time
from typing import Any, TypeVar

from lowsock import cmsg, errqueue, recvmsg, sendmsg
from lowsock._command.loopback import TIMEOUT, Missing, Sockets
from lowsock._command.probing import Probe, age, pair
from lowsock._system.layouts import LAYOUTS

E = TypeVar("E")
Flags = cmsg.TimestampingFlags


def _events(sock: socket.socket, kind: type[E], count: int = 1) -> list[E]:
    """Waits for ``count`` entries of the error queue, which must all be of this kind."""
    deadline = time.monotonic() + TIMEOUT
    events: list[Any] = []
    while len(events) < count:
        came = errqueue.wait(sock, max(0, deadline - time.monotonic()))
        if not came:
            raise Missing(f"{len(events)} of {count} events came within {TIMEOUT} s")
        events += came
    for event in events:
        if not isinstance(event, kind):
            raise Missing(f"{type(event).__name__} came, not {kind.__name__}")
    return events


# ---- ICMP ----


def _unreachable(sockets: Sockets, family: int, origin: errqueue.Origin) -> str:
    sender, receiver = sockets.udp(family)
    receiver.close()  # now its port is closed
    cmsg.enable(sender, cmsg.ExtendedError)
    sendmsg(sender, [b"x"])
    (event,) = _events(sender, errqueue.IcmpError)
    if (event.errno, event.origin) != (errno.ECONNREFUSED, origin):
        raise Missing(f"{os.strerror(event.errno)} came, of origin {event.origin}, not {os.strerror(errno.ECONNREFUSED)}")
    return f"a closed port answered with ICMP type {event.icmp_type} code {event.icmp_code}: {os.strerror(event.errno)}"


def _icmp(sockets: Sockets) -> str:
    return _unreachable(sockets, socket.AF_INET, errqueue.Origin.ICMP)


def _icmp6(sockets: Sockets) -> str:
    return _unreachable(sockets, socket.AF_INET6, errqueue.Origin.ICMP6)


# ---- transmit timestamps ----


def _sent_at(sockets: Sockets) -> str:
    sender, _ = sockets.udp()
    _enable_timestamps(sender, Flags.TX_SOFTWARE | Flags.OPT_ID)
    for _ in range(2):
        sendmsg(sender, [b"x"])
    events = _events(sender, errqueue.TransmitTimestamp, 2)
    if [event.key for event in events] != [0, 1]:
        raise Missing(f"the keys of two messages are {[event.key for event in events]}")
    return f"the second of two messages was sent {age(events[1].software_ns):.0f} us before it was told"


def _enable_timestamps(sock: socket.socket, flags: int) -> None:
    cmsg.enable(sock, cmsg.Timestamping, timestamping=Flags.SOFTWARE | flags)


def _acknowledged_at(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    _enable_timestamps(sender, Flags.TX_ACK | Flags.OPT_ID)
    sendmsg(sender, [b"0123456789"])
    recvmsg(receiver, 100)
    (event,) = _events(sender, errqueue.TransmitTimestamp)
    if (event.stage, event.key) != (errqueue.Stage.ACKNOWLEDGED, 9):
        raise Missing(f"{event.stage!r} of byte {event.key} came")
    return f"byte {event.key} was acknowledged {age(event.software_ns):.0f} us before it was told"


def _asked_by_message(sockets: Sockets) -> str:
    sender, _ = sockets.udp()
    _enable_timestamps(sender, 0)
    sendmsg(sender, [b"x"])
    sendmsg(sender, [b"y"], [cmsg.RequestTimestamps(flags=Flags.TX_SOFTWARE)])
    (event,) = _events(sender, errqueue.TransmitTimestamp)
    return f"one of two messages asked, and was sent {age(event.software_ns):.0f} us before it was told"


def _key(sockets: Sockets) -> str:
    sender, _ = sockets.udp()
    _enable_timestamps(sender, Flags.TX_SOFTWARE | Flags.OPT_ID)
    sendmsg(sender, [b"x"], [cmsg.TimestampKey(key=2024)])
    (event,) = _events(sender, errqueue.TransmitTimestamp)
    if event.key != 2024:
        raise Missing(f"sent with key 2024, told with key {event.key}")
    return f"the timestamp came with {event.key}, the key that its message was sent with"


# ---- the rest of sending ----


def _zero_copy(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    zerocopy = errqueue.ZeroCopySender(sender)
    sockets.callback(zerocopy.close, TIMEOUT)
    sent = zerocopy.send(bytes(16384))
    if sent.key is None:
        raise Missing("the kernel had no memory left to keep track of the send, which was a plain copy")
    left = int(sent)
    while left > 0:
        left -= len(recvmsg(receiver, left)[0]) or left
    (event,) = _events(sender, errqueue.ZeroCopyCompletion)
    how = "the kernel copied" if event.copied else "the kernel did not copy"
    return f"{sent:d} bytes, sends {event.first} to {event.last} completed; {how}"


def _transmit_time(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    sender.setsockopt(*pair("SO_TXTIME"), LAYOUTS["lowsock_txtime"].pack(time.CLOCK_MONOTONIC, 0))
    sendmsg(sender, [b"x"], [cmsg.TxTime(txtime_ns=time.clock_gettime_ns(time.CLOCK_MONOTONIC))])
    came = len(recvmsg(receiver, 1)[0])
    return f"{came} datagram was sent with a time; only a queueing discipline (fq, etf) keeps to it"


PROBES: list[Probe] = [
    Probe("error queue", _icmp, "Linux"),
    Probe("error queue, IPv6", _icmp6, "Linux and an IPv6 loopback address"),
    Probe("transmit timestamps", _sent_at, "Linux"),
    Probe("transmit timestamp of one message", _asked_by_message, "Linux 4.6"),
    Probe("transmit timestamp key", _key, "Linux 6.13"),
    Probe("acknowledgement timestamps", _acknowledged_at, "Linux"),
    Probe("zero copy", _zero_copy, "Linux 4.14"),
    Probe("transmit time", _transmit_time, "Linux 4.19"),
]
