# SPDX-License-Identifier: MIT
"""The way to a host, router by router, without privileges: by the error queue (Linux). `traceroute.py [HOST ...]`"""

import errno
import os
import socket
import sys
import time

from lowsock import cmsg, errqueue, sendmsg

TIME_EXCEEDED = {(errqueue.Origin.ICMP, 11), (errqueue.Origin.ICMP6, 3)}  # by a router on the way
PORT = 33434  # and those after it: one for each probe, where nobody listens
HOPS = 30
SECONDS = 1.0


def probe(sock, destination, hops):
    """Sends one datagram that may pass so many hops less one, and waits for what the last of them says of it."""
    begin = time.monotonic()
    sendmsg(sock, [b"probe"], [cmsg.towards(destination, cmsg.HopCount, hops=hops)], 0, destination)
    while (left := begin + SECONDS - time.monotonic()) > 0:
        for event in errqueue.wait(sock, left):
            if isinstance(event, errqueue.IcmpError) and event.destination[1] == destination[1]:
                return event, time.monotonic() - begin
    return None, SECONDS


def trace(family, host, first_port=PORT):
    """Yields for each hop its number, what came back (None: nothing), and after how many seconds."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cmsg.enable(sock, cmsg.ExtendedError)
        for hops in range(1, HOPS + 1):
            event, seconds = probe(sock, (host, first_port + hops), hops)
            yield hops, event, seconds
            if event is not None and (event.origin, event.icmp_type) not in TIME_EXCEEDED:
                return


def report(name):
    family, _, _, _, (host, *_) = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)[0]
    print(f"to {name} ({host}):")
    for hops, event, seconds in trace(family, host):
        if event is None:
            print(f"{hops:3} no answer", flush=True)
            continue
        said = f"{event.offender[0]} after {seconds * 1000:.2f} ms"
        if event.errno == errno.ECONNREFUSED:
            said += ": reached"
        elif (event.origin, event.icmp_type) not in TIME_EXCEEDED:
            said += f": {os.strerror(event.errno)}"
        print(f"{hops:3} {said}", flush=True)


def main():
    for name in sys.argv[1:] or ["127.0.0.1", "::1"]:
        try:
            report(name)
        except OSError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
