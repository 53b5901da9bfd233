# SPDX-License-Identifier: MIT
"""A receiver that prints when the kernel got each datagram, and how long it then lay in the queue."""

import socket
import time

from lowsock import cmsg, recvmsg


def receiver():
    """A socket whose datagrams come with the kernel's time, and the room that this takes."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(1)
    sock.bind(("127.0.0.1", 0))
    return sock, cmsg.enable(sock, cmsg.ReceiveTime)


def receive(sock, room):
    """Data and the nanoseconds since 1970 at which the kernel got it, or None where it did not say."""
    data, ancdata, flags, address = recvmsg(sock, 2048, room)
    return data, cmsg.arrival(ancdata).timestamp_ns


def wait_for_the_clock(sender, sock, room):
    """Linux begins to take times a moment after the first socket has asked; until then it tells when one reads."""
    for _ in range(1000):
        sender.sendto(b"tick", sock.getsockname())
        sent = time.time_ns()
        time.sleep(0.001)
        stamp = receive(sock, room)[1]
        if stamp is not None and stamp <= sent:
            return


def main():
    sock, room = receiver()
    with sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        wait_for_the_clock(sender, sock, room)
        before = time.time_ns()
        for data in (b"one", b"two", b"three"):
            sender.sendto(data, sock.getsockname())
            time.sleep(0.01)  # the receiver has something else to do
        stamps = []
        for _ in range(3):
            data, stamp = receive(sock, room)
            if stamp is None:
                raise SystemExit("the kernel gave no timestamp")
            print(f"{data!r} came at {stamp} ns, and waited {(time.time_ns() - stamp) / 10**6:.1f} ms")
            stamps.append(stamp)
    print("in the order of sending:", stamps == sorted(stamps))
    print("between the sending and now:", before // 1000 <= stamps[0] // 1000 and stamps[-1] <= time.time_ns())


if __name__ == "__main__":
    main()
