# SPDX-License-Identifier: MIT
"""The calls of lowsock, awaitable: on asyncio (the stock loop and uvloop), and on trio where it is installed.

Every call has the name, arguments and results of the one in `lowsock`. It tries the system call first, and waits only if the
kernel says EAGAIN. Sockets must be non-blocking, and addresses numeric. See recvmsg(2), epoll(7).
"""

# In: the arguments of a blocking call. Out: its result. Called by: tasks of asyncio or trio; `close` by any thread.
# _calls.py: single messages, descriptors. _batches.py: sendmmsg(2), recvmmsg(2), batches. errqueue.py, _zerocopy.py: the
# error queue, zero-copy sends. udp.py: an endpoint. Each checks its arguments, and leaves the call to the blocking modules.
# _wait: how a call waits. _stream: `UnixStream`. _datagram: `create_datagram_endpoint`, a transport of asyncio.

from typing import TYPE_CHECKING

from lowsock._system.exports import public
from lowsock.aio._batches import recv_batch, recvmmsg, send_batch, sendmmsg
from lowsock.aio._calls import (
    recv1msg,
    recv_fds,
    recv_owned_fds,
    recvmsg,
    recvmsg_into,
    send1msg,
    send_fds,
    sendmsg,
)
from lowsock.aio._stream.connecting import connect_unix
from lowsock.aio._stream.serving import serve_unix
from lowsock.aio._stream.stream import UnixStream
from lowsock.aio._wait.closing import close
from lowsock.unix import BrokenStreamError, UnixMessage

if TYPE_CHECKING:
    from lowsock.aio import errqueue as errqueue
    from lowsock.aio import udp as udp
    from lowsock.aio._datagram.endpoint import create_datagram_endpoint

__all__ = [
    "BrokenStreamError",
    "UnixMessage",
    "UnixStream",
    "close",
    "connect_unix",
    "create_datagram_endpoint",
    "recv1msg",
    "recv_batch",
    "recv_fds",
    "recv_owned_fds",
    "recvmmsg",
    "recvmsg",
    "recvmsg_into",
    "send1msg",
    "send_batch",
    "send_fds",
    "sendmmsg",
    "sendmsg",
    "serve_unix",
]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(
        __name__,
        {
            "create_datagram_endpoint": "lowsock.aio._datagram.endpoint",
            "errqueue": "lowsock.aio.errqueue",
            "udp": "lowsock.aio.udp",
        },
        gone={
            "BrokenStream": "use BrokenStreamError",
            "Received": "use UnixMessage",
            "recv_rights": "use recv_owned_fds",
            "send_rights": "use send_fds",
        },
    )
