# SPDX-License-Identifier: MIT
"""The caller's buffers as memory that a system call may see.

On CPython a pointer into a caller's buffer holds its export, so that nobody resizes it, and is let go right after the
call. PyPy has no such lock: there a system call sees ``bytes``, which cannot change, or memory of our own.
"""

import sys
from typing import Any, Iterable, List, Optional

from lowsock._ffi import CData, ffi

PYPY = sys.implementation.name == "pypy"
JOINED = 16 * 1024  # up to so many bytes, one copy is cheaper than a header entry for each buffer
MANY, SMALL = 64, 4096  # so many buffers, whose first and last have so many bytes, are joined unseen
COPIED = 1024  # up to so many, copying a buffer is cheaper than holding its export

_NOT_SEQUENCES = (bytes, bytearray, memoryview, str)


def listed(name: str, buffers: Iterable[Any]) -> List[Any]:
    """The caller's iterable as a list of our own: what runs in its iterator has run when this returns."""
    if isinstance(buffers, _NOT_SEQUENCES):
        raise TypeError(f"{name} must be an iterable of bytes-like objects, not {type(buffers).__name__}")
    try:
        iterator = iter(buffers)
    except TypeError:
        raise TypeError(f"{name} must be an iterable of bytes-like objects, not {type(buffers).__name__}") from None
    return list(iterator)


def viewed(name: str, buffer: Any) -> memoryview:
    """A view of a C-contiguous buffer of any format. PyPy's cffi takes a strided one and sees a copy, so we look."""
    try:
        view = memoryview(buffer)
    except TypeError:
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


def joined(buffers: Any) -> Optional[bytes]:
    """A list or tuple of small buffers as one ``bytes``, the quick way; None where it wants `Gathered`.

    The first and the last tell whether they are small: a wrong guess costs a copy.
    """
    if (type(buffers) is not list and type(buffers) is not tuple) or not 0 < len(buffers) <= MANY:
        return None
    try:
        if len(buffers[0]) + len(buffers[-1]) <= SMALL:
            return b"".join(buffers)
    except (TypeError, BufferError):
        Gathered(buffers).release()  # raises the error that names the buffer, if there is one
        raise
    return None


class Gathered:
    """The buffers of one message: ``data`` if one piece does it, else ``bases`` and ``sizes``, one for each iovec.

    `release` lets go of the caller's buffers; it is safe to call at any time.
    """

    __slots__ = ("_exports", "bases", "data", "size", "sizes")

    def __init__(self, buffers: Iterable[Any]) -> None:
        self._exports: List[CData] = []
        self.bases: List[CData] = []
        items = listed("buffers", buffers)
        try:
            self._gather([self._piece(i, item) for i, item in enumerate(items)])
        except BaseException:
            self.release()
            raise

    def _gather(self, pieces: List[Any]) -> None:
        self.sizes = list(map(len, pieces))
        self.size = sum(self.sizes)
        self.data = pieces[0] if len(pieces) == 1 else b""
        if len(pieces) > 1 and self.size <= JOINED:
            self.data = b"".join([piece if type(piece) is bytes else ffi.buffer(piece)[:] for piece in pieces])
        elif len(pieces) > 1:
            self.bases = [self._export(piece) if type(piece) is bytes else piece for piece in pieces]

    def _piece(self, i: int, item: Any) -> Any:
        if type(item) is bytes:
            return item
        with viewed(f"buffers[{i}]", item) as view:
            if PYPY or view.nbytes <= COPIED:
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
    """Writable buffers to receive into: ``bases`` and ``sizes``, one for each iovec.

    `settle` puts what came where it belongs and lets go of the buffers. On PyPy, and for exporters that its cffi cannot
    take a pointer of, the bases are memory of our own until then.
    """

    __slots__ = ("_exports", "_views", "bases", "sizes")

    def __init__(self, buffers: Iterable[Any]) -> None:
        self._exports: List[CData] = []
        self._views: List[memoryview] = []
        items = listed("buffers", buffers)
        try:
            self.bases = [self._base(i, item) for i, item in enumerate(items)]
        except BaseException:
            self.settle(0)
            raise
        self.sizes = list(map(len, self.bases))

    def _base(self, i: int, item: Any) -> CData:
        if PYPY:
            return self._bounce(i, item)
        try:
            export = ffi.from_buffer("char[]", item, True)
        except (TypeError, ValueError, BufferError):
            _refuse(i, item)
            raise
        self._exports.append(export)
        return export

    def _bounce(self, i: int, item: Any) -> CData:
        view = _refuse(i, item)
        self._views.append(view)
        return ffi.new("char[]", view.nbytes)

    def settle(self, received: int) -> None:
        """Copies the ``received`` bytes on, if they are in memory of our own, and releases every buffer."""
        for view, base in zip(self._views, self.bases if self._views else []):
            size = min(received, view.nbytes)
            if size:
                view.cast("B")[:size] = ffi.buffer(base, size)[:]
            received -= size
        while self._views:
            self._views.pop().release()
        while self._exports:
            ffi.release(self._exports.pop())


def _refuse(i: int, item: Any) -> memoryview:
    """Raises what is wrong with a buffer to receive into; gives a view of one that is right."""
    view = viewed(f"buffers[{i}]", item)
    if view.readonly:
        view.release()
        raise TypeError(f"buffers[{i}] must be writable: {type(item).__name__} is read-only")
    return view
