# SPDX-License-Identifier: MIT
"""lowsock.cmsg.decode: anything in, typed messages out, and no payload an error. No socket needed."""

import array
import collections
import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowsock import cmsg
from lowsock.cmsg import _base
from lowsock.cmsg._base import row_of

pytestmark = pytest.mark.smoke

INT_MAX = 2**31 - 1
OWN_LEVEL = 0x10C50C  # no kernel has it
REGISTERED = [name for name in cmsg.__all__ if getattr(getattr(cmsg, name), "_row", None)]
each_registered = pytest.mark.parametrize("name", REGISTERED)

anything = settings(max_examples=150, deadline=None, database=None, derandomize=True)


# ---- sizes ----


@each_registered
def test_from_data_refuses_every_other_size(name):
    row = row_of(getattr(cmsg, name))
    for size in range(max(row.room, 8) + 3):
        if not row.fits(size):
            with pytest.raises(ValueError, match=f"^data: {name} has .* bytes of payload, not {size}$"):
                getattr(cmsg, name).from_data(bytes(size))


@each_registered
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80", b"\x7f"])
def test_every_payload_of_a_right_size_can_be_read(name, fill):
    row = row_of(getattr(cmsg, name))
    for size in row.sizes or (row.least, row.least + row.step, row.least + 40 * row.step):
        message = getattr(cmsg, name).from_data(fill * size)
        read_everything(message)


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
def test_from_data_names_what_has_no_bytes(data):
    with pytest.raises(TypeError, match="data must be a bytes-like object"):
        cmsg.TTL.from_data(data)


# ---- decoding anything ----


def read_everything(message):
    """Reads every property of a message; its repr must name every field."""
    properties = [name for name in dir(message) if isinstance(getattr(type(message), name), property)]
    assert {"level", "type", "data", *message._fields} <= set(properties)
    for name in properties:
        getattr(message, name)
    assert all(f"{field}=" in repr(message) for field in message._fields)


KNOWN = sorted({(level, kind) for level, kinds in _base._REGISTRY.items() for kind in kinds})
ROWS = {pair: [row_of(cls) for cls in _base._REGISTRY[pair[0]][pair[1]][2].values()] for pair in KNOWN}
LENGTHS = sorted({length for rows in ROWS.values() for row in rows for length in (*row.sizes, row.least, row.room)})

numbers = st.integers(-INT_MAX - 1, INT_MAX)
pairs = st.one_of(
    st.sampled_from(KNOWN), st.tuples(st.sampled_from(KNOWN).map(lambda pair: pair[0]), numbers), st.tuples(numbers, numbers)
)
near = st.builds(lambda length, off: max(0, length + off), st.sampled_from(LENGTHS), st.integers(-1, 1))
payloads = st.one_of(near.flatmap(lambda length: st.binary(min_size=length, max_size=length)), st.binary(max_size=100))
triples = st.builds(lambda pair, data: (*pair, data), pairs, payloads)
fitting = st.sampled_from(
    [(*pair, size) for pair in KNOWN for row in ROWS[pair] for size in (*row.sizes, row.room)]
).flatmap(lambda told: st.builds(lambda data: (told[0], told[1], data), st.binary(min_size=told[2], max_size=told[2])))


@anything
@given(st.lists(st.one_of(triples, fitting), max_size=5))
def test_decode_takes_any_level_type_and_bytes_and_everything_can_be_read(ancdata):
    messages = cmsg.decode(ancdata)
    assert messages == ancdata
    for message, triple in zip(messages, ancdata):
        assert isinstance(message, cmsg.ControlMessage)
        assert [type(item) for item in message] == [int, int, bytes]
        if type(message) is not cmsg.ControlMessage:
            row = row_of(type(message))
            assert triple[:2] in row.pairs
            assert row.fits(len(triple[2]))
        read_everything(message)


@anything
@given(st.lists(st.one_of(triples, fitting), max_size=3))
def test_decode_leaves_raw_only_what_no_class_fits(ancdata):
    for message in cmsg.decode(ancdata):
        if type(message) is cmsg.ControlMessage:
            assert not any(row.fits(len(message.data)) for row in ROWS.get(message[:2], ()))


@anything
@given(st.lists(st.one_of(triples, fitting), max_size=5))
def test_decode_leaves_alone_what_it_made(ancdata):
    once = cmsg.decode(ancdata)
    twice = cmsg.decode(once)
    assert [id(message) for message in twice] == [id(message) for message in once]


@anything
@given(st.one_of(triples, fitting))
def test_what_was_decoded_is_pickled_and_copied(triple):
    (message,) = cmsg.decode([triple])
    for copied in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert (type(copied), copied) == (type(message), triple)


TRIPLE = (OWN_LEVEL, 1, b"data")
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda items: (item for item in items),
    "set": set,
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_decode_takes_any_iterable(container):
    assert cmsg.decode(container([TRIPLE])) == [TRIPLE]
    assert cmsg.decode(container([])) == []


BYTES = {
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array": lambda data: array.array("i", data),
    "view of ints": lambda data: memoryview(data).cast("i"),
    "strange bytes": type("Strange", (bytes,), {"__len__": lambda self: 0}),
}


@pytest.mark.parametrize("kind", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("data", [b"\1\0\0\0", b"\1\0\0\0" * 3])
def test_decode_takes_data_of_any_kind_as_bytes(kind, data):
    level, number, _ = cmsg.TTL(hops=1)
    (message,) = cmsg.decode([(level, number, kind(data))])
    assert type(message) is (cmsg.TTL if len(data) == 4 else cmsg.ControlMessage)
    assert (type(message.data), message) == (bytes, (level, number, data))


def test_decode_takes_items_of_any_sequence():
    level, number, data = cmsg.TTL(hops=1)
    named = collections.namedtuple("named", "level type data")
    for item in ([level, number, data], named(level, number, data), collections.deque([level, number, data])):
        (message,) = cmsg.decode([item])
        assert (type(message), message) == (cmsg.TTL, (level, number, data))


def test_decode_takes_whatever_is_an_index():
    class Index:
        __hash__ = None

        def __init__(self, number):
            self.number = number

        def __index__(self):
            return self.number

    level, kind, data = cmsg.TTL(hops=1)
    for triple in ((Index(level), kind, data), (level, Index(kind), data)):
        first, message = cmsg.decode([TRIPLE, triple])
        assert (type(message), message, first) == (cmsg.TTL, (level, kind, data), TRIPLE)
        assert [type(item) for item in message] == [int, int, bytes]


def test_decode_gives_a_raw_message_its_class():
    (message,) = cmsg.decode([cmsg.ControlMessage(*cmsg.TTL(hops=1))])
    assert type(message) is cmsg.TTL


class Derived(cmsg.TTL):
    """A user's class."""

    __slots__ = ()


class Unregistered(cmsg.ControlMessage):
    """A user's class that nobody registered."""

    __slots__ = ()


@pytest.mark.parametrize("message", [Derived(hops=5), Derived.from_data(b"\1"), Unregistered(OWN_LEVEL, 1, b"data")])
def test_decode_leaves_a_users_class_alone(message):
    assert cmsg.decode([message])[0] is message


def test_decode_changes_nothing_of_the_callers():
    ancdata = [TRIPLE, cmsg.TTL(hops=1)]
    kept = list(ancdata)
    assert cmsg.decode(ancdata) is not ancdata
    assert [id(item) for item in ancdata] == [id(item) for item in kept]


NO_TRIPLES = [
    (1, 2),
    (1, 2, b"", 4),
    (),
    5,
    None,
    "abc",
    b"abc",
    {1, 2, b""},
    {1: 1, 2: 2, b"": 3},
    iter((1, 2, b"")),
    (item for item in cmsg.TTL(hops=1)),
    ("1", 2, b""),
    (1.5, 2, b""),
    ([], 2, b""),
    (0, [], b""),
    (0, None, b""),
    (1, 2, "text"),
    (1, 2, 5),
    (1, 2, None),
]


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("item", NO_TRIPLES, ids=lambda item: type(item).__name__)
def test_decode_names_the_item_that_is_no_three_tuple(item, place):
    with pytest.raises(TypeError, match=rf"^ancdata\[{place}\] ") as raised:
        cmsg.decode([TRIPLE] * place + [item])
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("item", [(2**31, 1, b""), (1, 2**31, b""), (0, -(2**40), b"")])
def test_decode_names_the_number_that_no_kernel_has(item):
    with pytest.raises(OverflowError, match=r"ancdata\[0\] (level|type) is out of range"):
        cmsg.decode([item])


@pytest.mark.parametrize("ancdata", [5, None, 1.5, object()])
def test_decode_names_what_is_no_iterable(ancdata):
    with pytest.raises(TypeError, match=r"^ancdata must be an iterable of \(level, type, data\), not"):
        cmsg.decode(ancdata)


class Own(Exception):
    pass


def throws(error):
    raise error


def broken(error):
    yield TRIPLE
    raise error


ERRORS = [TypeError("mine"), ValueError("mine"), Own("mine"), KeyboardInterrupt("mine")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("make", [broken, lambda error: map(throws, [error])], ids=["generator", "map"])
def test_what_a_users_iterator_raises_comes_out_unchanged(make, error):
    with pytest.raises(type(error), match=r"^mine$") as raised:
        cmsg.decode(make(error))
    assert raised.value is error


@pytest.mark.parametrize("items", [["no number"], [[]]])
def test_what_a_builtin_iterator_raises_comes_out_unchanged(items):
    with pytest.raises((TypeError, ValueError), match=r"int\(\)"):
        cmsg.decode(map(int, items))


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_a_users_number_raises_comes_out_unchanged(error):
    class Level:
        def __hash__(self):
            raise error

    with pytest.raises(type(error), match=r"^mine$") as raised:
        cmsg.decode([(Level(), 1, b"")])
    assert raised.value is error


@pytest.mark.parametrize("thing", [5, None, "TTL", tuple, cmsg.ECN, (cmsg.TTL,)], ids=repr)
@pytest.mark.parametrize("ancdata", [[], [(0, 0, b"")]], ids=len)
def test_what_is_no_class_of_messages_is_found_nowhere(ancdata, thing):
    with pytest.raises(TypeError, match=r"^cls must be a class of control messages"):
        cmsg.find(ancdata, thing)


def test_find_is_the_first_of_a_class_or_question():
    ancdata = [cmsg.TOS(dscp=1), (0, 2, bytes([7, 0, 0, 0])), cmsg.TTL(hops=9)]
    assert cmsg.find(ancdata, cmsg.TTL) == cmsg.find(iter(ancdata), cmsg.HopCount) == (0, 2, bytes([7, 0, 0, 0]))
    assert cmsg.find(ancdata, cmsg.PktInfo) is None
