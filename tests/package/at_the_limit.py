# SPDX-License-Identifier: MIT
"""A program: looks up every public name, lowers RLIMIT_NOFILE to what is open, calls all of it, and says what was imported.

A call that fails for want of a descriptor is all right; one that imports is not. Run by test_names.py.
"""

import asyncio
import errno
import importlib
import os
import pkgutil
import resource
import socket
import sys
import time

import lowsock


def public(package):
    yield package
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not info.name.startswith("_"):
            yield from public(importlib.import_module(f"{package.__name__}.{info.name}"))


for module in public(lowsock):
    for name in module.__all__:
        getattr(module, name)

from lowsock import aio, cmsg, constants, errqueue, peer, udp, unix  # noqa: E402

asked = []


class Watch:
    """Writes down what is looked for, and finds nothing."""

    def find_spec(self, name, path=None, target=None):
        asked.append(name)


def attempt(call, *arguments, **more):
    try:
        return call(*arguments, **more)
    except (TypeError, ValueError, LookupError, OverflowError, BufferError, AttributeError, NotImplementedError, EOFError):
        pass
    except OSError as error:
        if error.errno not in (
            errno.EMFILE,
            errno.EAGAIN,
            errno.EBADF,
            errno.ECONNREFUSED,
            errno.ENOPROTOOPT,
            errno.ENOENT,
            None,
        ):
            raise
    return None


def pair(kind=socket.SOCK_STREAM):
    return socket.socketpair(socket.AF_UNIX, kind)


def udp_pair():
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in made:
        sock.bind(("127.0.0.1", 0))
    made[0].connect(made[1].getsockname())
    made[1].connect(made[0].getsockname())
    return made


def blocking(a, b, slow):
    """The core: good calls, bad ones, a timeout."""
    lowsock.CMSG_LEN(1), lowsock.CMSG_SPACE(1)
    for sock, other in ((a, b), (a.fileno(), b.fileno())):
        lowsock.sendmsg(sock, [b"a", bytearray(b"b")])
        lowsock.recvmsg(other, 10, 100)
        lowsock.send1msg(sock, b"x")
        lowsock.recv1msg(other, 10)
        lowsock.sendmsg(sock, [bytes(20_000)] * 2)
        lowsock.recvmsg_into(other, [bytearray(20_000), bytearray(20_000)])
        lowsock.send_fds(sock, [b"x"], [0])
        attempt(lowsock.recv_fds, other, 10, 1)
        lowsock.send_fds(sock, [b"x"], [0])
        with attempt(lowsock.recv_owned_fds, other, 10)[1] as fds:
            repr(fds), attempt(fds.take)
        lowsock.sendmmsg(sock, [([b"a"],), ([b"b"],)])
        lowsock.recvmmsg(other, 2, 10)
    attempt(lowsock.sockatmark, a)
    attempt(lowsock.recvmsg, slow, 10)
    attempt(lowsock.recvmsg, slow, 10, 0, constants.MSG_DONTWAIT)
    attempt(lowsock.sendmsg, a, "text")
    attempt(lowsock.sendmsg, a, [b"x"], [(1, 2)])
    attempt(lowsock.sendmsg, 10**6, [b"x"])
    attempt(lowsock.recvmsg, object(), 10)
    attempt(getattr, constants, "NONSENSE")
    attempt(getattr, cmsg, "Nonsense")
    attempt(getattr, lowsock, "nonsense")
    with attempt(lowsock.OwnedFds) as nothing:
        attempt(nothing.take)


def batches(a, b):
    with lowsock.SendBatch(4, 100, 100) as out, lowsock.RecvBatch(4, 100, 100) as into:
        out.append(b"x")
        out.append(b"y", ancdata=[cmsg.TTL(hops=3)])
        out.extend([b"z"])
        out.send(a)
        into.recv(b)
        list(into.messages()), into.ancdata(0), repr(into)


def errors(a, b):
    cmsg.enable(a, cmsg.ExtendedError, cmsg.LocalAddress, cmsg.TimestampNs)
    errqueue.read(a)
    errqueue.wait(a, timeout=0)
    with errqueue.ZeroCopySender(a) as sender:
        attempt(sender.send, bytes(30_000))
        sender.read(), sender.wait(timeout=1)
    lowsock.recvmsg(b, 65536)


def typed(a, b):
    room = cmsg.enable(b, cmsg.LocalAddress, cmsg.HopCount, cmsg.TrafficClass, cmsg.ReceiveTime)
    lowsock.sendmsg(a, [b"x"], [cmsg.TTL(hops=3), cmsg.TOS(ecn=cmsg.ECN.ECT_0)])
    ancdata = lowsock.recvmsg(b, 10, room)[1]
    repr(cmsg.decode(ancdata)), repr(cmsg.arrival(ancdata)), cmsg.find(ancdata, cmsg.HopCount)
    cmsg.towards("::1", cmsg.LocalAddress, local="::1")


def peers(a):
    for question in (peer.credentials, peer.groups, peer.pidfd, peer.security):
        attempt(question, a)


def streams(a, b):
    attempt(cmsg.space, fds=1)
    attempt(unix.connect, "/nowhere", timeout=0.01)
    with unix.UnixStream(a) as ours, unix.UnixStream(b) as theirs:
        ours.send_message(b"message", [0])
        message = attempt(theirs.receive_message)  # no descriptor is left for the copy
        if message is not None:
            message.fds.close()
        ours.send_eof()
        attempt(theirs.receive_exactly, 3), attempt(theirs.take_fds)


def endpoints(a, b):
    sender, receiver = udp.Endpoint(a), udp.Endpoint(b, recv_timestamps=True, recv_errors=True)
    sender.send(bytes(5_000), address=None, segment_size=1000)
    receiver.recv()
    sender.send(bytes(5_000), address=None, segment_size=1000)
    receiver.recv_coalesced(), repr(sender.fallbacks)
    sender.send_many([(b"x", None), (b"y", None)])
    receiver.recv_into([bytearray(10)]), receiver.read_errors()
    sender.close(), receiver.close()


async def awaitable(a, b, one, two, sock):
    task = asyncio.ensure_future(aio.recvmsg(b, 10))
    await asyncio.sleep(0)
    await aio.sendmsg(a, [b"x"])
    await task
    await aio.sendmmsg(a, [([b"x"],)])
    await aio.recvmmsg(b, 1, 10)
    await aio.errqueue.read(a)
    with aio.UnixStream(one) as ours, aio.UnixStream(two) as theirs:
        await ours.send_message(b"message", [0])
        try:
            message = await theirs.receive_message()
            message.fds.close()
        except (OSError, aio.BrokenStreamError):  # no descriptor is left for the copy
            pass
    transport, _ = await aio.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
    transport.sendto(b"x", sock.getsockname())
    await asyncio.sleep(0.01)
    transport.close()
    await asyncio.sleep(0)
    aio.close(a)


def main():
    a, b = pair()
    c, d = pair(socket.SOCK_DGRAM)
    e, f = udp_pair()
    g, h = udp_pair()
    i, j = udp_pair()
    k, l = pair()  # noqa: E741
    lone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lone.bind(("127.0.0.1", 0))
    m, n = pair()
    slow, other = pair()
    slow.settimeout(0.01)
    for sock in (i, j, k, l, lone):
        sock.setblocking(False)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    time.sleep(0)
    highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
    spare = [os.dup(0) for _ in range(highest)]  # no gap is left below the limit
    for fd in spare:
        if fd >= highest:
            os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.meta_path.insert(0, Watch())

    blocking(a, b, slow)
    batches(e, f)
    errors(e, f)
    typed(e, f)
    peers(a)
    endpoints(g, h)
    streams(m, n)
    loop.run_until_complete(awaitable(i, j, k, l, lone))
    loop.close()

    del sys.meta_path[0]
    print(f"imported: {asked}" if asked else "nothing was imported")


main()
