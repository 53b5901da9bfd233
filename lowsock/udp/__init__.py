# SPDX-License-Identifier: MIT
"""Datagrams in bulk: segmentation offload both ways, ECN, local addresses, timestamps.

An `Endpoint` stands around a UDP socket. It sends up to 64 KiB by one system call as datagrams of one size, and receives as
much, cut apart again. Where the kernel or the platform has no offload, the same calls do the same, more slowly. See udp(7).
"""

# In: a UDP socket; data with a destination and what else each datagram is to have. Out: bytes or datagrams that went;
# tuples of data, source and how it came. Called by users, `lowsock.aio.udp` and the datagram transport in
# `lowsock.aio._datagram`.
#
#   _endpoint.py   `Endpoint`: sets the options, and hands each call to one of the next three
#   _sending.py    `send`: offload, what is done if it is refused, and what is remembered of that
#   _send_many.py  `send_many`: a batch; _mixed.py: one with `Transmit` in it
#   _receiving.py  `recv`, `recv_coalesced`, `recv_into`
#   _arrival.py    what they return, and the memory that C fills
#   _control.py    control buffers of datagrams to be sent, each made once
#   _capabilities.py  what the socket and the kernel can do
#   _former.py     what calls in an old spelling are told

from typing import TYPE_CHECKING

# Whole wings first: two threads that import each other's private rooms would wait for each other.
import lowsock.cmsg
import lowsock.errqueue  # noqa: F401
from lowsock._system.exports import public
from lowsock.udp._arrival import Coalesced, Datagram, Scattered
from lowsock.udp._endpoint import Endpoint
from lowsock.udp._mixed import Transmit
from lowsock.udp._sending import Fallbacks

__all__ = ["Coalesced", "Datagram", "Endpoint", "Fallbacks", "Scattered", "Transmit"]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, gone={"Received": "use Scattered"})
