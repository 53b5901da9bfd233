# SPDX-License-Identifier: MIT
"""Control messages of TLS in the kernel: tcp(7), and the kernel's document on tls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowsock.cmsg._base import NO_OPTION, ControlMessage, registered
from lowsock.cmsg._fields import UINT8, Named, named, number

if TYPE_CHECKING:
    from typing_extensions import Self


class RecordType(Named):
    """What a TLS record holds: its content type (RFC 8446)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    HEARTBEAT = 24


class _Record(ControlMessage):
    __slots__ = ()
    _fields = ("record_type",)

    def __new__(cls, *, record_type: int) -> Self:
        """``record_type``: 0 to 255, or a `RecordType`."""
        return cls.from_data(bytes([number("record_type", record_type, UINT8)]))

    @property
    def record_type(self) -> RecordType | int:
        """A plain int where the type has no name."""
        return named(RecordType, self[2][0])


@registered("TLS_SET_RECORD_TYPE", sizes=(1,), since="Linux 4.13")
class SetRecordType(_Record):
    """Sent: the data goes out as a record of its own, of this type; without it, as application data.

    Only to a socket with TLS_TX: any other ignores the whole level in silence. See tcp(7), the kernel's document on tls.
    """

    __slots__ = ()


@registered("TLS_GET_RECORD_TYPE", sizes=(1,), option=NO_OPTION, since="Linux 4.17")
class GetRecordType(_Record):
    """Received, with TLS_RX: the type of the record that the data is from; one receive never mixes types.

    It comes unasked, but wants room: a record that is no application data is EIO without it. See tcp(7), the kernel's
    document on tls.
    """

    __slots__ = ()
