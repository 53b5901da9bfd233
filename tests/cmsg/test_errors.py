# SPDX-License-Identifier: MIT
"""Extended errors as control messages, on bytes made by hand."""

import copy
import errno
import pickle
import random
import socket
import struct
import sys

import pytest

from lowsock import constants
from lowsock.cmsg import decode
from lowsock.cmsg._errors import ExtendedError, Origin, PacketTxTimestamp, RecvErr, RecvErr6, VsockRecvErr
from lowsock.cmsg._options import enable, space

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="extended errors are Linux's")

EE = struct.Struct("=I4B2I")
INET = struct.Struct("=H2s4s8x")
INET6 = struct.Struct("=H2s4s16sI")
SAID = {"errno": 111, "origin": 2, "icmp_type": 3, "icmp_code": 4, "info": 5, "value": 6}
HEAD = EE.pack(111, 2, 3, 4, 0, 5, 6)
FROM4 = INET.pack(socket.AF_INET, b"\0\x07", bytes([10, 0, 0, 1]))
FROM6 = INET6.pack(socket.AF_INET6, b"\0\x07", b"\0\0\0\x08", socket.inet_pton(socket.AF_INET6, "fe80::1"), 9)
CLASSES = {
    RecvErr: (socket.IPPROTO_IP, constants.IP_RECVERR),
    RecvErr6: (socket.IPPROTO_IPV6, constants.IPV6_RECVERR),
    VsockRecvErr: (constants.SOL_VSOCK, constants.VSOCK_RECVERR),
    PacketTxTimestamp: (constants.SOL_PACKET, constants.PACKET_TX_TIMESTAMP),
}
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def fields(message):
    return {name: getattr(message, name) for name in message._fields}


# ---- decoding ----


@each_class
def test_each_level_and_type_has_its_class(cls):
    (message,) = decode([(*CLASSES[cls], HEAD)])
    assert (type(message), isinstance(message, ExtendedError)) == (cls, True)
    assert {**fields(message), "offender": message.offender} == {**SAID, "offender": None}


@pytest.mark.parametrize("size", range(EE.size))
@each_class
def test_a_short_one_stays_raw(cls, size):
    (message,) = decode([(*CLASSES[cls], HEAD[:size])])
    assert not isinstance(message, ExtendedError)
    assert message.data == HEAD[:size]


@pytest.mark.parametrize(
    ("cls", "behind", "offender"),
    [
        (RecvErr, FROM4, ("10.0.0.1", 7)),
        (RecvErr6, FROM6, ("fe80::1", 7, 8, 9)),
        (RecvErr6, FROM4, ("10.0.0.1", 7)),
        (RecvErr, FROM4 + bytes(100), ("10.0.0.1", 7)),
        (RecvErr, bytes(16), None),
        (RecvErr6, bytes(28), None),
        (RecvErr, struct.pack("=H", 299) + b"what it is", (299, b"what it is")),
    ],
)
def test_the_offender_is_an_address_tuple(cls, behind, offender):
    assert cls.from_data(HEAD + behind).offender == offender


@pytest.mark.parametrize("whole", [FROM4, FROM6], ids=["IPv4", "IPv6"])
def test_an_offender_past_the_payload_is_none(whole):
    assert {RecvErr.from_data(HEAD + whole[:size]).offender for size in range(len(whole))} == {None}


def test_origins_are_the_kernels():
    assert {name: getattr(constants, f"SO_EE_ORIGIN_{name}") for name in Origin.__members__} == dict(Origin.__members__)


@pytest.mark.parametrize("number", [7, 8, 200, 255])
def test_an_origin_without_a_name_is_its_number(number):
    assert (RecvErr(origin=number).origin, type(RecvErr(origin=number).origin)) == (number, int)


def test_no_bytes_make_reading_fail():
    """Any content of at least the right size decodes, and its fields and repr can be read."""
    made = random.Random(20)
    for _ in range(2000):
        payload = bytes(made.choices([0, 1, 2, 10, 16, 17, 40, 255], k=made.randrange(EE.size, 80)))
        for cls, wire in CLASSES.items():
            (message,) = decode([(*wire, payload)])
            assert type(message) is cls
            assert fields(message) is not None
            assert repr(message).startswith(cls.__name__)


# ---- making ----


@each_class
def test_it_is_made_of_its_fields(cls):
    message = cls(**SAID)
    assert message == (*CLASSES[cls], HEAD + bytes(len(message.data) - EE.size))
    assert {**fields(message), "offender": None} == {**SAID, "offender": None}


@pytest.mark.parametrize(
    ("cls", "offender", "behind"),
    [
        (RecvErr, ("10.0.0.1", 7), FROM4),
        (RecvErr6, ("fe80::1", 7, 8, 9), FROM6),
        (RecvErr, None, bytes(16)),
        (RecvErr6, None, bytes(28)),
    ],
)
def test_the_offender_stands_behind_it(cls, offender, behind):
    message = cls(**SAID, offender=offender)
    assert message.data == HEAD + behind
    assert message.offender == offender


@pytest.mark.parametrize("cls", [RecvErr6])
def test_an_ipv6_offender_may_be_short(cls):
    assert cls(offender=("::1", 0)).offender == ("::1", 0, 0, 0)


MADE = [
    RecvErr(),
    RecvErr(**SAID, offender=("1.2.3.4", 0)),
    RecvErr6(errno=errno.EMSGSIZE, origin=Origin.ICMP6, offender=("::1", 0, 0, 2)),
    VsockRecvErr(origin=Origin.ZEROCOPY, info=1, value=2**32 - 1),
    PacketTxTimestamp(origin=Origin.TIMESTAMPING, value=3),
    RecvErr(origin=99),
]


@pytest.mark.parametrize("message", MADE, ids=repr)
def test_the_repr_makes_it_again(message):
    names = {cls.__name__: cls for cls in CLASSES} | {"Origin": Origin}
    again = eval(repr(message), names)
    assert (again, type(again)) == (message, type(message))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("message", MADE, ids=repr)
def test_it_can_be_pickled_and_copied(message, protocol):
    for again in (pickle.loads(pickle.dumps(message, protocol)), copy.copy(message), copy.deepcopy(message)):
        assert (again, type(again)) == (message, type(message))


WIDTHS = {"errno": 32, "origin": 8, "icmp_type": 8, "icmp_code": 8, "info": 32, "value": 32}


@pytest.mark.parametrize("field", WIDTHS)
@each_class
def test_a_field_out_of_range_is_named(cls, field):
    assert getattr(cls(**{field: 2 ** WIDTHS[field] - 1}), field) == 2 ** WIDTHS[field] - 1
    with pytest.raises(OverflowError, match=field):
        cls(**{field: 2 ** WIDTHS[field]})
    with pytest.raises(ValueError, match=field):
        cls(**{field: -1})
    with pytest.raises(TypeError, match=field):
        cls(**{field: "1"})


@pytest.mark.parametrize(
    ("cls", "offender", "error"),
    [
        (RecvErr, "10.0.0.1", TypeError),
        (RecvErr, ("10.0.0.1",), TypeError),
        (RecvErr, ("10.0.0.1", 0, 0, 0), TypeError),
        (RecvErr, ("localhost", 0), ValueError),
        (RecvErr, ("::1", 0), ValueError),
        (RecvErr, (b"10.0.0.1", 0), TypeError),
        (RecvErr, ("10.0.0.1", 2**16), OverflowError),
        (RecvErr, ("10.0.0.1", -1), ValueError),
        (RecvErr6, ("10.0.0.1", 0), ValueError),
        (RecvErr6, ("::1", 0, 2**32, 0), OverflowError),
        (RecvErr6, ("::1", 0, 0, 2**32), OverflowError),
    ],
)
def test_a_wrong_offender_is_named(cls, offender, error):
    with pytest.raises(error, match="offender"):
        cls(offender=offender)


@each_class
def test_fields_are_given_by_keyword(cls):
    with pytest.raises(TypeError):
        cls(111)


def test_a_question_has_no_message_of_its_own():
    with pytest.raises(TypeError, match="registered"):
        ExtendedError()


# ---- asking ----


@pytest.mark.parametrize(("family", "cls"), [(socket.AF_INET, RecvErr), (socket.AF_INET6, RecvErr6)])
def test_it_can_be_asked_for(ipv6, family, cls):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        assert enable(sock, cls) == space(cls)
        level, option = CLASSES[cls]
        assert sock.getsockopt(level, option) == 1


def test_the_question_asks_for_both_on_a_dual_stack_socket(ipv6):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        enable(sock, ExtendedError)
        assert [sock.getsockopt(*CLASSES[cls]) for cls in (RecvErr, RecvErr6)] == [1, 1]
