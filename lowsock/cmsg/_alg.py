# SPDX-License-Identifier: MIT
"""Control messages of the kernel's cryptography, AF_ALG: the kernel's document on its user space interface.

The names are of linux/if_alg.h. `socket.socket.sendmsg_afalg` sends the same, but pads the vector to whole words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowsock._memory.buffers import as_bytes
from lowsock.cmsg._base import ControlMessage, registered
from lowsock.cmsg._fields import UINT, UINT32, Named, layout, named, number

if TYPE_CHECKING:
    from typing_extensions import Self

_IV = layout("af_alg_iv")
_ivlen = _IV.reader("ivlen")


class AlgOperation(Named):
    """What a cipher is to do; before each name goes ALG_OP_."""

    DECRYPT = 0
    ENCRYPT = 1


@registered("ALG_SET_OP", sizes=(UINT.size,))
class AlgOp(ControlMessage):
    """Sent: whether to encrypt or to decrypt. See sendmsg(2), linux/if_alg.h."""

    __slots__ = ()
    _fields = ("op",)

    def __new__(cls, *, op: int) -> Self:
        """``op``: an `AlgOperation`."""
        return cls.from_data(UINT.pack(number("op", op, UINT32)))

    @property
    def op(self) -> AlgOperation | int:
        """A plain int where it has no name."""
        return named(AlgOperation, UINT.unpack(self[2])[0])


@registered("ALG_SET_IV", least=_IV.size)
class AlgIv(ControlMessage):
    """Sent: the initialization vector, of the length that the cipher wants. See sendmsg(2), linux/if_alg.h."""

    __slots__ = ()
    _fields = ("iv",)

    def __new__(cls, *, iv: Any) -> Self:
        """``iv``: any bytes-like object."""
        vector = as_bytes("iv", iv)
        return cls.from_data(_IV.pack(len(vector)) + vector)

    @property
    def iv(self) -> bytes:
        data = self[2]
        (length,) = _ivlen(data)
        return data[_IV.size : _IV.size + length]


@registered("ALG_SET_AEAD_ASSOCLEN", sizes=(UINT.size,))
class AlgAeadAssoclen(ControlMessage):
    """Sent: how many bytes at the head of the data are authenticated only. See sendmsg(2), linux/if_alg.h."""

    __slots__ = ()
    _fields = ("length",)

    def __new__(cls, *, length: int) -> Self:
        """``length``: in bytes."""
        return cls.from_data(UINT.pack(number("length", length, UINT32)))

    @property
    def length(self) -> int:
        """In bytes."""
        return UINT.unpack(self[2])[0]
