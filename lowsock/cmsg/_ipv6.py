from lowsock.cmsg._questions import LocalAddress
class HopLimit(LocalAddress): pass
class OrigDstAddr6(LocalAddress): pass
class PktInfo6(LocalAddress): pass
class TClass(LocalAddress): pass
