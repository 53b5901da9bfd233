# SPDX-License-Identifier: MIT
"""send1msg and recv1msg in the places of send and recv, over TCP."""

import socket

from lowsock import recv1msg, send1msg


def receive_exactly(sock, size):
    """A stream has no message borders: read on until everything is there, or the peer has gone."""
    received = b""
    while len(received) < size:
        data, flags, ancillary = recv1msg(sock, size - len(received), cmsg_size=0)
        if not data:
            raise EOFError(f"the peer closed after {len(received)} of {size} bytes")
        received += data
    return received


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def main():
    client, served = tcp_pair()
    with client, served:
        sent = send1msg(client, b"regular data")
        print(f"sent {sent} bytes")
        print("received", receive_exactly(served, sent))

        client.shutdown(socket.SHUT_WR)
        data, flags, ancillary = recv1msg(served, 1024)
        print("after the end:", data)


if __name__ == "__main__":
    main()
