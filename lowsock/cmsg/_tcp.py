# SPDX-License-Identifier: MIT
"""Control messages of TCP: tcp(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowsock._system.arguments import INT_MAX
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import INT, INT_SIZE, number

if TYPE_CHECKING:
    from typing_extensions import Self


@registered("TCP_CM_INQ", sizes=(INT_SIZE,), option="TCP_INQ", since="Linux 4.18")
class Inq(ControlMessage):
    """Received: how many bytes are still queued behind those just received.

    The end of the stream, once it is there, counts as one: 0 always means that a further receive would wait. See tcp(7).
    """

    __slots__ = ()
    _fields = ("queued",)

    def __new__(cls, *, queued: int) -> Self:
        return cls.from_data(INT.pack(number("queued", queued, INT_MAX)))

    @property
    def queued(self) -> int:
        """In bytes."""
        return INT.unpack(self[2])[0]
