# SPDX-License-Identifier: MIT
"""Probes of the error queue: ICMP errors, transmit timestamps, zero-copy completions. See ip(7), recvmsg(2)."""

import errno
import os
import socket
import struct
import time
from typing import NamedTuple

from lowsock import constants, recvmsg, sendmsg
from lowsock._loopback import Missing, Sockets
from lowsock._probes_ip import age
from lowsock._probing import ROOM, Probe, pair, payload

_EXTENDED = struct.Struct("=I4B2I")  # struct sock_extended_err
_TXTIME = struct.Struct("iI")  # struct sock_txtime: clock, flags


class Event(NamedTuple):
    """An entry of the error queue: ``struct sock_extended_err``, and the control messages that came with it."""

    errno: int
    origin: int
    kind: int
    code: int
    info: int
    value: int
    beside: list[tuple[int, int, bytes]]


def _event(sock: socket.socket, name: str, origin: str) -> Event:
    """Reads one entry of the error queue, which must have this origin."""
    _, ancdata, _, _ = recvmsg(sock, 100, ROOM, constants.MSG_ERRQUEUE)
    number, came, kind, code, _, info, value = _EXTENDED.unpack_from(payload(ancdata, name))
    if came != getattr(constants, origin):
        raise Missing(f"an event of origin {came} came, not {origin}")
    return Event(number, came, kind, code, info, value, ancdata)


# ---- ICMP ----


def _unreachable(sockets: Sockets, family: int, name: str, origin: str) -> str:
    sender, receiver = sockets.udp(family)
    receiver.close()  # now its port is closed
    sender.setsockopt(*pair(name), 1)
    sendmsg(sender, [b"x"])
    event = _event(sender, name, origin)
    if event.errno != errno.ECONNREFUSED:
        raise Missing(f"{os.strerror(event.errno)} came, not {os.strerror(errno.ECONNREFUSED)}")
    return f"a closed port answered with ICMP type {event.kind} code {event.code}: {os.strerror(event.errno)}"


def _icmp(sockets: Sockets) -> str:
    return _unreachable(sockets, socket.AF_INET, "IP_RECVERR", "SO_EE_ORIGIN_ICMP")


def _icmp6(sockets: Sockets) -> str:
    return _unreachable(sockets, socket.AF_INET6, "IPV6_RECVERR", "SO_EE_ORIGIN_ICMP6")


# ---- transmit timestamps ----


def _sent_at(sockets: Sockets) -> str:
    sender, _ = sockets.udp()
    asked = constants.SOF_TIMESTAMPING_SOFTWARE | constants.SOF_TIMESTAMPING_OPT_ID
    sender.setsockopt(*pair("SO_TIMESTAMPING"), asked | constants.SOF_TIMESTAMPING_TX_SOFTWARE)
    for _ in range(2):
        sendmsg(sender, [b"x"])
    events = [_event(sender, "IP_RECVERR", "SO_EE_ORIGIN_TIMESTAMPING") for _ in range(2)]
    if [event.value for event in events] != [0, 1]:
        raise Missing(f"the keys of two messages are {[event.value for event in events]}")
    return f"the second of two messages was sent {_passed(events[1]):.0f} us before it was told"


def _acknowledged_at(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    asked = constants.SOF_TIMESTAMPING_SOFTWARE | constants.SOF_TIMESTAMPING_OPT_ID
    sender.setsockopt(*pair("SO_TIMESTAMPING"), asked | constants.SOF_TIMESTAMPING_TX_ACK)
    sendmsg(sender, [b"0123456789"])
    recvmsg(receiver, 100)
    event = _event(sender, "IP_RECVERR", "SO_EE_ORIGIN_TIMESTAMPING")
    if (event.info, event.value) != (constants.SCM_TSTAMP_ACK, 9):
        raise Missing(f"kind {event.info} of byte {event.value} came")
    return f"byte {event.value} was acknowledged {_passed(event):.0f} us before it was told"


def _passed(event: Event) -> float:
    return age(payload(event.beside, "SCM_TIMESTAMPING"), 1e-9) * 1e6


def _asked_by_message(sockets: Sockets) -> str:
    sender, _ = sockets.udp()
    sender.setsockopt(*pair("SO_TIMESTAMPING"), constants.SOF_TIMESTAMPING_SOFTWARE)
    wanted = struct.pack("=I", constants.SOF_TIMESTAMPING_TX_SOFTWARE)
    sendmsg(sender, [b"x"])
    sendmsg(sender, [b"y"], [(*pair("SO_TIMESTAMPING"), wanted)])
    event = _event(sender, "IP_RECVERR", "SO_EE_ORIGIN_TIMESTAMPING")
    return f"one of two messages asked, and was sent {_passed(event):.0f} us before it was told"


# ---- the rest of sending ----


def _zero_copy(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    sender.setsockopt(*pair("SO_ZEROCOPY"), 1)
    data = bytes(16384)  # the kernel's until the completion
    left = sent = sendmsg(sender, [data], (), constants.MSG_ZEROCOPY)
    while left > 0:
        left -= len(recvmsg(receiver, left)[0]) or left
    event = _event(sender, "IP_RECVERR", "SO_EE_ORIGIN_ZEROCOPY")
    copied = event.code & constants.SO_EE_CODE_ZEROCOPY_COPIED
    how = "the kernel copied" if copied else "the kernel did not copy"
    return f"{sent} bytes, sends {event.info} to {event.value} completed; {how}"


def _transmit_time(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    sender.setsockopt(*pair("SO_TXTIME"), _TXTIME.pack(time.CLOCK_MONOTONIC, 0))
    at = struct.pack("=Q", time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    sendmsg(sender, [b"x"], [(*pair("SCM_TXTIME"), at)])
    came = len(recvmsg(receiver, 1)[0])
    return f"{came} datagram was sent with a time; only a queueing discipline (fq, etf) keeps to it"


PROBES: list[Probe] = [
    Probe("error queue", _icmp, "Linux"),
    Probe("error queue, IPv6", _icmp6, "Linux and an IPv6 loopback address"),
    Probe("transmit timestamps", _sent_at, "Linux"),
    Probe("transmit timestamp of one message", _asked_by_message, "Linux 4.6"),
    Probe("acknowledgement timestamps", _acknowledged_at, "Linux"),
    Probe("zero copy", _zero_copy, "Linux 4.14"),
    Probe("transmit time", _transmit_time, "Linux 4.19"),
]
