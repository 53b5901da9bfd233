# SPDX-License-Identifier: MIT
"""send_fds and recv_fds: copies of descriptors, and none left behind."""

import array
import collections
import os
import socket
import subprocess
import sys

import pytest

import lowsock
from lowsock import constants

pytestmark = pytest.mark.smoke

CTRUNC = socket.MSG_CTRUNC
MOST = 253  # SCM_MAX_FD
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel does is Linux's")


def close_all(fds):
    for fd in fds:
        os.close(fd)


def there_and_back(pair, fds, maxfds, data=b"x", flags=0):
    """Sends, receives and closes: (data, how many came, msg_flags)."""
    lowsock.send_fds(pair.a, [data], fds)
    came, received, msg_flags, _ = lowsock.recv_fds(pair.b, 100, maxfds, flags)
    close_all(received)
    return came, len(received), msg_flags


# ---- the copies ----


def file(path):
    path.write_bytes(b"content")
    return os.open(path, os.O_RDONLY), lambda: None


def pipe(path):
    reading, writing = os.pipe()

    def fill():
        os.write(writing, b"content")
        os.close(writing)

    return reading, fill


def stream(path):
    a, b = socket.socketpair()

    def fill():
        a.sendall(b"content")
        a.close()

    return b.detach(), fill


@pytest.mark.parametrize("make", [file, pipe, stream])
def test_what_stands_behind_a_descriptor_can_be_read_through_its_copy(unix_pair, tmp_path, make):
    fd, fill = make(tmp_path / "file")
    lowsock.send_fds(unix_pair.a, [b"data"], [fd])
    os.close(fd)  # the message holds it
    fill()
    data, (copy,), msg_flags, address = lowsock.recv_fds(unix_pair.b, 100, 1)
    with os.fdopen(copy, "rb") as reader:
        assert reader.read() == b"content"
    assert (data, msg_flags & CTRUNC, address) == (b"data", 0, None)


def test_the_descriptors_stay_open_here(unix_pair, open_fds):
    before = open_fds()
    there_and_back(unix_pair, [0, 1, 2], 3)
    assert open_fds() == before


def test_copies_come_in_the_order_of_sending(unix_pair, tmp_path):
    fds = [os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in "abc"]
    lowsock.send_fds(unix_pair.a, [b"x"], fds)
    copies = lowsock.recv_fds(unix_pair.b, 1, 3)[1]
    same = [os.path.sameopenfile(fd, copy) for fd, copy in zip(fds, copies)]
    close_all(fds + copies)
    assert same == [True] * 3


def test_copies_are_close_on_exec(unix_pair):
    lowsock.send_fds(unix_pair.a, [b"x"], [0, 1])
    fds = lowsock.recv_fds(unix_pair.b, 1, 2)[1]
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    close_all(fds)


CHILD = """
import os, socket, sys, lowsock
sock = socket.socket(fileno=int(sys.argv[1]))
data, (fd,), msg_flags, address = lowsock.recv_fds(sock, 100, 1)
with os.fdopen(fd, "rb") as file:
    sock.sendall(data + b": " + file.read())
sock.close()
"""


def test_a_child_process_reads_through_its_copy(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    a, b = socket.socketpair()
    with a, b, path.open("rb") as opened:
        child = subprocess.Popen([sys.executable, "-I", "-c", CHILD, str(b.fileno())], pass_fds=[b.fileno()])
        b.close()
        lowsock.send_fds(a, [b"read this"], [opened.fileno()])
        assert a.recv(100, socket.MSG_WAITALL) == b"read this: content"
        assert child.wait() == 0


# ---- how many ----


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, MOST])
def test_as_many_come_as_were_sent(unix_pair, count):
    data, came, msg_flags = there_and_back(unix_pair, [0] * count, count)
    assert (data, came, msg_flags & CTRUNC) == (b"x", count, 0)


@pytest.mark.parametrize(("sent", "most"), [(2, 1), (3, 2), (4, 1), (10, 3), (MOST, 1), (MOST, MOST - 1), (1, 0), (5, 0)])
@linux
def test_no_more_come_than_asked_for_and_the_rest_is_closed(unix_pair, open_fds, sent, most):
    before = open_fds()
    data, came, msg_flags = there_and_back(unix_pair, [0] * sent, most)
    assert (data, came, msg_flags & CTRUNC) == (b"x", most, CTRUNC)
    assert open_fds() == before


def test_fewer_may_come_than_asked_for(unix_pair):
    data, came, msg_flags = there_and_back(unix_pair, [0, 1], 100)
    assert (data, came, msg_flags & CTRUNC) == (b"x", 2, 0)


def test_a_message_without_descriptors_brings_none(pair):
    pair.a.send(b"x")
    data, fds, msg_flags, _ = lowsock.recv_fds(pair.b, 10, 5)
    assert (data, fds, msg_flags & CTRUNC) == (b"x", [], 0)


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "deque": collections.deque,
    "array": lambda fds: array.array("i", fds),
    "iterator": iter,
    "generator": lambda fds: (fd for fd in fds),
    "range": lambda fds: range(3),
    "bytes": bytes,
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_descriptors_may_stand_in_any_iterable(unix_pair, container):
    assert there_and_back(unix_pair, container([0, 1, 2]), 3)[1] == 3


def test_a_descriptor_may_be_anything_with_an_index(unix_pair):
    class Index:
        def __index__(self):
            return 0

    assert there_and_back(unix_pair, [Index()], 3)[1] == 1


# ---- data ----


@pytest.mark.parametrize("container", [list, tuple, iter])
def test_data_is_gathered(unix_pair, container):
    assert lowsock.send_fds(unix_pair.a, container([b"a", memoryview(b"b")]), [0]) == 2
    data, fds, _, _ = lowsock.recv_fds(unix_pair.b, 10, 1)
    close_all(fds)
    assert (data, len(fds)) == (b"ab", 1)


@pytest.mark.parametrize("size", [20_000, 100_000])
def test_much_data_goes_beside_descriptors(unix_pair, size):
    sent = lowsock.send_fds(unix_pair.a, [b"x" * 10, bytearray(size)], [0])
    data, fds, _, _ = lowsock.recv_fds(unix_pair.b, 2 * size, 1)
    close_all(fds)
    assert (sent, data[:11], len(fds)) == (size + 10, b"x" * 10 + b"\0", 1)


@pytest.mark.parametrize("fds", [[], (), iter([])])
def test_no_descriptors_are_plain_data(pair, fds):
    assert lowsock.send_fds(pair.a, [b"data"], fds) == 4
    assert lowsock.recv_fds(pair.b, 10, 1)[:2] == (b"data", [])


def no_data(sock, buffers):
    """Every way to send a descriptor, with these buffers."""
    message = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))
    return {
        "send_fds": lambda: lowsock.send_fds(sock, buffers, [0]),
        "sendmsg": lambda: lowsock.sendmsg(sock, buffers, [message]),
        "send1msg": lambda: lowsock.send1msg(sock, b"", 0, [message]),
    }


EMPTY = {"no buffer": [], "an empty one": [b""], "empty ones": (b"", bytearray()), "many": [bytearray()] * 100}
WAYS = ("send_fds", "sendmsg", "send1msg")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("buffers", EMPTY.values(), ids=EMPTY)
def test_descriptors_without_data(unix_pair, passed, way, buffers):
    """A stream would lose them in silence, so it is refused; the others deliver."""
    send = no_data(passed(unix_pair.a), buffers)[way]
    if unix_pair.stream:
        with pytest.raises(ValueError, match="without data"):
            send()
        unix_pair.a.send(b"x")
    else:
        assert send() == 0
    data, fds, _, _ = lowsock.recv_fds(unix_pair.b, 10, 1)
    close_all(fds)
    assert (data, len(fds)) == ((b"x", 0) if unix_pair.stream else (b"", 1))


def test_a_generator_of_nothing_is_no_data_either():
    a, b = socket.socketpair()
    with a, b, pytest.raises(ValueError, match="without data"):
        lowsock.send_fds(a, iter([]), [0])


# ---- flags and addresses ----


def test_the_address_is_honoured(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b:
        b.bind(path)
        for source in (None, path + "2"):
            if source is not None:
                a.bind(source)
            assert lowsock.send_fds(a, [b"x"], [0], 0, path) == 1
            data, fds, _, address = lowsock.recv_fds(b, 10, 1)
            close_all(fds)
            assert (data, len(fds), address) == (b"x", 1, source)


def test_flags_of_sending_are_honoured(unix_pair):
    def fill():
        while True:
            lowsock.send_fds(unix_pair.a, [b"x" * 4096], [], socket.MSG_DONTWAIT)

    with pytest.raises(BlockingIOError):
        fill()


def test_flags_of_receiving_are_honoured(unix_pair):
    with pytest.raises(BlockingIOError):
        lowsock.recv_fds(unix_pair.b, 10, 1, socket.MSG_DONTWAIT)


def test_a_peek_gives_copies_to_the_caller(unix_pair, open_fds):
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0])
    peeked = [lowsock.recv_fds(unix_pair.b, 1, 1, socket.MSG_PEEK)[1] for _ in range(2)]
    taken = lowsock.recv_fds(unix_pair.b, 1, 1)[1]
    assert open_fds() - before == {*peeked[0], *peeked[1], *taken}
    close_all(peeked[0] + peeked[1] + taken)
    assert len({*peeked[0], *peeked[1], *taken}) == 3


@linux
def test_a_peek_closes_the_surplus_each_time(unix_pair, open_fds):
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * 5)
    for flags in (socket.MSG_PEEK, socket.MSG_PEEK, 0):
        fds = lowsock.recv_fds(unix_pair.b, 1, 2, flags)[1]
        close_all(fds)
        assert len(fds) == 2
    assert open_fds() == before


# ---- beside them ----

BESIDE = {
    "credentials": ("SO_PASSCRED",),
    "a pidfd": ("SO_PASSPIDFD",),
    "a time stamp": ("SO_TIMESTAMP",),
    "everything": ("SO_PASSCRED", "SO_PASSPIDFD", "SO_PASSSEC", "SO_TIMESTAMPNS"),
}


@pytest.fixture(params=BESIDE)
def with_more(request, unix_pair):
    """A pair whose second socket gets more beside each message than descriptors."""
    for name in BESIDE[request.param]:
        try:
            unix_pair.b.setsockopt(socket.SOL_SOCKET, getattr(constants, name), 1)
        except (AttributeError, OSError) as error:
            pytest.skip(f"the kernel has no {name}: {error}")
    return unix_pair


@linux
@pytest.mark.parametrize("count", [1, 2, 3, MOST])
def test_descriptors_are_found_beside_other_messages(with_more, open_fds, count):
    before = open_fds()
    data, came, _ = there_and_back(with_more, [0] * count, count)
    assert (data, came) == (b"x", count)
    assert open_fds() == before


@linux
@pytest.mark.parametrize("most", [0, 1, 5])
def test_nothing_beside_a_message_is_left_open(with_more, open_fds, most):
    before = open_fds()
    with_more.a.send(b"plain")
    assert lowsock.recv_fds(with_more.b, 10, most)[:2] == (b"plain", [])
    assert there_and_back(with_more, [0, 1, 2], most)[:2] == (b"x", min(most, 3))
    assert open_fds() == before


@linux
def test_a_pidfd_that_recvmsg_brings_is_the_callers(unix_pair, open_fds):
    try:
        unix_pair.b.setsockopt(socket.SOL_SOCKET, constants.SO_PASSPIDFD, 1)
    except (AttributeError, OSError) as error:
        pytest.skip(f"the kernel has no SO_PASSPIDFD: {error}")
    before = open_fds()
    unix_pair.a.send(b"x")
    ((level, kind, data),) = lowsock.recvmsg(unix_pair.b, 1, 100)[1]
    (fd,) = array.array("i", data)
    assert (level, kind) == (socket.SOL_SOCKET, constants.SCM_PIDFD)
    assert open_fds() - before == {fd}
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.soak
def test_many_passed_leave_none_behind(unix_pair, open_fds, soak_count):
    before = open_fds()
    for _ in range(soak_count(100_000)):
        there_and_back(unix_pair, [0, 1], 1)
    assert open_fds() == before
