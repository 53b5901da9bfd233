# SPDX-License-Identifier: MIT
"""A user's program over the whole public API, which strict type checkers take as it is. It is checked, never run."""

import asyncio
import socket
import sys
from array import array
from ipaddress import ip_address
from typing import Any, Optional, Union

from typing_extensions import Self, assert_type

import lowsock
from lowsock import RecvBatch, SendBatch, aio, cmsg, constants, errqueue, peer, typing, udp, unix
from lowsock.constants import IP_PKTINFO, SCM_RIGHTS

Ancillary = list[tuple[int, int, bytes]]


# ---- one message ----


def messages(sock: socket.socket, fd: int) -> None:
    assert_type(lowsock.__version__, str)
    assert_type(lowsock.sendmsg(sock, [b"a", bytearray(2), memoryview(b"c")], [(1, 2, b"")], 0, ("::1", 9)), int)
    assert_type(lowsock.send1msg(fd, b"a", flags=0, ancillary=[(1, 2, b"")]), int)
    data, ancdata, msg_flags, address = lowsock.recvmsg(sock, 100, lowsock.CMSG_SPACE(4), constants.MSG_PEEK)
    assert_type((data, ancdata, msg_flags), tuple[bytes, Ancillary, int])
    assert_type(lowsock.recvmsg_into(sock, [bytearray(9), array("i", [1])], lowsock.CMSG_LEN(4))[0], int)
    assert_type(lowsock.recv1msg(fd, 100, flags=0, cmsg_size=0), tuple[bytes, int, Ancillary])
    assert_type(lowsock.sockatmark(sock), bool)
    assert_type(IP_PKTINFO + SCM_RIGHTS + constants.MSG_DONTWAIT, int)


def descriptors(sock: socket.socket) -> None:
    with open("/dev/null") as file:
        lowsock.send_fds(sock, [b"x"], [file, 0])
    lowsock.send_fds(sock, [b"x"], [0, 1])
    assert_type(lowsock.recv_fds(sock, 100, 2)[1], list[int])
    received = lowsock.recv_owned_fds(sock, 100, maxfds=2)
    assert_type(received, lowsock.ReceivedFds)
    assert_type((received.data, received.msg_flags), tuple[bytes, int])
    with received.fds as fds:
        lowsock.send_fds(sock, [b"x"], fds)
        assert_type((fds[0], fds[:2], list(fds), fds.pidfd), tuple[int, list[int], list[int], Optional[int]])
        assert_type((fds.take(), fds.take(1), fds.left), tuple[int, int, int])
        assert_type((fds.detach(), fds.closed), tuple[list[int], bool])
    lowsock.OwnedFds([3]).close()


# ---- batches ----


def batches(sock: socket.socket) -> None:
    assert_type(lowsock.sendmmsg(sock, [([b"a"],), ([b"b"], [(1, 2, b"")]), ([b"c"], [], ("::1", 9))]), int)
    for data, ancdata, _flags, _address in lowsock.recvmmsg(sock, 8, 1500, 64, wait_all=True):
        assert_type((data, ancdata), tuple[bytes, Ancillary])
    with SendBatch(64, 1500, 100) as out:
        out.append(b"a", ancdata=[(1, 2, b"")], address=("::1", 9))
        out.extend([b"b", b"c"], address=("::1", 9))
        assert_type((out.send(sock, flags=constants.MSG_DONTWAIT), len(out)), tuple[int, int])
        out.skip()
        out.clear()
    with RecvBatch(64, 1500) as batch:
        assert_type(batch.recv(sock, flags=0, wait_all=True), int)
        for data, _address in batch.messages():
            assert_type(data, bytes)
        assert_type((batch.data(0), batch.ancdata(0), batch.flags(0)), tuple[memoryview, Ancillary, int])
        batch.address(0)
        assert_type(batch.take_fds(0), lowsock.OwnedFds)


# ---- control messages ----


@cmsg.register(4711, 1, sizes=[8], option=(4711, 2))
class Cookie(cmsg.ControlMessage):
    __slots__ = ()

    def __new__(cls, *, cookie: int) -> Self:
        return cls.from_data(cookie.to_bytes(8, sys.byteorder))

    @property
    def cookie(self) -> int:
        return int.from_bytes(self.data, sys.byteorder)


class Near(cmsg.TTL):
    __slots__ = ()

    @property
    def near(self) -> bool:
        return self.hops > 200


def send(sock: socket.socket, address: tuple[str, int]) -> None:
    sent = [cmsg.TTL(hops=1), cmsg.PktInfo(local=ip_address("10.0.0.1")), Cookie(cookie=3), Near(hops=3)]
    sock.sendmsg([b"x"], sent, 0, address)
    lowsock.sendmsg(sock, [b"x"], sent, 0, address)


def receive(sock: socket.socket) -> None:
    room = cmsg.enable(sock, cmsg.HopCount, cmsg.TimestampNs, Cookie, max_fds=1, timestamping=cmsg.TimestampingFlags.OPT_ID)
    assert_type(room + cmsg.space(cmsg.Rights, max_fds=3), int)
    for ancdata in (sock.recvmsg(10, room)[1], lowsock.recvmsg(sock, 10, room)[1]):
        for message in cmsg.decode(ancdata):
            level, kind, data = message
            assert_type((message.level, level, message.data, data), tuple[int, int, bytes, bytes])
            if isinstance(message, cmsg.TOS):
                assert_type((message.dscp, message.ecn), tuple[int, cmsg.ECN])
            elif isinstance(message, Cookie):
                assert_type(message.cookie, int)
        assert_type(cmsg.find(ancdata, cmsg.PktInfo), Optional[cmsg.PktInfo])
        assert_type(cmsg.find(ancdata, cmsg.HopCount), Optional[cmsg.HopCount])
        told: cmsg.Arrival = cmsg.arrival(ancdata)
        assert_type((told.local, told.ifindex, told.hops), tuple[Optional[str], Optional[int], Optional[int]])


assert_type(cmsg.towards(("::1", 1, 0, 0), cmsg.HopCount, hops=None), cmsg.HopCount)
assert_type(cmsg.towards(ip_address("::1"), cmsg.TrafficClass).ecn, cmsg.ECN)
assert_type(cmsg.PktInfo6(local=ip_address("::1")).local, str)
assert_type(cmsg.Rights(fds=[sys.stdin, 3]).fds, tuple[int, ...])
assert_type(Near.from_data(b"1"), Near)
QUESTIONS = (cmsg.LocalAddress, cmsg.OriginalDestination, cmsg.ReceiveTime, cmsg.ExtendedError)
MADE: list[cmsg.ControlMessage] = [
    cmsg.AlgAeadAssoclen(length=1), cmsg.AlgIv(iv=b""), cmsg.AlgOp(op=cmsg.AlgOperation.ENCRYPT), cmsg.Auxdata(),
    cmsg.Checksum(checksum=1), cmsg.Credentials(pid=1), cmsg.DontFrag(on=True), cmsg.Drops(dropped=1),
    cmsg.DstOptions(header=b""), cmsg.FlowInfo(flow_label=1), cmsg.FragSize(size=1), cmsg.FragSize6(size=1),
    cmsg.GetRecordType(record_type=cmsg.RecordType.ALERT), cmsg.Gro(size=1), cmsg.HopLimit(hops=1),
    cmsg.HopOptions(header=b""), cmsg.Inq(queued=1), cmsg.Mark(mark=1), cmsg.NetlinkPktInfo(group=1),
    cmsg.OrigDstAddr(address=("127.0.0.1", 1)), cmsg.OrigDstAddr6(address=("::1", 1, 0, 0)),
    cmsg.PathMTU(address=("::1", 1, 0, 0), mtu=1), cmsg.PidFd(fd=1), cmsg.Priority(priority=1), cmsg.Protocol(protocol=1),
    cmsg.ReceivedOptions(options=b""), cmsg.RequestTimestamps(flags=cmsg.TimestampingFlags.TX_SOFTWARE),
    cmsg.ReturnOptions(options=b""), cmsg.RoutingHeader(header=b""), cmsg.RthdrDstOptions(header=b""),
    cmsg.Security(label="x"), cmsg.Segment(size=1), cmsg.SetRecordType(record_type=21), cmsg.TClass(ecn=1),
    cmsg.Timestamp(timestamp_ns=1), cmsg.TimestampKey(key=1), cmsg.Timestamping(software_ns=1),
    cmsg.TimestampingPktInfo(ifindex=1), cmsg.TxTime(txtime_ns=1), cmsg.WifiStatus(acked=True),
    cmsg.RecvErr(errno=1, origin=cmsg.Origin.ICMP), cmsg.RecvErr6(errno=1, origin=1),
    cmsg.PacketTxTimestamp(errno=1, origin=1), cmsg.VsockRecvErr(errno=1, origin=1),
]  # fmt: skip
ELSEWHERE = (cmsg.Creds, cmsg.Creds2, cmsg.DstAddr, cmsg.RecvIf)  # classes of other systems, which a checker sees everywhere
assert_type(cmsg.PacketStatus.CSUMNOTREADY | cmsg.PacketStatus.VLAN_VALID, cmsg.PacketStatus)


# ---- the error queue, and who is at the other end ----


def events(sock: socket.socket) -> None:
    for event in [*errqueue.read(sock), *errqueue.wait(sock, timeout=1.0)]:
        if isinstance(event, errqueue.IcmpError):
            assert_type((event.errno, event.origin, event.mtu), tuple[int, Union[errqueue.Origin, int], Optional[int]])
        elif isinstance(event, errqueue.TransmitTimestamp):
            assert_type((event.key, event.stage, event.software_ns), tuple[int, Union[errqueue.Stage, int], Optional[int]])
        elif isinstance(event, errqueue.ZeroCopyCompletion):
            assert_type((event.first, event.last, event.copied), tuple[int, int, bool])
        elif isinstance(event, errqueue.TxTimeMissed):
            assert_type(event.reason, Union[errqueue.TxTimeProblem, int])
        elif isinstance(event, errqueue.LocalError):
            assert_type(event.errno, int)
        else:
            assert_type(event, errqueue.UnknownEvent)
    any_event: errqueue.Event = errqueue.read(sock)[0]
    assert_type(any_event.data if isinstance(any_event, errqueue.LocalError) else b"", bytes)
    with errqueue.ZeroCopySender(sock, timeout=1.0) as sender:
        view = sender.buffer(1 << 20)
        assert_type(view, memoryview)
        assert_type(sender.send(view, address=("::1", 9), flags=0, ancdata=[(1, 2, b"")]), errqueue.Sent)
        assert_type(sender.drain(1.0), bool)
        assert_type((sender.is_free(view), sender.wait(1.0), sender.pending, sender.copied), tuple[bool, bool, int, int])


def who(sock: socket.socket) -> None:
    assert_type(peer.credentials(sock), peer.PeerCredentials)
    assert_type((peer.groups(sock), peer.security(sock)), tuple[list[int], Optional[str]])
    with peer.pidfd(sock) as (fd,):
        assert_type(fd, int)


# ---- datagrams in bulk ----


def bulk(sock: socket.socket) -> None:
    endpoint = udp.Endpoint(
        sock, gso=True, gro=True, recv_ecn=True, recv_pktinfo=True, recv_timestamps=True, recv_errors=True
    )
    local = ip_address("::1")
    assert_type(endpoint.send(b"data", address=("::1", 9), segment_size=2, ecn=cmsg.ECN.ECT_0, local=local, ifindex=1), int)
    assert_type(endpoint.send(b"data", address=None, txtime_ns=1), int)
    reply = udp.Transmit(b"z", ("::1", 9), local="::1", ecn=1, segment_size=2, ancdata=[cmsg.HopLimit(hops=1)])
    assert_type(endpoint.send_many([(b"x", ("::1", 9)), (b"y", None), reply]), int)
    assert_type(endpoint.send_many(endpoint.recv(), ecn=1), int)
    for datagram in endpoint.recv(flags=constants.MSG_PEEK):
        assert_type(datagram, udp.Datagram)
        assert_type(datagram.timestamp_ns, Optional[int])
        assert_type((datagram.data, datagram.local, datagram.ecn), tuple[bytes, Optional[str], Optional[cmsg.ECN]])
    assert_type(endpoint.recv_coalesced(), udp.Coalesced)
    assert_type(endpoint.recv_coalesced().split(), list[udp.Datagram])
    assert_type(endpoint.recv_into([bytearray(65536)]), udp.Scattered)
    assert_type((endpoint.recv_ecn, endpoint.txtime_clock, endpoint.drain(1.0)), tuple[bool, Optional[int], bool])
    assert_type(endpoint.read_errors(), list[errqueue.Event])
    assert_type((endpoint.fallbacks, endpoint.gro, endpoint.max_gso_segments), tuple[udp.Fallbacks, bool, int])
    endpoint.close(1.0)
    with udp.Endpoint(sock) as other:
        other.detach()


# ---- the same, awaitable ----


class Echo(asyncio.DatagramProtocol):
    def datagrams_received(self, datagrams: list[udp.Datagram]) -> None:
        pass


async def awaitable(sock: socket.socket) -> None:
    assert_type(await aio.sendmsg(sock, [b"a"], [(1, 2, b"")], 0, ("::1", 9)), int)
    assert_type((await aio.recvmsg(sock, 100))[0], bytes)
    assert_type((await aio.recvmsg_into(sock, [bytearray(9)]))[0], int)
    assert_type(await aio.send1msg(sock, b"a"), int)
    assert_type(await aio.recv1msg(sock), tuple[bytes, int, Ancillary])
    assert_type(await aio.send_fds(sock, [b"a"], [0, sys.stdin]), int)
    assert_type((await aio.recv_fds(sock, 100, 1))[1], list[int])
    assert_type(await aio.recv_owned_fds(sock, 100), lowsock.ReceivedFds)
    assert_type(await aio.sendmmsg(sock, [([b"a"],)]), int)
    assert_type((await aio.recvmmsg(sock, 8, 100))[0][0], bytes)
    assert_type(await aio.send_batch(SendBatch(8, 100), sock, flags=0), int)
    assert_type(await aio.recv_batch(RecvBatch(8, 100), sock, flags=0, wait_all=True), int)
    aio.close(sock)
    transport, protocol = await aio.create_datagram_endpoint(Echo, local_addr=("::1", 0), recv_ecn=True)
    transport.sendto(b"x", ("::1", 9), ecn=1, local="::1")
    transport.close()
    assert_type(await aio.errqueue.read(sock), list[errqueue.Event])
    assert_type(await aio.errqueue.wait(sock, limit=5), list[errqueue.Event])
    async with aio.errqueue.ZeroCopySender(sock) as sender:
        assert_type(await sender.send(b"x", address=("::1", 9)), errqueue.Sent)
        assert_type((await sender.wait(key=0), await sender.drain()), tuple[bool, bool])
        await sender.aclose()
    async with aio.udp.Endpoint(sock) as endpoint:
        assert_type(await endpoint.recv(), list[aio.udp.Datagram])
        assert_type(await endpoint.send(b"x", address=("::1", 9)), int)
        assert_type(await endpoint.send_many([aio.udp.Transmit(b"x", None)]), int)
        assert_type(await endpoint.recv_coalesced(), aio.udp.Coalesced)
        assert_type(await endpoint.recv_into([bytearray(9)]), aio.udp.Scattered)
        assert_type((await endpoint.drain(), endpoint.fallbacks), tuple[bool, aio.udp.Fallbacks])
    await endpoint.aclose()


EVENTS: list[type[aio.errqueue.Event]] = [
    aio.errqueue.IcmpError, aio.errqueue.LocalError, aio.errqueue.TransmitTimestamp, aio.errqueue.TxTimeMissed,
    aio.errqueue.UnknownEvent, aio.errqueue.ZeroCopyCompletion,
]  # fmt: skip
NUMBERS = (aio.errqueue.Origin.ICMP, aio.errqueue.Stage.SENT, aio.errqueue.TxTimeProblem.MISSED, aio.errqueue.Sent(3, 0))


async def stream(sock: socket.socket) -> None:
    async with aio.UnixStream(sock, max_fds=3) as here:
        await here.send(b"x", [sys.stdin])
        await here.send_message(b"x")
        await here.send_eof()
        received = await here.receive(100)
        assert_type(received, aio.UnixMessage)
        assert_type((received.data, received.fds), tuple[bytes, lowsock.OwnedFds])
        assert_type(await here.receive_exactly(3), bytes)
        assert_type(await here.receive_message(), Optional[aio.UnixMessage])
        try:
            assert_type(here.take_fds(1), lowsock.OwnedFds)
        except aio.BrokenStreamError:
            pass


# ---- types for annotations of one's own, and errors ----


def annotated(
    sock: typing.Socket, data: typing.Buffer, address: typing.Address, host: typing.Host, messages: list[typing.Message]
) -> typing.Received:
    number: int = sock if isinstance(sock, int) else sock.fileno()
    control: typing.ControlMessage = (1, 2, b"")
    ancdata: typing.Ancillary = lowsock.recvmsg(sock, 10, 100)[1]
    file: typing.HasFileno = sys.stdin
    try:
        lowsock.send_fds(sock, [data], [number, file], 0, address)
    except lowsock.UnsupportedError as error:
        assert_type((error.errno, isinstance(error, OSError)), tuple[Optional[int], bool])
    lowsock.sendmmsg(sock, messages)
    lowsock.sendmsg(sock, [data], [control, *ancdata], 0, (str(host), 9))
    return lowsock.recvmsg(sock, 10)


async def serve(stream: aio.UnixStream) -> None:
    await stream.aclose()


async def paths() -> None:
    async with await aio.connect_unix("/run/socket", max_fds=0) as stream:
        assert_type(stream, aio.UnixStream)
    await aio.serve_unix(serve, b"/run/socket", backlog=5)


def blocking(sock: socket.socket) -> None:
    with unix.UnixStream(sock, max_message=100) as stream, unix.connect("/run/socket", timeout=1.0) as other:
        stream.send(b"x", [sys.stdin, 0], cmsg.Credentials())
        stream.send_message(b"x")
        assert_type((stream.receive(), other.receive_message()), tuple[unix.UnixMessage, Optional[unix.UnixMessage]])
        assert_type((stream.peek_exactly(3), stream.unsent, stream.take_fds(1)), tuple[bytes, int, lowsock.OwnedFds])
        try:
            stream.send_eof()
        except unix.BrokenStreamError as error:
            raise ConnectionError from error


def anything(value: Any) -> None:
    lowsock.sendmsg(value, value, value, value, value)
