# SPDX-License-Identifier: MIT
"""A batch that messages are received into again and again, which owns its memory. See recvmmsg(2)."""

from __future__ import annotations

from _warnings import warn  # all that warnings would bring in at import is not needed

from lowsock._batch.base import Reused
from lowsock._batch.inbox import COUNT, Inbox, aligned
from lowsock._batch.outbox import not_busy
from lowsock._memory.closing import descriptors
from lowsock._message.owned import new_slots, owner
from lowsock._system.arguments import ZERO, checked_index, checked_int
from lowsock._system.ffi import lib
from lowsock._system.spellings import keyword_only, missing, refuse_old

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from lowsock._message.owned import OwnedFds
    from lowsock._system.types import Address, Ancillary, Socket

_close = lib.lowsock_inbox_close
_move_out = lib.lowsock_inbox_move_out
_take_back = lib.lowsock_inbox_take_back


class RecvBatch(Reused):
    """Room for ``vlen`` messages of ``bufsize`` bytes, with ``ancbufsize`` bytes of control data each.

    `recv` fills it. Then ``for data, address in batch`` gives the data as views of the batch's memory, `messages` as bytes;
    `flags` and `ancdata` tell the rest of one message, and are decoded only then. ``len()`` is how many came by the last
    `recv`; the next one overwrites them.

    Views are writable, and stay valid memory whatever becomes of the batch: what is in them changes when it is used again.
    Received descriptors belong to the batch, which closes them at the next `recv`, at `close`, or when it is gone; `ancdata`
    lends their numbers, and `take_fds` gives them to an owner of their own.

    A batch is for one user at a time: a `recv` while another is in its system call raises `RuntimeError`. After a fork, a
    batch that another thread was in a call with stays in use in the child: make a new one there. `close`, or the end of a
    ``with`` statement, is final: everything else raises `ValueError` from then on. See recvmmsg(2).
    """

    __slots__ = ("__weakref__", "_ancbufsize", "_lent")

    def __init__(self, vlen: int, bufsize: int, ancbufsize: int = 0) -> None:
        if getattr(self, "_memory", None) is not None:
            raise RuntimeError("a RecvBatch is made once")  # else its descriptors would be lost
        super().__init__(vlen, bufsize)
        self._ancbufsize = checked_int("ancbufsize", ancbufsize, least=0)
        self._lent: dict[tuple[int, int], Ancillary] = {}
        self._memory = Inbox(self._vlen, self._vlen * self._bufsize, self._vlen * aligned(self._ancbufsize))

    @keyword_only
    def recv(self, sock: Socket, *old: NoReturn, flags: int = 0, wait_all: bool = False) -> int:
        """Receives up to ``vlen`` messages, as `recvmmsg` does; returns how many came.

        Only the first is waited for, unless ``wait_all``. The messages of the last time are gone, whether this succeeds or
        not. With ``MSG_PEEK`` all are the first message, as `recvmmsg` says. Raises what `recvmmsg` raises. See recvmmsg(2).
        """
        if old:
            refuse_old("recv", "flags", "wait_all")
        inbox: Inbox = self._memory or self._opened()
        if flags is not ZERO:
            flags = checked_int("flags", flags)
        if self._lent:
            self._end_loans(inbox)
        try:
            return inbox.receive(sock, self._vlen, self._bufsize, self._ancbufsize, flags, bool(wait_all)) & COUNT
        finally:
            if self._memory is None:  # closed by another thread or a signal handler
                _close(inbox.struct)

    # ---- all messages ----

    def __len__(self) -> int:
        return int(self._opened().struct.count)

    def __iter__(self) -> Iterator[tuple[memoryview, Address]]:
        """Each message's data, as a view of the batch's memory, and its address."""
        inbox: Inbox = self._memory or self._opened()
        answer = inbox.struct.answer
        return zip(inbox.views(answer), inbox.addresses(answer))

    def messages(self) -> Iterator[tuple[bytes, Address]]:
        """Each message's data, as bytes, and its address. See recvmmsg(2)."""
        inbox: Inbox = self._memory or self._opened()
        answer = inbox.struct.answer
        return zip(inbox.pieces(answer), inbox.addresses(answer))

    # ---- one message ----

    def data(self, i: int) -> memoryview:
        """The data of message ``i``, as a view of the batch's memory. See recvmmsg(2)."""
        inbox, i = self._message(i)
        at = i * self._bufsize
        return memoryview(inbox.data)[at : at + inbox.struct.sizes[i]]

    def address(self, i: int) -> Address:
        """The address that message ``i`` came from; None where the kernel tells none. See recvmmsg(2)."""
        inbox, i = self._message(i)
        return inbox.address(i)

    def flags(self, i: int) -> int:
        """The ``msg_flags`` of message ``i``: ``MSG_TRUNC``, ``MSG_CTRUNC`` and others. See recvmmsg(2)."""
        inbox, i = self._message(i)
        return int(inbox.struct.flags[i])

    def ancdata(self, i: int) -> Ancillary:
        """The control messages of message ``i``, a list of ``(level, type, bytes)``; the same list each time.

        Descriptors in it are lent: the batch closes them. `take_fds` gives them. See recvmmsg(2).
        """
        inbox, i = self._message(i)
        generation = inbox.struct.generation
        ancdata = self._lent.get((generation, i))
        if ancdata is None:
            ancdata = self._lent.setdefault((generation, i), inbox.ancdata(i, 1)[0])
        if inbox.struct.generation != generation:
            not_busy(-lib.LOWSOCK_BUSY)  # a signal handler has received with this batch since
        return ancdata

    def take_fds(self, i: int) -> OwnedFds:
        """The descriptors of message ``i``, with an owner of their own: an `OwnedFds`, which is empty if none came.

        The batch does not close them any more; ``ancdata`` of the owner has the control messages that brought none. An
        exception that a signal handler raises before the return leaves them with the batch. Raises `ValueError` if they have
        been taken before. See unix(7), recvmmsg(2).
        """
        inbox, i = self._message(i)
        struct = inbox.struct
        generation, held = struct.generation, struct.controls[i]
        ancdata = self.ancdata(i)
        came = sum(fd >= 0 for fd in descriptors(ancdata))
        owned = new_slots(came)
        fds = owner(owned)
        fds.ancdata = [message for message in ancdata if not any(fd >= 0 for fd in descriptors([message]))]
        try:
            if not_busy(_move_out(struct, i, generation, owned)) < came:
                raise ValueError(f"the descriptors of message {i} have been taken")
            return fds
        except BaseException:  # the caller did not get them
            _take_back(struct, i, generation, held, owned)
            raise

    def _message(self, i: int) -> tuple[Inbox, int]:
        inbox, i = self._opened(), checked_index("i", i)
        if not 0 <= i < inbox.struct.count:
            raise IndexError(f"the batch has {inbox.struct.count} messages: there is no message {i}")
        return inbox, i

    # ---- the end ----

    def close(self) -> None:
        """Closes the descriptors that nobody took, and lets go of the memory. May be called again. See recvmmsg(2)."""
        inbox, self._memory = self._memory, None
        if inbox is not None and self._lent:
            self._end_loans(inbox)
        elif inbox is not None:
            _close(inbox.struct)

    def _end_loans(self, inbox: Inbox) -> None:
        """Closes the descriptors of a batch that has lent some."""
        self._lent = {}
        _close(inbox.struct)
        missed = inbox.struct.missed
        if missed:
            inbox.struct.missed = 0
            warn(
                f"{missed} descriptors that RecvBatch.ancdata() lent were closed by somebody else: take_fds() gives them",
                RuntimeWarning,
                3,
                self,
            )

    def __del__(self, _close: Any = _close) -> None:  # the module may be gone by then
        inbox = getattr(self, "_memory", None)
        if inbox is not None:
            _close(inbox.struct)

    if not TYPE_CHECKING:
        __getattr__ = missing(__name__, {"receive": "use recv", "datagrams": "use messages"})
