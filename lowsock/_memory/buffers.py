# SPDX-License-Identifier: MIT
"""The caller's buffers as memory that a system call may see.

On CPython a pointer into a caller's buffer holds its export, so that nobody can resize it; it is released right after the
call. On PyPy an export locks nothing: there a system call sees ``bytes``, which cannot change, or memory of our own.
"""

from __future__ import annotations

import sys

from lowsock._system.arguments import iterated
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import raised_here
from lowsock._system.ffi import ffi

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from lowsock._system.types import CData

PYPY = sys.implementation.name == "pypy"
JOIN_SIZE = 16 * 1024  # bytes: up to here one copy is cheaper than an iovec for each buffer
JOIN_QUICK_COUNT, JOIN_QUICK_SIZE = 64, 4096  # buffers, and bytes of the first and the last, that are joined without a look
COPY_SIZE = 1024  # bytes: up to here copying a buffer is cheaper than holding its export

IOV_MAX = CONSTANTS.get("UIO_MAXIOV", 1024)  # more buffers fail with EMSGSIZE, joined or not

_NOT_SEQUENCES = (bytes, bytearray, memoryview, str)


def listed(name: str, buffers: Iterable[Any]) -> list[Any]:
    """The caller's iterable as a list of our own. Its iterator may run any code, which has run when this returns."""
    if isinstance(buffers, _NOT_SEQUENCES):
        raise TypeError(f"{name} must be an iterable of bytes-like objects, not {type(buffers).__name__}")
    return list(iterated(name, "bytes-like objects", buffers))


def viewed(name: str, buffer: Any) -> memoryview:
    """A view of a C-contiguous buffer of any format. We check that, for PyPy's cffi silently copies a strided buffer."""
    try:
        view = memoryview(buffer)
    except TypeError as error:
        if not raised_here(error):
            raise
        raise TypeError(f"{name} must be a bytes-like object, not {type(buffer).__name__}") from None
    if not view.c_contiguous:
        view.release()
        raise BufferError(f"{name} must be a C-contiguous buffer")
    return view


def as_bytes(name: str, buffer: Any) -> bytes:
    """``buffer`` itself if it is ``bytes``, else its content."""
    if type(buffer) is bytes:
        return buffer
    with viewed(name, buffer) as view:
        return view.tobytes()


def joined(buffers: Any) -> bytes | None:
    """A list or tuple of small buffers as one ``bytes``, the quick way; None if it takes `Gathered`.

    Looks only at the sizes of the first and the last: a wrong guess costs a copy.
    """
    if (type(buffers) is not list and type(buffers) is not tuple) or not 0 < len(buffers) <= JOIN_QUICK_COUNT:
        return None
    if PYPY and any(type(buffer) is not bytes for buffer in buffers):  # its join takes strided views
        return None
    try:
        first, last = buffers[0], buffers[-1]
        if len(first) + len(last) <= JOIN_QUICK_SIZE:
            return b"".join(buffers)
    except (TypeError, BufferError) as error:
        if not raised_here(error):
            raise
    return None  # a buffer may have no length; what is no buffer, Gathered names


class Gathered:
    """The buffers of one message: ``data`` if they are one piece, else ``bases`` and ``sizes``, one for each iovec.

    `release` releases the caller's buffers; it may be called at any time.
    """

    __slots__ = ("_exports", "bases", "data", "size", "sizes")

    def __init__(self, buffers: Iterable[Any], name: str = "buffers") -> None:
        self._exports: list[CData] = []
        self.bases: list[CData] = []
        items = listed(name, buffers)
        try:
            self._gather([self._piece(f"{name}[{i}]", item) for i, item in enumerate(items)])
        except BaseException:
            self.release()
            raise

    def _gather(self, pieces: list[Any]) -> None:
        self.sizes = list(map(len, pieces))
        self.size = sum(self.sizes)
        self.data = pieces[0] if len(pieces) == 1 else b""
        if 1 < len(pieces) <= IOV_MAX and self.size <= JOIN_SIZE:
            self.data = b"".join([piece if type(piece) is bytes else ffi.buffer(piece)[:] for piece in pieces])
        elif len(pieces) > 1:
            self.bases = [self._export(piece) if type(piece) is bytes else piece for piece in pieces]

    def _piece(self, name: str, item: Any) -> Any:
        if type(item) is bytes:
            return item
        with viewed(name, item) as view:
            if PYPY or view.nbytes <= COPY_SIZE:
                return view.tobytes()
        return self._export(item)

    def _export(self, item: Any) -> CData:
        export = ffi.from_buffer("char[]", item)
        self._exports.append(export)
        return export

    def release(self) -> None:
        while self._exports:
            ffi.release(self._exports.pop())


class Scattered:
    """Writable buffers to receive into: ``bases`` and ``sizes``, one for each iovec, until `release`."""

    __slots__ = ("bases", "sizes")

    def __init__(self, buffers: Iterable[Any]) -> None:
        items = listed("buffers", buffers)
        self.bases: list[CData] = []
        try:
            for i, item in enumerate(items):
                writable(i, item).release()
                self.bases.append(ffi.from_buffer("char[]", item, True))
        except BaseException:
            self.release()
            raise
        self.sizes = list(map(len, self.bases))

    def release(self) -> None:
        while self.bases:
            ffi.release(self.bases.pop())


class Bounced:
    """Writable buffers that no system call may see: a bounce buffer receives, and `copy_out` copies from there."""

    __slots__ = ("_items", "size", "sizes")

    def __init__(self, buffers: Iterable[Any]) -> None:
        self._items = listed("buffers", buffers)
        self.sizes = [_writable_size(i, item) for i, item in enumerate(self._items)]
        self.size = sum(self.sizes)

    def copy_in(self, data: CData) -> None:
        """Copies the buffers to ``data``, the bounce buffer: what is not received (MSG_TRUNC on TCP) then stays as it is."""
        at = 0
        for i, item in enumerate(self._items):
            piece = as_bytes(f"buffers[{i}]", item)
            ffi.memmove(data + at, piece, min(len(piece), self.sizes[i]))
            at += self.sizes[i]

    def copy_out(self, data: CData, received: int) -> None:
        """Copies ``received`` bytes of ``data`` to the buffers. A buffer that has shrunk meanwhile takes what it can."""
        at = 0
        for i, item in enumerate(self._items):
            size = min(received - at, self.sizes[i])
            if size > 0:
                _copy(data + at, size, writable(i, item))
            at += size


def _copy(data: CData, size: int, view: memoryview) -> None:
    with view:
        size = min(size, view.nbytes)
        if size > COPY_SIZE or view.format != "B" or view.ndim != 1:
            ffi.memmove(view, data, size)  # PyPy assigns a slice byte by byte
        else:
            view[:size] = ffi.buffer(data, size)[:]


def _writable_size(i: int, item: Any) -> int:
    with writable(i, item) as view:
        return view.nbytes


def writable(i: int, item: Any) -> memoryview:
    """A view of a buffer to receive into; the error says what is wrong with it."""
    view = viewed(f"buffers[{i}]", item)
    if view.readonly:
        view.release()
        raise TypeError(f"buffers[{i}] must be writable: {type(item).__name__} is read-only")
    return view
