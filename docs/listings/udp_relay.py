# SPDX-License-Identifier: MIT
"""A UDP relay at bulk speed: datagrams that the kernel hands over together go on together (Linux)."""

import contextlib
import select
import socket
import threading

from lowsock import udp

CLIENTS, ROUNDS, BURST, SIZE = 2, 20, 50, 1200


class Relay:
    """Carries datagrams between clients and one server. Each client has a socket of its own towards the server."""

    def __init__(self, front, server, most=1000):
        self.front, self.family = udp.Endpoint(front), front.family
        self.server, self.most = server, most
        self.ways = {}  # (client, the address of ours that it asked): socket and endpoint towards the server
        self.whose = {}  # descriptor of such a socket: (client, address)
        self.poll = select.poll()
        self.poll.register(front, select.POLLIN)
        self.calls = self.datagrams = 0

    def serve(self, running):
        while running.is_set():
            for fd, _ in self.poll.poll(100):
                with contextlib.suppress(OSError):  # lost, as datagrams may be: refused, unreachable, from port 0
                    self.forward() if fd == self.front.fileno() else self.back(fd)
        while self.ways:
            self.forget(next(iter(self.ways)))

    def forward(self):
        came = self.front.recv_coalesced()
        sock, way = self.ways.get((came.address, came.local)) or self.welcome(came.address, came.local)
        self.carry(came, way)

    def back(self, fd):
        if fd in self.whose:
            client, local = self.whose[fd]
            self.carry(self.ways[client, local][1].recv_coalesced(), self.front, client, local)

    def carry(self, came, way, address=None, local=None):
        """All that came together is sent together, with the mark that a router may have left on it."""
        sent = way.send(came.data, address=address, segment_size=came.segment_size, ecn=came.ecn, local=local)
        self.datagrams += -(-sent // came.segment_size)
        self.calls += 1

    def welcome(self, client, local):
        if len(self.ways) >= self.most:
            self.forget(next(iter(self.ways)))  # whoever came first
        sock = socket.socket(self.family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(self.server)
        self.ways[client, local] = sock, udp.Endpoint(sock)
        self.whose[sock.fileno()] = client, local
        self.poll.register(sock, select.POLLIN)
        return self.ways[client, local]

    def forget(self, who):
        sock, way = self.ways.pop(who)
        self.poll.unregister(sock)
        del self.whose[sock.fileno()]
        sock.close()


def bound():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(1)
    sock.bind(("127.0.0.1", 0))
    return sock


def echo(sock, running):
    """A server that sends back what it gets."""
    endpoint = udp.Endpoint(sock)
    while running.is_set():
        with contextlib.suppress(socket.timeout):
            came = endpoint.recv_coalesced()
            endpoint.send(came.data, address=came.address, segment_size=came.segment_size)


def talk(relay, number):
    """A client: bursts of datagrams, each burst when the last has come back. Whether all came back as they were sent."""
    with bound() as sock:
        sock.connect(relay)
        endpoint, good = udp.Endpoint(sock), True
        for turn in range(ROUNDS):
            sent = [f"client {number}, {turn}.{i}".encode().ljust(SIZE, b".") for i in range(BURST)]
            endpoint.send(b"".join(sent), address=None, segment_size=SIZE)
            back = []
            while len(back) < BURST:
                back += [datagram.data for datagram in endpoint.recv()]
            good = good and back == sent
        return good


def main():
    running = threading.Event()
    running.set()
    with bound() as front, bound() as server:
        front.setblocking(False)
        relay = Relay(front, server.getsockname())
        threads = [
            threading.Thread(target=relay.serve, args=(running,)),
            threading.Thread(target=echo, args=(server, running)),
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(CLIENTS):
                good = talk(front.getsockname(), number)
                print(f"client {number}: {ROUNDS * BURST} datagrams came back, as sent: {good}")
        finally:
            running.clear()
            for thread in threads:
                thread.join()
    print(f"the relay carried {relay.datagrams} datagrams, by {relay.calls} pairs of system calls")


if __name__ == "__main__":
    main()
