from lowsock.cmsg._base import known
from lowsock.cmsg._fields import INT_SIZE
from lowsock.cmsg._questions import HopCount, LocalAddress
@known("IPV6_HOPLIMIT", sizes=(INT_SIZE,), option="IPV6_RECVHOPLIMIT")
class HopLimit(HopCount): __slots__ = ()
class OrigDstAddr6(LocalAddress): pass
class PktInfo6(LocalAddress): pass
class TClass(LocalAddress): pass
