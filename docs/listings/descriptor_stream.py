# SPDX-License-Identifier: MIT
"""Messages with descriptors and senders over a Unix stream, on asyncio: a service that measures files it cannot open."""

import asyncio
import os
import socket
import tempfile

from lowsock import cmsg
from lowsock.aio import BrokenStreamError, UnixStream

GREETING = b"MEASURE 1\n"


async def serve(sock):
    cmsg.enable(sock, cmsg.Credentials)  # the kernel then tells who sent each message
    with UnixStream(sock) as stream:
        if await stream.receive_exactly(len(GREETING)) != GREETING:  # ordinary bytes, then messages
            return
        while (message := await stream.receive_message()) is not None:
            with message.fds as fds:
                sizes = [os.fstat(fd).st_size for fd in fds]
            ours = message.credentials is not None and message.credentials.pid == os.getpid()
            await stream.send_message(f"{message.data.decode()}: {sizes}, sent by this process: {ours}".encode())


async def ask(sock):
    with UnixStream(sock, max_fds=0) as stream:  # nobody is to send descriptors here
        await stream.send(GREETING)
        for count in (1, 0, 3):
            with tempfile.TemporaryFile() as file:
                file.write(bytes(1000 * count))
                file.flush()
                await stream.send_message(b"%d files" % count, [file] * count)
            answer = await stream.receive_message()
            print(answer.data.decode())


async def give_up():
    """A send that is cancelled in the middle goes on later, and its descriptors have gone once."""
    ours, theirs = pair()
    with UnixStream(ours) as stream, UnixStream(theirs) as other:
        try:
            await asyncio.wait_for(stream.send_message(bytes(1_000_000), [0]), 0.05)  # the other does not read yet
        except asyncio.TimeoutError:
            print("cut in the middle:", 0 < stream.unsent < 1_000_000)
        message, _ = await asyncio.gather(other.receive_message(), stream.flush())
        with message.fds as fds:
            print("it came whole:", len(message.data), "bytes,", len(fds), "descriptor")


async def hostile():
    ours, theirs = pair()
    with UnixStream(ours) as stream, UnixStream(theirs, max_fds=10) as other:
        await stream.send_message(b"take these", [0] * 11)
        try:
            await other.receive_message()
        except BrokenStreamError as error:
            print("broken:", error)


def pair():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for sock in pair:
        sock.setblocking(False)
    return pair


async def main():
    ours, theirs = pair()
    await asyncio.gather(serve(theirs), ask(ours))
    await give_up()
    await hostile()


asyncio.run(main())
