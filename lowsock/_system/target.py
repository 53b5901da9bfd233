# SPDX-License-Identifier: MIT
"""From the first argument of a call to a descriptor and a timeout."""

from __future__ import annotations

import sys

from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX
from lowsock._system.errors import raised_here

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import Socket


def target(sock: Socket) -> tuple[int, float | None]:
    """The descriptor of ``sock`` and its timeout in seconds (None: it blocks or not, as O_NONBLOCK says)."""
    if type(sock) is kinds.Socket:
        return sock.fileno(), sock.gettimeout()
    if isinstance(sock, int):
        return _checked(sock), None
    kinds.learn()
    ssl = sys.modules.get("ssl")  # no SSLSocket exists before ssl is imported
    if isinstance(sock, getattr(ssl, "SSLSocket", ())):
        raise NotImplementedError(f"sendmsg and recvmsg are not allowed on instances of {type(sock)}: TLS has no messages")
    try:
        fileno = sock.fileno
    except AttributeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"sock must be an int or have a fileno() method, not {type(sock).__name__}") from None
    gettimeout = getattr(sock, "gettimeout", None)
    return _checked(fileno()), gettimeout() if gettimeout is not None else None


def _checked(fd: Any) -> int:
    if not isinstance(fd, int):
        raise TypeError(f"sock.fileno() must return an int, not {type(fd).__name__}")
    if not -INT_MAX <= fd <= INT_MAX:
        raise OverflowError(f"sock: descriptor {fd} does not fit a C int")
    return fd
