# SPDX-License-Identifier: MIT
"""Two D-Bus clients, and a descriptor that goes from one to the other through the bus.

jeepney writes and reads the messages and does no input or output; aio.UnixStream does that. A private dbus-daemon runs
meanwhile, so this needs both: python dbus_client.py
"""

import array
import asyncio
import os
import subprocess
import tempfile
from itertools import count

from jeepney import DBusAddress, HeaderFields, Message, message_bus, new_method_call, new_method_return
from jeepney.auth import BEGIN, Authenticator
from jeepney.low_level import Header, calc_msg_size

from lowsock import aio

BUS = """<busconfig>
  <type>session</type> <listen>unix:path={}</listen> <auth>EXTERNAL</auth>
  <policy context="default"> <allow send_destination="*"/> <allow receive_sender="*"/> <allow own="*"/> </policy>
</busconfig>"""


class Client:
    """A connection to a bus."""

    def __init__(self, stream):
        self.stream = stream
        self._serials = count(1)

    async def log_in(self):
        """Returns the name that the bus has given us."""
        authenticator = Authenticator(enable_fds=True)
        for line in authenticator:
            await self.stream.send(line)
            authenticator.feed((await self.stream.receive()).data)
        await self.stream.send(BEGIN)
        reply, fds = await self.call(message_bus.Hello())
        with fds:
            return reply.body[0]

    async def send(self, message):
        fds = array.array("i")
        data = message.serialise(next(self._serials), fds=fds)
        await self.stream.send(data, fds)

    async def receive(self):
        """The next message, and the owner of the descriptors that its body names."""
        start = await self.stream.peek_exactly(16)
        data = await self.stream.receive_exactly(calc_msg_size(start))
        fds = self.stream.take_fds(Header.from_buffer(data)[0].fields.get(HeaderFields.unix_fds, 0))
        return Message.from_buffer(data, fds=fds), fds

    async def call(self, message):
        """The reply to a call; what else comes meanwhile is not for us."""
        await self.send(message)
        while True:
            reply, fds = await self.receive()
            if HeaderFields.reply_serial in reply.header.fields:
                return reply, fds
            fds.close()


async def serve(server):
    """Answers one call: reads the file that came, and returns the end of a pipe with its content turned round."""
    call = None
    while call is None or call.header.fields.get(HeaderFields.member) != "Reverse":
        call, fds = await server.receive()
        with fds:
            content = b"".join(os.pread(fd, 1000, 0) for fd in fds)
    readable, writable = os.pipe()
    with open(readable, "rb") as pipe, open(writable, "wb") as end:
        end.write(content[::-1])
        await server.send(new_method_return(call, "h", (pipe.fileno(),)))


async def ask(client, name):
    with tempfile.TemporaryFile() as file:
        file.write(b"what is in the file")
        file.flush()
        reverse = new_method_call(DBusAddress("/", name, "org.example.Files"), "Reverse", "h", (file,))
        reply, fds = await client.call(reverse)
    with fds, open(reply.body[0], "rb", closefd=False) as pipe:
        return pipe.read()


async def main(path):
    async with await aio.connect_unix(path) as one, await aio.connect_unix(path) as other:
        server, client = Client(one), Client(other)
        names = [await each.log_in() for each in (server, client)]
        print("on the bus:", *names)
        answer, _ = await asyncio.gather(ask(client, names[0]), serve(server))
        print("through the pipe that came:", answer.decode())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bus")
        with open(os.path.join(folder, "bus.conf"), "w", encoding="utf-8") as file:
            file.write(BUS.format(path))
        command = ["dbus-daemon", f"--config-file={file.name}", "--nofork", "--print-address"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bus:
            bus.stdout.readline()  # it listens
            asyncio.run(main(path))
            bus.terminate()
