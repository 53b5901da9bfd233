# SPDX-License-Identifier: MIT
"""Datagrams in bulk: segmentation offload both ways, ECN, local addresses, timestamps.

An `Endpoint` stands around a UDP socket. It sends up to 64 KiB by one system call as datagrams of one size, and receives as
much, cut apart again. Where the kernel or the platform has no offload, the same calls do the same, more slowly. See udp(7).
"""

from typing import TYPE_CHECKING

from lowsock._system.exports import public
from lowsock.udp._arrival import Coalesced, Datagram, Received
from lowsock.udp._endpoint import Endpoint
from lowsock.udp._sending import Fallbacks

__all__ = ["Coalesced", "Datagram", "Endpoint", "Fallbacks", "Received"]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
