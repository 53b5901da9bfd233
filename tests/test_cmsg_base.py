# SPDX-License-Identifier: MIT
"""lowsock.cmsg: a typed control message is its three-tuple; what decode and register promise. No socket needed."""

import array
import collections
import copy
import inspect
import pickle
import re
import sys
import threading
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowsock
from lowsock import cmsg, constants
from lowsock.cmsg import _base
from lowsock.cmsg._base import known, row_of
from lowsock.cmsg._fields import Named

INT_MAX = 2**31 - 1
OWN_LEVEL = 0x10C50C  # no kernel has it
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

anything = settings(max_examples=150, deadline=None, database=None, derandomize=True)


# ---- a sample of every class ----

ERROR = {"errno": 113, "origin": 2, "icmp_type": 3, "icmp_code": 1, "info": 1400, "value": 2**32 - 1}
NO_ERROR = dict.fromkeys(ERROR, 0)
AUXDATA = {"status": 0x51, "length": 2**32 - 1, "captured": 2**31, "mac_offset": 2**16 - 1, "network_offset": 14}
TAGGED = {**AUXDATA, "vlan_tci": 0xA00A, "vlan_tpid": 0x8100}
UNTAGGED = {**dict.fromkeys(AUXDATA, 0), "vlan_tci": None, "vlan_tpid": None}
HEADER = {"header": bytes([0, 0, 1, 4, 0, 0, 0, 0])}
TIMES = [{"nanoseconds": 0}, {"nanoseconds": 1_700_000_000_123_456_000}]
INET, INET6 = ("192.0.2.1", 65535), ("2001:db8::1", 53, 0xFFFFF, 3)

# Every field of each class, the least and the most. A class that is shown and not here fails.
SAMPLES = {
    "AlgAeadAssoclen": [{"length": 0}, {"length": 2**32 - 1}],
    "AlgIv": [{"iv": b""}, {"iv": b"12 bytes long"}],
    "AlgOp": [{"op": cmsg.AlgOperation.ENCRYPT}, {"op": 0}, {"op": 77}],
    "Auxdata": [UNTAGGED, TAGGED],
    "Checksum": [{"checksum": 0}, {"checksum": 2**32 - 1}],
    "ControlMessage": [{"level": 5, "type": -7, "data": b"data"}, {"level": INT_MAX, "type": -INT_MAX - 1, "data": b""}],
    "Credentials": [{"pid": 1, "uid": 0, "gid": 0}, {"pid": INT_MAX, "uid": 2**32 - 2, "gid": 2**32 - 2}],
    "DontFrag": [{"on": True}, {"on": False}],
    "Drops": [{"dropped": 0}, {"dropped": 2**32 - 1}],
    "DstAddr": [{"local": "192.0.2.1"}],
    "DstOptions": [HEADER],
    "FlowInfo": [{"flow_label": 0, "traffic_class": 0}, {"flow_label": 0xFFFFF, "traffic_class": 255}],
    "FragSize": [{"size": 0}, {"size": 1500}],
    "FragSize6": [{"size": 0}, {"size": 1500}],
    "GetRecordType": [{"record_type": cmsg.RecordType.ALERT}, {"record_type": 0}, {"record_type": 255}],
    "Gro": [{"size": 0}, {"size": 1200}],
    "HopLimit": [{"hops": 0}, {"hops": 255}],
    "HopOptions": [HEADER],
    "Inq": [{"queued": 0}, {"queued": INT_MAX}],
    "Mark": [{"mark": 0}, {"mark": 2**32 - 1}],
    "NetlinkPktInfo": [{"group": 0}, {"group": 2**32 - 1}],
    "OrigDstAddr": [{"address": INET}],
    "OrigDstAddr6": [{"address": INET6}],
    "PacketTxTimestamp": [ERROR, NO_ERROR],
    "PathMTU": [{"address": INET6, "mtu": 1280}],
    "PidFd": [{"fd": 0}, {"fd": INT_MAX}],
    "PktInfo": [{"local": "127.0.0.1", "ifindex": 3, "destination": "224.0.0.1"}],
    "PktInfo6": [{"local": "::", "ifindex": 0}, {"local": "2001:db8::1", "ifindex": 3}],
    "Priority": [{"priority": 0}, {"priority": 2**32 - 1}],
    "Protocol": [{"protocol": 0}, {"protocol": 255}],
    "ReceivedOptions": [{"options": b""}, {"options": bytes(40)}],
    "RecvErr": [{**NO_ERROR, "offender": None}, {**ERROR, "offender": INET}],
    "RecvErr6": [{**NO_ERROR, "offender": None}, {**ERROR, "offender": INET6}],
    "RecvIf": [{"ifindex": 3}],
    "RequestTimestamps": [{"flags": 0}, {"flags": 2}],
    "ReturnOptions": [{"options": b""}, {"options": bytes(40)}],
    "Rights": [{"fds": ()}, {"fds": (0, 1, INT_MAX)}],
    "RoutingHeader": [HEADER],
    "RthdrDstOptions": [HEADER],
    "Security": [{"label": ""}, {"label": "system_u:object_r:unlabeled_t"}],
    "Segment": [{"size": 1}, {"size": 65535}],
    "SetRecordType": [{"record_type": cmsg.RecordType.HANDSHAKE}, {"record_type": 200}],
    "TClass": [{"dscp": 63, "ecn": cmsg.ECN.CE}, {"dscp": 0, "ecn": cmsg.ECN.NOT_ECT}],
    "TOS": [{"dscp": 63, "ecn": cmsg.ECN.CE}, {"dscp": 0, "ecn": cmsg.ECN.NOT_ECT}],
    "TTL": [{"hops": 0}, {"hops": 255}],
    "Timestamp": TIMES,
    "TimestampKey": [{"key": 0}, {"key": 2**32 - 1}],
    "TimestampNs": TIMES,
    "Timestamping": [{"software": 5, "hardware": None}, {"software": None, "hardware": 10**18 + 1}],
    "TimestampingPktInfo": [{"ifindex": 0, "length": 0}, {"ifindex": 3, "length": 1500}],
    "TxTime": [{"nanoseconds": 0}, {"nanoseconds": 2**63}],
    "VsockRecvErr": [ERROR, NO_ERROR],
    "WifiStatus": [{"acked": True}, {"acked": False}],
}


def shown(of):
    """Names in cmsg.__all__ of classes derived from ``of``."""
    things = {name: getattr(cmsg, name) for name in cmsg.__all__}
    return sorted(name for name, thing in things.items() if isinstance(thing, type) and issubclass(thing, of))


# Those without a row of their own are bases, the questions first of all: they have no level and type.
CLASSES = [name for name in shown(cmsg.ControlMessage) if name == "ControlMessage" or getattr(cmsg, name)._row]
BASES = sorted(set(shown(cmsg.ControlMessage)) - set(CLASSES))
SAMPLED = [name for name in CLASSES if name in SAMPLES]
MESSAGES = [(name, fields) for name in SAMPLED for fields in SAMPLES[name]]
each_message = pytest.mark.parametrize(("name", "fields"), MESSAGES)
each_class = pytest.mark.parametrize("name", shown(cmsg.ControlMessage))
each_registered = pytest.mark.parametrize("name", [name for name in SAMPLED if name != "ControlMessage"])


def made(name, fields):
    return getattr(cmsg, name)(**fields)


def raw(message):
    """The three-tuple of a message, an exact tuple."""
    return (message.level, message.type, message.data)


def of(name):
    """The first sample of a class."""
    return made(name, SAMPLES[name][0])


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_a_sample(name):
    assert SAMPLES.get(name)


@pytest.mark.parametrize("name", BASES)
def test_a_class_without_level_and_type_is_the_base_of_one_that_has_them(name):
    assert any(issubclass(getattr(cmsg, other), getattr(cmsg, name)) for other in CLASSES)


@each_message
def test_a_sample_names_every_field(name, fields):
    assert set(getattr(cmsg, name)._fields) == set(fields)


@pytest.mark.parametrize(
    "value", [object(), 2**100, "\0", -(2**100), [b"bytes"]], ids=["object", "large", "str", "small", "list"]
)
@pytest.mark.parametrize(("name", "field"), [(name, field) for name in SAMPLED for field in getattr(cmsg, name)._fields])
def test_a_value_that_no_field_takes_is_refused_by_name(name, field, value):
    with pytest.raises((TypeError, ValueError, OverflowError), match=rf"^{field}\b"):
        made(name, {**SAMPLES[name][0], field: value})


# ---- a message is its three-tuple ----


@each_message
def test_a_message_equals_its_three_tuple_both_ways(name, fields):
    message = made(name, fields)
    assert message == raw(message)
    assert raw(message) == message
    assert [message != raw(message), raw(message) != message] == [False, False]
    assert message != (*raw(message)[:2], message.data + b"more")


@each_message
def test_a_message_hashes_as_its_three_tuple(name, fields):
    message = made(name, fields)
    assert hash(message) == hash(raw(message))
    assert {raw(message): "found"}[message] == "found"


@each_message
def test_a_message_unpacks_into_three(name, fields):
    message = made(name, fields)
    level, kind, data = message
    assert (level, kind, data) == (message[0], message[1], message[2]) == raw(message)
    assert (len(message), type(data)) == (3, bytes)


@each_message
def test_fields_are_what_was_given(name, fields):
    message = made(name, fields)
    told = {field: getattr(message, field) for field in fields}
    if name == "Auxdata":  # the tag adds that it is valid
        fields = {**fields, "status": message.status}
    assert told == fields


@each_message
def test_the_repr_is_an_expression(name, fields):
    message = made(name, fields)
    copied = eval(repr(message), vars(cmsg))
    assert (type(copied), copied) == (type(message), message)


@pytest.mark.parametrize(("name", "fields"), [pair for pair in MESSAGES if pair[0] != "ControlMessage"])
def test_the_payload_makes_the_same_message(name, fields):
    message = made(name, fields)
    for data in (message.data, bytearray(message.data), memoryview(message.data)):
        copied = type(message).from_data(data)
        assert (type(copied), copied, type(copied.data)) == (type(message), message, bytes)


@each_message
def test_a_message_decodes_to_its_class(name, fields):
    message = made(name, fields)
    (decoded,) = cmsg.decode([raw(message)])
    assert (type(decoded), decoded) == (type(message), message)


@each_message
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_message_is_copied_as_itself(name, fields, how):
    message = made(name, fields)
    copied = how(message)
    assert (type(copied), copied, repr(copied)) == (type(message), message, repr(message))


@each_message
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_message_is_pickled_as_itself(name, fields, protocol):
    message = made(name, fields)
    copied = pickle.loads(pickle.dumps(message, protocol))
    assert (type(copied), copied, repr(copied)) == (type(message), message, repr(message))


class Derived(cmsg.TTL):
    """A user's class, without slots."""


class Renamed(cmsg.Segment):
    """A user's class with a constructor of its own."""

    __slots__ = ()

    def __new__(cls, megabytes):
        return super().__new__(cls, size=megabytes * 2**20 % 60000)


class OwnRaw(cmsg.ControlMessage):
    """A user's class that nobody registered."""

    __slots__ = ()


DERIVED = {
    "derived": lambda: Derived(hops=5),
    "with a constructor": lambda: Renamed(1),
    "unregistered": lambda: OwnRaw(OWN_LEVEL, 1, b"data"),
    "of a payload": lambda: Derived.from_data(b"\1"),
}
each_derived = pytest.mark.parametrize("make", DERIVED.values(), ids=DERIVED)


@each_derived
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_users_class_is_pickled_as_itself(make, protocol):
    message = make()
    copied = pickle.loads(pickle.dumps(message, protocol))
    assert (type(copied), copied) == (type(message), message)


@each_derived
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_users_class_is_copied_as_itself(make, how):
    assert type(how(make())) is type(make())
    assert how(make()) == make()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_what_a_users_class_notes_is_copied_with_it(how):
    message = Derived(hops=5)
    message.note = "by hand"
    assert how(message).note == "by hand"


# ---- the classes ----

TAKEN = {"level", "type", "data", "count", "index"}


@each_class
def test_a_class_has_no_dictionary_for_each_message(name):
    mro = getattr(cmsg, name).__mro__
    assert [cls.__name__ for cls in mro if "__slots__" not in vars(cls) and cls not in (object, tuple)] == []
    assert name not in SAMPLED or not hasattr(of(name), "__dict__")


@each_class
def test_no_field_hides_what_the_tuple_has(name):
    cls = getattr(cmsg, name)
    own = {key for base in cls.__mro__ if base not in (cmsg.ControlMessage, tuple, object) for key in vars(base)}
    assert own & TAKEN == set()
    assert name not in CLASSES or name == "ControlMessage" or TAKEN.isdisjoint(cls._fields)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_is_and_where_that_is_written(name):
    doc = vars(getattr(cmsg, name))["__doc__"].strip()
    assert doc.endswith(".")
    assert re.search(r"\b\w+\([234578]\)|RFC \d+|the kernel's \w+ document", doc)


@each_class
def test_a_class_has_words_of_its_own(name):
    assert vars(getattr(cmsg, name))["__doc__"].strip()


@each_class
def test_every_public_name_of_a_class_is_typed(name):
    for key, thing in vars(getattr(cmsg, name)).items():
        function = thing.fget if isinstance(thing, property) else thing
        if isinstance(function, types.FunctionType):
            assert "return" in function.__annotations__, key


@each_registered
def test_fields_are_given_by_keyword_only(name):
    kinds = {parameter.kind for parameter in inspect.signature(getattr(cmsg, name)).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@each_registered
def test_fields_that_nobody_knows_are_refused(name):
    with pytest.raises(TypeError, match="nonsense"):
        getattr(cmsg, name)(**SAMPLES[name][0], nonsense=1)


@pytest.mark.parametrize("name", shown(Named))
def test_every_member_of_an_enumeration_is_an_expression(name):
    for member in getattr(cmsg, name):
        copied = eval(repr(member), vars(cmsg))
        assert (copied, type(copied)) == (member, type(member))
        assert copy.deepcopy(member) is member


@each_registered
def test_a_sent_message_is_of_its_first_name(name):
    cls = getattr(cmsg, name)
    assert of(name)[:2] == row_of(cls).pairs[0]


# ---- raw ones ----

BAD_RAW = [
    (("1", 2, b""), TypeError, "level must be an int, not str"),
    ((1.0, 2, b""), TypeError, "level must be an int, not float"),
    ((None, 2, b""), TypeError, "level must be an int"),
    ((1, b"2", b""), TypeError, "type must be an int, not bytes"),
    ((2**31, 2, b""), OverflowError, "level is out of range"),
    ((1, -(2**31) - 1, b""), OverflowError, "type is out of range"),
    ((1, 2, "data"), TypeError, "data must be a bytes-like object, not str"),
    ((1, 2, 5), TypeError, "data must be a bytes-like object, not int"),
    ((1, 2, memoryview(b"abcd")[::2]), BufferError, "data must be a C-contiguous"),
]


@pytest.mark.parametrize(("arguments", "error", "told"), BAD_RAW)
def test_a_raw_message_names_what_is_wrong(arguments, error, told):
    with pytest.raises(error, match=told):
        cmsg.ControlMessage(*arguments)


def test_a_raw_message_takes_whatever_is_an_index_and_whatever_has_bytes():
    class Index:
        def __index__(self):
            return 7

    message = cmsg.ControlMessage(Index(), True, array.array("i", [1]))
    assert [type(item) for item in message] == [int, int, bytes]
    assert message == (7, 1, (1).to_bytes(4, sys.byteorder))


def test_a_raw_message_has_no_payload_to_be_made_from():
    with pytest.raises(TypeError, match=r"not a registered class.*ControlMessage"):
        cmsg.ControlMessage.from_data(b"")


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


KNOWN = sorted({(level, kind) for level, kinds in _base._ENTRIES.items() for kind in kinds})
ROWS = {pair: [row_of(cls) for cls in _base._ENTRIES[pair[0]][pair[1]][2].values()] for pair in KNOWN}
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


@each_derived
def test_decode_leaves_a_users_class_alone(make):
    message = make()
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


# ---- registering ----


@pytest.fixture
def own_level():
    """A level of one's own; what is registered there is gone after the test."""
    yield OWN_LEVEL
    _base._ENTRIES.pop(OWN_LEVEL, None)


def new_class(name="Mine"):
    return type(name, (cmsg.ControlMessage,), {"__slots__": (), "__doc__": "One's own."})


def registered(level, kind, name="Mine", **told):
    return cmsg.register(level, kind, **told)(new_class(name))


def test_a_registered_class_is_what_decode_gives(own_level):
    @cmsg.register(own_level, 7, sizes=(4,))
    class Mine(cmsg.ControlMessage):
        __slots__ = ()

        @property
        def value(self):
            return int.from_bytes(self.data, "big")

    (message,) = cmsg.decode([(own_level, 7, b"\0\0\1\0")])
    assert (type(message), message.value) == (Mine, 256)
    assert Mine.from_data(b"\0\0\1\0") == (own_level, 7, b"\0\0\1\0")


SIZES = [
    ({"sizes": (4,)}, {4}),
    ({"sizes": (1, 8)}, {1, 8}),
    ({"sizes": iter([0])}, {0}),
    ({"sizes": {3, 5}}, {3, 5}),
    ({"least": 6}, set(range(6, 12))),
    ({}, set(range(12))),
    ({"sizes": ()}, set(range(12))),
]


@pytest.mark.parametrize(("told", "fit"), SIZES)
def test_payloads_that_do_not_fit_stay_raw(own_level, told, fit):
    cls = registered(own_level, 1, **told)
    for size in range(12):
        for data in (bytes(size), bytearray(size)):
            (message,) = cmsg.decode([(own_level, 1, data)])
            assert type(message) is (cls if size in fit else cmsg.ControlMessage)
            assert message == (own_level, 1, bytes(size))


@pytest.mark.parametrize(("told", "fit"), SIZES)
def test_from_data_takes_the_sizes_that_decode_takes(own_level, told, fit):
    if "sizes" in told:
        told = {"sizes": sorted(fit) if fit != set(range(12)) else ()}
    cls = registered(own_level, 1, **told)
    for size in range(12):
        if size in fit:
            assert cls.from_data(bytes(size)).data == bytes(size)
        else:
            with pytest.raises(ValueError, match="data: Mine has"):
                cls.from_data(bytes(size))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_classes_of_one_type_are_told_apart_by_size(own_level, order):
    told = [{"sizes": (4,)}, {"sizes": (1, 8)}, {"least": 3}]
    classes = {i: registered(own_level, 1, f"Mine{i}", **told[i]) for i in order}
    sizes = {0: None, 1: 1, 2: None, 3: 2, 4: 0, 5: 2, 8: 1, 9: 2}
    for size, i in sizes.items():
        (message,) = cmsg.decode([(own_level, 1, bytes(size))])
        assert type(message) is (cmsg.ControlMessage if i is None else classes[i])


CONFLICTS = [
    ({"sizes": (4,)}, {"sizes": (4,)}),
    ({"sizes": (1, 4)}, {"sizes": (8, 4)}),
    ({}, {}),
    ({"least": 3}, {"least": 9}),
]


@pytest.mark.parametrize(("first", "second"), CONFLICTS)
def test_a_place_that_is_taken_is_refused_and_stays(own_level, first, second):
    cls, late = registered(own_level, 1, **first), new_class("Late")
    with pytest.raises(ValueError, match=rf"Mine is registered for \({own_level}, 1\) already"):
        cmsg.register(own_level, 1, **second)(late)
    for size in (1, 4, 8, 9):
        assert type(cmsg.decode([(own_level, 1, bytes(size))])[0]) is not late
    with pytest.raises(TypeError, match="not a registered class"):
        late.from_data(bytes(4))
    assert cls.from_data(bytes(4)) == (own_level, 1, bytes(4))


def test_a_class_that_is_refused_takes_no_place(own_level):
    registered(own_level, 1, sizes=(4,))
    with pytest.raises(ValueError, match="Mine is registered"):
        registered(own_level, 1, "Late", sizes=(8, 4))
    last = registered(own_level, 1, "Last", sizes=(8,))
    assert type(cmsg.decode([(own_level, 1, bytes(8))])[0]) is last


def test_a_message_of_the_kernels_cannot_be_taken_over():
    level, kind, data = cmsg.TTL(hops=1)
    with pytest.raises(ValueError, match="TTL is registered"):
        cmsg.register(level, kind, sizes=(len(data),))(new_class())
    assert type(cmsg.decode([(level, kind, data)])[0]) is cmsg.TTL


@pytest.mark.parametrize("cls", [cmsg.TTL, cmsg.ControlMessage])
def test_a_class_is_registered_once(own_level, cls):
    with pytest.raises(ValueError, match=f"{cls.__name__} is registered already"):
        cmsg.register(own_level, 1)(cls)
    assert type(cmsg.decode([(own_level, 1, b"")])[0]) is cmsg.ControlMessage


def test_a_class_derived_from_a_registered_one_may_be_registered(own_level):
    cls = type("Mine", (cmsg.TTL,), {"__slots__": ()})
    assert cls(hops=3)[:2] == cmsg.TTL(hops=3)[:2]
    cmsg.register(own_level, 1, sizes=(4,))(cls)
    assert cls(hops=3)[:2] == (own_level, 1)
    assert type(cmsg.decode([cls(hops=3)])[0]) is cls
    assert type(cmsg.decode([raw(cmsg.TTL(hops=3))])[0]) is cmsg.TTL


BAD_REGISTER = [
    (("1", 1), {}, TypeError, "level must be an int"),
    ((1, None), {}, TypeError, "type must be an int"),
    ((2**31, 1), {}, OverflowError, "level is out of range"),
    ((1, 2**31), {}, OverflowError, "type is out of range"),
    ((1, 1), {"sizes": 4}, TypeError, "sizes must be an iterable of ints, not int"),
    ((1, 1), {"sizes": ("4",)}, TypeError, "sizes must be an int"),
    ((1, 1), {"sizes": (-1,)}, ValueError, "sizes must not be negative"),
    ((1, 1), {"sizes": (2**31,)}, OverflowError, "sizes is out of range"),
    ((1, 1), {"least": -1}, ValueError, "least must not be negative"),
    ((1, 1), {"least": None}, TypeError, "least must be an int"),
    ((1, 1), {"room": -1}, ValueError, "room must not be negative"),
    ((1, 1), {"room": 1.0}, TypeError, "room must be an int"),
    ((1, 1), {"sizes": (4,), "least": 2}, ValueError, "least is for payloads of any size"),
]


@pytest.mark.parametrize(("arguments", "told", "error", "match"), BAD_REGISTER)
def test_register_names_what_is_wrong(arguments, told, error, match):
    with pytest.raises(error, match=match):
        cmsg.register(*arguments, **told)


@pytest.mark.parametrize(
    "thing", [5, None, int, tuple, lambda: None, cmsg.TTL(hops=1)], ids=lambda thing: type(thing).__name__
)
def test_only_a_class_of_messages_is_registered(own_level, thing):
    with pytest.raises(TypeError, match="must derive from ControlMessage"):
        cmsg.register(own_level, 1)(thing)


def test_threads_that_register_at_once_lose_no_class(own_level, monkeypatch):
    """While one is about to enter its class, another comes in between: it has to wait."""
    extended = _base._extended
    other = threading.Thread(target=lambda: registered(own_level, 1, "Other", sizes=(2,)))

    def interrupted(*arguments):
        if not other.ident:
            other.start()
            other.join(0.1)  # in vain, if all is well
        return extended(*arguments)

    monkeypatch.setattr(_base, "_extended", interrupted)
    registered(own_level, 1, "One", sizes=(1,))
    other.join()
    messages = cmsg.decode([(own_level, 1, bytes(size)) for size in (1, 2)])
    assert [type(message).__name__ for message in messages] == ["One", "Other"]


# ---- names of the kernel ----


@each_registered
def test_a_class_that_is_shown_is_one_that_the_platform_has(name):
    assert row_of(getattr(cmsg, name)).pairs


def test_a_class_that_the_platform_lacks_says_so(monkeypatch):
    monkeypatch.delitem(_base.CONSTANTS, "IP_TTL")
    cls = known("IP_TTL", sizes=(4,))(new_class())
    with pytest.raises(NotImplementedError, match="this platform has no IP_TTL"):
        cls.from_data(bytes(4))


def test_two_names_of_one_number_are_one():
    cls = new_class()
    try:
        known("SO_DEBUG", "SO_DEBUG", sizes=(4,))(cls)
        assert row_of(cls).pairs == ((constants.SOL_SOCKET, constants.SO_DEBUG),)
    finally:
        _base._ENTRIES[constants.SOL_SOCKET].pop(constants.SO_DEBUG, None)


@pytest.mark.parametrize("thing", [5, None, int, cmsg.ControlMessage, cmsg.TTL(hops=1), OwnRaw], ids=repr)
def test_what_is_no_registered_class_is_refused(thing):
    with pytest.raises(TypeError, match="not a registered class of control messages"):
        cmsg.space(thing)


# ---- both ways through the calls ----


def test_a_message_goes_wherever_a_three_tuple_goes(unix_pair):
    message = cmsg.ControlMessage(OWN_LEVEL, 1, b"")  # Linux takes no notice of a level that it does not know
    for send in (unix_pair.a.sendmsg, lambda *arguments: lowsock.sendmsg(unix_pair.a, *arguments)):
        assert send([b"x"], [message]) == 1
        assert lowsock.recvmsg(unix_pair.b, 10, 100)[0] == b"x"
