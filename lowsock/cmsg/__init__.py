# SPDX-License-Identifier: MIT
"""Control messages that know what they mean."""

from lowsock.cmsg._base import ControlMessage, decode, register
from lowsock.cmsg._ip import TOS, TTL, PktInfo
from lowsock.cmsg._options import enable, space
from lowsock.cmsg._portable import Arrival, arrival, towards
from lowsock.cmsg._questions import ECN, HopCount, LocalAddress, OriginalDestination, ReceiveTime, TrafficClass
