# SPDX-License-Identifier: MIT
"""A task that follows the error queue of a socket, while another one waits for its data (Linux)."""

import asyncio
import socket

from lowsock import aio, cmsg
from lowsock.aio import errqueue


async def follow(sock, refused):
    """Puts every destination that refused a datagram into a queue. The events of one read may be many."""
    while True:
        for event in await errqueue.wait(sock):
            await refused.put(event.destination)


async def receive(sock):
    while True:
        try:
            return (await aio.recvmsg(sock, 2048))[0]
        except ConnectionRefusedError:
            pass  # an error that is pending fails one call, whichever comes next


def closed_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        cmsg.enable(sock, cmsg.ExtendedError)
        refused, nobody = asyncio.Queue(), closed_port()
        tasks = [asyncio.ensure_future(follow(sock, refused)), asyncio.ensure_future(receive(sock))]
        await aio.sendmsg(sock, [b"is anybody there?"], (), 0, nobody)
        print(f"refused by the one who was asked: {await refused.get() == nobody}")
        await aio.sendmsg(sock, [b"to myself"], (), 0, sock.getsockname())
        print(f"received {await tasks[1]}")
        tasks[0].cancel()
        await asyncio.wait(tasks)


if __name__ == "__main__":
    asyncio.run(main())
