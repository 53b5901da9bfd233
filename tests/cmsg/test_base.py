# SPDX-License-Identifier: MIT
"""lowsock.cmsg: a typed control message is its three-tuple, and every class keeps to the same laws."""

import array
import copy
import inspect
import pickle
import re
import sys
import types

import pytest

import lowsock
from lowsock import cmsg
from lowsock.cmsg._base import row_of
from lowsock.cmsg._fields import Named

INT_MAX = 2**31 - 1
OWN_LEVEL = 0x10C50C  # no kernel has it
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


# ---- a sample of every class ----

ERROR = {"errno": 113, "origin": 2, "icmp_type": 3, "icmp_code": 1, "info": 1400, "value": 2**32 - 1}
NO_ERROR = dict.fromkeys(ERROR, 0)
AUXDATA = {"status": 0x51, "length": 2**32 - 1, "captured": 2**31, "mac_offset": 2**16 - 1, "network_offset": 14}
TAGGED = {**AUXDATA, "vlan_tci": 0xA00A, "vlan_tpid": 0x8100}
UNTAGGED = {**dict.fromkeys(AUXDATA, 0), "vlan_tci": None, "vlan_tpid": None}
HEADER = {"header": bytes([0, 0, 1, 4, 0, 0, 0, 0])}
TIMES = [{"timestamp_ns": 0}, {"timestamp_ns": 1_700_000_000_123_456_000}]
PKTINFO = ("local", "ifindex", "destination")
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
    "PidFd": [{"fd": 0}, {"fd": INT_MAX}, {"fd": -24}],
    "PktInfo": [dict(zip(PKTINFO, ("127.0.0.1", 3, "224.0.0.1"))), dict(zip(PKTINFO, ("0.0.0.0", 0, "0.0.0.0")))],
    "PktInfo6": [{"local": "::", "ifindex": 0}, {"local": "2001:db8::1", "ifindex": 3}],
    "Priority": [{"priority": 0}, {"priority": 2**32 - 1}],
    "Protocol": [{"protocol": 0}, {"protocol": 255}],
    "ReceivedOptions": [{"options": b""}, {"options": bytes(40)}],
    "RecvErr": [{**NO_ERROR, "offender": None}, {**ERROR, "offender": INET}],
    "RecvErr6": [{**NO_ERROR, "offender": None}, {**ERROR, "offender": INET6}],
    "RecvIf": [{"ifindex": 3}],
    "RequestTimestamps": [{"flags": 0}, {"flags": 2**32 - 1}, {"flags": cmsg.TimestampingFlags(0x102)}],
    "ReturnOptions": [{"options": b""}, {"options": bytes(40)}],
    "Rights": [{"fds": ()}, {"fds": (0, 1, INT_MAX)}],
    "RoutingHeader": [HEADER],
    "RthdrDstOptions": [HEADER],
    "Security": [{"label": ""}, {"label": "system_u:object_r:\udcff\u00e9"}],
    "Segment": [{"size": 1}, {"size": 65535}],
    "SetRecordType": [{"record_type": cmsg.RecordType.HANDSHAKE}, {"record_type": 200}],
    "TClass": [{"dscp": 63, "ecn": cmsg.ECN.CE}, {"dscp": 0, "ecn": cmsg.ECN.NOT_ECT}],
    "TOS": [{"dscp": 63, "ecn": cmsg.ECN.CE}, {"dscp": 0, "ecn": cmsg.ECN.NOT_ECT}],
    "TTL": [{"hops": 0}, {"hops": 255}],
    "Timestamp": [*TIMES, {"timestamp_ns": -1000}],
    "TimestampKey": [{"key": 0}, {"key": 2**32 - 1}],
    "TimestampNs": [*TIMES, {"timestamp_ns": -1}],
    "Timestamping": [dict(zip(("software_ns", "hardware_ns"), times)) for times in ((5, 10**18 + 1), (None, 1), (-1, None))],
    "TimestampingPktInfo": [{"ifindex": 0, "length": 0}, {"ifindex": 3, "length": 1500}],
    "TxTime": [{"txtime_ns": 0}, {"txtime_ns": 2**64 - 1}],
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


# ---- both ways through the calls ----


def test_a_message_goes_wherever_a_three_tuple_goes(unix_pair):
    message = cmsg.ControlMessage(OWN_LEVEL, 1, b"")  # Linux takes no notice of a level that it does not know
    for send in (unix_pair.a.sendmsg, lambda *arguments: lowsock.sendmsg(unix_pair.a, *arguments)):
        assert send([b"x"], [message]) == 1
        assert lowsock.recvmsg(unix_pair.b, 10, 100)[0] == b"x"
