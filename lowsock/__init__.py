# SPDX-License-Identifier: MIT
"""All of sendmsg(2) and recvmsg(2): gather and scatter, control messages, descriptors, out-of-band data.

The functions take a descriptor or any object with ``fileno()``, and follow the methods of the same name of
``socket.socket``, on PyPy too. `lowsock.constants` has the constants. The guide is in docs/.
"""

from lowsock._batch.functions import recvmmsg, sendmmsg
from lowsock._batch.recv_batch import RecvBatch
from lowsock._batch.send_batch import SendBatch
from lowsock._memory.ancillary import CMSG_LEN, CMSG_SPACE
from lowsock._message.descriptors import recv_fds, send_fds
from lowsock._message.out_of_band import sockatmark
from lowsock._message.owned import OwnedFds
from lowsock._message.receiving import recv1msg, recvmsg, recvmsg_into
from lowsock._message.rights import recv_rights, send_rights
from lowsock._message.sending import send1msg, sendmsg

__all__ = [
    "CMSG_LEN",
    "CMSG_SPACE",
    "OwnedFds",
    "RecvBatch",
    "SendBatch",
    "recv1msg",
    "recv_fds",
    "recv_rights",
    "recvmmsg",
    "recvmsg",
    "recvmsg_into",
    "send1msg",
    "send_fds",
    "send_rights",
    "sendmmsg",
    "sendmsg",
    "sockatmark",
]
