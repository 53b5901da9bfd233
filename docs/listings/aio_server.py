# SPDX-License-Identifier: MIT
"""A name server on all addresses that answers from the one that was asked, while other tasks run (Linux)."""

import asyncio
import socket

from lowsock import aio, cmsg

NAMES = {b"one.example": b"192.0.2.1", b"two.example": b"192.0.2.2"}


async def serve(server, room):
    while True:
        question, ancdata, flags, client = await aio.recvmsg(server, 512, room)
        local = cmsg.arrival(ancdata).local
        answer = NAMES.get(question, b"no such name")
        await aio.sendmsg(server, [question, b" is ", answer], [cmsg.PktInfo(local=local)], 0, client)


async def ask(host, port, name):
    """A connected socket takes answers from the address that it asked only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((host, port))
        await aio.sendmsg(client, [name])
        answer, *_ = await aio.recvmsg(client, 512)
        print(f"{host} says: {answer.decode()}")


async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setblocking(False)
        server.bind(("0.0.0.0", 0))
        port = server.getsockname()[1]
        room = cmsg.enable(server, cmsg.LocalAddress)
        serving = asyncio.ensure_future(serve(server, room))
        await asyncio.gather(*(ask(f"127.0.0.{i}", port, name) for i, name in enumerate(NAMES, 2)))
        aio.close(server)  # wakes the task, which `server.close()` would not
        try:
            await serving
        except OSError as error:
            print(f"the server ended: {error.strerror}")


if __name__ == "__main__":
    asyncio.run(main())
