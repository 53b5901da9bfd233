# SPDX-License-Identifier: MIT
"""A large block sent over TCP from memory that the kernel reads by itself (Linux)."""

import socket
import threading

from lowsock import errqueue

SIZE = 1 << 20


def connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def receive_all(sock, into):
    while data := sock.recv(1 << 16):
        into.extend(data)


def send_all(sender, block):
    """A stream may take less than it is given; the number of the last send stands for all before it."""
    sent = sender.send(block)
    while sent < len(block):
        block = block[sent:]
        sent = sender.send(block)
    return sent.key


def main():
    client, server = connection()
    received = bytearray()
    reader = threading.Thread(target=receive_all, args=(server, received))
    reader.start()
    with client, errqueue.ZeroCopySender(client) as sender:
        block = sender.buffer(SIZE)  # memory that the sender lends
        block[:] = b"a" * SIZE
        send_all(sender, block)
        sender.drain()  # from here on the block may be filled again
        block[:] = b"b" * SIZE
        send_all(sender, block)
        sender.send(b"or bytes, which the sender keeps alive")
        sender.drain()
        print(f"incomplete: {sender.pending}; on loopback the kernel copies: {sender.copied > 0}")
    reader.join()
    server.close()
    whole = received == b"a" * SIZE + b"b" * SIZE + b"or bytes, which the sender keeps alive"
    print(f"{len(received)} bytes came, all as sent: {whole}")


if __name__ == "__main__":
    main()
