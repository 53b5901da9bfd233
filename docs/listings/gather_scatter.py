# SPDX-License-Identifier: MIT
"""One message gathered from several buffers, and scattered into several; a stream that takes less than it was given."""

import socket
import struct
import threading

from lowsock import recvmsg_into, sendmsg

HEADER = struct.Struct("!HHI")  # version, kind, length of the body


def send_record(sock, kind, *parts):
    length = sum(map(len, parts))
    return sendmsg(sock, [HEADER.pack(1, kind, length), *parts])


def receive_record(sock, header, body):
    nbytes, ancdata, flags, address = recvmsg_into(sock, [header, body])
    version, kind, length = HEADER.unpack(header)
    return kind, bytes(body[: nbytes - HEADER.size])


def send_all(sock, buffers, ancdata=()):
    """Sends everything over a stream, however little of it the kernel takes at a time."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    while views:
        sent = sendmsg(sock, views, ancdata)
        ancdata = ()  # it went with the first byte, and must not go again
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if views:
            views[0] = views[0][sent:]


def receive_all(sock, buffer):
    """Fills ``buffer`` from a stream; returns how many calls it took."""
    filled = calls = 0
    with memoryview(buffer) as room:
        while filled < len(buffer):
            nbytes, ancdata, flags, address = recvmsg_into(sock, [room[filled:]])
            if not nbytes:
                raise EOFError(f"the peer closed after {filled} bytes")
            filled += nbytes
            calls += 1
    return calls


def datagram():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        sent = send_record(left, 7, b"scattered ", bytearray(b"to the "), memoryview(b"winds"))
        kind, body = receive_record(right, bytearray(HEADER.size), bytearray(100))
        print(f"a datagram of {sent} bytes: kind {kind}, body {body.decode()!r}")


def stream():
    buffers = [b"a" * 300_000, b"b" * 300_000, b"c" * 300_000]
    received = bytearray(sum(map(len, buffers)))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        sender = threading.Thread(target=send_all, args=(left, buffers))
        sender.start()
        calls = receive_all(right, received)
        sender.join()
    print(f"a stream of {len(received)} bytes, all as sent: {received == b''.join(buffers)}")
    print(f"one call was enough: {calls == 1}")


if __name__ == "__main__":
    datagram()
    stream()
