# SPDX-License-Identifier: MIT
"""Probes of batches and of the other families: netlink, packet, vsock, AF_ALG, TLS in the kernel."""

import hashlib
import secrets
import socket
import struct
import time

from lowsock import cmsg, constants, recvmmsg, recvmsg, sendmmsg, sendmsg
from lowsock._command.loopback import TIMEOUT, Missing, Sockets, number
from lowsock._command.probing import Probe, expect, pair

# linux/rtnetlink.h, linux/netlink.h and linux/if_ether.h: no constants of sockets
_RTM_NEWLINK, _RTM_GETLINK, _NLM_F_REQUEST, _NLM_F_DUMP = 16, 18, 0x1, 0x300
_ETH_P_IP = 0x0800
_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_RTGENMSG = b"\0"  # of any family
_SEQUENCE = 2024


def _batches(sockets: Sockets) -> str:
    sender, receiver = sockets.udp()
    sent = sendmmsg(sender, [([b"1"],), ([b"2"],)])
    received = recvmmsg(receiver, 3, 10)
    if [data for data, *_ in received] != [b"1", b"2"]:
        raise Missing(f"{sent} of 2 datagrams were sent, {len(received)} came")
    return f"{len(received)} datagrams by one call of sendmmsg and one of recvmmsg"


# ---- netlink(7) ----


def _netlink(sockets: Sockets) -> str:
    sock = sockets.open(number("AF_NETLINK"), socket.SOCK_RAW, constants.NETLINK_ROUTE)
    request = (_NLMSGHDR.size + len(_RTGENMSG), _RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP, _SEQUENCE, 0)
    sendmsg(sock, [_NLMSGHDR.pack(*request), _RTGENMSG], address=(0, 0))
    answer, _, _, (port, _) = recvmsg(sock, 65536)
    kinds = _message_types(answer)
    if port != 0 or _RTM_NEWLINK not in kinds:
        raise Missing(f"process {port} answered with messages of types {kinds}")
    return f"the kernel told {kinds.count(_RTM_NEWLINK)} interfaces in one message"


def _message_types(answer: bytes) -> list[int]:
    kinds, at = [], 0
    while at + _NLMSGHDR.size <= len(answer):
        length, kind, _, sequence, _ = _NLMSGHDR.unpack_from(answer, at)
        if length < _NLMSGHDR.size or sequence != _SEQUENCE:
            raise Missing("the answer is not netlink's")
        kinds.append(kind)
        at += (length + 3) & ~3
    return kinds


# ---- packet(7) ----


def _packets(sockets: Sockets) -> str:
    watcher = sockets.open(number("AF_PACKET"), socket.SOCK_DGRAM)
    room = cmsg.enable(watcher, cmsg.Auxdata)
    watcher.bind(("lo", _ETH_P_IP))
    sender, _ = sockets.udp()
    token = secrets.token_bytes(16)
    sendmsg(sender, [token])
    return _find_packet(watcher, room, token)


def _find_packet(watcher: socket.socket, room: int, token: bytes) -> str:
    """Looks for one datagram among all that goes through the interface."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        packet, ancdata, _, address = recvmsg(watcher, 2048, room)
        if packet.endswith(token):
            length = expect(ancdata, cmsg.Auxdata).length
            return f"saw a datagram as a packet of {len(packet)} bytes on {address[0]}, {length} by its auxdata"
    raise Missing("the datagram was not seen")


# ---- vsock(7) ----


def _vsock(sockets: Sockets) -> str:
    return f"a socket listens at port {_listening(sockets).getsockname()[1]}"


def _listening(sockets: Sockets) -> socket.socket:
    listener = sockets.open(number("AF_VSOCK"), socket.SOCK_STREAM)
    listener.bind((constants.VMADDR_CID_ANY, constants.VMADDR_PORT_ANY))
    listener.listen(1)
    return listener


def _vsock_connected(sockets: Sockets) -> str:
    listener = _listening(sockets)
    client = sockets.open(number("AF_VSOCK"), socket.SOCK_STREAM)
    client.connect((constants.VMADDR_CID_LOCAL, listener.getsockname()[1]))
    server = sockets.add(listener.accept()[0])
    sendmsg(client, [b"here"])
    if recvmsg(server, 100)[0] != b"here":
        raise Missing("what came is not what went")
    return f"4 bytes came through port {listener.getsockname()[1]} of this machine"


# ---- in the kernel: hashes, TLS ----


def _alg(sockets: Sockets) -> str:
    sock = sockets.open(number("AF_ALG"), socket.SOCK_SEQPACKET)
    sock.bind(("hash", "sha256"))
    operation = sockets.add(sock.accept()[0])
    sendmsg(operation, [b"lowsock"])
    if recvmsg(operation, 32)[0] != hashlib.sha256(b"lowsock").digest():
        raise Missing("the kernel's SHA-256 is not ours")
    return "the kernel's SHA-256 is ours"


def _tls(sockets: Sockets) -> str:
    sender, _ = sockets.tcp()
    sender.setsockopt(*pair("TCP_ULP"), b"tls")
    return "a TCP connection took it; which ciphers is another question"


PROBES: list[Probe] = [
    Probe("batches", _batches),
    Probe("netlink", _netlink, "Linux"),
    Probe("packet sockets", _packets, "CAP_NET_RAW"),
    Probe("vsock", _vsock, "Linux with CONFIG_VSOCKETS"),
    Probe("vsock on this machine", _vsock_connected, "Linux 5.6 with vsock_loopback"),
    Probe("AF_ALG", _alg, "Linux with CONFIG_CRYPTO_USER_API_HASH"),
    Probe("kernel TLS", _tls, "Linux 4.13 with CONFIG_TLS"),
]
