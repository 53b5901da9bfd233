# SPDX-License-Identifier: MIT
"""Descriptors, credentials and whole messages over a connected ``AF_UNIX`` stream, beside its bytes.

On a stream the kernel keeps no messages, and descriptors come with some byte or other. `UnixStream` puts that in order;
`lowsock.aio.UnixStream` is the same, awaitable. `connect` makes one. See unix(7).
"""

# In: a socket or a path, bytes, descriptors. Out: bytes with an owner of their descriptors (`UnixMessage`), also after a
# timeout or a cancellation. Called by users and `aio._stream`. It sends and receives with `_message`.
#
#   _stream.py      `UnixStream`: the public methods, which block
#   _base.py        what the awaitable stream has as well: all that waits for nothing
#   _incoming.py    the receive buffer: which descriptors belong to which bytes, frames, when the stream is broken
#   _connecting.py  `connect`

from typing import TYPE_CHECKING

from lowsock._system.exports import public
from lowsock.unix._connecting import connect
from lowsock.unix._incoming import BrokenStreamError, UnixMessage
from lowsock.unix._stream import UnixStream

__all__ = ["BrokenStreamError", "UnixMessage", "UnixStream", "connect"]

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
