# SPDX-License-Identifier: MIT
"""The error queue of a socket as typed events, and a sender that lets the kernel read our memory.

`read` empties a queue, `wait` waits until there is something in it: ICMP and local errors, transmit timestamps, zero-copy
completions, missed transmit times.
`ZeroCopySender` sends by MSG_ZEROCOPY and keeps the memory until the kernel is done with it. Linux only. See recvmsg(2),
ip(7), ipv6(7), socket(7).
"""

# In: a socket, a limit or a timeout; to send, `bytes` or memory of the sender. Out: event tuples; numbers of sends, and
# memory released once the kernel is done with it. Called by users, `lowsock.aio`, `lowsock.udp` and the command.
#
#   _events.py     the events, `read` and `wait`: one receive with MSG_ERRQUEUE becomes one event
#   _zerocopy.py   `ZeroCopySender`: sending, completions, closing
#   _backlog.py    events that it has read and nobody has asked for yet
#   _inflight.py   the sends in flight and their count, which must be the kernel's; one send
#   _lock.py       the lock of a sender

from typing import TYPE_CHECKING

# Whole wings first: two threads that import each other's private rooms would wait for each other.
import lowsock.cmsg  # noqa: F401
from lowsock._system.exports import public
from lowsock.cmsg._errors import Origin
from lowsock.errqueue._events import (
    Event,
    IcmpError,
    LocalError,
    Stage,
    TransmitTimestamp,
    TxTimeMissed,
    TxTimeProblem,
    UnknownEvent,
    ZeroCopyCompletion,
    read,
    wait,
)
from lowsock.errqueue._inflight import Sent
from lowsock.errqueue._zerocopy import ZeroCopySender

__all__ = [
    "Event",
    "IcmpError",
    "LocalError",
    "Origin",
    "Sent",
    "Stage",
    "TransmitTimestamp",
    "TxTimeMissed",
    "TxTimeProblem",
    "UnknownEvent",
    "ZeroCopyCompletion",
    "ZeroCopySender",
    "read",
    "wait",
]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
