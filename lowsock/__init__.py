# SPDX-License-Identifier: MIT
"""All of sendmsg(2) and recvmsg(2): gather and scatter, control messages, descriptors, out-of-band data, batches.

The functions take a descriptor or any object with ``fileno()``, and follow the methods of the same name of
``socket.socket``, on PyPy too. The modules are loaded when they are first asked for, as are the batches and
`recv_owned_fds`:

- `lowsock.constants`: the constants of sockets, options and control messages;
- `lowsock.cmsg`: typed control messages;
- `lowsock.errqueue`: the error queue as events, and a zero-copy sender;
- `lowsock.udp`: datagrams in bulk;
- `lowsock.aio`: the same calls, awaitable;
- `lowsock.peer`: who is at the other end of an ``AF_UNIX`` socket;
- `lowsock.typing`: the types in the annotations of all this.
- `lowsock.unix`: descriptors and messages over ``AF_UNIX`` streams.

A program that gives up the file system (chroot(2), seccomp(2)), runs at its limit of descriptors, or forks while other
threads run, imports before that what it uses. The guide is in docs/.
"""

from lowsock._memory.ancillary import CMSG_LEN, CMSG_SPACE
from lowsock._message.out_of_band import sockatmark
from lowsock._message.owned import OwnedFds
from lowsock._message.receiving import recv1msg, recvmsg, recvmsg_into
from lowsock._message.receiving_fds import recv_fds
from lowsock._message.sending import send1msg, sendmsg
from lowsock._message.sending_fds import send_fds
from lowsock._system.errors import UnsupportedError
from lowsock._system.exports import public

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from lowsock import aio as aio
    from lowsock import cmsg as cmsg
    from lowsock import constants as constants
    from lowsock import errqueue as errqueue
    from lowsock import peer as peer
    from lowsock import typing as typing
    from lowsock import udp as udp
    from lowsock import unix as unix
    from lowsock._batch.functions import recvmmsg, sendmmsg
    from lowsock._batch.recv_batch import RecvBatch
    from lowsock._batch.send_batch import SendBatch
    from lowsock._message.receiving_owned_fds import ReceivedFds, recv_owned_fds

__version__ = "0.1.0"  # the only place that says so: pyproject.toml reads it from here

__all__ = [
    "CMSG_LEN",
    "CMSG_SPACE",
    "OwnedFds",
    "ReceivedFds",
    "RecvBatch",
    "SendBatch",
    "UnsupportedError",
    "recv1msg",
    "recv_fds",
    "recv_owned_fds",
    "recvmmsg",
    "recvmsg",
    "recvmsg_into",
    "send1msg",
    "send_fds",
    "sendmmsg",
    "sendmsg",
    "sockatmark",
]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(
        __name__,
        {
            "ReceivedFds": "lowsock._message.receiving_owned_fds",
            "RecvBatch": "lowsock._batch.recv_batch",
            "SendBatch": "lowsock._batch.send_batch",
            "recv_owned_fds": "lowsock._message.receiving_owned_fds",
            "recvmmsg": "lowsock._batch.functions",
            "sendmmsg": "lowsock._batch.functions",
            **{
                name: f"lowsock.{name}" for name in ("aio", "cmsg", "constants", "errqueue", "peer", "typing", "udp", "unix")
            },
        },
        gone={"recv_rights": "use recv_owned_fds", "send_rights": "use send_fds"},
    )
