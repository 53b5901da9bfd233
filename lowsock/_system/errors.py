# SPDX-License-Identifier: MIT
"""What the C functions answer, what is raised for it, and who raised an exception.

A C function answers with a count, or with -errno; `fail` is the only place that raises `OSError`.
"""

from __future__ import annotations

import errno
import os
from _socket import timeout

from lowsock._system.ffi import lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import NoReturn

MORE = -lib.LOWSOCK_MORE  # an answer up to here says that more came than data; between here and 0 it is -errno
SAME = lib.LOWSOCK_CACHED  # added to the bytes of data: the source is the one that the reply knows

AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK)
NOT_YET = (-errno.EINTR, *AGAIN)  # what another attempt may change


def fail(answer: int) -> NoReturn:
    """Raises what the kernel said: ``answer`` is -errno."""
    raise OSError(-answer, os.strerror(-answer))


def time_out() -> NoReturn:
    """Raises that the time is up."""
    raise timeout("timed out")


def raised_here(error: BaseException) -> bool:
    """Whether a builtin raised ``error`` in the frame that caught it, and not some Python code below it.

    A signal handler runs between any two steps, and what it raises must not be taken for the step's own error.
    """
    traceback = error.__traceback__
    return traceback is None or traceback.tb_next is None


def raised_inside(error: BaseException) -> bool:
    """Whether nothing but this package's own code raised ``error``, below the frame that caught it: no signal handler."""
    traceback = error.__traceback__
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith("lowsock."):
            return False
        traceback = traceback.tb_next
    return True
