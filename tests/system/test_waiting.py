# SPDX-License-Identifier: MIT
"""Timeouts, and waits that something else than data disturbs: bounded, never a spin, never a hang.

No figure here is a measure of speed: lower bounds are exact, upper bounds are there to tell a wait from a hang.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import pytest

import lowsock
from lowsock import constants

FOREVER = 60.0  # seconds: a timeout that no test reaches
SHORT = 0.06  # seconds: a timeout that a test waits for
LONGER = 0.25  # seconds: one in which a spin would show

Call = Callable[[Any], Any]
RECEIVES: dict[str, Call] = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 100)[0],
    "recvmsg with room": lambda sock: lowsock.recvmsg(sock, 100, 512)[0],
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(4)], 512)[0] and b"data",
    "recv1msg": lambda sock: lowsock.recv1msg(sock)[0],
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 100, 1)[0],
}
SENDS: dict[str, Call] = {
    "sendmsg": lambda sock: lowsock.sendmsg(sock, [b"x"]),
    "gathered": lambda sock: lowsock.sendmsg(sock, [bytes(10_000), bytearray(10_000)]),
    "with control": lambda sock: lowsock.sendmsg(sock, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))]),
    "send1msg": lambda sock: lowsock.send1msg(sock, b"x"),
}
RECEIVING = pytest.mark.parametrize("receive", RECEIVES.values(), ids=list(RECEIVES))
SENDING = pytest.mark.parametrize("send", SENDS.values(), ids=list(SENDS))
KINDS = pytest.mark.parametrize("pair", ("unix-stream", "unix-dgram", "tcp4", "udp4"), indirect=True)
FILLING = pytest.mark.parametrize("pair", ("unix-stream", "unix-dgram", "tcp4"), indirect=True)  # UDP is never full


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """A test that hangs fails."""

    def bark(*_: object) -> None:
        raise AssertionError("this hangs")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(int(FOREVER / 2))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Counted:
    """A socket that counts how often it is asked for its descriptor: once or twice for each system call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.asked = 0
        self.gettimeout = sock.gettimeout

    def fileno(self) -> int:
        self.asked += 1
        return self._sock.fileno()


def fill(sock: socket.socket, peer: Any = None) -> None:
    """Until the socket does not take one byte more. TCP would move data on for a while, were its buffers not small."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    blocking = os.get_blocking(sock.fileno())
    os.set_blocking(sock.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sock.fileno(), bytes(2**16 if sock.type == socket.SOCK_STREAM else 1000))
    os.set_blocking(sock.fileno(), blocking)


def drain(sock: socket.socket) -> None:
    os.set_blocking(sock.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while os.read(sock.fileno(), 2**16):
            pass


@contextlib.contextmanager
def soon(action: Callable[[], Any]) -> Iterator[None]:
    """Somebody else does ``action()`` a little later, in all likelihood while the call waits."""
    timer = threading.Timer(0.03, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextlib.contextmanager
def drained(sock: socket.socket) -> Iterator[None]:
    """Somebody else reads all that comes, from a little later on."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.03):
            drain(sock)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def times_out(sock: socket.socket) -> Iterator[None]:
    """The timeout ends the call, not before its time, and the time is spent asleep."""
    start, busy = time.monotonic(), time.thread_time()
    with pytest.raises(socket.timeout):
        yield
    timeout = sock.gettimeout()
    assert timeout is not None
    assert timeout <= time.monotonic() - start < FOREVER / 2
    assert time.thread_time() - busy < max(timeout / 2, 0.1)  # a spin would take all of it


# ---- timeouts ----


@KINDS
@RECEIVING
def test_an_empty_socket_times_out(receive: Call, pair: Any) -> None:
    pair.a.settimeout(SHORT)
    with times_out(pair.a):
        receive(pair.a)


@SENDING
@FILLING
def test_a_full_socket_times_out(send: Call, pair: Any) -> None:
    fill(pair.a, pair.b)
    pair.a.settimeout(SHORT)
    with times_out(pair.a):
        send(pair.a)


@SENDING
@FILLING
def test_a_full_socket_that_is_drained_takes_more(send: Call, pair: Any) -> None:
    fill(pair.a, pair.b)
    pair.a.settimeout(FOREVER)
    with drained(pair.b):
        assert send(pair.a) > 0


@KINDS
@RECEIVING
def test_data_that_comes_ends_the_wait(receive: Call, pair: Any) -> None:
    pair.a.settimeout(FOREVER)
    with soon(lambda: pair.b.send(b"data")):
        assert receive(pair.a) == b"data"


def test_a_timeout_may_be_years(unix_pair: Any) -> None:
    """poll(2) takes milliseconds in an int."""
    unix_pair.a.settimeout(1e8)
    with soon(lambda: unix_pair.b.send(b"data")):
        assert lowsock.recvmsg(unix_pair.a, 10)[0] == b"data"


@RECEIVING
def test_data_that_is_there_needs_no_time(receive: Call, unix_pair: Any) -> None:
    unix_pair.a.settimeout(1e-9)
    unix_pair.b.send(b"data")
    assert receive(unix_pair.a) == b"data"


@KINDS
@RECEIVING
def test_a_description_made_blocking_elsewhere_does_not_hang_a_receive(receive: Call, pair: Any) -> None:
    pair.a.settimeout(SHORT)
    os.set_blocking(pair.a.fileno(), True)
    with times_out(pair.a):
        receive(pair.a)


@SENDING
@FILLING
def test_a_description_made_blocking_elsewhere_does_not_hang_a_send(send: Call, pair: Any) -> None:
    fill(pair.a, pair.b)
    pair.a.settimeout(SHORT)
    os.set_blocking(pair.a.fileno(), True)
    with times_out(pair.a):
        send(pair.a)


def test_asking_not_to_wait_does_not_shorten_a_timeout(unix_pair: Any) -> None:
    """As with the socket module, on CPython and on PyPy."""
    unix_pair.a.settimeout(SHORT)
    for receive in (lowsock.recvmsg, socket.socket.recvmsg):
        with times_out(unix_pair.a):
            receive(unix_pair.a, 10, 0, socket.MSG_DONTWAIT)
    fill(unix_pair.a)
    for send in (lowsock.sendmsg, socket.socket.sendmsg):
        with times_out(unix_pair.a):
            send(unix_pair.a, [b"x"], [], socket.MSG_DONTWAIT)


# ---- waits that something else disturbs ----


class Disturbed(NamedTuple):
    """A socket whose error queue is not empty, and a way to send it data."""

    sock: socket.socket
    send: Callable[[], Any]


def by_icmp(stack: contextlib.ExitStack) -> Disturbed:
    """A datagram that nobody was there for came back."""
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.setsockopt(socket.IPPROTO_IP, constants.IP_RECVERR, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        name = nobody.getsockname()
        sock.connect(name)
    sock.send(b"anybody?")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.bind(name)
    return Disturbed(sock, lambda: peer.sendto(b"data", sock.getsockname()))


def ask_for_stamps(sock: socket.socket) -> None:
    wanted = ("TX_SOFTWARE", "SOFTWARE", "OPT_TSONLY")
    flags = sum(getattr(constants, f"SOF_TIMESTAMPING_{name}") for name in wanted)
    sock.setsockopt(socket.SOL_SOCKET, constants.SO_TIMESTAMPING, flags)


def by_stamp(stack: contextlib.ExitStack) -> Disturbed:
    """A datagram was sent and its timestamp is there."""
    sock, peer = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
    peer.bind(("127.0.0.1", 0))
    sock.connect(peer.getsockname())
    ask_for_stamps(sock)
    sock.send(b"x")
    return Disturbed(sock, lambda: peer.sendto(b"data", sock.getsockname()))


def event_waits(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(5000))


@pytest.fixture(params=(by_icmp, by_stamp))
def disturbed(request: pytest.FixtureRequest) -> Iterator[Disturbed]:
    with contextlib.ExitStack() as stack:
        made = request.param(stack)
        if not event_waits(made.sock):
            pytest.skip("this kernel puts nothing into the error queue here")
        yield made


def check_queue(sock: socket.socket) -> None:
    """The event is still there: it is the user's."""
    assert lowsock.recvmsg(sock.fileno(), 100, 512, constants.MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]


@RECEIVING
def test_an_event_in_the_error_queue_is_no_reason_to_spin(receive: Call, disturbed: Disturbed) -> None:
    disturbed.sock.settimeout(LONGER)
    counted = Counted(disturbed.sock)
    with times_out(disturbed.sock):
        receive(counted)
    assert counted.asked < 200
    check_queue(disturbed.sock)


@RECEIVING
def test_data_comes_past_an_event_in_the_error_queue(receive: Call, disturbed: Disturbed) -> None:
    disturbed.sock.settimeout(FOREVER)
    with soon(disturbed.send):
        assert receive(disturbed.sock) == b"data"
    check_queue(disturbed.sock)


@SENDING
@pytest.mark.parametrize("tcp_pair", ("tcp4",), indirect=True)
def test_a_full_socket_with_an_event_in_the_error_queue_does_not_spin(send: Call, tcp_pair: Any) -> None:
    ask_for_stamps(tcp_pair.a)
    fill(tcp_pair.a, tcp_pair.b)
    assert event_waits(tcp_pair.a)
    tcp_pair.a.settimeout(LONGER)
    counted = Counted(tcp_pair.a)
    with times_out(tcp_pair.a):
        send(counted)
    assert counted.asked < 200


@pytest.mark.parametrize("tcp_pair", ("tcp4",), indirect=True)
def test_a_full_socket_with_an_event_in_the_error_queue_takes_more_once_it_is_drained(tcp_pair: Any) -> None:
    ask_for_stamps(tcp_pair.a)
    fill(tcp_pair.a, tcp_pair.b)
    tcp_pair.a.settimeout(FOREVER)
    with drained(tcp_pair.b):
        assert lowsock.sendmsg(tcp_pair.a, [b"x"]) == 1


@pytest.fixture
def full_receiver() -> Iterator[socket.socket]:
    """A bound datagram socket that takes no more; poll(2) calls whoever wants to send to it by address writable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(b"")  # autobind: an abstract name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(receiver.getsockname())
            fill(sender)
        yield receiver


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        yield sock


def test_a_full_receiver_is_no_reason_to_spin(full_receiver: socket.socket, sender: socket.socket) -> None:
    sender.settimeout(LONGER)
    counted = Counted(sender)
    with times_out(sender):
        lowsock.sendmsg(counted, [b"x"], [], 0, full_receiver.getsockname())
    assert counted.asked < 200


def test_a_full_receiver_that_is_drained_takes_more(full_receiver: socket.socket, sender: socket.socket) -> None:
    sender.settimeout(FOREVER)
    with drained(full_receiver):
        assert lowsock.sendmsg(sender, [b"x"], [], 0, full_receiver.getsockname()) == 1


def test_waiting_for_an_event_is_not_disturbed_by_data(udp_pair: Any) -> None:
    udp_pair.b.send(b"data")
    udp_pair.a.settimeout(LONGER)
    counted = Counted(udp_pair.a)
    with times_out(udp_pair.a):
        lowsock.recvmsg(counted, 10, 512, constants.MSG_ERRQUEUE)
    assert counted.asked < 200


def test_an_event_ends_the_wait_for_it(udp_pair: Any) -> None:
    ask_for_stamps(udp_pair.a)
    udp_pair.a.settimeout(FOREVER)
    with soon(lambda: udp_pair.a.send(b"x")):
        assert lowsock.recvmsg(udp_pair.a, 10, 512, constants.MSG_ERRQUEUE)[1]


@pytest.mark.parametrize("passed", (lambda sock: sock, lambda sock: sock.fileno()), ids=("socket", "descriptor"))
def test_an_empty_error_queue_never_blocks(passed: Callable[[Any], Any], udp_pair: Any) -> None:
    with pytest.raises(BlockingIOError):
        lowsock.recvmsg(passed(udp_pair.a), 10, 512, constants.MSG_ERRQUEUE)


def test_a_disturbed_wait_needs_no_descriptor(disturbed: Disturbed) -> None:
    disturbed.sock.settimeout(SHORT)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with times_out(disturbed.sock):
            lowsock.recvmsg(disturbed.sock, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
