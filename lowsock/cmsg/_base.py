# SPDX-License-Identifier: MIT
"""What typed control messages have in common, and the register of their classes.

A class tells by `known` under which names of the kernel its messages go, how long their payload is, which option makes
them arrive and how much room they want. Everything else here reads what `known` wrote down.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, TypeVar

from lowsock._ancillary import message
from lowsock._buffers import as_bytes
from lowsock._calling import checked_int, raised_here
from lowsock._constants import CONSTANTS

if TYPE_CHECKING:
    from typing_extensions import Self

M = TypeVar("M", bound="ControlMessage")
C = TypeVar("C", bound="type[ControlMessage]")

_new: Callable[..., Any] = tuple.__new__


class ControlMessage(tuple[int, int, bytes]):
    """A control message: the three-tuple ``(level, type, data)``, with names. See cmsg(3).

    It goes wherever such a tuple goes, equals the raw one and hashes alike. ``ControlMessage(level, type, data)`` is any
    message; a subclass takes its fields by keyword, or its payload by `from_data`, and reads its fields from ``data`` on
    demand. Raises `TypeError`, `ValueError` or `OverflowError` naming the field that is wrong.
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ("level", "type", "data")  # what the repr shows: each is an attribute and a keyword
    _row: Row | None = None

    level: int = property(itemgetter(0), doc="The protocol level, such as ``SOL_SOCKET``.")  # type: ignore[assignment]
    type: int = property(itemgetter(1), doc="The type within the level.")  # type: ignore[assignment]
    data: bytes = property(itemgetter(2), doc="The payload.")  # type: ignore[assignment]

    def __new__(cls, level: int, type: int, data: Any) -> Self:
        return _new(cls, (checked_int("level", level), checked_int("type", type), as_bytes("data", data)))

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """A message of this class around a payload, any bytes-like object. Raises `ValueError` if its size is wrong."""
        payload, row = as_bytes("data", data), row_of(cls)
        if not row.fits(len(payload)):
            raise ValueError(f"data: {cls.__name__} has {row.sizes_in_words()} bytes of payload, not {len(payload)}")
        return _new(cls, (*row.wire(), payload))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), *self)


def _restore(cls: type[M], level: int, kind: int, data: bytes) -> M:
    return _new(cls, (level, kind, data))


# ---- the register ----

_LEVELS = {
    "SCM": "SOL_SOCKET",
    "SO": "SOL_SOCKET",
    "LOCAL": "SOL_LOCAL",
    "IP": "IPPROTO_IP",
    "IPV6": "IPPROTO_IPV6",
    "UDP": "SOL_UDP",
    "TCP": "SOL_TCP",
    "TLS": "SOL_TLS",
    "ALG": "SOL_ALG",
    "PACKET": "SOL_PACKET",
    "NETLINK": "SOL_NETLINK",
    "VSOCK": "SOL_VSOCK",
}


def pair(name: str) -> tuple[int, int] | None:
    """Level and number of an option or a control message, by the kernel's name; None where the platform lacks it."""
    level, number = CONSTANTS.get(_LEVELS[name.split("_")[0]]), CONSTANTS.get(name)
    return None if level is None or number is None else (level, number)

UNASKED = ""  # the option of what arrives without one


class Row(NamedTuple):
    """What `known` or `register` wrote down about a class."""

    name: str  # the kernel's, of the message; for one's own, level and type
    pairs: tuple[tuple[int, int], ...]  # level and type; the first is what is sent; none where the platform has none
    sizes: tuple[int, ...]  # of payloads; empty: any size from `least` on
    least: int
    option: str | None  # the kernel's name of the option that makes it arrive; UNASKED; None: it is only sent
    room: int  # bytes of payload to reserve
    since: str  # "Linux 6.5"

    def fits(self, size: int) -> bool:
        return size in self.sizes if self.sizes else size >= self.least

    def wire(self) -> tuple[int, int]:
        if not self.pairs:
            raise NotImplementedError(f"this platform has no {self.name}")
        return self.pairs[0]

    def sizes_in_words(self) -> str:
        return " or ".join(map(str, self.sizes)) or f"at least {self.least}"


def known(
    *names: str, sizes: Iterable[int] = (), least: int = 0, option: str | None = None, room: int = 0, since: str = ""
) -> Callable[[C], C]:
    """Enters a class of ours under the kernel's names; the first that the platform has is what is sent.

    ``sizes`` are those that its payload may have (none: any from ``least`` on), ``room`` is what to reserve for it where
    that is more than the largest of them.
    """
    accepted = tuple(sorted(set(sizes)))
    pairs = tuple(found for found in map(pair, names) if found is not None)
    return _entering(Row(names[0], pairs, accepted, least, option, max(room, least, *accepted, 0), since))


def register(level: int, type: int, *, sizes: Iterable[int] = (), least: int = 0) -> Callable[[C], C]:
    """A class decorator: from now on `decode` gives messages of this level and type the decorated class.

    The class derives from `ControlMessage`; make instances by its ``from_data``, and read its fields from ``self.data``.
    ``sizes`` are the lengths in bytes that its payload may have; without them, any from ``least`` on. What does not fit
    stays raw. Raises `ValueError` where a class is entered already for this level, type and size.
    """
    accepted = tuple(sorted({checked_int("sizes", size, least=0) for size in sizes}))
    least = checked_int("least", least, least=0)
    pairs = ((checked_int("level", level), checked_int("type", type)),)
    return _entering(Row(f"({level}, {type})", pairs, accepted, least, None, max(least, *accepted, 0), ""))


def _entering(row: Row) -> Callable[[C], C]:
    def enter(cls: C) -> C:
        if not isinstance(cls, type) or not issubclass(cls, ControlMessage):
            raise TypeError(f"a registered class must derive from ControlMessage: {cls!r:.60}")
        for level, kind in row.pairs:
            kinds = _ENTRIES.setdefault(level, {})
            kinds[kind] = _extended(kinds.get(kind), cls, row)
        cls._row = row
        return cls

    return enter


def row_of(cls: Any) -> Row:
    """What is written down about a class of messages."""
    row: Row | None = getattr(cls, "_row", None) if isinstance(cls, type) and issubclass(cls, ControlMessage) else None
    if row is None:
        raise TypeError(f"not a registered class of control messages: {cls!r:.60}")
    return row


# ---- decoding ----

# A class, the one size of its payload that is looked for first, and every class of this level and type by size; under
# None stands one that takes any size from its least on.
Entry = tuple[type[ControlMessage], int, dict[Optional[int], type[ControlMessage]]]

_ENTRIES: dict[int, dict[int, Entry]] = {}
_NONE: dict[int, Entry] = {}
_ANY: Entry = ControlMessage, -1, {}


def _extended(entry: Entry | None, cls: type[ControlMessage], row: Row) -> Entry:
    by_size = dict(entry[2]) if entry else {}
    for size in row.sizes or (None,):
        if size in by_size:
            raise ValueError(f"{by_size[size].__name__} is registered for {row.name} already")
        by_size[size] = cls
    if entry and entry[1] >= 0:
        return entry[0], entry[1], by_size
    return cls, row.sizes[-1] if row.sizes else -1, by_size


def decode(ancdata: Iterable[Any]) -> list[ControlMessage]:
    """Each ``(level, type, data)`` as its class: what `lowsock.recvmsg`, the socket module's or trio's returned.

    A message that nobody knows, or whose payload has not the size that it should have, is a plain `ControlMessage` with
    the same three items. Raises `TypeError` where an item is no such three-tuple, and nothing else. See cmsg(3).
    """
    messages: list[ControlMessage] = []
    add, entries = messages.append, _ENTRIES
    try:
        for item in ancdata:
            level, kind, data = item
            cls, size, _ = entries.get(level, _NONE).get(kind, _ANY)
            if len(data) != size or type(data) is not bytes:
                add(_other(len(messages), item))
            else:
                add(_new(cls, item))
    except (TypeError, ValueError) as error:
        if not raised_here(error):
            raise
        raise TypeError(f"ancdata[{len(messages)}] must be a three-tuple (level, type, data)") from None
    return messages


def _other(place: int, item: Any) -> ControlMessage:
    """What is not an everyday message: of an odd size, of an unknown kind, with data that is not bytes."""
    level, kind, data = message(f"ancdata[{place}]", item)
    by_size = _ENTRIES.get(level, _NONE).get(kind, _ANY)[2]
    cls = by_size.get(len(data)) or by_size.get(None)
    if cls is None or not row_of(cls).fits(len(data)):
        cls = type(item) if isinstance(item, ControlMessage) else ControlMessage
    return _restore(cls, level, kind, data)
