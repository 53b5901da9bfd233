# SPDX-License-Identifier: MIT
"""RecvBatch: received into again and again; its memory, and the descriptors that it owns."""

import array
import gc
import os
import socket
import sys
from collections.abc import Iterator

import pytest

import lowsock
from lowsock import RecvBatch, constants

PYPY = sys.implementation.name == "pypy"


@pytest.fixture
def inet() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that is not connected, and one that is bound and tells the TTL."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, 1)
        yield a, b


# ---- receiving ----


def test_each_way_to_look_at_a_message_tells_the_same(udp_pair):
    for size in (5, 20, 0):
        udp_pair.a.send(b"0123456789" * 2 if size > 10 else b"01234"[:size])
    name = udp_pair.a.getsockname()
    with RecvBatch(5, 10) as batch:
        assert batch.recv(udp_pair.b) == len(batch) == 3
        expected = [b"01234", b"0123456789", b""]
        assert list(batch.messages()) == [(data, name) for data in expected]
        assert [(bytes(data), address) for data, address in batch] == [(data, name) for data in expected]
        assert [bytes(batch.data(i)) for i in range(3)] == expected
        assert [batch.address(i) for i in range(3)] == [name] * 3
        assert [batch.flags(i) for i in range(3)] == [0, socket.MSG_TRUNC, 0]
        assert [batch.ancdata(i) for i in range(3)] == [[], [], []]


def test_nothing_is_left_of_the_time_before(inet, open_fds):
    """Long after short, without control messages after with, cut off after whole."""
    a, b = inet
    address = b.getsockname()
    with RecvBatch(4, 10, 64) as batch:
        for data, option in ((b"x" * 20, 1), (b"y", 0), (b"z" * 10, 1)):
            b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, option)
            for _ in range(2):
                a.sendto(data, address)
            assert batch.recv(b) == 2
            for i in range(2):
                assert bytes(batch.data(i)) == data[:10]
                assert batch.flags(i) == (socket.MSG_TRUNC if len(data) > 10 else 0)
                assert len(batch.ancdata(i)) == option
            with pytest.raises(IndexError):
                batch.data(2)


@pytest.mark.parametrize("look", ("data", "address", "flags", "ancdata", "take_fds"))
@pytest.mark.parametrize("i", (1, -1, 2**70))
def test_there_is_no_message_beyond_the_last(dgrams, look, i):
    dgrams[0].send(b"x")
    with RecvBatch(4, 10) as batch:
        with pytest.raises(IndexError):
            getattr(batch, look)(0)
        batch.recv(dgrams[1])
        getattr(batch, look)(0)
        with pytest.raises(IndexError):
            getattr(batch, look)(i)


def test_a_failed_receive_leaves_an_empty_batch(dgrams):
    dgrams[1].setblocking(False)
    dgrams[0].send(b"x")
    with RecvBatch(4, 10) as batch:
        assert list(batch) == list(batch.messages()) == []
        batch.recv(dgrams[1])
        with pytest.raises(BlockingIOError):
            batch.recv(dgrams[1])
        assert len(batch) == 0
        assert list(batch) == list(batch.messages()) == []


def test_all_are_waited_for_on_demand(dgrams):
    dgrams[1].settimeout(0.02)
    dgrams[0].send(b"x")
    with RecvBatch(4, 10) as batch:
        assert batch.recv(dgrams[1], wait_all=True) == 1
        with pytest.raises(socket.timeout):
            batch.recv(dgrams[1], wait_all=True)


# ---- memory ----


def churn() -> list[bytearray]:
    """Uses what memory there is free."""
    for _ in range(4):
        gc.collect()
    return [bytearray(b"\xff" * size) for size in (100, 1000, 10_000, 100_000, 1_000_000) for _ in range(20)]


@pytest.mark.parametrize("end", ("closed", "dropped", "left"))
def test_views_outlive_the_batch(dgrams, end):
    for i in range(3):
        dgrams[0].send(b"%d" % i * 1000)
    batch = RecvBatch(4, 1000)
    batch.recv(dgrams[1])
    views = [view for view, _ in batch] + [batch.data(0)]
    if end == "closed":
        batch.close()
    elif end == "left":
        with batch:
            pass
    del batch
    churned = churn()
    assert [bytes(view) for view in views] == [b"%d" % i * 1000 for i in (0, 1, 2, 0)]
    views[0][:] = b"!" * 1000
    assert bytes(views[3]) == b"!" * 1000
    assert churned


def test_views_show_what_is_received_next(dgrams):
    dgrams[0].send(b"first")
    with RecvBatch(1, 10) as batch:
        batch.recv(dgrams[1])
        view = batch.data(0)
        dgrams[0].send(b"other")
        batch.recv(dgrams[1])
        assert bytes(view) == b"other"


@pytest.mark.skipif(PYPY, reason="PyPy has no tracemalloc for memory of C")
def test_a_batch_holds_what_its_name_says_and_no_more(dgrams):
    import tracemalloc

    slot = 64 + 16 + 128 + 4 * 8  # header, iovec, address, four numbers
    tracemalloc.start()
    try:
        batch = RecvBatch(64, 2048)
        for i in range(64):
            dgrams[0].send(b"x", socket.MSG_DONTWAIT) if i < 10 else None
        batch.recv(dgrams[1])
        assert tracemalloc.get_traced_memory()[0] < 64 * (2048 + slot) + 8192
    finally:
        tracemalloc.stop()
        batch.close()


# ---- descriptors ----


def test_descriptors_are_taken_once_and_are_close_on_exec(dgrams, open_fds):
    before = open_fds()
    with RecvBatch(4, 10, 64) as batch:
        for _ in range(2):
            lowsock.send_fds(dgrams[0], [b"x"], [0, 1])
        batch.recv(dgrams[1])
        fds = batch.take_fds(1)
        assert len(open_fds() - before) == 4
        with pytest.raises(ValueError, match="the descriptors of message 1 have been taken"):
            batch.take_fds(1)
        assert list(fds) == array.array("i", batch.ancdata(1)[0][2]).tolist()
    with fds:
        assert open_fds() - before == set(fds)
        assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    assert open_fds() == before


def test_control_messages_are_lent(dgrams, open_fds):
    """However often they are looked at, the batch closes the descriptors in them."""
    before = open_fds()
    with RecvBatch(4, 10, 64) as batch:
        lowsock.send_fds(dgrams[0], [b"x"], [0, 1])
        batch.recv(dgrams[1])
        ancdata = batch.ancdata(0)
        assert batch.ancdata(0) is ancdata
        assert open_fds() - before == set(array.array("i", ancdata[0][2]))
        lowsock.send_fds(dgrams[0], [b"x"], [0])
        batch.recv(dgrams[1])
        assert len(open_fds() - before) == 1
    assert open_fds() == before


@pytest.mark.parametrize("end", ("received", "closed"))
def test_who_closes_what_was_lent_is_told_so(dgrams, end):
    """As code did that was written when `ancdata` gave them away."""
    batch = RecvBatch(4, 10, 64)
    lowsock.send_fds(dgrams[0], [b"x"], [0, 1])
    batch.recv(dgrams[1])
    for fd in array.array("i", batch.ancdata(0)[0][2]):
        os.close(fd)
    dgrams[0].send(b"y")
    ends = {"received": lambda: batch.recv(dgrams[1]), "closed": batch.close}
    with pytest.warns(RuntimeWarning, match=r"^2 descriptors that RecvBatch\.ancdata\(\) lent .* take_fds\(\) gives them$"):
        ends[end]()
    batch.close()


def test_a_message_without_descriptors_has_an_owner_without_any(inet):
    a, b = inet
    a.sendto(b"x", b.getsockname())
    with RecvBatch(1, 10, 64) as batch:
        batch.recv(b)
        for _ in range(2):
            with batch.take_fds(0) as fds:
                assert (len(fds), fds.ancdata) == (0, batch.ancdata(0))
        assert len(fds.ancdata) == 1


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="credentials are Linux's")
def test_an_owner_has_what_came_beside_its_descriptors(dgrams):
    dgrams[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    lowsock.send_fds(dgrams[0], [b"x"], [0])
    with RecvBatch(1, 10, 256) as batch:
        batch.recv(dgrams[1])
        with batch.take_fds(0) as fds:
            assert len(fds) == 1
            assert [kind for _, kind, _ in fds.ancdata] == [socket.SCM_CREDENTIALS]


def asks_for_a_pidfd(sock):
    try:
        sock.setsockopt(socket.SOL_SOCKET, constants.SO_PASSPIDFD, 1)
    except (AttributeError, OSError) as error:
        pytest.skip(f"no pidfds beside messages: {error}")


@pytest.mark.parametrize("sent", (0, 2))
def test_a_pidfd_is_taken_behind_the_others(dgrams, sent, open_fds):
    asks_for_a_pidfd(dgrams[1])
    before = open_fds()
    lowsock.send_fds(dgrams[0], [b"x"], [0] * sent)
    with RecvBatch(1, 10, 256) as batch:
        batch.recv(dgrams[1])
        with batch.take_fds(0) as fds:
            assert (len(fds), fds.pidfd, fds.ancdata) == (sent + 1, fds[-1], [])
    assert open_fds() == before


GONE = {"receive": "recv", "datagrams": "messages"}


def test_flags_by_position_are_a_type_error_that_says_the_keyword(dgrams):
    dgrams[0].send(b"x")
    with (
        RecvBatch(1, 1) as batch,
        pytest.raises(TypeError, match=r"^recv\(\) takes flags and wait_all by keyword: flags=\.\.\."),
    ):
        batch.recv(dgrams[1], constants.MSG_DONTWAIT)
    assert dgrams[1].recv(9) == b"x"


@pytest.mark.parametrize("name", GONE)
def test_a_method_that_is_gone_says_the_new_one(name):
    with RecvBatch(1, 1) as batch, pytest.raises(AttributeError, match=f"has no attribute '{name}': use {GONE[name]}$"):
        getattr(batch, name)
    with RecvBatch(1, 1) as batch, pytest.raises(AttributeError, match=r"'RecvBatch' object has no attribute 'other'$"):
        batch.other  # noqa: B018


@pytest.mark.parametrize("end", ("received", "failed", "closed", "dropped"))
def test_descriptors_that_nobody_asked_for_are_closed(dgrams, end, open_fds):
    before = open_fds()
    batch = RecvBatch(4, 10, 64)
    for _ in range(3):
        lowsock.send_fds(dgrams[0], [b"x"], [0, 1])
    batch.recv(dgrams[1])
    assert len(open_fds() - before) == 6
    if end == "received":
        dgrams[0].send(b"x")
        batch.recv(dgrams[1])
    elif end == "failed":
        with pytest.raises(BlockingIOError):
            batch.recv(dgrams[1], flags=constants.MSG_DONTWAIT)
    elif end == "closed":
        batch.close()
    else:
        del batch
        for _ in range(4):
            gc.collect()
    assert open_fds() == before
