# SPDX-License-Identifier: MIT
"""A UDP server on all addresses, IPv4 and IPv6, that answers from the one that was asked."""

import socket

from lowsock import cmsg, recvmsg, sendmsg


def open_server(port=0):
    """A socket for both families, where there are both, and the room that its control messages take."""
    if socket.has_dualstack_ipv6():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    return sock, cmsg.enable(sock, cmsg.LocalAddress)


def answer(sock, ancbufsize):
    """Takes one question. Left to itself, the kernel would take the source from the route to the client."""
    data, ancdata, flags, client = recvmsg(sock, 2048, ancbufsize)
    came = cmsg.arrival(ancdata)
    source = cmsg.towards(client, cmsg.LocalAddress, local=came.local)
    return sendmsg(sock, [f"I am {came.local}".encode()], [source], 0, client)


def ask(server, ancbufsize, host):
    """A connected UDP socket takes answers from the address that it asked only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((host, server.getsockname()[1]))
        client.send(b"who are you?")
        answer(server, ancbufsize)
        print(f"asked {host}: {client.recv(100).decode()}")


def main():
    server, ancbufsize = open_server()
    with server:
        server.settimeout(1)
        hosts = ["127.0.0.2", "127.0.0.3"]
        if server.family == socket.AF_INET6:
            hosts += ["::1", "::ffff:127.0.0.4"]  # the last goes as IPv4, from a client with an IPv6 socket
        for host in hosts:
            ask(server, ancbufsize, host)


if __name__ == "__main__":
    main()
