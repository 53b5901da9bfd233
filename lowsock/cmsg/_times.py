from lowsock.cmsg._questions import ReceiveTime
RECEIVE_BY_SOFTWARE = 0
class Timestamping(ReceiveTime): pass
class Timestamp(ReceiveTime): pass
class TimestampNs(ReceiveTime): pass
