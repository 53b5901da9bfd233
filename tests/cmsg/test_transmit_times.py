# SPDX-License-Identifier: MIT
"""Times of what is sent: asked for by the option or by a message, read from the error queue; and times to send at."""

import errno
import socket
import sys
import time

import pytest

import lowsock
from lowsock import constants
from lowsock._system.layouts import LAYOUTS
from lowsock.cmsg import ExtendedError, Timestamp, Timestamping, TimestampNs, decode, enable
from lowsock.cmsg._times import RequestTimestamps, TimestampingFlags, TimestampKey, TxTime

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")

SOL_SOCKET = constants.SOL_SOCKET
PATIENCE = 20  # seconds


EXTENDED = {
    socket.AF_INET: ("IPPROTO_IP", "IP_RECVERR"),
    socket.AF_INET6: ("IPPROTO_IPV6", "IPV6_RECVERR"),
}
TOLD = TimestampingFlags.SOFTWARE | TimestampingFlags.OPT_ID | TimestampingFlags.OPT_TSONLY
SENT, SCHEDULED, ACKNOWLEDGED = 0, 1, 2  # SCM_TSTAMP_*


def tell(sock, flags=TOLD):
    sock.setsockopt(SOL_SOCKET, constants.SO_TIMESTAMPING, int(flags))
    sock.settimeout(PATIENCE)


def transmit_time(sock):
    """The stage and the key of one transmit time, and the time."""
    level, kind = (getattr(constants, name) for name in EXTENDED[sock.family])
    ancdata = lowsock.recvmsg(sock, 100, 1000, constants.MSG_ERRQUEUE)[1]
    messages = {(message.level, message.type): message for message in decode(ancdata)}
    error = LAYOUTS["sock_extended_err"].unpack(messages[level, kind].data)
    told = dict(zip(LAYOUTS["sock_extended_err"].offsets, error))
    assert (told["ee_errno"], told["ee_origin"]) == (errno.ENOMSG, constants.SO_EE_ORIGIN_TIMESTAMPING)
    stamp = messages[SOL_SOCKET, constants.SCM_TIMESTAMPING]
    assert type(stamp) is Timestamping
    return told["ee_info"], told["ee_data"], stamp.software_ns


def nothing_more(sock):
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        lowsock.recvmsg(sock, 100, 1000, constants.MSG_ERRQUEUE)


@linux
def test_the_option_asks_for_the_times_of_every_message(udp_pair):
    tell(udp_pair.a, TOLD | TimestampingFlags.TX_SOFTWARE)
    before = time.time_ns()
    for _ in range(2):
        udp_pair.a.send(b"x")
    stages = [transmit_time(udp_pair.a) for _ in range(2)]
    assert [stage[:2] for stage in stages] == [(SENT, 0), (SENT, 1)]
    assert before <= stages[0][2] <= stages[1][2] <= time.time_ns()


@linux
@pytest.mark.parametrize(("cls", "unit"), [(TimestampNs, 1), (Timestamp, 1000)])
def test_the_plain_kinds_tell_a_transmit_time_too(udp_pair, cls, unit):
    room = enable(udp_pair.a, cls, Timestamping, ExtendedError, timestamping=TOLD | TimestampingFlags.TX_SOFTWARE)
    udp_pair.a.settimeout(PATIENCE)
    udp_pair.a.send(b"x")
    plain, more, _ = decode(lowsock.recvmsg(udp_pair.a, 100, room, constants.MSG_ERRQUEUE)[1])
    assert (type(plain), type(more)) == (cls, Timestamping)
    assert plain.timestamp_ns == more.software_ns - more.software_ns % unit


@linux
def test_a_message_asks_for_its_own_times_only(udp_pair):
    tell(udp_pair.a)
    udp_pair.a.send(b"not this one")
    lowsock.sendmsg(udp_pair.a, [b"this one"], [RequestTimestamps(flags=TimestampingFlags.TX_SOFTWARE)])
    udp_pair.a.send(b"nor this")
    stage, key, nanoseconds = transmit_time(udp_pair.a)
    assert (stage, nanoseconds <= time.time_ns()) == (SENT, True)
    nothing_more(udp_pair.a)


@linux
def test_a_message_may_ask_for_no_time_where_the_option_asks_for_all(udp_pair):
    tell(udp_pair.a, TOLD | TimestampingFlags.TX_SOFTWARE)
    lowsock.sendmsg(udp_pair.a, [b"x"], [RequestTimestamps(flags=0)])
    nothing_more(udp_pair.a)


@linux
def test_a_message_may_ask_for_several_stages_and_bring_its_key(udp_pair):
    tell(udp_pair.a)
    wanted = RequestTimestamps(flags=TimestampingFlags.TX_SCHED | TimestampingFlags.TX_SOFTWARE)
    try:
        lowsock.sendmsg(udp_pair.a, [b"x"], [wanted, TimestampKey(key=2**32 - 7)])
    except OSError as error:
        pytest.skip(f"the kernel has no SCM_TS_OPT_ID: {error}")
    stages = {stage: (key, nanoseconds) for stage, key, nanoseconds in (transmit_time(udp_pair.a) for _ in range(2))}
    assert {stage: key for stage, (key, _) in stages.items()} == {SCHEDULED: 2**32 - 7, SENT: 2**32 - 7}
    assert stages[SCHEDULED][1] <= stages[SENT][1]


@linux
def test_a_stream_tells_when_a_byte_was_acknowledged(tcp_pair):
    tell(tcp_pair.a)
    before = time.time_ns()
    lowsock.sendmsg(tcp_pair.a, [b"1234"], [RequestTimestamps(flags=TimestampingFlags.TX_ACK)])
    assert tcp_pair.b.recv(10) == b"1234"
    stage, key, nanoseconds = transmit_time(tcp_pair.a)
    assert (stage, key) == (ACKNOWLEDGED, 3)  # the last byte
    assert before <= nanoseconds <= time.time_ns()


@linux
def test_a_sent_datagram_may_come_back_with_its_time(udp_pair):
    tell(udp_pair.a, TOLD & ~TimestampingFlags.OPT_TSONLY | TimestampingFlags.TX_SOFTWARE)
    udp_pair.a.send(b"payload")
    data, ancdata, flags, address = lowsock.recvmsg(udp_pair.a, 1000, 1000, constants.MSG_ERRQUEUE)
    assert data.endswith(b"payload")
    assert flags & constants.MSG_ERRQUEUE
    assert Timestamping in map(type, decode(ancdata))


def refused(sock, *messages):
    with pytest.raises(OSError) as caught:
        lowsock.sendmsg(sock, [b"x"], messages)
    return caught.value.errno


@linux
@pytest.mark.parametrize("flags", [TimestampingFlags.RX_SOFTWARE, TimestampingFlags.SOFTWARE, 0x80000000], ids=repr)
def test_a_message_asks_for_transmit_times_only(udp_pair, flags):
    assert refused(udp_pair.a, RequestTimestamps(flags=flags)) == errno.EINVAL


@linux
def test_a_key_wants_the_option_that_tells_keys(udp_pair):
    tell(udp_pair.a, TimestampingFlags.SOFTWARE)
    asked = RequestTimestamps(flags=TimestampingFlags.TX_SOFTWARE)
    assert refused(udp_pair.a, asked, TimestampKey(key=1)) == errno.EINVAL


@linux
def test_a_stream_takes_no_key(tcp_pair):
    tell(tcp_pair.a)
    assert refused(tcp_pair.a, TimestampKey(key=1)) == errno.EINVAL


@linux
def test_what_is_asked_for_and_what_was_taken_have_one_number_and_two_sizes():
    asked = RequestTimestamps(flags=0)
    taken = Timestamping.from_data(bytes(48))
    assert [type(message) for message in decode([tuple(asked), tuple(taken)])] == [RequestTimestamps, Timestamping]
    assert asked.type == constants.SO_TIMESTAMPING_OLD


# ---- a time to send at ----


@linux
def test_a_time_to_send_at_wants_its_option(udp_pair):
    assert refused(udp_pair.a, TxTime(txtime_ns=time.monotonic_ns())) == errno.EINVAL


@linux
def test_a_time_to_send_at_is_accepted_once_the_option_names_a_clock(udp_pair):
    monotonic = LAYOUTS["lowsock_txtime"].pack(time.CLOCK_MONOTONIC, 0)
    udp_pair.a.setsockopt(SOL_SOCKET, constants.SO_TXTIME, monotonic)
    sent = lowsock.sendmsg(udp_pair.a, [b"x"], [TxTime(txtime_ns=time.monotonic_ns())])
    assert (sent, udp_pair.b.recv(10)) == (1, b"x")
