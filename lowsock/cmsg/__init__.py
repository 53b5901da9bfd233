from lowsock.cmsg._base import *
from lowsock.cmsg._ip import *
