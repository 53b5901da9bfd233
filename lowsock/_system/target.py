# SPDX-License-Identifier: MIT
"""From the first argument of a call to a descriptor and a timeout."""

from __future__ import annotations

import sys
from _weakref import ref

from lowsock._system import socket_class as kinds
from lowsock._system.arguments import INT_MAX
from lowsock._system.errors import raised_here

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from lowsock._system.types import Socket


def target(sock: Socket) -> tuple[int, float | None]:
    """The descriptor of ``sock`` and its timeout in seconds (None: it blocks if the descriptor's own flags say so)."""
    if type(sock) is int and -INT_MAX <= sock <= INT_MAX:
        return sock, None
    if type(sock) is kinds.Socket:
        return sock.fileno(), sock.gettimeout()
    timeout = timeout_of(sock)
    return fileno(sock), timeout


def check_descriptor(sock: Socket) -> None:
    """Raises what is wrong with a bare descriptor that cffi did not take. A socket object's is right."""
    if type(sock) is int:
        target(sock)


# The classes of objects that were asked before, by their ids. They hold no answer: an object is asked each time, since it or
# its class may get a method later.
_ADMITTED: dict[int, ref[type]] = {}
_admitted = _ADMITTED.get


def timeout_of(sock: Any) -> float | None:
    """The timeout of whatever is neither an exact int nor a plain socket; None if it has none."""
    kind = type(sock)
    admitted = _admitted(id(kind))
    if admitted is None or admitted() is not kind:
        _admit(sock, kind)
    gettimeout = getattr(sock, "gettimeout", None)
    return None if gettimeout is None else gettimeout()


def fileno(sock: Any) -> int:
    """The descriptor of whatever is neither an exact int nor a plain socket, checked."""
    try:
        fd = sock.fileno()
    except AttributeError as error:
        if isinstance(sock, int):
            return _checked(sock)
        if not raised_here(error):
            raise
        raise TypeError(f"sock must be an int or have a fileno() method, not {type(sock).__name__}") from None
    return fd if type(fd) is int and -INT_MAX <= fd <= INT_MAX else _checked(fd)


def _admit(sock: Any, kind: type) -> None:
    kinds.learn()
    ssl = sys.modules.get("ssl")  # an SSLSocket cannot be here if nobody has imported all of it
    if issubclass(kind, getattr(ssl, "SSLSocket", ())):
        raise NotImplementedError(f"sendmsg and recvmsg are not allowed on instances of {kind}: TLS has no messages")
    key = id(kind)
    _ADMITTED[key] = ref(kind, lambda _: _ADMITTED.pop(key, None))


def _checked(fd: Any) -> int:
    if not isinstance(fd, int):
        raise TypeError(f"sock.fileno() must return an int, not {type(fd).__name__}")
    if not -INT_MAX <= fd <= INT_MAX:
        raise OverflowError(f"sock: descriptor {fd} does not fit a C int")
    return fd
