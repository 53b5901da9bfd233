# SPDX-License-Identifier: MIT
"""Descriptors that somebody owns from the moment they are here.

They stand in slots of C memory, which the system call's own C function fills, and which close what is left in them when
they are collected. A number is in one place at a time, and moves by one C call: an exception can come before a move or
after it, and either way somebody has the number.
"""

from __future__ import annotations

from _collections_abc import Sequence  # collections.abc brings in all of collections
from _warnings import warn  # all that warnings would bring in at import is not needed
from struct import pack

from lowsock._system.arguments import checked_index, checked_int, iterated
from lowsock._system.ffi import ffi, lib

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn, SupportsIndex, overload

    from typing_extensions import Self

    from lowsock._system.types import Ancillary, CData

_EMPTY = {
    lib.LOWSOCK_TAKEN: "slot {} has been taken",
    lib.LOWSOCK_CLOSED: "slot {} is closed",
    lib.LOWSOCK_PEEKED: "slot {} was only peeked at: its descriptor comes with the message itself",
}
_WORDS = {lib.LOWSOCK_TAKEN: "taken", lib.LOWSOCK_CLOSED: "closed", lib.LOWSOCK_PEEKED: "peeked"}

# bound early: each is looked up next to a system call
_OWNED = ffi.typeof("struct lowsock_owned *")
_new = object.__new__
_allocate = ffi.new
_gc = ffi.gc
_unpack = ffi.unpack
_take = lib.lowsock_owned_take
_put_back = lib.lowsock_owned_put_back
_close = lib.lowsock_owned_close
_collect = lib.lowsock_owned_collect


def slots(size: int) -> CData:
    """Room for so many descriptors."""
    own = _allocate(_OWNED, {"fds": size})
    own.size = size
    return own


def guarded(own: CData) -> CData:
    """The same slots, whose descriptors are closed when *this* is collected, by C alone.

    In a cycle, CPython finalizes this before or after whatever else is in it: an owner, or an object that uses an owner in
    its own ``__del__``. cffi forgets the memory then, so what may be used by a finalizer is ``own``, not this.
    """
    return _gc(own, _collect)


class OwnedFds(Sequence[int]):
    """Descriptors with an owner: a sequence of ints, and a context manager that closes those that nobody took.

    ``owner[i]``, a slice and iteration *lend*: the numbers stay the owner's, which closes them at the end of the ``with``,
    in `close`, or when it is collected (then with a `ResourceWarning`; on PyPy that is late). `take` and `detach` *give*:
    what they return is yours to close, and its slot is empty from then on. ``len`` counts the slots.

    ``OwnedFds(fds)`` takes over open descriptors of yours, as soon as it returns. An empty slot is a `ValueError` that says
    whether it was taken, closed or only peeked at; copying or pickling an owner is a `TypeError`. Each method may be called
    from any thread; of two that take the same slot, one gets it. After fork(2), either process has an owner, of copies.
    See unix(7), close(2).
    """

    __slots__ = ("__weakref__", "_guard", "_slots", "ancdata")

    _slots: CData
    _guard: CData
    ancdata: Ancillary
    """The other control messages that came, as raw three-tuples; also a ``SCM_PIDFD`` that holds the kernel's -errno."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        numbers = _adopted(fds)
        own = slots(len(numbers))
        own.disarmed = 1
        try:
            packed = pack(f"{len(numbers)}i", *numbers)
            ffi.memmove(own.fds, packed, len(packed))
            own.count = len(numbers)
            self.ancdata = []
            self._slots, self._guard = own, guarded(own)
            own.disarmed = 0
        except BaseException:
            own.disarmed = 1
            raise

    def __len__(self) -> int:
        return int(self._slots.count)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, i: SupportsIndex) -> int: ...
        @overload
        def __getitem__(self, i: slice) -> list[int]: ...

    def __getitem__(self, i: Any) -> Any:
        own = self._slots  # what a method asked of self again could be other slots, or a subclass's word
        return [_lent(own, at) for at in range(own.count)[i]] if isinstance(i, slice) else _lent(own, _slot(own, i))

    def __iter__(self) -> Iterator[int]:
        own = self._slots
        for at in range(own.count):  # Sequence's own takes any IndexError for the end, a signal handler's too
            yield _lent(own, at)

    @property
    def pidfd(self) -> int | None:
        """The pidfd that came (SO_PASSPIDFD), lent like the others; None if none did. It is in the last slot."""
        own = self._slots
        return _lent(own, own.pidfd - 1) if own.pidfd else None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._slots.closed)

    def take(self, i: SupportsIndex = 0) -> int:
        """The descriptor of slot ``i``, yours from the return on; the slot is empty then.

        An exception that a signal handler raises before the return leaves it in its slot. Raises `IndexError`, and
        `ValueError` for a slot that has none. See close(2).
        """
        own = self._slots
        at = _slot(own, i)
        moved = guarded(slots(1))
        try:
            _take(own, at, 1, moved)
            fd: int = moved.fds[0]
            if fd < 0:
                _refuse(at, fd)
            moved.disarmed = 1
            return fd
        except BaseException:
            moved.disarmed = 0
            _put_back(own, moved)
            raise

    def detach(self) -> list[int]:
        """A list of all descriptors that are left, in their order; yours from the return on.

        An exception that a signal handler raises before the return leaves them in their slots. Raises `ValueError` for an
        owner that is closed, or that only peeked. See close(2).
        """
        own = self._slots
        count = own.count
        moved = guarded(slots(count))
        try:
            _take(own, 0, count, moved)
            fds = _numbers(moved, count)  # CPython 3.13 leaves an inlined filter's way back out of the `try`
            if not fds:
                _refuse_all(own, count)
            moved.disarmed = 1
            return fds
        except BaseException:
            moved.disarmed = 0
            _put_back(own, moved)
            raise

    def close(self) -> None:
        """Closes what nobody took. It may be called again, and from several threads; errors of close(2) are not told."""
        _close(self._slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._slots)

    def __del__(self, _warn: Any = warn, _close: Any = _close) -> None:  # the module may be gone by then
        try:
            left = _close(self._slots) + self._slots.leaked
        except AttributeError:  # it never came to be
            return
        if left:
            _warn(f"an OwnedFds left {left} unclosed to the collector", ResourceWarning, 2, self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an OwnedFds can be neither copied nor pickled: its descriptors have one owner")

    def __repr__(self) -> str:
        own = self._slots
        states = [_WORDS.get(fd, str(fd)) for fd in _unpack(own.fds, own.count)]
        if own.pidfd:
            states[-1] = f"pidfd {states[-1]}"
        return f"<lowsock.OwnedFds [{', '.join(states)}]>"


def _slot(own: CData, i: Any) -> int:
    """The slot that an index means."""
    at, count = checked_index("i", i), own.count
    if not -count <= at < count:
        raise IndexError(f"i is out of range: {at}, of {count} slots")
    return at + count if at < 0 else at


def _lent(own: CData, at: int) -> int:
    fd: int = own.fds[at]
    return fd if fd >= 0 else _refuse(at, fd)


def _numbers(own: CData, count: int) -> list[int]:
    return [fd for fd in _unpack(own.fds, count) if fd >= 0]


def _refuse(at: int, state: int) -> NoReturn:
    raise ValueError(_EMPTY[state].format(at))


def _refuse_all(own: CData, count: int) -> None:
    """There is nothing to detach: that is an error unless all of it was taken."""
    if own.closed:
        raise ValueError("this owner is closed")
    for at, fd in enumerate(_unpack(own.fds, count)):
        if fd != lib.LOWSOCK_TAKEN:
            _refuse(at, fd)


def _adopted(fds: Iterable[int]) -> list[int]:
    """Descriptors that nobody here owns yet."""
    if isinstance(fds, OwnedFds):
        raise TypeError("fds must not be an OwnedFds, which goes on owning them: give what its detach() returns")
    numbers = [_adoptable(f"fds[{i}]", fd) for i, fd in enumerate(iterated("fds", "int", fds))]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"fds must not name a descriptor twice: {numbers}")
    refuse_closed(numbers)
    return numbers


def _adoptable(name: str, fd: Any) -> int:
    if isinstance(fd, bool):
        raise TypeError(f"{name} must be an int, not bool")
    return checked_int(name, fd, least=0)


def owner(own: CData) -> OwnedFds:
    """An owner of what is, or will be, in these slots."""
    made = _new(OwnedFds)
    made.ancdata = []
    made._slots, made._guard = own, _gc(own, _collect)
    return made


def refuse_closed(fds: list[int]) -> None:
    at = lib.lowsock_first_closed(fds, len(fds)) if fds else 0
    if at < len(fds):
        raise ValueError(f"fds[{at}] is closed" + (f": there is no descriptor {fds[at]}" if fds[at] >= 0 else ""))
