from lowsock.cmsg._base import known
from lowsock.cmsg._fields import INT_SIZE
from lowsock.cmsg._questions import HopCount, LocalAddress
@known("IPV6_HOPLIMIT", sizes=(INT_SIZE,), option="IPV6_RECVHOPLIMIT")
class HopLimit(HopCount): __slots__ = ()
class OrigDstAddr6(LocalAddress): pass
@known("IPV6_PKTINFO", sizes=(20,), option="IPV6_RECVPKTINFO")
class PktInfo6(LocalAddress):
    __slots__ = ()
    @property
    def ifindex(self) -> int: return int.from_bytes(self[2][16:], "little")
class TClass(LocalAddress): pass
