# SPDX-License-Identifier: MIT
"""The error queue as events: on bytes made by hand, and on the loopback. Routers are in test_icmp.py."""

import errno
import socket
import struct
import sys

import pytest

from lowsock import constants
from lowsock.cmsg._errors import Origin, PacketTxTimestamp, RecvErr, RecvErr6, VsockRecvErr
from lowsock.cmsg._times import Timestamping, TimestampingPktInfo
from lowsock.errqueue import (
    IcmpError,
    LocalError,
    Stage,
    TransmitTimestamp,
    TxTimeMissed,
    TxTimeProblem,
    UnknownEvent,
    ZeroCopyCompletion,
)
from lowsock.errqueue._events import to_event

pytestmark = [
    pytest.mark.smoke,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="error queues are Linux's"),
]

ERRQUEUE = constants.MSG_ERRQUEUE


def of(message, *others, data=b"data", address=("10.0.0.9", 5), flags=ERRQUEUE):
    """The event that such a receive brings."""
    return to_event((data, [tuple(other) for other in others] + [tuple(message)], flags, address))


# ---- on bytes ----


@pytest.mark.parametrize(
    ("message", "mtu"),
    [
        (RecvErr(errno=errno.ECONNREFUSED, origin=2, icmp_type=3, icmp_code=3, offender=("10.0.0.1", 0)), None),
        (RecvErr(errno=errno.EMSGSIZE, origin=2, icmp_type=3, icmp_code=4, info=1300, offender=("10.0.0.1", 0)), 1300),
        (RecvErr(errno=errno.EHOSTUNREACH, origin=2, icmp_type=11, info=77), None),
        (RecvErr6(errno=errno.EMSGSIZE, origin=3, icmp_type=2, info=1280, offender=("fe80::1", 0, 0, 2)), 1280),
        (RecvErr6(errno=errno.EACCES, origin=3, icmp_type=1, icmp_code=1), None),
    ],
    ids=repr,
)
def test_an_icmp_error(message, mtu):
    event = of(message)
    assert event == IcmpError(
        message.errno,
        message.origin,
        message.icmp_type,
        message.icmp_code,
        mtu,
        message.offender,
        ("10.0.0.9", 5),
        b"data",
        [message],
        ERRQUEUE,
    )
    assert type(event.ancdata[0]) is type(message)


@pytest.mark.parametrize(("number", "mtu"), [(errno.EMSGSIZE, 1500), (errno.EPERM, None)])
def test_a_local_error(number, mtu):
    message = RecvErr(errno=number, origin=Origin.LOCAL, info=1500)
    assert of(message, data=b"") == LocalError(number, mtu, ("10.0.0.9", 5), b"", [message], ERRQUEUE)


@pytest.mark.parametrize("address", [None, ("10.0.0.9", 5)])
def test_the_address_may_be_missing(address):
    assert of(RecvErr(origin=Origin.ICMP), address=address).destination == address
    assert of(RecvErr(origin=Origin.LOCAL), address=address).destination == address
    assert of(RecvErr(origin=99), address=address).address == address


@pytest.mark.parametrize("stage", Stage)
def test_a_transmit_timestamp(stage):
    message = RecvErr(errno=errno.ENOMSG, origin=Origin.TIMESTAMPING, info=stage, value=2**32 - 1)
    times = Timestamping(software_ns=1_700_000_000_123_456_789)
    event = of(message, times, address=None)
    assert event == TransmitTimestamp(
        2**32 - 1, stage, 1_700_000_000_123_456_789, None, None, None, b"data", [times, message], ERRQUEUE
    )


def test_stages_are_the_kernels():
    names = {"SENT": "SND", "SCHEDULED": "SCHED", "ACKNOWLEDGED": "ACK", "COMPLETED": "COMPLETION"}
    assert {name: getattr(constants, f"SCM_TSTAMP_{names[name]}") for name in names} == dict(Stage.__members__)


@pytest.mark.parametrize("cls", [RecvErr, RecvErr6, PacketTxTimestamp])
def test_a_hardware_timestamp_of_any_kind_of_socket(cls):
    event = of(cls(origin=Origin.TIMESTAMPING, value=7), Timestamping(hardware_ns=12))
    assert (event.key, event.stage, event.software_ns, event.hardware_ns) == (7, Stage.SENT, None, 12)


def test_interface_and_length_of_the_packet_are_told_with_its_timestamp():
    event = of(RecvErr(origin=Origin.TIMESTAMPING), Timestamping(hardware_ns=1), TimestampingPktInfo(ifindex=3, length=98))
    assert (event.ifindex, event.length) == (3, 98)


def test_a_timestamp_without_times_says_its_stage_all_the_same():
    event = of(RecvErr(origin=Origin.TIMESTAMPING, info=2, value=9))
    assert event[:6] == (9, Stage.ACKNOWLEDGED, None, None, None, None)


def test_a_stage_without_a_name_is_its_number():
    assert of(RecvErr(origin=Origin.TIMESTAMPING, info=77)).stage == 77


def test_the_status_of_a_wireless_frame_is_no_timestamp():
    status = socket.SOL_SOCKET, constants.SCM_WIFI_STATUS, struct.pack("i", 1)
    assert type(of(RecvErr(errno=errno.ENOMSG, origin=Origin.TXSTATUS), status)) is UnknownEvent


@pytest.mark.parametrize("cls", [RecvErr, RecvErr6, VsockRecvErr])
@pytest.mark.parametrize(("code", "copied"), [(0, False), (1, True)])
def test_a_zero_copy_completion(cls, code, copied):
    message = cls(origin=Origin.ZEROCOPY, icmp_code=code, info=3, value=5)
    event = of(message, data=b"", address=None)
    assert event == ZeroCopyCompletion(3, 5, copied, [message], ERRQUEUE)


@pytest.mark.parametrize(
    ("first", "last", "keys"),
    [(0, 0, [0]), (3, 5, [3, 4, 5]), (2**32 - 2, 1, [2**32 - 2, 2**32 - 1, 0, 1]), (2**32 - 1, 2**32 - 1, [2**32 - 1])],
)
def test_a_range_of_sends_wraps(first, last, keys):
    event = of(RecvErr(origin=Origin.ZEROCOPY, info=first, value=last))
    assert (event.sends, list(event.keys())) == (len(keys), keys)
    assert all(map(event.covers, keys))
    assert not event.covers((first - 1) % 2**32)
    assert not event.covers((last + 1) % 2**32)


@pytest.mark.parametrize(("code", "reason"), [(1, TxTimeProblem.INVALID), (2, TxTimeProblem.MISSED), (3, 3)])
def test_a_missed_transmit_time(code, reason):
    when = 1_700_000_000_123_456_789
    halves = {"info": when & 0xFFFFFFFF, "value": when >> 32}
    message = RecvErr(errno=errno.ECANCELED, origin=Origin.TXTIME, icmp_code=code, **halves)
    assert of(message) == TxTimeMissed(reason, when, ("10.0.0.9", 5), b"data", [message], ERRQUEUE)


def test_reasons_are_the_kernels():
    assert constants.SO_EE_CODE_TXTIME_INVALID_PARAM == TxTimeProblem.INVALID
    assert constants.SO_EE_CODE_TXTIME_MISSED == TxTimeProblem.MISSED


@pytest.mark.parametrize("origin", [Origin.NONE, 7, 255])
def test_an_origin_that_nobody_knows_stays_raw(origin):
    message, other = RecvErr(errno=1, origin=origin, info=2), (1, 2, b"3")
    event = of(message, other, flags=ERRQUEUE | constants.MSG_TRUNC)
    assert event == UnknownEvent(message, ("10.0.0.9", 5), b"data", [other, message], ERRQUEUE | constants.MSG_TRUNC)


@pytest.mark.parametrize("message", [(0, 11, bytes(15)), (100, 5, b"CAN"), (socket.SOL_SOCKET, 54, b"")])
def test_what_brings_no_extended_error_stays_raw(message):
    assert of(message) == UnknownEvent(None, ("10.0.0.9", 5), b"data", [message], ERRQUEUE)


def test_nothing_beside_the_data_stays_raw():
    assert to_event((b"data", [], ERRQUEUE, None)) == UnknownEvent(None, None, b"data", [], ERRQUEUE)


@pytest.mark.parametrize("origin", [*Origin, 99])
def test_truncation_is_told(origin):
    told = ERRQUEUE | constants.MSG_TRUNC | constants.MSG_CTRUNC
    assert of(RecvErr(origin=origin), flags=told).msg_flags == told


def test_events_cannot_be_changed():
    with pytest.raises(AttributeError):
        of(RecvErr(origin=Origin.ICMP)).errno = 0


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (TransmitTimestamp, "software", "software_ns"),
        (TransmitTimestamp, "hardware", "hardware_ns"),
        (TxTimeMissed, "nanoseconds", "txtime_ns"),
    ],
)
def test_a_time_has_its_new_name_alone(cls, old, new):
    event = cls._make(range(len(cls._fields)))
    assert getattr(event, new) == cls._fields.index(new)
    with pytest.raises(AttributeError, match=old):
        getattr(event, old)
