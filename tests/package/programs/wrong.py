# SPDX-License-Identifier: MIT
"""A user's program that is wrong: each line that ends in # wrong is one that both strict type checkers have to name."""

from typing import Any

import lowsock
from lowsock import aio, cmsg, constants, errqueue, peer, typing, udp, unix


def names(sock: Any) -> None:
    lowsock.sendmsgg(sock, [b""])  # wrong
    lowsock.SendBach(1, 2)  # wrong
    lowsock.send_rights(sock, [b"x"], [0])  # wrong
    lowsock.recv_rights(sock, 1)  # wrong
    lowsock.RecvBatch(1, 2).receive(sock)  # wrong
    lowsock.RecvBatch(1, 2).datagrams()  # wrong
    aio.send_rights(sock, [b"x"], [0])  # wrong
    aio.recv_rights(sock, 1)  # wrong
    lowsock.cmsgs  # wrong
    constants.IP_PKTINFOO  # wrong
    cmsg.PktInfoo  # wrong
    errqueue.reed(sock)  # wrong
    peer.credential(sock)  # wrong
    udp.EndPoint(sock)  # wrong
    typing.Sockett  # wrong
    aio.sendmesg(sock, [b""])  # wrong
    aio.udp.EndPoint(sock)  # wrong
    aio.errqueue.reed(sock)  # wrong


def arguments(sock: Any) -> None:
    lowsock.sendmsg([b""], sock=sock)  # wrong
    lowsock.sendmsg(sock, b"x", b"y")  # wrong
    lowsock.sendmsg(sock, ["text"])  # wrong
    lowsock.send1msg(sock, "text")  # wrong
    lowsock.recvmsg_into(sock, [100])  # wrong
    lowsock.recvmsg(sock, "100")  # wrong
    lowsock.recvmsg(sock, 100, msg_flags=1)  # wrong
    lowsock.recv1msg(sock, 100, 0)  # wrong
    lowsock.recv_fds(sock, 100)  # wrong
    lowsock.recv_owned_fds("sock", 100)  # wrong
    lowsock.send_fds(sock, [b"x"], ["0"])  # wrong
    lowsock.OwnedFds(["3"])  # wrong
    lowsock.SendBatch(1, 2).append()  # wrong
    lowsock.SendBatch(1, 2).append(b"x", [])  # wrong
    lowsock.SendBatch(1, 2).extend([b"x"], ("::1", 9))  # wrong
    lowsock.SendBatch(1, 2).send(sock, 0)  # wrong
    lowsock.RecvBatch(1, 2).recv(sock, 0)  # wrong
    udp.Endpoint(sock, gsso=True)  # wrong
    udp.Endpoint(sock, ecn=True)  # wrong
    udp.Endpoint(sock, recv_ecn=cmsg.ECN.ECT_0)  # wrong
    udp.Endpoint(sock).send(b"x", address=None, segment_size="2")  # wrong
    udp.Endpoint(sock).send(b"x")  # wrong
    udp.Endpoint(sock).send(b"x", ("::1", 9))  # wrong
    udp.Endpoint(sock).send(b"x", address=None, source="::1")  # wrong
    udp.Endpoint(sock).send_many([b"x"])  # wrong
    udp.Endpoint(sock).recv(1500)  # wrong
    udp.Endpoint(sock).recv_into([], 64)  # wrong
    errqueue.wait(sock, timeout="1")  # wrong
    aio.errqueue.wait(sock, timeout=1)  # wrong
    aio.errqueue.wait(sock, 1)  # wrong
    aio.errqueue.ZeroCopySender(sock, timeout=1)  # wrong
    errqueue.ZeroCopySender(sock).send(b"x", ("::1", 9))  # wrong
    aio.errqueue.ZeroCopySender(sock).close  # wrong
    aio.BrokenStream  # wrong
    aio.Received  # wrong
    aio.UnixStream(sock).take_fds()  # wrong
    unix.UnixStream(sock).take_fds()  # wrong
    unix.connect(5)  # wrong


def fields(sock: Any) -> None:
    cmsg.space(fds=3)  # wrong
    cmsg.enable(sock, cmsg.TTL, fds=3)  # wrong
    cmsg.TxTime(nanoseconds=3)  # wrong
    cmsg.TimestampNs(nanoseconds=3)  # wrong
    cmsg.Timestamping(software=3)  # wrong
    cmsg.register(1, 2, option=3)  # wrong
    cmsg.TTL(hopz=3)  # wrong
    cmsg.TTL(3)  # wrong
    cmsg.TTL(hops="3")  # wrong
    cmsg.PktInfo(local=3)  # wrong
    cmsg.enable(3, cmsg.TTL(hops=3))  # wrong
    cmsg.find([], 5)  # wrong
    cmsg.towards("::1", int)  # wrong


def results(sock: Any) -> None:
    cmsg.find([], cmsg.TTL).hops  # wrong
    cmsg.TTL(hops=3).hobs  # wrong
    cmsg.TTL(hops=3).hops = 4  # wrong
    udp.Endpoint(sock).recv()[0].adress  # wrong
    udp.Endpoint(sock).recv()[0].timestamp  # wrong
    udp.Received  # wrong
    lowsock.recvmsg(sock, 100)[4]  # wrong
    peer.credentials(sock).user  # wrong
    cmsg.arrival([]).nanoseconds  # wrong
    lowsock.sendmsg(sock, [b""]).bit_lenght()  # wrong
    lowsock.recv_owned_fds(sock, 1).flags  # wrong
    names: typing.Ancillary = lowsock.recvmsg(sock, 1)  # wrong
    print(names)


async def awaitable(sock: Any) -> None:
    await aio.recvmmsg(sock, 1, 1, wait_all=True)  # wrong
    await aio.send_batch(lowsock.SendBatch(1, 2), sock, 0)  # wrong
    await aio.recv_batch(lowsock.RecvBatch(1, 2), sock, 0)  # wrong


from lowsock import nobody  # noqa: E402 # wrong
from lowsock.aio import nobody as a  # noqa: E402 # wrong
from lowsock.aio.errqueue import nobody as b  # noqa: E402 # wrong
from lowsock.aio.udp import nobody as c  # noqa: E402 # wrong
from lowsock.cmsg import nobody as d  # noqa: E402 # wrong
from lowsock.constants import NOBODY as e  # noqa: E402 # wrong
from lowsock.errqueue import nobody as f  # noqa: E402 # wrong
from lowsock.peer import nobody as g  # noqa: E402 # wrong
from lowsock.typing import nobody as i  # noqa: E402 # wrong
from lowsock.udp import nobody as h  # noqa: E402 # wrong
from lowsock.unix import nobody as j  # noqa: E402 # wrong

print(nobody, a, b, c, d, e, f, g, h, i, j)
