# SPDX-License-Identifier: MIT
"""What is true of the decoder on any bytes: for decode.py, which looks for bytes, and for tests/package/test_fuzz.py.

Nothing here names a class of messages: whatever lowsock.cmsg has registered is walked.
"""

import copy
import pickle

import lowsock.cmsg
import lowsock.constants
from lowsock._memory.ancillary import parse
from lowsock.cmsg import ControlMessage, arrival, decode
from lowsock.cmsg._base import _REGISTRY, row_of
from lowsock.errqueue._events import to_event

REFUSALS = (TypeError, ValueError, OverflowError)  # what a constructor may say to fields that no kernel would deliver


def _registered():
    for level, kinds in _REGISTRY.items():
        for kind, (_, _, by_size) in kinds.items():
            if all(cls.__module__.startswith("lowsock.") for cls in by_size.values()):  # tests register their own
                yield level, kind, by_size


def _sizes(by_size):
    sizes = {size if size is not None else row_of(cls).least for size, cls in by_size.items()}
    return sorted({max(0, size + off) for size in sizes for off in (-1, 0, 1)} | {0, max(sizes) + 64})


# level, type, and the sizes of payload about which the decoder has to decide something
TARGETS = sorted((level, kind, _sizes(by_size)) for level, kind, by_size in _registered())
CLASSES = {cls.__name__: cls for _, _, by_size in _registered() for cls in by_size.values()}
NAMES = {**vars(lowsock.cmsg), **CLASSES}  # what a repr may speak of


def classes(level, kind):
    """The classes of one level and type, by size of payload; under None the one that takes any from its least on."""
    return _REGISTRY.get(level, {}).get(kind, (None, None, {}))[2]


def expected(level, kind, size):
    """The class that a message should have."""
    by_size = classes(level, kind)
    if size in by_size:
        return by_size[size]
    cls = by_size.get(None)
    if cls is None:
        return ControlMessage
    row = row_of(cls)
    return cls if size in range(row.least, size + 1, row.step) else ControlMessage


def public(cls):
    return [name for name in dir(cls) if not name.startswith("_") and name not in dir(tuple)]


def check_tuple(message, raw):
    """It is the raw triple, for all that a tuple can be asked."""
    level, kind, data = message
    assert (message, (level, kind, data)) == (raw, raw)
    assert hash(message) == hash(raw)
    assert (message.level, message.type, message.data) == raw
    assert type(data) is bytes


def check_fields(message):
    """Every public attribute can be read, twice with the same result."""
    for name in public(type(message)):
        value = getattr(message, name)
        assert callable(value) or value == getattr(message, name), name


def check_repr(message):
    """The repr is an expression: of an equal message, unless its fields are none that can be sent."""
    try:
        again = eval(repr(message), NAMES)
    except REFUSALS:
        return
    assert type(again) is type(message)


def check_copies(message):
    """Copies and pickles are equal and of the same class."""
    copies = [copy.copy(message), copy.deepcopy(message)]
    copies += [pickle.loads(pickle.dumps(message, protocol)) for protocol in (0, 2, pickle.HIGHEST_PROTOCOL)]
    assert [(type(each), each) for each in copies] == [(type(message), message)] * len(copies)


def check_from_data(level, kind, data):
    """Of the classes of one level and type, the one that `decode` gives takes the payload, and no other does."""
    for cls in classes(level, kind).values():
        try:
            assert cls.from_data(data).data == data
            taken = True
        except ValueError:
            taken = False
        assert taken == (cls is expected(level, kind, len(data)))


def check_message(message, raw):
    assert type(message) is expected(raw[0], raw[1], len(raw[2]))
    check_tuple(message, raw)
    check_fields(message)
    check_repr(message)
    check_copies(message)
    check_from_data(*raw)


def check_event(triples):
    """As an error queue's entry they are an event, whose fields and repr can be read."""
    event = to_event((b"data", triples, lowsock.constants.MSG_ERRQUEUE, None))
    assert event.ancdata == triples
    check_fields(event)
    assert repr(event).startswith(type(event).__name__)


def check_decoder(triples):
    """`decode` takes any three-tuples, keeps all of them, and what it makes of them has no surprises."""
    messages = decode(triples)
    assert len(messages) == len(triples)
    for message, raw in zip(messages, triples):
        check_message(message, raw)
    again = decode(messages)
    assert [(type(each), each) for each in again] == [(type(each), each) for each in messages]
    assert arrival(messages) == arrival(triples)
    check_event(triples)


def check_control(control):
    """The same of whatever stands in a control buffer."""
    check_decoder(parse(control))
