# SPDX-License-Identifier: MIT
"""A UDP server on all addresses that answers from the one that was asked (Linux)."""

import socket
import struct

from lowsock import CMSG_SPACE, recvmsg, sendmsg
from lowsock.constants import IP_PKTINFO, IPPROTO_IP

IN_PKTINFO = struct.Struct("@i4s4s")  # struct in_pktinfo: interface, local address, destination in the header


def receive_request(sock):
    """Data, who sent it, and the address of ours that it was sent to."""
    data, ancdata, flags, client = recvmsg(sock, 2048, CMSG_SPACE(IN_PKTINFO.size))
    for level, kind, payload in ancdata:
        if (level, kind) == (IPPROTO_IP, IP_PKTINFO):
            interface, local, destination = IN_PKTINFO.unpack(payload)
            return data, client, local
    raise LookupError("the kernel sent no packet info: was the option set?")


def send_answer(sock, data, client, local):
    """The kernel takes the source address from the control message; interface 0 leaves the route to it."""
    info = IN_PKTINFO.pack(0, local, bytes(4))
    return sendmsg(sock, [data], [(IPPROTO_IP, IP_PKTINFO, info)], 0, client)


def ask(server, host, port):
    """A connected UDP socket takes answers from the address that it asked only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((host, port))
        client.send(b"who are you?")
        data, address, local = receive_request(server)
        send_answer(server, b"I am " + socket.inet_ntoa(local).encode(), address, local)
        print(f"asked {host}: {client.recv(100).decode()}")


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(IPPROTO_IP, IP_PKTINFO, 1)
        server.settimeout(1)
        server.bind(("0.0.0.0", 0))
        port = server.getsockname()[1]
        ask(server, "127.0.0.2", port)
        ask(server, "127.0.0.3", port)


if __name__ == "__main__":
    main()
