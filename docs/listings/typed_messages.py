# SPDX-License-Identifier: MIT
"""Control messages with fields: asked for, sent, received, and one of a kind that only this program knows."""

import socket
import sys

from lowsock import cmsg, recvmsg, sendmsg

IPPROTO_OURS, COOKIE = 253, 1  # 253: for experiments, RFC 3692


@cmsg.register(IPPROTO_OURS, COOKIE, sizes=[8])
class Cookie(cmsg.ControlMessage):
    __slots__ = ()

    @property
    def cookie(self):
        return int.from_bytes(self.data, sys.byteorder)


def match_class(message):
    if isinstance(message, cmsg.PktInfo):
        print(f"to {message.local}, ours by interface number {message.ifindex}")
    elif isinstance(message, cmsg.TTL):
        print(f"with {message.hops} hops left")
    elif isinstance(message, cmsg.TOS):
        print(f"DSCP {message.dscp}, {message.ecn!r}")
    else:
        print(f"something else: {message!r}")


def main():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.settimeout(1)
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        room = cmsg.enable(receiver, cmsg.PktInfo, cmsg.TTL, cmsg.TOS)
        sendmsg(sender, [b"hello"], [cmsg.TTL(hops=1), cmsg.TOS(dscp=46, ecn=cmsg.ECN.ECT_0)])
        data, ancdata, flags, address = recvmsg(receiver, 2048, room)
        for message in cmsg.decode(ancdata):
            match_class(message)
    (cookie,) = cmsg.decode([(IPPROTO_OURS, COOKIE, (42).to_bytes(8, sys.byteorder))])
    print(f"a cookie of our own: {cookie.cookie}, and still a tuple: {cookie == (*cookie,)}")


if __name__ == "__main__":
    main()
