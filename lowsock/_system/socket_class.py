# SPDX-License-Identifier: MIT
"""The class of plain sockets, as soon as the program has imported it.

Importing `socket` takes longer than importing lowsock, and a program that passes a socket object has imported it already.
So nothing here imports it: `Socket` is a class without instances, until `learn` finds the real one.
"""

from __future__ import annotations

import _socket
import sys

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    import socket
    from typing import Callable

    from lowsock._system.types import Socket as AnySocket

    Socket = socket.socket
else:

    class Socket:
        """No object is of this class."""


Base = _socket.socket  # of all sockets of the `socket` module, plain and derived ones

# The family and the type of a plain socket as ints: the properties of socket.socket itself make an enum each time.
family_of: Callable[[AnySocket], int] = Base.family.__get__
type_of: Callable[[AnySocket], int] = Base.type.__get__


def learn() -> None:
    """Finds `socket.socket` if the program has imported it. What gevent puts in its place is not a plain one."""
    found = getattr(sys.modules.get("socket"), "socket", None)
    if isinstance(found, type) and issubclass(found, Base):
        globals()["Socket"] = found


learn()
