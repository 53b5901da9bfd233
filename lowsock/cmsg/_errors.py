from lowsock.cmsg._questions import LocalAddress
class ExtendedError(LocalAddress): pass
class RecvErr(ExtendedError): pass
class RecvErr6(ExtendedError): pass
