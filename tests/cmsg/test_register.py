# SPDX-License-Identifier: MIT
"""lowsock.cmsg.register, and what the library's own classes are registered with. No socket needed."""

import errno
import threading

import pytest

from lowsock import cmsg, constants, errqueue
from lowsock._system.errors import UnsupportedError
from lowsock.cmsg import _base
from lowsock.cmsg._base import registered, row_of
from lowsock.errqueue._events import to_event

OWN_LEVEL = 0x10C50C  # no kernel has it


# ---- registering ----


@pytest.fixture
def own_level():
    """A level of one's own; what is registered there is gone after the test."""
    yield OWN_LEVEL
    _base._REGISTRY.pop(OWN_LEVEL, None)


def new_class(name="Mine"):
    return type(name, (cmsg.ControlMessage,), {"__slots__": (), "__doc__": "One's own."})


def register_new(level, kind, name="Mine", **told):
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
    cls = register_new(own_level, 1, **told)
    for size in range(12):
        for data in (bytes(size), bytearray(size)):
            (message,) = cmsg.decode([(own_level, 1, data)])
            assert type(message) is (cls if size in fit else cmsg.ControlMessage)
            assert message == (own_level, 1, bytes(size))


@pytest.mark.parametrize(("told", "fit"), SIZES)
def test_from_data_takes_the_sizes_that_decode_takes(own_level, told, fit):
    if "sizes" in told:
        told = {"sizes": sorted(fit) if fit != set(range(12)) else ()}
    cls = register_new(own_level, 1, **told)
    for size in range(12):
        if size in fit:
            assert cls.from_data(bytes(size)).data == bytes(size)
        else:
            with pytest.raises(ValueError, match="data: Mine has"):
                cls.from_data(bytes(size))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_classes_of_one_type_are_told_apart_by_size(own_level, order):
    told = [{"sizes": (4,)}, {"sizes": (1, 8)}, {"least": 3}]
    classes = {i: register_new(own_level, 1, f"Mine{i}", **told[i]) for i in order}
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
    cls, late = register_new(own_level, 1, **first), new_class("Late")
    with pytest.raises(ValueError, match=rf"Mine is registered for \({own_level}, 1\) already"):
        cmsg.register(own_level, 1, **second)(late)
    for size in (1, 4, 8, 9):
        assert type(cmsg.decode([(own_level, 1, bytes(size))])[0]) is not late
    with pytest.raises(TypeError, match="not a registered class"):
        late.from_data(bytes(4))
    assert cls.from_data(bytes(4)) == (own_level, 1, bytes(4))


def test_a_class_that_is_refused_takes_no_place(own_level):
    register_new(own_level, 1, sizes=(4,))
    with pytest.raises(ValueError, match="Mine is registered"):
        register_new(own_level, 1, "Late", sizes=(8, 4))
    last = register_new(own_level, 1, "Last", sizes=(8,))
    assert type(cmsg.decode([(own_level, 1, bytes(8))])[0]) is last


# ---- beside lowsock's own classes ----


@pytest.fixture
def own_registry(monkeypatch):
    """What is registered meanwhile is gone after the test."""
    monkeypatch.setattr(_base, "_REGISTRY", {level: dict(kinds) for level, kinds in _base._REGISTRY.items()})


@pytest.mark.parametrize("told", [{"sizes": (4,)}, {"sizes": (8, 4)}, {}, {"least": 2}], ids=str)
@pytest.mark.usefixtures("own_registry")
def test_a_users_class_wins_over_one_of_ours(told):
    """So that a program goes on as it was where a later lowsock has a class of its own."""
    level, kind, data = cmsg.TTL(hops=1)
    cls = register_new(level, kind, **told)
    for given in (data, bytearray(data)):
        assert type(cmsg.decode([(level, kind, given)])[0]) is cls
    assert type(cmsg.decode([(level, kind, data[:1])])[0]) is (cls if told == {} else cmsg.TTL)
    assert type(cmsg.decode([cmsg.TTL(hops=3)])[0]) is cls
    with pytest.raises(ValueError, match="Mine is registered"):
        register_new(level, kind, "Late", **told)


@pytest.mark.usefixtures("own_registry")
def test_a_size_that_a_users_class_does_not_take_stays_ours():
    level, kind, data = cmsg.TTL(hops=1)
    cls = register_new(level, kind, sizes=(9,))
    assert [type(message) for message in cmsg.decode([(level, kind, bytes(9)), (level, kind, data)])] == [cls, cmsg.TTL]


@pytest.mark.usefixtures("own_registry")
def test_a_users_class_takes_the_place_of_one_of_any_size():
    level, kind, data = cmsg.Rights(fds=[0, 1])
    cls = register_new(level, kind)
    assert type(cmsg.decode([(level, kind, data)])[0]) is cls


@pytest.mark.usefixtures("own_registry")
def test_a_class_derived_from_ours_answers_its_questions():
    level, kind, data = cmsg.TTL(hops=7)
    cls = cmsg.register(level, kind, sizes=(4,))(type("Mine", (cmsg.TTL,), {"__slots__": ()}))
    assert type(cmsg.find([(level, kind, data)], cmsg.HopCount)) is cls
    assert cmsg.arrival([(level, kind, data)]).hops == 7


@pytest.mark.usefixtures("own_registry")
def test_the_error_queue_knows_its_events_whatever_is_registered():
    """Else no completion would ever free the memory of a zero-copy sender."""
    cls = register_new(*cmsg.RecvErr(errno=1, origin=1)[:2])
    sent = cmsg.RecvErr(errno=111, origin=cmsg.Origin.ICMP)
    event = to_event((b"x", [tuple(sent)], 0, None))
    assert (type(event), event.errno, type(event.ancdata[0])) == (errqueue.IcmpError, 111, cls)


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
    assert type(cmsg.decode([tuple(cmsg.TTL(hops=3))])[0]) is cmsg.TTL


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
    ((1, 1), {"option": 4}, TypeError, "option must be an iterable of ints, not int"),
    ((1, 1), {"option": (1,)}, ValueError, r"option must be \(level, name\) or \(level, name, value\), not 1 items"),
    ((1, 1), {"option": (1, 2, 3, 4)}, ValueError, "option must be"),
    ((1, 1), {"option": (1, None)}, TypeError, "option must be an int"),
    ((1, 1), {"option": (1, 2**31)}, OverflowError, "option is out of range"),
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
    extended = _base._with_class
    other = threading.Thread(target=lambda: register_new(own_level, 1, "Other", sizes=(2,)))

    def interrupted(*arguments):
        if not other.ident:
            other.start()
            other.join(0.1)  # in vain, if all is well
        return extended(*arguments)

    monkeypatch.setattr(_base, "_with_class", interrupted)
    register_new(own_level, 1, "One", sizes=(1,))
    other.join()
    messages = cmsg.decode([(own_level, 1, bytes(size)) for size in (1, 2)])
    assert [type(message).__name__ for message in messages] == ["One", "Other"]


# ---- names of the kernel ----


@pytest.mark.parametrize("name", [name for name in cmsg.__all__ if getattr(getattr(cmsg, name), "_row", None)])
def test_a_class_that_is_shown_is_one_that_the_platform_has(name):
    assert row_of(getattr(cmsg, name)).pairs


def test_a_class_that_the_platform_lacks_says_so(monkeypatch):
    monkeypatch.delitem(_base.CONSTANTS, "IP_TTL")
    cls = registered("IP_TTL", sizes=(4,))(new_class())
    with pytest.raises(UnsupportedError, match="this platform has no IP_TTL") as caught:
        cls.from_data(bytes(4))
    assert (caught.value.errno, isinstance(caught.value, NotImplementedError)) == (errno.EOPNOTSUPP, True)


def test_two_names_of_one_number_are_one(monkeypatch):
    monkeypatch.setattr(_base, "_REGISTRY", {})
    cls = registered("SO_DEBUG", "SO_DEBUG", sizes=(4,))(new_class())
    assert row_of(cls).pairs == ((constants.SOL_SOCKET, constants.SO_DEBUG),)


UNREGISTERED = new_class("Unregistered")


@pytest.mark.parametrize("thing", [5, None, int, cmsg.ControlMessage, cmsg.TTL(hops=1), UNREGISTERED], ids=repr)
def test_what_is_no_registered_class_is_refused(thing):
    with pytest.raises(TypeError, match="not a registered class of control messages"):
        cmsg.space(thing)
