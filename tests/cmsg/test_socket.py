# SPDX-License-Identifier: MIT
"""Control messages of every kind of socket, their bad fields by name, and on the real kernel where it can be provoked.

Built on bytes only: security labels (they want a labelling security module, which the machine of these tests lacks) and
the acknowledgement of wireless frames (they want a wireless interface).
"""

import array
import errno
import os
import socket
import subprocess
import sys

import pytest

import lowsock
from lowsock import cmsg, constants
from lowsock.cmsg import ControlMessage, _base, decode, enable, space
from lowsock.cmsg._socket import Credentials, Drops, Mark, PidFd, Priority, Rights, Security
from lowsock.cmsg._times import TimestampNs

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")
root = pytest.mark.skipif(os.geteuid() != 0, reason="marks want CAP_NET_ADMIN")

SOL_SOCKET = constants.SOL_SOCKET

BAD = [
    ("Rights", "fds", [(None, TypeError), (["1"], TypeError), ([-1], ValueError), ([2**31], OverflowError)]),
    ("Security", "label", [(b"x", TypeError), ("a\0", ValueError), ("\ud800", ValueError)]),
    ("Drops", "dropped", [(-1, ValueError), (2**32, OverflowError), (1.0, TypeError)]),
    ("Mark", "mark", [(-1, ValueError), (2**32, OverflowError), ("1", TypeError)]),
    ("Priority", "priority", [(-1, ValueError), (2**32, OverflowError), (None, TypeError)]),
    ("TimestampNs", "timestamp_ns", [(2**63 * 10**9, OverflowError), (1.5, TypeError), (None, TypeError)]),
    ("Timestamp", "timestamp_ns", [(2**63 * 10**9, OverflowError), (-(2**63) * 10**9 - 1, OverflowError), ("", TypeError)]),
    ("Timestamping", "software_ns", [(2**63 * 10**9, OverflowError), (0.5, TypeError)]),
    ("Timestamping", "hardware_ns", [(2**63 * 10**9, OverflowError), ("1", TypeError)]),
    ("TimestampingPktInfo", "ifindex", [(-1, ValueError), (2**32, OverflowError), ("lo", TypeError)]),
    ("TimestampingPktInfo", "length", [(-1, ValueError), (2**32, OverflowError)]),
    ("RequestTimestamps", "flags", [(-1, ValueError), (2**32, OverflowError), ("TX_ACK", TypeError)]),
    ("TimestampKey", "key", [(-1, ValueError), (2**32, OverflowError), (None, TypeError)]),
    ("TxTime", "txtime_ns", [(-1, ValueError), (2**64, OverflowError), (1.0, TypeError)]),
]


@pytest.mark.parametrize(
    ("cls", "field", "value", "error"),
    [(getattr(cmsg, name), field, *case) for name, field, cases in BAD for case in cases if name in cmsg.__all__],
)
def test_a_bad_field_is_named(cls, field, value, error):
    with pytest.raises(error, match=rf"^{field}\b"):
        cls(**{field: value})


# ---- the socket module takes and gives them ----

needs_sendmsg = pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy's own sendmsg is not what is tested")


@linux
@needs_sendmsg
def test_the_socket_module_sends_and_receives_typed_messages():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        room = enable(b, Credentials, Rights)
        sent = [Credentials(), Rights(fds=[0])]
        a.sendmsg([b"x"], sent)
        data, ancdata, flags, address = b.recvmsg(10, room)
        credentials, rights = decode(ancdata)
        for fd in rights.fds:
            os.close(fd)
    assert (credentials, type(rights), len(rights.fds)) == (sent[0], Rights, 1)


@linux
@needs_sendmsg
def test_decode_takes_what_the_socket_modules_recvmsg_into_returned():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        room = enable(b, TimestampNs)
        a.send(b"x")
        (message,) = decode(b.recvmsg_into([bytearray(10)], room)[1])
    assert (type(message), message.timestamp_ns > 0) == (TimestampNs, True)


# ---- descriptors ----


class Opened:
    def __init__(self, fd):
        self._fd = fd

    def fileno(self):
        return self._fd


def test_descriptors_are_ints_or_have_a_fileno():
    with open(os.devnull, "rb") as file, socket.socket() as sock:
        message = Rights(fds=iter([0, True, file, sock, Opened(5)]))
        assert message.fds == (0, 1, file.fileno(), sock.fileno(), 5)


def test_a_closed_socket_is_named():
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match=r"fds\[1\]"):
        Rights(fds=[0, sock])


def test_what_has_neither_is_named():
    with pytest.raises(TypeError, match=r"fds\[1\] must be an int or have a fileno\(\) method, not bytes"):
        Rights(fds=[0, b"1"])


def test_one_message_carries_253():
    assert len(Rights(fds=[0] * 253).fds) == 253
    with pytest.raises(ValueError, match=r"fds: .* at most 253 .* not 254"):
        Rights(fds=[0] * 254)


@pytest.mark.parametrize("count", [0, 1, 253, 254, 1000])
def test_any_whole_number_of_descriptors_is_decoded(count):
    payload = array.array("i", range(count)).tobytes()
    (message,) = decode([(SOL_SOCKET, constants.SCM_RIGHTS, payload)])
    assert (type(message), message.fds) == (Rights, tuple(range(count)))


@pytest.mark.parametrize("size", [1, 3, 5, 1011])
def test_a_part_of_a_descriptor_leaves_them_raw(size):
    (message,) = decode([(SOL_SOCKET, constants.SCM_RIGHTS, bytes(size))])
    assert type(message) is ControlMessage


def test_room_is_for_253_descriptors():
    assert space(Rights) == lowsock.CMSG_SPACE(4 * 253)


def test_descriptors_arrive_where_nothing_was_enabled(unix_pair, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        lowsock.sendmsg(unix_pair.a, [b"x"], [Rights(fds=[file, 0])])
    (message,) = decode(lowsock.recvmsg(unix_pair.b, 10, enable(unix_pair.b, Rights))[1])
    names = [os.fstat(fd).st_ino for fd in message.fds]
    for fd in message.fds:
        os.close(fd)
    assert names == [os.stat(tmp_path / "file").st_ino, os.fstat(0).st_ino]


def test_a_message_owns_nothing(open_fds):
    fd = os.dup(0)
    message = Rights(fds=[fd])
    del message
    assert fd in open_fds()
    os.close(fd)


@linux
def test_two_messages_in_one_send_arrive_as_one(unix_pair):
    lowsock.sendmsg(unix_pair.a, [b"x"], [Rights(fds=[0]), Rights(fds=[1, 2])])
    (message,) = decode(lowsock.recvmsg(unix_pair.b, 10, space(Rights))[1])
    for fd in message.fds:
        os.close(fd)
    assert len(message.fds) == 3


# ---- labels and acknowledgements, on bytes ----

label = pytest.mark.skipif("Security" not in cmsg.__all__, reason="this platform has no SCM_SECURITY")


@label
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", ""),
        (b"unconfined", "unconfined"),
        (b"unconfined_u:unconfined_r:unconfined_t:s0\0", "unconfined_u:unconfined_r:unconfined_t:s0"),
        ("é".encode(), "é"),
        (b"\xff\0", "\udcff"),
    ],
)
def test_a_label_is_text_without_its_null_character(payload, text):
    (message,) = decode([(SOL_SOCKET, constants.SCM_SECURITY, payload)])
    assert (type(message), message.label, message.data) == (Security, text, payload)


@linux
def test_labels_can_be_asked_for(unix_pair):
    assert enable(unix_pair.b, Security) >= lowsock.CMSG_SPACE(200)
    unix_pair.a.send(b"x")
    messages = decode(lowsock.recvmsg(unix_pair.b, 10, space(Security))[1])
    assert [message.label for message in messages if type(message) is not Security] == []


@pytest.mark.skipif("WifiStatus" not in cmsg.__all__, reason="this platform has no SCM_WIFI_STATUS")
@pytest.mark.parametrize(("number", "acked"), [(0, False), (1, True), (7, True)])
def test_an_acknowledgement_is_true_or_false(number, acked):
    payload = number.to_bytes(4, sys.byteorder)
    (message,) = decode([(SOL_SOCKET, constants.SCM_WIFI_STATUS, payload)])
    assert message.acked is acked


# ---- drops ----


@linux
def test_drops_are_counted_and_told_by_what_comes_after_them(udp_pair):
    room = enable(udp_pair.b, Drops)
    udp_pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    udp_pair.b.settimeout(0)
    for _ in range(50):
        udp_pair.a.send(bytes(1000))
    told, came = [], 0
    try:
        while True:
            told += decode(lowsock.recvmsg(udp_pair.b, 1000, room)[1])
            came += 1
    except BlockingIOError:
        pass
    assert (0 < came < 50, told) == (True, [])
    udp_pair.a.send(b"after")
    assert decode(lowsock.recvmsg(udp_pair.b, 1000, room)[1]) == [Drops(dropped=50 - came)]


# ---- marks and priorities ----


@pytest.fixture(params=[Mark, Priority])
def numbered(request, udp_pair):
    """A message with a number, a pair of which the second asks for it, and the room for it."""
    try:
        room = enable(udp_pair.b, request.param)
    except (NotImplementedError, PermissionError) as error:
        pytest.skip(str(error))
    return request.param, udp_pair, room


@linux
@root
@pytest.mark.parametrize("value", [1, 6, 7, 2**32 - 1])
def test_what_is_sent_with_a_datagram_comes_with_it(numbered, value):
    cls, pair, room = numbered
    sent = cls(**{cls._fields[0]: value})
    lowsock.sendmsg(pair.a, [b"x"], [sent])
    assert decode(lowsock.recvmsg(pair.b, 10, room)[1]) == [sent]


@linux
@root
def test_it_stands_in_for_the_sockets_own_and_for_one_datagram_only(numbered):
    cls, pair, room = numbered
    own, other = (cls(**{cls._fields[0]: value}) for value in (3, 4))
    pair.a.setsockopt(SOL_SOCKET, getattr(constants, _base.row_of(cls).name), 3)
    for ancdata in ([], [other], []):
        lowsock.sendmsg(pair.a, [b"x"], ancdata)
    came = [decode(lowsock.recvmsg(pair.b, 10, room)[1]) for _ in range(3)]
    assert came == [[own], [other], [own]]


UNPRIVILEGED = """
import os, socket, sys
import lowsock
from lowsock.cmsg._socket import *
os.setresgid(20001, 20001, 20001)
os.setresuid(20001, 20001, 20001)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", 0))
    try:
        lowsock.sendmsg(sock, [b"x"], [eval(sys.argv[1])], 0, sock.getsockname())
    except OSError as error:
        sys.exit(error.errno)
"""


@linux
@root
@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Mark(mark=1), errno.EPERM),
        (Priority(priority=7), errno.EPERM),
        (Priority(priority=2**32 - 1), errno.EPERM),
        (Priority(priority=6), 0),
    ],
    ids=repr,
)
def test_what_wants_privileges_says_so(message, error):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            enable(sock, type(message))
        except NotImplementedError as lacking:
            pytest.skip(str(lacking))
    done = subprocess.run([sys.executable, "-I", "-c", UNPRIVILEGED, repr(message)], timeout=60, check=False)
    assert done.returncode == error


# ---- what cannot be asked for ----


@linux
@pytest.mark.parametrize("name", ["RequestTimestamps", "TimestampKey", "TxTime"])
def test_what_is_only_sent_cannot_be_enabled(udp_pair, name):
    with pytest.raises(ValueError, match=f"{name} is only sent"):
        enable(udp_pair.a, getattr(cmsg, name))


@linux
@pytest.mark.parametrize("cls", [Credentials, PidFd, Security])
def test_what_only_local_sockets_have_is_refused_by_name(udp_pair, cls):
    option = _base.row_of(cls).option
    try:
        udp_pair.a.setsockopt(SOL_SOCKET, getattr(constants, option), 1)
    except OSError:
        with pytest.raises(NotImplementedError, match=f"{cls.__name__}: this kernel has no {option} for this socket"):
            enable(udp_pair.a, cls)
    else:
        pytest.skip(f"before Linux 6.16 every socket takes {option}")
