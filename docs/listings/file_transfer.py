# SPDX-License-Identifier: MIT
"""A file sent over UDP: bursts by offload, acknowledgements of its own, a window that heeds ECN, a hash at the end (Linux).

A burst goes when the last has been answered, which keeps this short. To fill a long line, keep several under way.
"""

import contextlib
import hashlib
import itertools
import random
import socket
import struct
import threading

from lowsock import cmsg, udp

HEADER = struct.Struct("!II")  # of each datagram: its number, how many there are
ACK = struct.Struct("!I")  # of an answer: how many of these a router had marked; then the numbers that came, as many
SIZE = 1200  # bytes of a datagram: with the headers below, less than what any path of today takes
LEAST, MOST = 4, 200  # datagrams in a burst


def send_file(endpoint, data, tries=100):
    """Sends ``data`` to the connected peer; returns how many datagrams it took, and how many of them came marked.

    The socket's timeout says how long to wait for answers. What was not answered goes again. Bursts grow while all is well;
    they are halved when one was lost, or when a router marks one to say that it soon will be (ECN).
    """
    missing = dict(enumerate(pieces(data + hashlib.sha256(data).digest())))
    burst, sent, marked, vain = LEAST, 0, 0, 0
    while missing:
        numbers = list(itertools.islice(missing, burst))
        block = b"".join(missing[number] for number in numbers)  # only the last piece of all may be shorter
        endpoint.send(block, address=None, segment_size=SIZE, ecn=cmsg.ECN.ECT_0)  # None: to the peer
        sent += len(numbers)
        marks, answered = answers(endpoint, len(numbers))
        for number in answered:
            missing.pop(number, None)
        well = not marks and missing.keys().isdisjoint(numbers)
        burst = min(burst * 2, MOST) if well else max(burst // 2, LEAST)
        marked, vain = marked + marks, 0 if answered else vain + 1
        if vain == tries:
            raise TimeoutError("the receiver does not answer")
    return sent, marked


def pieces(data):
    chunk = SIZE - HEADER.size
    count = -(-len(data) // chunk)
    return [HEADER.pack(i, count) + data[i * chunk : (i + 1) * chunk] for i in range(count)]


def answers(endpoint, count):
    """Marks and numbers of answers that come in time, until there are ``count`` numbers."""
    marks, numbers = 0, set()
    with contextlib.suppress(socket.timeout):
        while len(numbers) < count:
            for datagram in endpoint.recv():
                (number,) = ACK.unpack_from(datagram.data)
                marks += number
                numbers.update(number for (number,) in ACK.iter_unpack(datagram.data[ACK.size :]))
    return marks, numbers


def receive_file(endpoint):
    """Takes a file and answers, until the sender has been quiet for the time that is the socket's timeout."""
    found, count = {}, 0
    with contextlib.suppress(socket.timeout):
        while True:
            came = [datagram for datagram in endpoint.recv() if len(datagram.data) > HEADER.size]
            for datagram in came:
                number, count = HEADER.unpack_from(datagram.data)
                found[number] = datagram.data[HEADER.size :]
            answer(endpoint, came)
    whole = b"".join(found[number] for number in sorted(found))
    data, digest = whole[:-32], whole[-32:]
    if len(found) != count or hashlib.sha256(data).digest() != digest:
        raise ValueError(f"{len(found)} of {count} pieces came, or they are not those that were sent")
    return data


def answer(endpoint, came):
    """One answer for all that came together."""
    if came:
        marks = sum(datagram.ecn == cmsg.ECN.CE for datagram in came)
        numbers = [datagram.data[: ACK.size] for datagram in came]
        endpoint.send(ACK.pack(marks) + b"".join(numbers), address=came[0].address)


class BadLine(udp.Endpoint):
    """What a loopback is not: it loses one datagram of a hundred, and marks one of a hundred that may be marked."""

    chance = random.Random(1)

    def recv(self):
        return [self.arrived(datagram) for datagram in super().recv() if self.chance.random() > 0.01]

    def arrived(self, datagram):
        if datagram.ecn == cmsg.ECN.ECT_0 and self.chance.random() < 0.01:
            return datagram._replace(ecn=cmsg.ECN.CE)
        return datagram


def main():
    data = random.Random(2).getrandbits(8 * 1_000_000).to_bytes(1_000_000, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        there.bind(("127.0.0.1", 0))
        there.settimeout(1)
        here.connect(there.getsockname())
        here.settimeout(0.02)
        sender, results = udp.Endpoint(here), []
        thread = threading.Thread(target=send_and_tell, args=(sender, data, results))
        thread.start()
        received = receive_file(BadLine(there))
        thread.join()
    sent, marked = results
    again = sent - len(pieces(data + bytes(32)))
    print(f"{len(data)} bytes in {sent} datagrams, {again} of them again: {again > 0}; came marked: {marked > 0}")
    print("the file came as it was sent:", received == data)
    print(f"datagrams in one system call: up to {sender.max_gso_segments}")


def send_and_tell(sender, data, results):
    results += send_file(sender, data)


if __name__ == "__main__":
    main()
