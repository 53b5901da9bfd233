# SPDX-License-Identifier: MIT
"""Times of what is received, in all three kinds and both forms, and the flags of SO_TIMESTAMPING.

Built on bytes only: hardware times and the packet info beside them (they want a network card with a clock), and the forms of
a 32-bit libc.
"""

import socket
import struct
import sys
import time

import pytest

import lowsock
from lowsock import constants
from lowsock._system.layouts import LAYOUTS, Field, Layout
from lowsock.cmsg import ControlMessage, ReceiveTime, arrival, decode, enable, space
from lowsock.cmsg._times import (
    RECEIVE_BY_SOFTWARE,
    Timestamp,
    Timestamping,
    TimestampingFlags,
    TimestampingPktInfo,
    TimestampNs,
    TxTime,
    reader,
    sizes,
)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")

SECOND = 10**9
RECEIVED = (TimestampNs, Timestamp, Timestamping)
SOL_SOCKET = constants.SOL_SOCKET
PATIENCE = 20  # seconds


# ---- received ----


def stamped(pair, room, cls=ReceiveTime):
    """The messages of the first datagram that comes with a time of this class, and when it was sent and read.

    The kernel begins to stamp a moment after the first socket has asked.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sent = time.time_ns()
        pair.a.send(b"x")
        messages = decode(lowsock.recvmsg(pair.b, 10, room)[1])
        if any(isinstance(message, cls) for message in messages):
            return messages, sent, time.time_ns()
    raise AssertionError("the kernel gave no time")


@linux
@pytest.mark.parametrize("cls", RECEIVED)
def test_a_datagram_comes_with_its_time(udp_pair, cls):
    (message,), sent, read = stamped(udp_pair, enable(udp_pair.b, cls))
    assert type(message) is cls
    assert sent - 1000 < message.timestamp_ns <= read


@linux
@pytest.mark.parametrize("cls", [TimestampNs, Timestamp])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_local_message_comes_with_its_time(cls, kind):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    with a, b:
        room = enable(b, cls)
        sent = time.time_ns()
        a.send(b"x")
        (message,) = decode(lowsock.recvmsg(b, 10, room)[1])
    assert type(message) is cls
    assert sent - 1000 < message.timestamp_ns <= time.time_ns()


@linux
def test_microseconds_are_shown_as_nanoseconds(udp_pair):
    (message,), _, _ = stamped(udp_pair, enable(udp_pair.b, Timestamp))
    seconds, microseconds = LAYOUTS["timeval"].unpack(message.data)
    assert message.timestamp_ns == seconds * SECOND + microseconds * 1000


@linux
def test_of_two_options_the_last_counts(udp_pair):
    for cls in (Timestamp, TimestampNs, Timestamp):
        messages, _, _ = stamped(udp_pair, enable(udp_pair.b, cls))
        assert list(map(type, messages)) == [cls]


@linux
def test_the_software_time_is_the_same_in_both_messages(udp_pair):
    messages, _, _ = stamped(udp_pair, enable(udp_pair.b, TimestampNs, Timestamping), Timestamping)
    plain, more = messages
    assert (type(plain), type(more), plain.timestamp_ns) == (TimestampNs, Timestamping, more.timestamp_ns)
    assert (more.software_ns, more.hardware_ns) == (more.timestamp_ns, None)


@linux
@pytest.mark.parametrize(
    ("cls", "option", "value"),
    [
        (Timestamp, "SO_TIMESTAMP_NEW", 1),
        (TimestampNs, "SO_TIMESTAMPNS_NEW", 1),
        (Timestamping, "SO_TIMESTAMPING_NEW", RECEIVE_BY_SOFTWARE),
    ],
)
def test_the_64_bit_form_has_a_number_of_its_own_and_is_the_same_class(udp_pair, cls, option, value):
    try:
        udp_pair.b.setsockopt(SOL_SOCKET, getattr(constants, option), int(value))
    except (AttributeError, OSError) as error:
        pytest.skip(f"the kernel has no {option}: {error}")
    (message,), sent, read = stamped(udp_pair, space(cls))
    assert (type(message), message.type) == (cls, getattr(constants, option))
    assert sent - 1000 < message.timestamp_ns <= read


@linux
def test_the_portable_question_is_answered_by_each(udp_pair):
    for cls in RECEIVED:
        messages, sent, read = stamped(udp_pair, enable(udp_pair.b, cls))
        assert sent - 1000 < arrival(messages).timestamp_ns <= read


@linux
def test_room_is_for_both_forms():
    both = 2 * lowsock.CMSG_SPACE(16)
    assert space(TimestampNs) >= both
    assert space(Timestamp) >= both
    assert space(Timestamping) >= 2 * lowsock.CMSG_SPACE(48)


# ---- forms, on bytes ----

NANOSECONDS = {"tv_sec": 1_700_000_000, "tv_nsec": 123_456_789}
OWN = {
    "two longs of 32 bits": Layout(8, [Field("tv_sec", "i", 0, 4), Field("tv_nsec", "i", 4, 4)]),
    "64 bits each": Layout(16, [Field("tv_sec", "i", 0, 8), Field("tv_nsec", "i", 8, 8)]),
    "64 bits and a long": Layout(16, [Field("tv_sec", "i", 0, 8), Field("tv_nsec", "i", 8, 4)]),
}
FORMS = {"=ii": 4, "=qq": 4, "@ll": struct.calcsize("l")}


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
@pytest.mark.parametrize(("form", "long"), FORMS.items())
@pytest.mark.parametrize("seconds", [1_700_000_000, -1])
def test_the_size_tells_the_form(own, form, long, seconds):
    payload = struct.pack(form, seconds, 123_456_789)
    assert len(payload) in sizes(own, long)
    assert reader(own, long)(payload) == (seconds, 123_456_789)


def test_the_libcs_own_form_goes_before_one_of_the_same_size():
    """Its padding may hold anything: a microsecond of 32 bits on macOS."""
    own = OWN["64 bits and a long"]
    payload = own.pack(5, 6)[:12] + b"junk"
    assert reader(own, 8)(payload) == (5, 6)


def test_where_all_forms_are_one_reading_is_one_call():
    assert reader(OWN["64 bits each"], 8).__name__ == "unpack"
    assert sizes(OWN["64 bits each"], 8) == (16,)


def test_the_libcs_own_form_is_looked_for_first():
    assert sizes(OWN["two longs of 32 bits"], 4) == (8, 16)
    assert sizes(OWN["64 bits each"], 4) == (16, 8)


@pytest.mark.skipif(struct.calcsize("l") != 8, reason="here 8 bytes are a whole time")
@pytest.mark.parametrize(("cls", "cut"), [(TimestampNs, 8), (Timestamp, 8), (Timestamping, 24)])
def test_half_a_time_is_no_time_of_another_form(cls, cut):
    """MSG_CTRUNC may leave just the seconds."""
    level, kind, data = cls.from_data(bytes(2 * cut))
    (message,) = decode([(level, kind, data[:cut])])
    assert type(message) is ControlMessage


NUMBERS = [(TimestampNs, "SO_TIMESTAMPNS"), (Timestamp, "SO_TIMESTAMP"), (Timestamping, "SO_TIMESTAMPING")]


@linux
@pytest.mark.parametrize("suffix", ["", "_OLD", "_NEW"])
@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_every_number_of_a_time_is_known(cls, name, suffix):
    size = 48 if cls is Timestamping else 16
    (message,) = decode([(SOL_SOCKET, getattr(constants, name + suffix), bytes(size))])
    assert type(message) is cls


@pytest.mark.parametrize("nanoseconds", [0, 1, -1, SECOND - 1, SECOND, -SECOND, 2**62, -(2**62), 2**80, -(2**80)])
def test_any_time_is_kept_to_the_nanosecond(nanoseconds):
    assert TimestampNs(timestamp_ns=nanoseconds).timestamp_ns == nanoseconds


@pytest.mark.parametrize(("given", "kept"), [(1_234_567, 1_234_000), (999, 0), (-1, -1000), (-1000, -1000)])
def test_what_is_finer_than_a_microsecond_is_cut_off(given, kept):
    assert Timestamp(timestamp_ns=given).timestamp_ns == kept


@linux
@pytest.mark.parametrize(("software", "hardware"), [(None, None), (5, None), (None, 7), (5, 7), (-1, 2**62)])
def test_zero_is_no_time(software, hardware):
    message = Timestamping(software_ns=software, hardware_ns=hardware)
    assert (message.software_ns, message.hardware_ns, message.timestamp_ns) == (software, hardware, software)
    assert message == Timestamping(software_ns=software or 0, hardware_ns=hardware or 0)


@linux
def test_what_stands_between_software_and_hardware_is_left_alone():
    times = [struct.pack("=qq", second, 0) for second in (1, 2, 3)]
    message = Timestamping.from_data(b"".join(times))
    assert (message.software_ns, message.hardware_ns) == (SECOND, 3 * SECOND)


@linux
def test_a_time_by_hardware_comes_beside_the_frame_that_had_it():
    """On bytes: no network card with a clock is there to give it."""
    payload = struct.pack("=IIII", 3, 1514, 0, 0)
    (message,) = decode([(SOL_SOCKET, constants.SCM_TIMESTAMPING_PKTINFO, payload)])
    assert message == TimestampingPktInfo(ifindex=3, length=1514)
    assert (type(message), message.ifindex, message.length) == (TimestampingPktInfo, 3, 1514)


@linux
@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (TimestampNs, "nanoseconds", "timestamp_ns"),
        (Timestamp, "nanoseconds", "timestamp_ns"),
        (Timestamping, "software", "software_ns"),
        (Timestamping, "hardware", "hardware_ns"),
        (TxTime, "nanoseconds", "txtime_ns"),
    ],
)
def test_the_old_name_of_a_time_names_the_new_one(cls, old, new):
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(\) takes no {old}: {new}=\.\.\."):
        cls(**{old: 1})
    assert not hasattr(cls(**{new: 1}), old)


# ---- the flags of SO_TIMESTAMPING ----


def flags_of(sock):
    return TimestampingFlags(sock.getsockopt(SOL_SOCKET, constants.SO_TIMESTAMPING))


def test_the_default_is_the_kernels_own_receive_times():
    assert RECEIVE_BY_SOFTWARE == TimestampingFlags.RX_SOFTWARE | TimestampingFlags.SOFTWARE


@linux
def test_flags_are_added_to_those_that_the_socket_has(udp_pair):
    sock = udp_pair.a
    enable(sock, Timestamping)
    assert flags_of(sock) == RECEIVE_BY_SOFTWARE
    enable(sock, Timestamping, timestamping=TimestampingFlags.OPT_ID)
    assert flags_of(sock) == RECEIVE_BY_SOFTWARE | TimestampingFlags.OPT_ID


@linux
def test_packet_info_asks_for_the_hardwares_times_that_it_comes_beside(udp_pair):
    sock, wanted = udp_pair.a, TimestampingFlags.OPT_PKTINFO | TimestampingFlags.RX_HARDWARE | TimestampingFlags.RAW_HARDWARE
    room = enable(sock, TimestampingPktInfo)
    assert flags_of(sock) == wanted
    assert room >= lowsock.CMSG_SPACE(16) + lowsock.CMSG_SPACE(48)
    enable(sock, TimestampingPktInfo, Timestamping)
    assert flags_of(sock) == wanted | RECEIVE_BY_SOFTWARE


@linux
def test_asking_for_packet_info_keeps_software_times(udp_pair):
    messages, _, _ = stamped(udp_pair, enable(udp_pair.b, Timestamping, TimestampingPktInfo))
    assert list(map(type, messages)) == [Timestamping]


@linux
def test_flags_have_the_kernels_names():
    names = {name for name in dir(constants) if name.startswith("SOF_TIMESTAMPING_")}
    assert {f"SOF_TIMESTAMPING_{flag.name}": int(flag) for flag in TimestampingFlags} == {
        name: getattr(constants, name) for name in names
    }


@linux
@pytest.mark.parametrize("value", [0, 1, 0x18, 0x40000, 0x80000000, 2**32 - 1])
def test_the_repr_of_flags_is_an_expression(value):
    flags = TimestampingFlags(value)
    assert eval(repr(flags), {"TimestampingFlags": TimestampingFlags}) == flags
