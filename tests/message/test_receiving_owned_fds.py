# SPDX-License-Identifier: MIT
"""recv_owned_fds: descriptors arrive in an owner's hands."""

import errno
import os
import signal
import socket
import struct
import sys

import pytest
from owning import free_descriptors

import lowsock
from lowsock import constants

CTRUNC = socket.MSG_CTRUNC
MOST = 253  # SCM_MAX_FD
UCRED = struct.Struct("3i")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")


def asked(sock, *names):
    """Asks for control messages; skips where the kernel has none of the kind."""
    for name in names:
        try:
            sock.setsockopt(socket.SOL_SOCKET, getattr(constants, name), 1)
        except (AttributeError, OSError) as error:
            pytest.skip(f"the kernel has no {name}: {error}")


# ---- what comes ----


def test_copies_come_in_the_order_of_sending(unix_pair, files):
    assert lowsock.send_fds(unix_pair.a, [b"da", b"ta"], files) == 4
    data, owner, msg_flags, address = lowsock.recv_owned_fds(unix_pair.b, 10)
    with owner:
        assert (data, msg_flags & CTRUNC, address, owner.ancdata) == (b"data", 0, None, [])
        assert [os.path.sameopenfile(*both) for both in zip(files, owner)] == [True] * 3
        assert owner.pidfd is None


def test_a_socket_may_be_passed_in_any_way(unix_pair, passed):
    lowsock.send_fds(passed(unix_pair.a), [b"x"], [0])
    with lowsock.recv_owned_fds(passed(unix_pair.b), 1).fds as owner:
        assert len(owner) == 1


def test_what_came_is_close_on_exec(unix_pair):
    asked(unix_pair.b, "SO_PASSPIDFD")
    lowsock.send_fds(unix_pair.a, [b"x"], [0, 1])
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert [os.get_inheritable(fd) for fd in owner] == [False] * 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, MOST])
def test_as_many_come_as_were_sent(unix_pair, count):
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * count)
    data, owner, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 1)
    with owner:
        assert (data, len(owner), msg_flags & CTRUNC) == (b"x", count, 0)


@linux
@pytest.mark.parametrize(("sent", "most"), [(2, 1), (3, 2), (4, 1), (10, 3), (MOST, 1), (MOST, MOST - 1), (1, 0), (5, 0)])
@pytest.mark.parametrize("options", [(), ("SO_PASSPIDFD", "SO_PASSCRED")], ids=("alone", "beside others"))
def test_no_more_come_than_asked_for_and_the_rest_is_closed(unix_pair, open_fds, sent, most, options):
    asked(unix_pair.b, *options)
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * sent)
    data, owner, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 1, most)
    with owner:
        pidfds = 1 if options and most else 0
        assert (data, len(owner), msg_flags & CTRUNC) == (b"x", most + pidfds, CTRUNC)
        assert open_fds() - before == set(owner)
    assert open_fds() == before


@linux
@pytest.mark.parametrize("most", [MOST, MOST + 1, 1000])
def test_as_many_as_can_be_sent_come_beside_a_pidfd(unix_pair, most):
    asked(unix_pair.b, "SO_PASSPIDFD", "SO_PASSCRED")
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * MOST)
    with lowsock.recv_owned_fds(unix_pair.b, 1, most).fds as owner:
        assert (len(owner), owner.pidfd) == (MOST + 1, owner[MOST])
        assert [kind for _, kind, _ in owner.ancdata] == [constants.SCM_CREDENTIALS]


@linux
def test_without_room_the_kernel_drops_all(unix_pair, open_fds):
    asked(unix_pair.b, "SO_PASSCRED", "SO_PASSPIDFD")
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0])
    _, owner, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 1, 0)
    assert (len(owner), owner.ancdata, owner.pidfd, msg_flags & CTRUNC) == (0, [], None, CTRUNC)
    assert open_fds() == before


@linux
@pytest.mark.parametrize("sent", [0, 1, 5])
def test_a_pidfd_is_in_the_last_slot(unix_pair, sent):
    asked(unix_pair.b, "SO_PASSPIDFD")
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * sent)
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert (len(owner), owner.pidfd, owner.ancdata) == (sent + 1, owner[-1], [])
        with open(f"/proc/self/fdinfo/{owner.pidfd}", encoding="ascii") as info:
            assert f"\nPid:\t{os.getpid()}\n" in info.read()
        os.close(owner.take(-1))
        with pytest.raises(ValueError, match=f"slot {sent} has been taken"):
            owner.pidfd  # noqa: B018


@linux
def test_other_messages_are_told_as_they_are(unix_pair):
    asked(unix_pair.b, "SO_PASSCRED", "SO_PASSPIDFD", "SO_TIMESTAMPNS")
    lowsock.send_fds(unix_pair.a, [b"x"], [0, 1])
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        messages = {kind: data for level, kind, data in owner.ancdata if level == socket.SOL_SOCKET}
        assert len(owner) == 3
    stamped = set() if unix_pair.stream else {constants.SCM_TIMESTAMPNS}
    assert set(messages) == {constants.SCM_CREDENTIALS, *stamped}
    assert UCRED.unpack(messages[constants.SCM_CREDENTIALS]) == (os.getpid(), os.getuid(), os.getgid())


def test_an_address_is_told(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b:
        b.bind(path)
        a.bind(path + "2")
        assert lowsock.send_fds(a, [b"x"], [0], 0, path) == 1
        with lowsock.recv_owned_fds(b, 1).fds as owner:
            assert len(owner) == 1
        assert lowsock.send_fds(a, [b"x"], [], address=path) == 1
        assert lowsock.recv_owned_fds(b, 1)[3] == path + "2"


def test_other_families_bring_data_alone(pair):
    for _ in range(2):  # the second time, a reply remembers its source
        pair.a.send(b"data")
        data, owner, msg_flags, address = lowsock.recv_owned_fds(pair.b, 10)
        assert (data, len(owner), msg_flags & CTRUNC) == (b"data", 0, 0)
        assert address == (pair.a.getsockname() if pair.kind.startswith("udp") else None)


def test_data_is_cut_and_told(message_pair):
    message_pair.a.send(b"data")
    data, owner, msg_flags, _ = lowsock.recv_owned_fds(message_pair.b, 2)
    assert (data, len(owner), msg_flags & socket.MSG_TRUNC) == (b"da", 0, socket.MSG_TRUNC)


@pytest.mark.parametrize(("bufsize", "maxfds"), [(0, 1), (2**20, 1), (1, 100_000)])
def test_any_room_will_do(unix_pair, bufsize, maxfds):
    lowsock.send_fds(unix_pair.a, [b"x"], [0])
    data, owner, _, _ = lowsock.recv_owned_fds(unix_pair.b, bufsize, maxfds)
    with owner:
        assert data == b"x"[:bufsize]
        assert len(owner) == 1 or not bufsize


# ---- peeks ----


@linux
@pytest.mark.parametrize("most", [1, 3, MOST])
def test_a_peek_tells_how_many_there_are_and_keeps_none(unix_pair, open_fds, most):
    asked(unix_pair.b, "SO_PASSPIDFD")
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0, 1, 2])
    for _ in range(3):
        data, peeked, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 1, most, socket.MSG_PEEK)
        assert (data, len(peeked), msg_flags & CTRUNC) == (b"x", min(most, 3) + 1, 0 if most > 1 else CTRUNC)
        assert open_fds() == before
    with lowsock.recv_owned_fds(unix_pair.b, 1).fds as owner:
        assert len(owner) == len(open_fds() - before) == 4


PEEKED = {
    "lend": lambda peeked: peeked[0],
    "take": lambda peeked: peeked.take(),
    "detach": lambda peeked: peeked.detach(),
    "iterate": list,
    "slice": lambda peeked: peeked[:1],
}


@pytest.mark.parametrize("use", PEEKED.values(), ids=PEEKED)
def test_what_was_peeked_at_cannot_be_had(unix_pair, use):
    lowsock.send_fds(unix_pair.a, [b"x"], [0])
    with lowsock.recv_owned_fds(unix_pair.b, 1, flags=socket.MSG_PEEK).fds as peeked:
        with pytest.raises(ValueError, match="slot 0 was only peeked at"):
            use(peeked)
        assert repr(peeked) == "<lowsock.OwnedFds [peeked]>"


def test_a_peek_at_none_detaches_none(unix_pair):
    unix_pair.a.send(b"x")
    assert lowsock.recv_owned_fds(unix_pair.b, 1, flags=socket.MSG_PEEK).fds.detach() == []


# ---- no descriptor left ----


@linux
@pytest.mark.parametrize("free", [0, 1, 2, 5])
def test_where_no_descriptor_is_left_it_is_told(unix_pair, open_fds, free):
    """What the kernel could deliver is owned."""
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * 5)
    with free_descriptors(free):
        data, owner, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 1)
    with owner:
        assert (data, len(owner), msg_flags & CTRUNC) == (b"x", free, CTRUNC if free < 5 else 0)
        assert open_fds() - before == set(owner)
    assert open_fds() == before


@linux
def test_a_pidfd_below_zero_is_an_errno_and_no_descriptor(unix_pair):
    asked(unix_pair.b, "SO_PASSPIDFD")
    unix_pair.a.send(b"x")
    with free_descriptors(0):
        data, owner, _, _ = lowsock.recv_owned_fds(unix_pair.b, 1)
    number = struct.pack("i", -errno.EMFILE)
    assert (data, len(owner), owner.pidfd) == (b"x", 0, None)
    assert owner.ancdata == [(socket.SOL_SOCKET, constants.SCM_PIDFD, number)]


# ---- waiting, errors ----


def test_a_timeout_is_kept_to(unix_pair):
    unix_pair.b.settimeout(0.01)
    with pytest.raises(socket.timeout):
        lowsock.recv_owned_fds(unix_pair.b, 1)


def test_a_timeout_is_not_seen_in_the_flags(unix_pair):
    unix_pair.b.settimeout(60)
    lowsock.send_fds(unix_pair.a, [b"x"], [0])
    _, owner, msg_flags, _ = lowsock.recv_owned_fds(unix_pair.b, 10)
    owner.close()
    assert msg_flags & ~getattr(socket, "MSG_EOR", 0) == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_who_will_not_wait_is_told_so(unix_pair, blocking):
    unix_pair.b.setblocking(blocking)
    with pytest.raises(BlockingIOError):
        lowsock.recv_owned_fds(unix_pair.b, 1, flags=socket.MSG_DONTWAIT if blocking else 0)


def test_a_handler_that_returns_lets_the_call_go_on(unix_pair, files):
    def handler(*_):
        lowsock.send_fds(unix_pair.a, [b"from the handler"], files)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        data, owner, _, _ = lowsock.recv_owned_fds(unix_pair.b, 100)
    finally:
        signal.signal(signal.SIGALRM, before)
    with owner:
        assert (data, len(owner)) == (b"from the handler", 3)


def test_a_closed_socket_is_an_error_of_the_kernels(unix_pair):
    unix_pair.b.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        lowsock.recv_owned_fds(unix_pair.b, 1)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("arguments", "kind", "name"),
    [
        (("1",), TypeError, "bufsize"),
        ((-1,), ValueError, "bufsize"),
        ((2**31,), OverflowError, "bufsize"),
        ((1, None), TypeError, "maxfds"),
        ((1, -1), ValueError, "maxfds"),
        ((1, 2**31), OverflowError, "maxfds"),
        ((1, 1, 0.0), TypeError, "flags"),
        ((1, 1, 2**31), OverflowError, "flags"),
    ],
)
def test_a_bad_argument_is_named(unix_pair, arguments, kind, name):
    with pytest.raises(kind, match=name):
        lowsock.recv_owned_fds(unix_pair.b, *arguments)


def test_a_result_is_read_by_name(unix_pair):
    lowsock.send_fds(unix_pair.a, [b"named"], [0])
    received = lowsock.recv_owned_fds(unix_pair.b, 100)
    with received.fds as fds:
        assert type(received) is lowsock.ReceivedFds
        assert (received.data, len(fds), received.msg_flags) == (b"named", 1, 0)
        assert received._fields[:4] == ("data", "fds", "msg_flags", "address")
