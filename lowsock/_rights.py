# SPDX-License-Identifier: MIT
"""Descriptors that somebody owns from the moment they are here: SCM_RIGHTS and SCM_PIDFD. See unix(7).

They stand in slots of C memory, which the system call's own C function fills, and which close what is left in them when
they are collected. A number is in one place at a time, and moves by one C call: an exception can come before a move or
after it, and either way somebody has the number.
"""

from __future__ import annotations

import errno
import os
from _warnings import warn  # all that warnings would bring in at import is not needed
from array import array
from collections.abc import Sequence

from lowsock import _address
from lowsock._ancillary import CMSG_SPACE, NO_CONTROL, SCM_RIGHTS, SOL_SOCKET, Control, decode
from lowsock._calling import INT_MAX, MORE, MSG_DONTWAIT, checked_int, iterated, persist, raised_here, target
from lowsock._constants import CONSTANTS
from lowsock._descriptors import BESIDE, MOST
from lowsock._ffi import ffi, lib
from lowsock._receiving import POLLIN
from lowsock._reply import give, take
from lowsock._sending import transmit

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn, SupportsIndex, overload

    from lowsock._types import Address, Ancillary, Buffer, CData, HasFileno, Socket

_INT = array("i").itemsize
_SCM_MAX_FD = CONSTANTS.get("SCM_MAX_FD", 253)

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
_unpack = ffi.unpack
_take = lib.lowsock_owned_take
_put_back = lib.lowsock_owned_put_back
_close = lib.lowsock_owned_close

_EMPTY = {
    lib.LOWSOCK_TAKEN: "slot {} has been taken",
    lib.LOWSOCK_CLOSED: "slot {} is closed",
    lib.LOWSOCK_PEEKED: "slot {} was only peeked at: its descriptor comes with the message itself",
}
_WORDS = {lib.LOWSOCK_TAKEN: "taken", lib.LOWSOCK_CLOSED: "closed", lib.LOWSOCK_PEEKED: "peeked"}


def slots(size: int) -> CData:
    """Room for so many descriptors."""
    head = {"size": size, "count": 0, "pidfd": -1, "ours": 1, "closed": 0, "left": 0, "first": 0}
    return _allocate("struct lowsock_owned *", {**head, "fds": size})


def guarded(own: CData) -> CData:
    """The same slots, whose descriptors are closed when *this* is collected, by C alone.

    In a cycle, CPython finalizes this before or after whatever else is in it: an owner, or an object that uses an owner in
    its own ``__del__``. cffi forgets the memory then, so what may be used by a finalizer is ``own``, not this.
    """
    return ffi.gc(own, lib.lowsock_owned_collect)


class OwnedFds(Sequence[int]):
    """Descriptors with an owner: a sequence of ints, and a context manager that closes those that nobody took.

    ``owner[i]``, a slice and iteration *lend*: the numbers stay the owner's, which closes them at the end of the ``with``,
    in `close`, or when it is collected (then with a `ResourceWarning`; on PyPy that is late). `take` and `detach` *give*:
    what they return is yours to close, and its slot is empty from then on. ``len`` counts the slots.

    ``OwnedFds(fds)`` takes over descriptors of yours, as soon as it returns. An empty slot is a `ValueError` that says
    whether it was taken, closed or only peeked at; copying or pickling an owner is a `TypeError`. Each method may be called
    from any thread; of two that take the same slot, one gets it. See unix(7), close(2).
    """

    __slots__ = ("__weakref__", "_guard", "_slots", "ancdata")

    _slots: CData
    _guard: CData
    ancdata: Ancillary
    """The other control messages that came, as raw three-tuples; also a ``SCM_PIDFD`` that holds the kernel's -errno."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        numbers = [checked_int(f"fds[{i}]", fd, least=0) for i, fd in enumerate(iterated("fds", "int", fds))]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"fds must not name a descriptor twice: {numbers}")
        own = slots(len(numbers))
        own.ours = 0
        try:
            ffi.memmove(own.fds, array("i", numbers), len(numbers) * _INT)
            own.count = len(numbers)
            self.ancdata = []
            self._slots, self._guard = own, guarded(own)
            own.ours = 1
        except BaseException:
            own.ours = 0
            raise

    def __len__(self) -> int:
        return int(self._slots.count)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, i: SupportsIndex) -> int: ...
        @overload
        def __getitem__(self, i: slice) -> list[int]: ...

    def __getitem__(self, i: Any) -> Any:
        own = range(len(self))[i]  # what list says of an index, this says of it as well
        return self._lent(own) if isinstance(own, int) else [self._lent(at) for at in own]

    def __iter__(self) -> Iterator[int]:
        for at in range(len(self)):  # Sequence's own takes any IndexError for the end, a signal handler's too
            yield self._lent(at)

    def _lent(self, at: int) -> int:
        fd: int = self._slots.fds[at]
        return fd if fd >= 0 else _refuse(at, fd)

    @property
    def pidfd(self) -> int | None:
        """The pidfd that came (SO_PASSPIDFD), lent like the others; None if none did. It is in the last slot."""
        return None if self._slots.pidfd < 0 else self._lent(self._slots.pidfd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._slots.closed)

    def take(self, i: SupportsIndex = 0) -> int:
        """The descriptor of slot ``i``, yours from the return on; the slot is empty then.

        An exception that a signal handler raises before the return leaves it in its slot. Raises `IndexError`, and
        `ValueError` for a slot that has none. See close(2).
        """
        at = range(len(self))[i]
        moved = guarded(slots(1))
        try:
            _take(self._slots, at, 1, moved)
            fd: int = moved.fds[0]
            if fd < 0:
                _refuse(at, fd)
            moved.ours = 0
            return fd
        except BaseException:
            moved.ours = 1
            _put_back(self._slots, moved)
            raise

    def detach(self) -> list[int]:
        """A list of all descriptors that are left, in their order; yours from the return on.

        An exception that a signal handler raises before the return leaves them in their slots. Raises `ValueError` for an
        owner that is closed, or that only peeked. See close(2).
        """
        count = len(self)
        moved = guarded(slots(count))
        try:
            _take(self._slots, 0, count, moved)
            fds = _numbers(moved, count)  # CPython 3.13 leaves an inlined filter's way back out of the `try`
            if not fds:
                self._refuse_all()
            moved.ours = 0
            return fds
        except BaseException:
            moved.ours = 1
            _put_back(self._slots, moved)
            raise

    def _refuse_all(self) -> None:
        """There is nothing to detach: that is an error unless all of it was taken."""
        if self.closed:
            raise ValueError("this owner is closed")
        for at, fd in enumerate(_unpack(self._slots.fds, len(self))):
            if fd != lib.LOWSOCK_TAKEN:
                _refuse(at, fd)

    def close(self) -> None:
        """Closes what nobody took. It may be called again, and from several threads; errors of close(2) are not told."""
        _close(self._slots)

    def __enter__(self) -> OwnedFds:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._slots)

    def __del__(self, _warn: Any = warn, _close: Any = _close) -> None:  # the module may be gone by then
        try:
            left = _close(self._slots) + self._slots.left
        except AttributeError:  # it never came to be
            return
        if left:
            _warn(f"an OwnedFds left {left} unclosed to the collector", ResourceWarning, 2, self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an OwnedFds can be neither copied nor pickled: its descriptors have one owner")

    def __repr__(self) -> str:
        states = [_WORDS.get(fd, str(fd)) for fd in _unpack(self._slots.fds, len(self))]
        if self._slots.pidfd >= 0:
            states[-1] = f"pidfd {states[-1]}"
        return f"<lowsock.OwnedFds [{', '.join(states)}]>"


def _numbers(own: CData, count: int) -> list[int]:
    return [fd for fd in _unpack(own.fds, count) if fd >= 0]


def _refuse(at: int, state: int) -> NoReturn:
    raise ValueError(_EMPTY[state].format(at))


def owner(own: CData) -> OwnedFds:
    """An owner of what is, or will be, in these slots."""
    made = OwnedFds.__new__(OwnedFds)
    made.ancdata = []
    made._slots, made._guard = own, guarded(own)
    return made


def recv_rights(
    sock: Socket, bufsize: int, maxfds: int = _SCM_MAX_FD, flags: int = 0
) -> tuple[bytes, OwnedFds, int, Address]:
    """Receives one message and owns the descriptors beside it; returns ``(data, owner, msg_flags, address)``.

    ``owner`` is an `OwnedFds`: use it in a ``with``. It holds at most ``maxfds`` descriptors of SCM_RIGHTS in their order,
    then the pidfd of SCM_PIDFD if the socket asks for one; all are close-on-exec. If the peer sent more, the surplus is
    closed and ``MSG_CTRUNC`` is set; Linux also sets it where it had no descriptor left to give (RLIMIT_NOFILE). What else
    came stands in ``owner.ancdata``; with ``maxfds=0`` the kernel has no room for any of it, and drops all. With
    ``MSG_PEEK`` the copies that the kernel made are closed at once: ``len(owner)`` says how many there are to come.

    The owner is there before the system call fills it, so there is no moment at which an exception loses a descriptor.
    Raises what `lowsock.recvmsg` raises, and closes what had already been received. See unix(7), recvmsg(2).
    """
    bufsize = checked_int("bufsize", bufsize, least=0, most=INT_MAX)
    maxfds = checked_int("maxfds", maxfds, least=0, most=MOST)
    flags = checked_int("flags", flags)
    if target(sock)[1]:
        flags |= MSG_DONTWAIT
    room = CMSG_SPACE(max(maxfds, _SCM_MAX_FD) * _INT) + BESIDE if maxfds else 0  # Linux puts a pidfd behind the rights
    reply, own, answer = take(bufsize, room), slots(maxfds + 1), -errno.EINTR
    fds = owner(own)

    def attempt(fd: int) -> int:
        return lib.lowsock_recv_rights(reply.struct, fd, bufsize, room, flags, own)

    try:
        answer = persist(sock, flags, POLLIN, attempt, answer)
        info = _unpack(reply.info, MORE - answer)
        data = reply.data[: info[0]]
        address = None if info[2] == -1 else _address.decode(reply, info[2])
        fds.ancdata = decode(reply, info)
        give(reply)
        return data, fds, info[1], address
    except BaseException:
        _close(own)
        if MORE < answer < 0:
            give(reply)  # nothing came
        raise


def send_rights(
    sock: Socket, buffers: Iterable[Buffer], fds: Iterable[int | HasFileno], flags: int = 0, address: Address = None
) -> int:
    """Sends one message with copies of ``fds`` beside it; returns the bytes of data sent.

    ``fds`` are ints and objects with ``fileno()``, kept alive for the time of the call, or an `OwnedFds`. They stay open
    here, and whoever owned them owns them still. Nothing is sent, and a `ValueError` names it, if one of them is closed, if
    there are more than 253, or if a stream would lose them for want of a byte of data; anything else among them is a
    `TypeError`. Raises what `lowsock.sendmsg` raises. See unix(7), sendmsg(2).
    """
    items = list(iterated("fds", "ints or objects with fileno()", fds))
    if len(items) > _SCM_MAX_FD:
        raise ValueError(f"fds must not be more than {_SCM_MAX_FD} in one message: {len(items)}")
    numbers = [_descriptor(f"fds[{i}]", item) for i, item in enumerate(items)]
    for i, fd in enumerate(numbers):
        _refuse_closed(f"fds[{i}]", fd)
    return transmit(sock, buffers, _control(numbers), flags, address)


def _control(fds: list[int]) -> Control:
    packed = array("i", fds).tobytes()
    return Control(packed, [SOL_SOCKET, SCM_RIGHTS, len(packed)], 1, True) if packed else NO_CONTROL


def _descriptor(name: str, item: Any) -> int:
    if isinstance(item, int) and not isinstance(item, bool):
        return checked_int(name, item)
    if getattr(item, "fileno", None) is None:
        raise TypeError(f"{name} must be an int or have a fileno() method, not {type(item).__name__}")
    fd = _fileno(name, item)
    if not isinstance(fd, int):
        raise TypeError(f"{name}.fileno() must return an int, not {type(fd).__name__}")
    return checked_int(f"{name}.fileno()", fd)


def _fileno(name: str, item: Any) -> Any:
    """What ``item.fileno()`` returns. Of a closed file it is a `ValueError`, which may come from Python code."""
    try:
        return item.fileno()
    except ValueError as error:
        if not raised_here(error) and getattr(item, "closed", None) is not True:
            raise
        raise ValueError(f"{name} is closed") from error


def _refuse_closed(name: str, fd: int) -> None:
    if fd < 0:
        raise ValueError(f"{name} is closed")
    try:
        os.get_inheritable(fd)  # asks for no more than F_GETFD
    except OSError as error:
        if not raised_here(error):
            raise
        raise ValueError(f"{name} is closed: there is no descriptor {fd}") from None
