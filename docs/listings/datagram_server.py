# SPDX-License-Identifier: MIT
"""An asyncio server of datagrams at bulk speed: it answers from the address that was asked, and counts marks (Linux)."""

import asyncio

from lowsock import aio, cmsg

BURST, SIZE = 500, 1200


class Server:
    """A protocol with ``datagrams_received`` gets whole datagrams, all that came together."""

    def __init__(self):
        self.batches = self.datagrams = self.marks = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagrams_received(self, datagrams):
        self.batches += 1
        self.datagrams += len(datagrams)
        for datagram in datagrams:
            self.marks += datagram.ecn == cmsg.ECN.CE
            self.transport.sendto(datagram.data, datagram.address, local=datagram.local)

    def error_received(self, error):
        print("refused:", error)

    def connection_lost(self, error):
        print("the server ended with", error)


class Client(asyncio.DatagramProtocol):
    """An ordinary protocol of asyncio."""

    def __init__(self, wanted):
        self.answers, self.wanted, self.done = [], wanted, asyncio.get_running_loop().create_future()

    def datagram_received(self, data, addr):
        self.answers.append(data)
        if len(self.answers) == self.wanted:
            self.done.set_result(addr)


async def main():
    serving, server = await aio.create_datagram_endpoint(Server, local_addr=("0.0.0.0", 0))
    port = serving.get_extra_info("sockname")[1]
    asking, client = await aio.create_datagram_endpoint(lambda: Client(BURST), local_addr=("127.0.0.1", 0))
    asked = "127.0.0.2", port  # on Linux all of 127.0.0.0/8 is the loopback's
    for number in range(BURST):
        asking.sendto(b"%0*d" % (SIZE, number), asked, ecn=cmsg.ECN.CE if number % 100 == 0 else None)
        if number % 50 == 49:
            await asyncio.sleep(0.001)  # a burst can be too fast
    answering = await asyncio.wait_for(client.done, 20)
    print("all answers came from the address that was asked:", answering == asked)
    print("in order:", [int(answer) for answer in client.answers] == list(range(BURST)))
    print("marked:", server.marks)
    print("fewer calls than datagrams:", server.batches < server.datagrams)
    for transport in (asking, serving):
        transport.close()
    await asyncio.sleep(0)


asyncio.run(main())
