# SPDX-License-Identifier: MIT
"""The answers of C functions, the exceptions raised for them, and who raised an exception.

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

MORE = -lib.LOWSOCK_MORE  # answers up to here: more than data came; from here to 0: -errno
CACHED = lib.LOWSOCK_CACHED  # added to the bytes of data: they came from the source that the reply has cached

AGAIN = (-errno.EAGAIN, -errno.EWOULDBLOCK)
RETRYABLE = (-errno.EINTR, *AGAIN)  # another attempt may succeed


class UnsupportedError(OSError, NotImplementedError):  # in this order: CPython gives the other no errno
    """The kernel or the platform lacks what was asked for: an `OSError` and a `NotImplementedError`.

    ``errno`` is what the kernel answered, or EOPNOTSUPP (ENOSYS, ENOPROTOOPT) where it was not asked; ``strerror`` names
    what is missing. See errno(3).
    """


def unsupported(message: str, number: int = errno.EOPNOTSUPP) -> NoReturn:
    """Raises `UnsupportedError`."""
    raise UnsupportedError(number, message)


def fail(answer: int) -> NoReturn:
    """Raises `OSError` for an ``answer`` of -errno."""
    raise OSError(-answer, os.strerror(-answer))


def time_out() -> NoReturn:
    """Raises `TimeoutError` (`socket.timeout` before 3.10)."""
    raise timeout("timed out")


def raised_here(error: BaseException) -> bool:
    """Whether a builtin raised ``error`` in the frame that caught it, and not Python code called from there.

    A signal handler may run between any two steps; what it raises must not be taken for the error of a step.
    """
    traceback = error.__traceback__
    return traceback is None or traceback.tb_next is None


def raised_inside(error: BaseException) -> bool:
    """Whether this package's own code raised ``error`` below the frame that caught it, and no signal handler did."""
    traceback = error.__traceback__
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith("lowsock."):
            return False
        traceback = traceback.tb_next
    return True
