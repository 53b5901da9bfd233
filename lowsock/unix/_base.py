# SPDX-License-Identifier: MIT
"""What a blocking and an awaitable stream have in common: all that waits for nothing. See unix(7)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from lowsock import cmsg
from lowsock._message.owned import OwnedFds
from lowsock._message.receiving_owned_fds import recv_owned_fds
from lowsock._message.sending import sendmsg
from lowsock._message.sending_fds import send_fds
from lowsock._system.arguments import checked_int, iterated
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock._system.target import target
from lowsock._system.unique import Unique
from lowsock.unix._incoming import MAX_SIZE, Incoming

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lowsock._system.types import Address, ControlMessage, HasFileno, Socket

    Arrival = tuple[bytes, OwnedFds, int, Address]

_SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)
MAX_FDS = 2 * _SCM_MAX_FD  # those of one message, and of the next, whose beginning may come in the same receive
MAX_MESSAGE = 2**20
CHUNK_SIZE = 2**18  # bytes that a receive into the buffer asks for, and that one system call sends
EMPTY = memoryview(b"")


class Stream(Unique):
    """A connected ``AF_UNIX`` stream."""

    def __init__(self, sock: Socket, max_fds: int, max_message: int) -> None:
        self._max_message = checked_int("max_message", max_message, least=0, most=MAX_SIZE)
        self._incoming = Incoming(checked_int("max_fds", max_fds, least=0))
        _check(target(sock)[0])
        self._sock = sock
        self._unsent = EMPTY
        self._unsent_credentials: ControlMessage | None = None
        self._closed = False

    def fileno(self) -> int:
        """The socket's descriptor; -1 if the stream is closed."""
        return -1 if self._closed else target(self._sock)[0]

    def _close(self, close: Callable[[Socket], object]) -> None:
        closed, self._closed = self._closed, True
        self._incoming.close()
        self._unsent = EMPTY
        if not closed:
            close(self._sock)

    def _refuse_closed(self) -> None:
        if self._closed:
            fail(-errno.EBADF)

    # ---- sending ----

    @property
    def unsent(self) -> int:
        """How many bytes are left of a send that was interrupted in the middle."""
        return len(self._unsent)

    def _send_call(
        self, data: bytes | memoryview, fds: Any, credentials: ControlMessage | None, flags: int
    ) -> Callable[[], int]:
        if credentials is None:
            return lambda: send_fds(self._sock, [data], fds, flags)
        ancdata = [credentials, cmsg.Rights(fds=fds)] if fds else [credentials]
        return lambda: sendmsg(self._sock, [data], ancdata, flags)

    def _shut_down(self) -> None:
        self._refuse_closed()
        answer = lib.lowsock_shutdown(target(self._sock)[0], socket.SHUT_WR)
        if answer < 0:
            fail(answer)

    # ---- receiving ----

    def take_fds(self, count: int) -> OwnedFds:
        """Takes the next ``count`` descriptors that came with the bytes which `receive_exactly` returned: exactly so many.

        Call it at the end of each message of a protocol, with the count from the message. Other descriptors that came with
        bytes which have all been returned are surplus, and are closed. Raises `BrokenStreamError` if fewer came.
        """
        number = checked_int("count", count, least=0)
        self._incoming.refuse_broken()
        return self._incoming.take_fds(number)

    @property
    def credentials(self) -> cmsg.ControlMessage | None:
        """Who sent the bytes that came last (`UnixMessage.credentials`)."""
        return self._incoming.credentials

    def _recv(self, size: int, flags: int) -> Arrival:
        return recv_owned_fds(self._sock, size, _SCM_MAX_FD, flags)


def checked_fds(fds: Iterable[int | HasFileno]) -> Any:
    """``fds`` of a send, which may be made several times."""
    return fds if isinstance(fds, OwnedFds) else list(iterated("fds", "ints or objects with fileno()", fds))


def checked_max_bytes(max_bytes: int) -> int:
    number = checked_int("max_bytes", max_bytes, least=0)
    return number or _refuse_no_bytes()


def _refuse_no_bytes() -> NoReturn:
    raise ValueError("max_bytes must be more than 0: no bytes mean the end")


def _check(fd: int) -> None:
    kind = lib.lowsock_option(fd, CONSTANTS["SOL_SOCKET"], CONSTANTS["SO_TYPE"])
    if kind < 0:
        fail(kind)
    if kind != socket.SOCK_STREAM or lib.lowsock_family(fd) != socket.AF_UNIX:
        raise ValueError("sock must be an AF_UNIX stream")
