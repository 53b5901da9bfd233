# SPDX-License-Identifier: MIT
"""What typed control messages have in common, and the registry of their classes.

The decorator `registered` says under which of the kernel's names a class's messages go, how long their payload is, which
option makes them arrive and how much room they need. It keeps that in a `Row`, which everything else reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from threading import Lock
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, TypeVar

from lowsock._memory.ancillary import message
from lowsock._memory.buffers import as_bytes
from lowsock._system.arguments import checked_int, iterated
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import raised_here, unsupported

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
            raise ValueError(f"data: {cls.__name__} has {row.describe_sizes()} bytes of payload, not {len(payload)}")
        return _new(cls, (*row.sent_pair(), payload))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), *self), getattr(self, "__dict__", None)  # a user's class may have one


def _restore(cls: type[M], level: int, kind: int, data: bytes) -> M:
    return _new(cls, (level, kind, data))


def seen_as(message: ControlMessage, *classes: type[M]) -> M | None:
    """A message as one of our own classes, even where a user has registered another for it; None where it is of none."""
    for cls in classes:
        if isinstance(message, cls):
            return message
        row = cls._row
        if row is not None and message[:2] in row.pairs and row.fits(len(message[2])):
            return _restore(cls, *message)
    return None


# ---- the registry ----

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


NO_OPTION = ""  # the option of a message that arrives without one


class Row(NamedTuple):
    """What `registered` or `register` noted about a class."""

    name: str  # the kernel's, of the message; for one's own, level and type
    pairs: tuple[tuple[int, int], ...]  # level and type; the first is what is sent; none where the platform has none
    sizes: tuple[int, ...]  # of payloads; empty: any size from `least` on
    least: int
    step: int  # from one such size to the next
    option: str | None  # the kernel's name of the option that makes it arrive; NO_OPTION; None: it is only sent
    room: int  # bytes of payload to reserve
    since: str  # "Linux 6.5"
    setting: tuple[int, int, int] | None = None  # of a user's class: level, name and value of the option
    is_users: bool = False

    def fits(self, size: int) -> bool:
        return size in self.sizes if self.sizes else size >= self.least and (size - self.least) % self.step == 0

    def sent_pair(self) -> tuple[int, int]:
        if not self.pairs:
            unsupported(f"this platform has no {self.name}")
        return self.pairs[0]

    def describe_sizes(self) -> str:
        steps = f" and a multiple of {self.step} more" if self.step > 1 else ""
        return " or ".join(map(str, self.sizes)) or f"at least {self.least}{steps}"


def registered(
    *names: str,
    sizes: Iterable[int] = (),
    least: int = 0,
    step: int = 1,
    option: str | None = None,
    room: int = 0,
    since: str = "",
) -> Callable[[C], C]:
    """A class decorator: registers one of lowsock's own classes under the kernel's names. Messages are sent under the first
    that the platform has.

    ``sizes`` are those that its payload may have, the commonest first (none: any from ``least`` on, in steps of ``step``),
    ``room`` is what to reserve for it where that is more than the largest of them.
    """
    accepted = tuple(dict.fromkeys(sizes))
    pairs = tuple(dict.fromkeys(found for found in map(pair, names) if found is not None))  # two names may be one number
    return _registrar(Row(names[0], pairs, accepted, least, step, option, max(room, least, *accepted, 0), since))


def register(
    level: int,
    type: int,
    *,
    sizes: Iterable[int] = (),
    least: int = 0,
    room: int = 0,
    option: tuple[int, int] | tuple[int, int, int] | None = None,
) -> Callable[[C], C]:
    """A class decorator: from now on `decode` gives messages of this level and type the decorated class.

    The class derives from `ControlMessage`; make instances by its ``from_data``, and read its fields from ``self.data``.
    ``sizes`` are the lengths in bytes that its payload may have; without them, any from ``least`` on. What does not fit
    stays raw. ``room`` is what `space` reserves where that is more than the largest of them. ``option`` is ``(level, name)``
    or ``(level, name, value)``: the socket option that `enable` sets, to 1 or to ``value``. None: it sets none.

    Your class wins over lowsock's own for the same level and type: your program goes on as it is when a later lowsock has a
    class for them. Derive from lowsock's class if `arrival`, `find` and the questions are to take yours for it.

    Raises `ValueError` where another class is registered already for this level, type and size, or the class elsewhere;
    `TypeError`, `ValueError` or `OverflowError` naming a bad argument. See setsockopt(2).
    """
    given = iterated("sizes", "ints", sizes)
    accepted = tuple(dict.fromkeys(checked_int("sizes", size, least=0) for size in given))
    least, room = checked_int("least", least, least=0), checked_int("room", room, least=0)
    if accepted and least:
        raise ValueError("least is for payloads of any size: sizes are given")
    pairs = ((checked_int("level", level), checked_int("type", type)),)
    setting = None if option is None else _checked_setting(option)
    room = max(room, least, *accepted, 0)
    return _registrar(Row(f"({level}, {type})", pairs, accepted, least, 1, NO_OPTION, room, "", setting, True))


def _checked_setting(option: Any) -> tuple[int, int, int]:
    items = [checked_int("option", item) for item in iterated("option", "ints", option)]
    if len(items) not in (2, 3):
        raise ValueError(f"option must be (level, name) or (level, name, value), not {len(items)} items")
    level, name, value = [*items, 1][:3]
    return level, name, value


def _registrar(row: Row) -> Callable[[C], C]:
    def decorate(cls: C) -> C:
        if not isinstance(cls, type) or not issubclass(cls, ControlMessage):
            raise TypeError(f"a registered class must derive from ControlMessage: {cls!r:.60}")
        with _REGISTRY_LOCK:
            _register_class(cls, row)
        return cls

    return decorate


def _register_class(cls: type[ControlMessage], row: Row) -> None:
    if "_row" in vars(cls):
        raise ValueError(f"{cls.__name__} is registered already: derive a class from it")
    for level, kind in row.pairs:
        kinds = _REGISTRY.setdefault(level, {})
        kinds[kind] = _with_class(kinds.get(kind), cls, row)
    cls._row = row


def checked_class(name: str, cls: Any) -> Any:
    """``cls`` if it is a class of messages, of any kind; the error names the argument."""
    if not isinstance(cls, type) or not issubclass(cls, ControlMessage):
        raise TypeError(f"{name} must be a class of control messages, not {cls!r:.60}")
    return cls


def row_of(cls: Any) -> Row:
    """What is noted about a registered class of messages."""
    row: Row | None = getattr(cls, "_row", None) if isinstance(cls, type) and issubclass(cls, ControlMessage) else None
    if row is None:
        raise TypeError(f"not a registered class of control messages: {cls!r:.60}")
    return row


# ---- decoding ----

# A class, the one size of its payload that is looked for first, and every class of this level and type by size; under
# None stands one that takes any size from its least on.
Entry = tuple[type[ControlMessage], int, dict[Optional[int], type[ControlMessage]]]

_REGISTRY: dict[int, dict[int, Entry]] = {}
_REGISTRY_LOCK = Lock()  # readers need none: an entry is replaced, never changed
_NO_TYPES: dict[int, Entry] = {}
_UNREGISTERED: Entry = ControlMessage, -1, {}


def _with_class(entry: Entry | None, cls: type[ControlMessage], row: Row) -> Entry:
    by_size = dict(entry[2]) if entry else {}
    if row.is_users:
        by_size = {size: each for size, each in by_size.items() if not _is_replaced(size, each, row)}
    for size in row.sizes or (None,):
        if size in by_size:
            raise ValueError(f"{by_size[size].__name__} is registered for {row.name} already")
        by_size[size] = cls
    if entry and entry[1] >= 0 and by_size.get(entry[1]) is entry[0]:
        return entry[0], entry[1], by_size
    return cls, row.sizes[0] if row.sizes else -1, by_size


def _is_replaced(size: int | None, cls: type[ControlMessage], row: Row) -> bool:
    """Whether a user's class takes the place of one of ours at ``size``: for payloads of any size, also of those of one."""
    if row_of(cls).is_users:
        return False
    return size in row.sizes if row.sizes else size is None or row.fits(size)


def decode(ancdata: Iterable[Any]) -> list[ControlMessage]:
    """Each ``(level, type, data)`` as its class: what `lowsock.recvmsg`, the socket module's or trio's returned.

    A message that nobody knows, or whose payload has not the size that it should have, is a plain `ControlMessage` with
    the same three items; one that is typed already stays as it is. No payload is an error.

    Raises `TypeError` where an item is no such three-tuple, `OverflowError` where a number does not fit a C int,
    `BufferError` where data is not contiguous. See cmsg(3).
    """
    items = ancdata if type(ancdata) is list else list(iterated("ancdata", "(level, type, data)", ancdata))
    messages: list[ControlMessage] = []
    entries, new = _REGISTRY, _new  # measured: a local name, and append as a method call, are quicker here
    try:
        for item in items:
            if type(item) is tuple:
                level, kind, data = item
                cls, size, by_size = entries.get(level, _NO_TYPES).get(kind, _UNREGISTERED)
                if type(data) is bytes:
                    if len(data) == size:
                        messages.append(new(cls, item))
                        continue
                    if by_size:
                        messages.append(new(_class_for_size(by_size, len(data)), item))
                        continue
            messages.append(_decode_slow(len(messages), item))
        return messages
    except (TypeError, ValueError) as error:
        if not raised_here(error):
            raise
    return [
        _decode_slow(index, item) for index, item in enumerate(items)
    ]  # this says what is wrong, or decodes it after all


def _decode_slow(index: int, item: Any) -> ControlMessage:
    """What is not an everyday message: of an unknown kind, with data that is not bytes, no tuple, or typed already."""
    level, kind, data = item if isinstance(item, ControlMessage) else message(f"ancdata[{index}]", item)
    cls = _class_for_size(_REGISTRY.get(level, _NO_TYPES).get(kind, _UNREGISTERED)[2], len(data))
    return item if isinstance(item, cls) else _restore(cls, level, kind, data)


def _class_for_size(by_size: dict[int | None, type[ControlMessage]], size: int) -> type[ControlMessage]:
    cls = by_size.get(size) or by_size.get(None, ControlMessage)
    return cls if cls._row is not None and cls._row.fits(size) else ControlMessage
