# SPDX-License-Identifier: MIT
"""Probes of what comes beside a datagram or a stream over IP. See ip(7), ipv6(7), udp(7), socket(7)."""

import contextlib
import socket
import struct
import sys
import time
from typing import Callable, NamedTuple

from lowsock import _address, constants, recvmsg, sendmsg
from lowsock._loopback import TIMEOUT, Missing, Sockets
from lowsock._probing import ROOM, Probe, greatest, pair, payload, takes

V4, V6 = socket.AF_INET, socket.AF_INET6
UINT16 = struct.Struct("=H")
INT = struct.Struct("=i")

Tell = Callable[[bytes, socket.socket], str]  # of a control message that came, and the socket that it came to


class Beside(NamedTuple):
    """A control message that comes beside a datagram once ``option`` has asked for it.

    ``sent`` goes with the datagram, as a control message of the same type.
    """

    name: str
    family: int
    option: str
    kind: str
    tell: Tell
    needs: str = ""
    sent: bytes = b""

    def run(self, sockets: Sockets) -> str:
        sender, receiver = sockets.udp(self.family)
        receiver.setsockopt(*pair(self.option), 1)
        beside = [(*pair(self.kind), self.sent)] if self.sent else []
        sendmsg(sender, [b"x"], beside)
        return self.tell(payload(recvmsg(receiver, 1, ROOM)[1], self.kind), receiver)


# ---- what the control messages tell ----


def _number(expected: int) -> Tell:
    """A number that has to come as it went. The kernel uses one byte or four, whichever message it is."""

    def tell(data: bytes, _: socket.socket) -> str:
        came = int.from_bytes(data, sys.byteorder)
        if came != expected:
            raise Missing(f"sent {expected}, received {came}")
        return f"{expected} came as it went"

    return tell


def _traffic(expected: int) -> Tell:
    number = _number(expected)

    def tell(data: bytes, receiver: socket.socket) -> str:
        number(data, receiver)
        return f"DSCP {expected >> 2} and ECN {expected & 3} came as they went"

    return tell


def _packet_info(family: int, layout: str) -> Tell:
    """``layout`` picks the interface and the address to which the datagram went out of the structure."""

    def tell(data: bytes, receiver: socket.socket) -> str:
        one, other = struct.unpack(layout, data)
        interface, packed = (one, other) if isinstance(one, int) else (other, one)
        host = socket.inet_ntop(family, packed)
        if host != receiver.getsockname()[0]:
            raise Missing(f"sent to {receiver.getsockname()[0]}, which became {host}")
        return f"came to {host} through interface {interface}"

    return tell


def _destination(data: bytes, receiver: socket.socket) -> str:
    destination = _address.decode_name(data)
    if destination != receiver.getsockname():
        raise Missing(f"sent to {receiver.getsockname()}, which became {destination}")
    return f"{destination[0]} port {destination[1]}"


def _stamp(unit: float) -> Tell:
    """A time in seconds and a fraction in ``unit`` (timeval, timespec; the first of the three of SCM_TIMESTAMPING)."""

    def tell(data: bytes, _: socket.socket) -> str:
        return f"taken {age(data, unit) * 1e6:.0f} us before it was read"

    return tell


def age(data: bytes, unit: float) -> float:
    """How many seconds ago a timestamp was taken; one of more than a minute or in the future is no timestamp."""
    seconds, fraction = struct.unpack("=qq" if len(data) >= 16 else "=ii", data[:16])
    passed = float(time.time() - seconds - fraction * unit)
    if not -0.1 < passed < 60:
        raise Missing(f"the timestamp is {passed:.3f} s old")
    return passed


# ---- what takes more than one datagram ----


def _software_timestamp(sockets: Sockets) -> str:
    """The kernel begins to stamp a moment after the first socket has asked: the first datagrams may have none."""
    sender, receiver = sockets.udp()
    wanted = constants.SOF_TIMESTAMPING_RX_SOFTWARE | constants.SOF_TIMESTAMPING_SOFTWARE
    receiver.setsockopt(*pair("SO_TIMESTAMPING"), wanted)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        sendmsg(sender, [b"x"])
        ancdata = recvmsg(receiver, 1, ROOM)[1]
        with contextlib.suppress(Missing):
            return _stamp(1e-9)(payload(ancdata, "SCM_TIMESTAMPING"), receiver)
        time.sleep(0.001)
    raise Missing("no SCM_TIMESTAMPING message came")


def _drops(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    receiver.setsockopt(*pair("SO_RXQ_OVFL"), 1)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel makes it its least
    for _ in range(64):
        sendmsg(sender, [bytes(1000)])
    received = _drained(receiver)
    sendmsg(sender, [b"x"])
    dropped = INT.unpack(payload(recvmsg(receiver, 1, ROOM)[1], "SO_RXQ_OVFL"))[0]
    if received + dropped != 64:
        raise Missing(f"{received} of 64 datagrams were received, and {dropped} counted as dropped")
    return f"64 datagrams sent into a small buffer, {received} received, {dropped} counted as dropped"


def _drained(receiver: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while recvmsg(receiver.fileno(), 1000, 0, socket.MSG_DONTWAIT):
            count += 1
    return count


def _source_address(sockets: Sockets) -> str:
    """Any address of 127.0.0.0/8 is local on Linux; elsewhere there is only the one."""
    receiver = sockets.bound(V4, socket.SOCK_DGRAM)
    sender = sockets.open(V4, socket.SOCK_DGRAM)
    info = struct.pack("=i4s4s", 0, socket.inet_aton("127.0.0.2"), b"")
    sendmsg(sender, [b"x"], [(*pair("IP_PKTINFO"), info)], 0, receiver.getsockname())
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
    sendmsg(sender, [b"x"], [(*pair("SO_MARK"), INT.pack(7))])
    return f"{len(recvmsg(receiver, 1)[0])} datagram was sent with a mark of its own"


def _queued(sockets: Sockets) -> str:
    sender, receiver = sockets.tcp()
    receiver.setsockopt(*pair("TCP_INQ"), 1)
    sendmsg(sender, [b"0123456789"])
    data, ancdata, _, _ = recvmsg(receiver, 4, ROOM)
    left = INT.unpack(payload(ancdata, "TCP_CM_INQ"))[0]
    if left != 6:
        raise Missing(f"{len(data)} of 10 bytes were read, and {left} were said to be left")
    return f"{len(data)} of 10 bytes read, {left} told to be left"


# ---- segmentation offload ----


def send_segments(sender: socket.socket, size: int, count: int) -> None:
    sendmsg(sender, [bytes(size * count)], [(*pair("UDP_SEGMENT"), UINT16.pack(size))])


def _segments(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    send_segments(sender, 100, 3)
    sizes = [len(recvmsg(receiver, 1000)[0]) for _ in range(3)]
    if sizes != [100, 100, 100]:
        raise Missing(f"3 segments of 100 bytes became datagrams of {sizes}")
    return f"at most {greatest(lambda n: takes(lambda: send_segments(sender, 1, n)), 1024)} segments in one message"


def _coalesced(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    receiver.setsockopt(*pair("UDP_GRO"), 1)
    send_segments(sender, 100, 3)
    data, ancdata, _, _ = recvmsg(receiver, 65535, ROOM)
    segment = INT.unpack(payload(ancdata, "UDP_GRO"))[0]
    if (len(data), segment) != (300, 100):
        raise Missing(f"3 datagrams of 100 bytes came as {len(data)} bytes in segments of {segment}")
    return f"{len(data) // segment} datagrams came in one message"


_IP_PKTINFO, _IPV6_PKTINFO = "=i4x4s", "=16si"  # ipi_addr and ipi_ifindex of in_pktinfo; in6_pktinfo
_DESTINATION_NEEDS = "Linux or FreeBSD"
_MARK_NEEDS = "CAP_NET_ADMIN or CAP_NET_RAW"
_MARKS_NEED = f"{_MARK_NEEDS}; Linux 5.19"
_ECN = 0xBA  # expedited forwarding, ECN-capable

BESIDE = [
    Beside("timestamps (SO_TIMESTAMP)", V4, "SO_TIMESTAMP", "SCM_TIMESTAMP", _stamp(1e-6)),
    Beside("timestamps (SO_TIMESTAMPNS)", V4, "SO_TIMESTAMPNS", "SCM_TIMESTAMPNS", _stamp(1e-9), "Linux"),
    Beside("packet info", V4, "IP_PKTINFO", "IP_PKTINFO", _packet_info(V4, _IP_PKTINFO)),
    Beside("packet info, IPv6", V6, "IPV6_RECVPKTINFO", "IPV6_PKTINFO", _packet_info(V6, _IPV6_PKTINFO)),
    Beside("TTL", V4, "IP_RECVTTL", "IP_TTL", _number(7), "", INT.pack(7)),
    Beside("hop limit, IPv6", V6, "IPV6_RECVHOPLIMIT", "IPV6_HOPLIMIT", _number(7), "", INT.pack(7)),
    Beside("TOS and ECN", V4, "IP_RECVTOS", "IP_TOS", _traffic(_ECN), "", INT.pack(_ECN)),
    Beside("traffic class and ECN, IPv6", V6, "IPV6_RECVTCLASS", "IPV6_TCLASS", _traffic(_ECN), "", INT.pack(_ECN)),
    Beside("original destination", V4, "IP_RECVORIGDSTADDR", "IP_ORIGDSTADDR", _destination, _DESTINATION_NEEDS),
    Beside("original destination, IPv6", V6, "IPV6_RECVORIGDSTADDR", "IPV6_ORIGDSTADDR", _destination, _DESTINATION_NEEDS),
    Beside("mark, received", V4, "SO_RCVMARK", "SO_MARK", _number(0), "Linux 5.19"),
    Beside("mark, sent and received", V4, "SO_RCVMARK", "SO_MARK", _number(7), _MARKS_NEED, INT.pack(7)),
    Beside("priority", V4, "SO_RCVPRIORITY", "SO_PRIORITY", _number(5), "Linux 6.14", INT.pack(5)),
]


def _probe(row: Beside) -> Probe:
    return Probe(row.name, row.run, row.needs)


PROBES: list[Probe] = [
    Probe("IPv6", _ipv6, "an IPv6 loopback address"),
    *map(_probe, BESIDE),
    Probe("timestamps (SO_TIMESTAMPING)", _software_timestamp, "Linux"),
    Probe("source address of one datagram", _source_address, "Linux"),
    Probe("mark, sent", _mark_sent, _MARK_NEEDS),
    Probe("drop counter", _drops, "Linux"),
    Probe("bytes still queued", _queued, "Linux 4.18"),
    Probe("segmentation offload, sending", _segments, "Linux 4.18"),
    Probe("segmentation offload, receiving", _coalesced, "Linux 5.0"),
]
