# SPDX-License-Identifier: MIT
"""Descriptors that have an owner from the moment they arrive.

They are in slots of C memory. The C function that receives fills the slots; when the slots are garbage-collected, what is
left in them is closed. A descriptor is in one place at a time, and moves by one C call: whether an exception comes before
or after the move, somebody owns it.
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

_ERRORS = {
    lib.LOWSOCK_TAKEN: "slot {} has been taken",
    lib.LOWSOCK_CLOSED: "slot {} is closed",
    lib.LOWSOCK_PEEKED: "slot {} was only peeked at: its descriptor comes with the message itself",
}
_STATES = {lib.LOWSOCK_TAKEN: "taken", lib.LOWSOCK_CLOSED: "closed", lib.LOWSOCK_PEEKED: "peeked"}

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


def new_slots(size: int) -> CData:
    """Slots for ``size`` descriptors."""
    owned = _allocate(_OWNED, {"fds": size})
    owned.size = size
    return owned


def guarded(owned: CData) -> CData:
    """The same slots; when *this* object is garbage-collected, C closes their descriptors.

    In a cycle, CPython may finalize it before other objects: an owner, or one whose ``__del__`` uses an owner. cffi forgets
    the memory then, so a finalizer must use ``owned``, not this object.
    """
    return _gc(owned, _collect)


class OwnedFds(Sequence[int]):
    """Descriptors with an owner: a sequence of ints, and a context manager that closes those that nobody took.

    ``owner[i]``, a slice and iteration *lend*: the numbers stay the owner's, which closes them at the end of the ``with``,
    in `close`, or when it is collected (then with a `ResourceWarning`; on PyPy that is late). `take` and `detach` *give*:
    what they return is yours to close, and its slot is empty from then on. ``len`` counts the slots, `left` what is in them.

    ``OwnedFds(fds)`` takes over open descriptors of yours, as soon as it returns. An empty slot raises `ValueError`, which
    says whether it was taken, closed or only peeked at; copying or pickling an owner raises `TypeError`. Each method may be
    called from any thread; of two that take the same slot, one gets it. After fork(2), either process has an owner, of
    copies. See unix(7), close(2).
    """

    __slots__ = ("__weakref__", "_guard", "_slots", "ancdata")

    _slots: CData
    _guard: CData
    ancdata: Ancillary
    """The other control messages that came, as raw three-tuples; also a ``SCM_PIDFD`` that holds the kernel's -errno."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        numbers = _adopted(fds)
        owned = new_slots(len(numbers))
        owned.disarmed = 1
        try:
            packed = pack(f"{len(numbers)}i", *numbers)
            ffi.memmove(owned.fds, packed, len(packed))
            owned.count = len(numbers)
            self.ancdata = []
            self._slots, self._guard = owned, guarded(owned)
            owned.disarmed = 0
        except BaseException:
            owned.disarmed = 1
            raise

    def __len__(self) -> int:
        return int(self._slots.count)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, i: SupportsIndex) -> int: ...
        @overload
        def __getitem__(self, i: slice) -> list[int]: ...

    def __getitem__(self, i: Any) -> Any:
        owned = self._slots  # once: a subclass may lie about its length, and __init__ may replace the slots
        if isinstance(i, slice):
            return [_fd_at(owned, at) for at in range(owned.count)[i]]
        return _fd_at(owned, _slot(owned, i))

    def __iter__(self) -> Iterator[int]:
        owned = self._slots
        for at in range(owned.count):  # Sequence's own ends at any IndexError, a signal handler's too
            yield _fd_at(owned, at)

    @property
    def pidfd(self) -> int | None:
        """The pidfd that came (SO_PASSPIDFD), lent like the others; None if none did. It is in the last slot."""
        owned = self._slots
        return _fd_at(owned, owned.pidfd - 1) if owned.pidfd else None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._slots.closed)

    @property
    def left(self) -> int:
        """How many descriptors are left to take or to be closed. ``len`` counts the slots, as an index is one of a slot."""
        owned = self._slots
        return len(_numbers(owned, owned.count))

    def take(self, i: SupportsIndex | None = None) -> int:
        """The descriptor of slot ``i``, or the first that is left; yours from the return on. Its slot is empty then.

        An exception that a signal handler raises before the return leaves it in its slot. Raises `IndexError` for a slot
        that is not there, and `ValueError` for one that is empty, or if no descriptor is left. See close(2).
        """
        owned = self._slots
        at = 0 if i is None else _slot(owned, i)
        moved = guarded(new_slots(1))
        try:
            if i is None:
                at = lib.lowsock_owned_take_first(owned, moved)
            else:
                _take(owned, at, 1, moved)
            if at < 0:
                _refuse_none_left(owned)
            fd: int = moved.fds[0]
            if fd < 0:
                _refuse(at, fd)
            moved.disarmed = 1
            return fd
        except BaseException:
            moved.disarmed = 0
            _put_back(owned, moved)
            raise

    def detach(self) -> list[int]:
        """A list of all descriptors that are left, in their order; yours from the return on.

        An exception that a signal handler raises before the return leaves them in their slots. Raises `ValueError` for an
        owner that is closed, or that only peeked. See close(2).
        """
        owned = self._slots
        count = owned.count
        moved = guarded(new_slots(count))
        try:
            _take(owned, 0, count, moved)
            fds = _numbers(moved, count)  # CPython 3.13 leaves the return of an inlined filter out of the `try`
            if not fds:
                _refuse_all(owned, count)
            moved.disarmed = 1
            return fds
        except BaseException:
            moved.disarmed = 0
            _put_back(owned, moved)
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
        except AttributeError:  # __init__ did not get so far
            return
        if left:
            _warn(f"an OwnedFds left {left} unclosed to the collector", ResourceWarning, 2, self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an OwnedFds can be neither copied nor pickled: its descriptors have one owner")

    def __repr__(self) -> str:
        owned = self._slots
        states = [_STATES.get(fd, str(fd)) for fd in _unpack(owned.fds, owned.count)]
        if owned.pidfd:
            states[-1] = f"pidfd {states[-1]}"
        return f"<lowsock.OwnedFds [{', '.join(states)}]>"


def _slot(owned: CData, i: Any) -> int:
    """The number of a slot, from an index that may be negative."""
    at, count = checked_index("i", i), owned.count
    if not -count <= at < count:
        raise IndexError(f"i is out of range: {at}, of {count} slots")
    return at + count if at < 0 else at


def _fd_at(owned: CData, at: int) -> int:
    fd: int = owned.fds[at]
    return fd if fd >= 0 else _refuse(at, fd)


def _numbers(owned: CData, count: int) -> list[int]:
    return [fd for fd in _unpack(owned.fds, count) if fd >= 0]


def _refuse(at: int, state: int) -> NoReturn:
    raise ValueError(_ERRORS[state].format(at))


def _refuse_none_left(owned: CData) -> NoReturn:
    """Raises why there is nothing to take."""
    _refuse_all(owned, owned.count)
    raise ValueError("no descriptor is left: " + (f"all {owned.count} have been taken" if owned.count else "none came"))


def _refuse_all(owned: CData, count: int) -> None:
    """Raises why there is nothing to detach, unless everything was taken."""
    if owned.closed:
        raise ValueError("this owner is closed")
    for at, fd in enumerate(_unpack(owned.fds, count)):
        if fd != lib.LOWSOCK_TAKEN:
            _refuse(at, fd)


def _adopted(fds: Iterable[int]) -> list[int]:
    """Checks descriptors that an owner is to take over."""
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


def owner(owned: CData) -> OwnedFds:
    """An owner of what is, or will be, in these slots, made without __init__."""
    made = _new(OwnedFds)
    made.ancdata = []
    made._slots, made._guard = owned, _gc(owned, _collect)
    return made


def refuse_closed(fds: list[int]) -> None:
    at = lib.lowsock_first_closed(fds, len(fds)) if fds else 0
    if at < len(fds):
        raise ValueError(f"fds[{at}] is closed" + (f": there is no descriptor {fds[at]}" if fds[at] >= 0 else ""))
