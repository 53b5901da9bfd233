# SPDX-License-Identifier: MIT
"""lowsock.cmsg: space and enable: room that is enough, options that are all set or none, and one clear error."""

import array
import errno
import os
import socket
import ssl
import sys
import threading

import pytest

import lowsock
from lowsock import cmsg, constants
from lowsock._system.errors import UnsupportedError
from lowsock.cmsg import _base
from lowsock.cmsg._base import pair, registered, row_of

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")

INT = 4
IPV6 = socket.AF_INET6
MAPPED = "::ffff:127.0.0.1"


def option(sock, name):
    """The value of an option, by the kernel's name."""
    return sock.getsockopt(*pair(name))


def set_option(sock, name, value):
    sock.setsockopt(*pair(name), value)


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


@pytest.fixture
def own_class():
    """A callable: a class registered as given; all are gone after the test."""
    level, made = 0x0971, []

    def register(**told):
        cls = type("Mine", (cmsg.ControlMessage,), {"__slots__": ()})
        made.append(cmsg.register(level, len(made), **told)(cls))
        return made[-1]

    yield register
    _base._REGISTRY.pop(level, None)


@pytest.fixture
def lacking(monkeypatch):
    """A callable: a class of ours under names as given, entered for this test only."""
    monkeypatch.setattr(_base, "_REGISTRY", {level: dict(kinds) for level, kinds in _base._REGISTRY.items()})

    def enter(*names, **told):
        return registered(*names, **told)(type("Mine", (cmsg.ControlMessage,), {"__slots__": ()}))

    return enter


# ---- space ----


def test_space_is_the_sum_of_the_rooms():
    assert cmsg.space() == 0
    assert cmsg.space(cmsg.TTL) == lowsock.CMSG_SPACE(INT)
    assert cmsg.space(cmsg.TTL, cmsg.PktInfo) == lowsock.CMSG_SPACE(INT) + lowsock.CMSG_SPACE(12)
    assert cmsg.space(cmsg.TTL, cmsg.TTL) == 2 * lowsock.CMSG_SPACE(INT)


@pytest.mark.parametrize("fds", [0, 1, 2, 3, 253])
def test_descriptors_take_their_own_room(fds):
    room = lowsock.CMSG_SPACE(fds * INT) if fds else 0
    assert cmsg.space(max_fds=fds) == room
    assert cmsg.space(cmsg.TTL, max_fds=fds) == lowsock.CMSG_SPACE(INT) + room


ROOMS = [({"sizes": (4, 100)}, 100), ({"least": 30}, 30), ({"room": 500}, 500), ({"sizes": (8,), "room": 3}, 8), ({}, 0)]


@pytest.mark.parametrize(("told", "room"), ROOMS)
def test_a_class_of_ones_own_takes_the_room_that_it_says(own_class, told, room):
    assert cmsg.space(own_class(**told)) == lowsock.CMSG_SPACE(room)


@pytest.mark.parametrize(("fds", "error"), [(-1, ValueError), (254, OverflowError), ("1", TypeError), (None, TypeError)])
@pytest.mark.parametrize("call", [cmsg.space, lambda **given: cmsg.enable(-1, **given)], ids=["space", "enable"])
def test_more_descriptors_than_go_are_refused_by_name(call, fds, error):
    with pytest.raises(error, match="max_fds "):
        call(max_fds=fds)


@pytest.mark.parametrize("call", [cmsg.space, lambda **given: cmsg.enable(-1, **given)], ids=["space", "enable"])
def test_the_old_name_of_their_number_names_the_new_one(call):
    with pytest.raises(TypeError, match=r"takes no fds: max_fds=\.\.\."):
        call(fds=3)


NO_CLASSES = [5, None, "TTL", int, cmsg.ControlMessage, cmsg.TTL(hops=1), [cmsg.TTL], cmsg.ECN, tuple]


@pytest.mark.parametrize("thing", NO_CLASSES, ids=repr)
def test_what_is_no_class_of_messages_is_refused(udp, thing):
    for call in (cmsg.space, lambda *classes: cmsg.enable(udp, *classes)):
        with pytest.raises(TypeError, match="not a registered class of control messages"):
            call(cmsg.TTL, thing)
    assert option(udp, "IP_RECVTTL") == 0


SIZED = [name for name in cmsg.__all__ if getattr(getattr(cmsg, name), "_row", None)]


@pytest.mark.parametrize("name", SIZED)
def test_the_room_of_a_class_holds_every_size_that_it_has(name):
    cls = getattr(cmsg, name)
    assert cmsg.space(cls) >= lowsock.CMSG_SPACE(max((*row_of(cls).sizes, row_of(cls).least)))


@pytest.mark.parametrize(("name", "times"), [("Timestamp", 1), ("TimestampNs", 1), ("Timestamping", 3)])
def test_times_have_room_for_both_widths_of_a_32_bit_libc(name, times):
    assert cmsg.space(getattr(cmsg, name)) >= lowsock.CMSG_SPACE(8 * times) + lowsock.CMSG_SPACE(16 * times)


def test_descriptors_that_are_counted_stand_in_for_all_that_go():
    """`Rights` reserves for 253, unless fds says how many."""
    assert cmsg.space(cmsg.Rights) == lowsock.CMSG_SPACE(253 * INT)
    assert cmsg.space(cmsg.Rights, max_fds=2) == cmsg.space(max_fds=2) == lowsock.CMSG_SPACE(2 * INT)


# ---- enough on the kernel ----


def arrived(sock, size):
    """The classes of what comes with a datagram into just so much room."""
    data, ancdata, msg_flags, _ = lowsock.recvmsg(sock, 100, size)
    assert (data, msg_flags & socket.MSG_CTRUNC) == (b"data", 0)
    return [type(message) for message in cmsg.decode(ancdata)]


CLASSES = [(cmsg.TTL,), (cmsg.TOS,), (cmsg.PktInfo,), (cmsg.TTL, cmsg.TOS, cmsg.PktInfo), (cmsg.Gro, cmsg.TTL)]


@linux
@pytest.mark.parametrize("classes", CLASSES, ids=lambda classes: "+".join(cls.__name__ for cls in classes))
def test_what_enable_returns_is_enough_for_what_it_asked_for(udp, passed, classes):
    size = cmsg.enable(passed(udp), *classes)
    assert size == cmsg.space(*classes)
    udp.sendto(b"data", udp.getsockname())
    assert set(arrived(udp, size)) == set(classes) - {cmsg.Gro}


@linux
def test_less_is_not_enough(udp):
    """The rooms are not larger than they need be, so that a smaller one would cut off the last message."""
    size = cmsg.enable(udp, cmsg.TTL)
    udp.sendto(b"data", udp.getsockname())
    _, _, msg_flags, _ = lowsock.recvmsg(udp, 100, size - lowsock.CMSG_SPACE(0))
    assert msg_flags & socket.MSG_CTRUNC


@linux
def test_room_for_descriptors_is_enough_beside_messages(unix_pair, own_class):
    size = cmsg.enable(unix_pair.b, own_class(sizes=(12,)), max_fds=3)
    set_option(unix_pair.b, "SO_PASSCRED", 1)  # 12 bytes, and before the descriptors
    lowsock.send_fds(unix_pair.a, [b"data"], [0, 1, 2])
    data, ancdata, msg_flags, _ = lowsock.recvmsg(unix_pair.b, 100, size)
    fds = array.array("i", b"".join(data for level, kind, data in ancdata if kind == socket.SCM_RIGHTS))
    for fd in fds:
        os.close(fd)
    assert (data, len(fds), msg_flags & socket.MSG_CTRUNC) == (b"data", 3, 0)


@linux
def test_nothing_to_ask_for_sets_nothing(udp):
    assert cmsg.enable(udp) == 0
    assert cmsg.enable(udp, max_fds=5) == lowsock.CMSG_SPACE(5 * INT)


@linux
def test_asking_twice_is_asking_once(udp):
    assert cmsg.enable(udp, cmsg.TTL) == cmsg.enable(udp, cmsg.TTL)
    assert option(udp, "IP_RECVTTL") == 1


@linux
def test_a_class_of_ones_own_counts_and_sets_nothing(udp, own_class):
    assert cmsg.enable(udp, own_class(sizes=(100,)), cmsg.TTL) == lowsock.CMSG_SPACE(100) + lowsock.CMSG_SPACE(INT)


OPTIONS = [((socket.IPPROTO_IP, socket.IP_TTL, 77), 77), ((socket.SOL_SOCKET, socket.SO_BROADCAST), 1)]


@linux
@pytest.mark.parametrize(("asked", "value"), OPTIONS)
def test_the_option_of_a_class_of_ones_own_is_set(udp, own_class, asked, value):
    assert cmsg.enable(udp, own_class(sizes=(100,), option=asked)) == lowsock.CMSG_SPACE(100)
    assert udp.getsockopt(*asked[:2]) == value


@linux
def test_the_option_of_a_class_of_ones_own_is_taken_back_with_the_others(udp, own_class):
    before = udp.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
    with pytest.raises(ValueError, match="only sent"):
        cmsg.enable(udp, own_class(option=(socket.IPPROTO_IP, socket.IP_TTL, 77)), cmsg.Segment)
    assert udp.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == before


@linux
def test_the_option_of_a_class_of_ones_own_that_the_kernel_lacks_is_told(udp, own_class):
    with pytest.raises(UnsupportedError, match=r"Mine: this kernel has no option \(1, 9999, 1\) for this socket") as raised:
        cmsg.enable(udp, own_class(option=(socket.SOL_SOCKET, 9999)))
    assert raised.value.errno == errno.ENOPROTOOPT


# ---- questions ----


def dual_stack(only=0):
    sock = socket.socket(IPV6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, constants.IPV6_V6ONLY, only)
    return sock


@linux
def test_a_question_is_put_as_the_family_has_it(udp):
    size = cmsg.enable(udp, cmsg.HopCount, cmsg.TrafficClass, cmsg.LocalAddress)
    assert [option(udp, name) for name in ("IP_RECVTTL", "IP_RECVTOS", "IP_PKTINFO")] == [1, 1, 1]
    udp.sendto(b"data", udp.getsockname())
    assert set(arrived(udp, size)) == {cmsg.TTL, cmsg.TOS, cmsg.PktInfo}


@linux
@pytest.mark.parametrize(("only", "hops"), [(0, [1, 1]), (1, [0, 1])], ids=["dual stack", "IPv6 only"])
def test_a_question_to_ipv6_is_put_to_both_stacks_where_it_has_both(ipv6, only, hops):
    with dual_stack(only) as sock:
        cmsg.enable(sock, cmsg.HopCount)
        assert [option(sock, name) for name in ("IP_RECVTTL", "IPV6_RECVHOPLIMIT")] == hops


@linux
@pytest.mark.parametrize("host", ["::1", MAPPED])
def test_the_room_of_a_question_holds_the_answer_of_either_stack(ipv6, host):
    questions = (cmsg.HopCount, cmsg.TrafficClass, cmsg.LocalAddress)
    with dual_stack() as sock:
        sock.bind(("::", 0))
        sock.settimeout(10)
        size = cmsg.enable(sock, *questions)
        assert size >= cmsg.space(*questions)
        sock.sendto(b"data", (host, sock.getsockname()[1]))
        came = arrived(sock, size)
    assert all(any(issubclass(cls, question) for cls in came) for question in questions)


def test_a_question_counts_with_the_answers_of_every_family():
    assert cmsg.space(cmsg.HopCount) == cmsg.space(cmsg.TTL, cmsg.HopLimit)


@linux
def test_a_question_to_another_family_is_refused(unix_pair):
    with pytest.raises(ValueError, match="HopCount is a question to AF_INET and AF_INET6 sockets"):
        cmsg.enable(unix_pair.a, cmsg.HopCount)


# ---- what goes wrong ----


@linux
@pytest.mark.parametrize("cls", [cmsg.Gro, cmsg.Inq, cmsg.Auxdata, cmsg.NetlinkPktInfo], ids=lambda cls: cls.__name__)
def test_what_this_kind_of_socket_lacks_is_one_error_with_the_options_name(unix_pair, cls):
    name = row_of(cls).option
    with pytest.raises(UnsupportedError, match=f"{cls.__name__}.* no {name} ") as raised:
        cmsg.enable(unix_pair.a, cls)
    assert row_of(cls).since in str(raised.value)
    assert raised.value.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
    assert isinstance(raised.value, NotImplementedError)


@linux
def test_an_option_that_the_platform_lacks_is_named(udp, lacking, monkeypatch):
    monkeypatch.delitem(_base.CONSTANTS, "SO_RCVMARK", raising=False)
    cls = lacking("SO_DEBUG", sizes=(4,), option="SO_RCVMARK")
    with pytest.raises(NotImplementedError, match="Mine: this platform has no SO_RCVMARK"):
        cmsg.enable(udp, cls)


@linux
def test_a_message_that_the_platform_lacks_is_named(udp, lacking, monkeypatch):
    monkeypatch.delitem(_base.CONSTANTS, "SO_DEBUG")
    cls = lacking("SO_DEBUG", sizes=(4,), option="IP_RECVTTL")
    with pytest.raises(NotImplementedError, match="this platform has no SO_DEBUG"):
        cmsg.enable(udp, cls)
    assert option(udp, "IP_RECVTTL") == 0


@pytest.mark.parametrize("name", ["Segment", "AlgIv"])
def test_what_is_only_sent_cannot_be_asked_for(udp, name):
    with pytest.raises(ValueError, match=f"{name} is only sent"):
        cmsg.enable(udp, cmsg.TTL, getattr(cmsg, name))
    assert option(udp, "IP_RECVTTL") == 0


STATES = [{}, {"IP_RECVTTL": 1}, {"IP_RECVTTL": 1, "IP_RECVTOS": 1, "IP_PKTINFO": 1}]


@linux
@pytest.mark.parametrize("state", STATES, ids=len)
@pytest.mark.parametrize("wrong", [cmsg.Inq, cmsg.Segment], ids=lambda cls: cls.__name__)
def test_all_are_set_or_none(udp, state, wrong):
    for name, value in state.items():
        set_option(udp, name, value)
    with pytest.raises((NotImplementedError, ValueError)):
        cmsg.enable(udp, cmsg.TTL, cmsg.TOS, cmsg.PktInfo, cmsg.TTL, wrong)
    assert {name: option(udp, name) for name in STATES[-1]} == {**dict.fromkeys(STATES[-1], 0), **state}


@linux
@pytest.mark.parametrize("question", [cmsg.HopCount, cmsg.TrafficClass, cmsg.LocalAddress], ids=lambda cls: cls.__name__)
def test_a_raw_socket_has_one_family_whatever_it_says(ipv6, question):
    try:
        sock = socket.socket(IPV6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    except PermissionError as error:
        pytest.skip(f"raw sockets want CAP_NET_RAW: {error}")
    with sock:
        assert option(sock, "IPV6_V6ONLY") == 0
        assert cmsg.enable(sock, question) >= cmsg.space(question)


@linux
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (2**31, OverflowError), ("x", TypeError)])
@pytest.mark.parametrize("cls", [cmsg.TTL, cmsg.Timestamping], ids=lambda cls: cls.__name__)
def test_bad_flags_are_named_whoever_asks(udp, cls, value, error):
    with pytest.raises(error, match=r"^timestamping "):
        cmsg.enable(udp, cls, timestamping=value)


@pytest.mark.parametrize("question", [False, True])
def test_a_closed_socket_is_a_bad_descriptor(udp, question):
    fd = udp.fileno()
    udp.close()
    for sock in (udp, fd):
        with pytest.raises(OSError, match="ad file descriptor"):
            cmsg.enable(sock, cmsg.HopCount if question else cmsg.TTL)


def test_a_file_is_no_socket(tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match=r"[Ss]ocket operation on non-socket"):
        cmsg.enable(file, cmsg.TTL)


@pytest.mark.parametrize("thing", [None, "socket", 1.5, object()], ids=str)
def test_what_is_no_socket_is_refused(thing):
    with pytest.raises(TypeError, match="sock must be an int or have a fileno"):
        cmsg.enable(thing, cmsg.TTL)


def test_an_ssl_socket_is_refused():
    with pytest.raises(NotImplementedError, match="TLS"):
        cmsg.enable(ssl.SSLSocket.__new__(ssl.SSLSocket), cmsg.TTL)


@linux
def test_one_socket_may_be_asked_by_many_threads(udp):
    sizes = []
    threads = [threading.Thread(target=lambda: sizes.append(cmsg.enable(udp, cmsg.TTL, cmsg.TOS))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sizes == [cmsg.space(cmsg.TTL, cmsg.TOS)] * 8
    assert (option(udp, "IP_RECVTTL"), option(udp, "IP_RECVTOS")) == (1, 1)


@linux
def test_times_that_exclude_each_other_are_refused(udp):
    with pytest.raises(ValueError, match="SO_TIMESTAMP and SO_TIMESTAMPNS exclude each other"):
        cmsg.enable(udp, cmsg.Timestamp, cmsg.ReceiveTime)
    assert (option(udp, "SO_TIMESTAMP"), option(udp, "SO_TIMESTAMPNS")) == (0, 0)


TIMES = [name + suffix for name in ("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_TIMESTAMPING") for suffix in ("", "_NEW")]


@linux
@pytest.mark.parametrize("asked", [cmsg.TimestampNs, cmsg.Timestamp, cmsg.Timestamping], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("stands", TIMES)
def test_a_refusal_leaves_the_options_that_were_cleared_on_the_way(udp, stands, asked):
    try:
        set_option(udp, stands, int(cmsg.TimestampingFlags.OPT_ID) if "ING" in stands else 1)
    except (TypeError, OSError) as error:
        pytest.skip(f"this system has no {stands}: {error}")
    before = {name: option(udp, name) for name in TIMES}
    with pytest.raises(NotImplementedError):
        cmsg.enable(udp, asked, asked, cmsg.Inq)
    assert {name: option(udp, name) for name in TIMES} == before
