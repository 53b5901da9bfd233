# SPDX-License-Identifier: MIT
"""Out-of-band data. See tcp(7), sockatmark(3)."""

from __future__ import annotations

from lowsock._system.errors import fail
from lowsock._system.ffi import lib
from lowsock._system.target import target

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from lowsock._system.types import Socket


def sockatmark(sock: Socket) -> bool:
    """Whether the stream is at the out-of-band mark: the next byte to be read is the one sent with ``MSG_OOB``.

    Raises `OSError` as the kernel says it, ENOTTY or EOPNOTSUPP for sockets that have no such mark. See sockatmark(3).
    """
    answer = lib.lowsock_sockatmark(target(sock)[0])
    return bool(fail(answer) if answer < 0 else answer)
