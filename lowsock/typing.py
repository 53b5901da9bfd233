# SPDX-License-Identifier: MIT
"""The types in the annotations of lowsock, for annotations of your own. ``typing.get_type_hints`` knows them too.

- `Socket`: a descriptor (an int), or an object with ``fileno()``;
- `HasFileno`: such an object; calls keep to the timeout that a ``gettimeout()`` of it tells;
- `Buffer`: a C-contiguous bytes-like object; `collections.abc.Buffer` for type checkers, `typing.Any` at run time;
- `Address`: a tuple, str or bytes, as the socket module has it for the family, or None: `typing.Any`;
- `Host`: a numeric host: a str, or an address of `ipaddress`;
- `ControlMessage`: a control message to be sent, ``(level, type, data)``;
- `Ancillary`: the control messages that came, a list of ``(level, type, bytes)``;
- `Message`: what `lowsock.sendmmsg` sends, ``(buffers[, ancdata[, address]])``;
- `Received`: what `lowsock.recvmsg` returns, ``(data, ancdata, msg_flags, address)``.

Nothing else of lowsock imports this at run time, as it imports `typing`. See recvmsg(2).
"""

from lowsock._system.exports import public
from lowsock._system.types import Address, Ancillary, Buffer, ControlMessage, HasFileno, Host, Message, Received, Socket

__all__ = [
    "Address",
    "Ancillary",
    "Buffer",
    "ControlMessage",
    "HasFileno",
    "Host",
    "Message",
    "Received",
    "Socket",
]

TYPE_CHECKING = False
if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__)
