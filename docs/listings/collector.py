# SPDX-License-Identifier: MIT
"""A collector of counters, like StatsD's, that takes bursts by few calls and tells what the kernel dropped (Linux)."""

import collections
import contextlib
import re
import socket

from lowsock import RecvBatch, SendBatch, cmsg
from lowsock.constants import MSG_DONTWAIT

LINE = re.compile(rb"(\w+):(\d+)\|c")
MANY = 2000


class Collector:
    """Adds up lines like ``hits:1|c``, of which a datagram may have several."""

    def __init__(self, sock):
        self.sock = sock
        self.batch = RecvBatch(256, 1500, cmsg.enable(sock, cmsg.Drops))
        self.totals = collections.Counter()
        self.datagrams = self.calls = self.malformed = self.dropped = 0

    def drain(self):
        """Waits for a datagram, and takes all that are there. A batch that is not full has emptied the queue."""
        flags = 0
        with contextlib.suppress(BlockingIOError):
            while self.receive(flags) == self.batch.vlen:
                flags = MSG_DONTWAIT

    def receive(self, flags):
        """One system call: a batch of datagrams, added up."""
        count = self.batch.recv(self.sock, flags=flags)
        for data, _ in self.batch.messages():
            self.add(data)
        self.datagrams += count
        self.calls += 1
        self.note_drops(self.batch.ancdata(count - 1))
        return count

    def add(self, data):
        for line in data.splitlines():
            match = LINE.fullmatch(line)
            if match:
                self.totals[match[1].decode()] += int(match[2])
            else:
                self.malformed += 1

    def note_drops(self, ancdata):
        """The newest datagram tells all that this socket has lost. The kernel's counter wraps."""
        drops = cmsg.find(ancdata, cmsg.Drops)
        if drops:
            self.dropped += (drops.dropped - self.dropped) % 2**32


def burst(address, count):
    """Sends so many datagrams faster than anybody can read them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, SendBatch(100, 1500) as batch:
        sock.connect(address)
        for _ in range(count // 100):
            batch.extend([b"hits:1|c\nbytes:512|c"] * 100)
            while len(batch):  # the kernel may take fewer than all
                batch.send(sock)


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # a real one asks for as much as it is given
        sock.bind(("127.0.0.1", 0))
        collector = Collector(sock)
        burst(sock.getsockname(), MANY)
        collector.drain()
        burst(sock.getsockname(), 100)  # a loss is told by a datagram that came after it
        collector.drain()
    received, dropped = collector.datagrams, collector.dropped
    print(f"{received} datagrams by {collector.calls} system calls, {dropped} dropped by the kernel")
    print("some were dropped:", dropped > 0)
    print("none is missing without a word:", received + dropped == MANY + 100)
    print("hits:", collector.totals["hits"] == received, "bytes:", collector.totals["bytes"] == 512 * received)


if __name__ == "__main__":
    main()
