# SPDX-License-Identifier: MIT
"""What the kernel refuses: too much, too many, nobody there, no room, no descriptor left. Waits: system/test_waiting.py."""

import array
import contextlib
import errno
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import lowsock

RECEIVES: dict[str, Callable[[Any], tuple[bytes, int, list[int]]]] = {}  # -> data, msg_flags, descriptors


def receives(function: Callable[[Any], tuple[bytes, int, list[int]]]) -> Callable[[Any], tuple[bytes, int, list[int]]]:
    RECEIVES[function.__name__] = function
    return function


def descriptors(ancdata: list[Any]) -> list[int]:
    return array.array("i", b"".join(data for _, _, data in ancdata)).tolist()


@receives
def recvmsg(sock: Any) -> tuple[bytes, int, list[int]]:
    data, ancdata, msg_flags, _ = lowsock.recvmsg(sock, 100, 2048)
    return data, msg_flags, descriptors(ancdata)


@receives
def recvmsg_into(sock: Any) -> tuple[bytes, int, list[int]]:
    buffer = bytearray(100)
    size, ancdata, msg_flags, _ = lowsock.recvmsg_into(sock, [buffer], 2048)
    return bytes(buffer[:size]), msg_flags, descriptors(ancdata)


@receives
def recv1msg(sock: Any) -> tuple[bytes, int, list[int]]:
    data, msg_flags, ancillary = lowsock.recv1msg(sock)
    return data, msg_flags, descriptors(ancillary)


@receives
def recv_fds(sock: Any) -> tuple[bytes, int, list[int]]:
    data, fds, msg_flags, _ = lowsock.recv_fds(sock, 100, 253)
    return data, msg_flags, fds


@receives
def plain(sock: Any) -> tuple[bytes, int, list[int]]:
    data, ancdata, msg_flags, _ = lowsock.recvmsg(sock, 100)
    return data, msg_flags, descriptors(ancdata)


SENDS: dict[str, Callable[[Any], int]] = {
    "sendmsg": lambda sock: lowsock.sendmsg(sock, [b"x"]),
    "gathered": lambda sock: lowsock.sendmsg(sock, [bytes(10_000), bytearray(10_000)]),
    "with control": lambda sock: lowsock.sendmsg(sock, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))]),
    "send1msg": lambda sock: lowsock.send1msg(sock, b"x"),
    "send_fds": lambda sock: lowsock.send_fds(sock, [b"x"], [0]),
}
CALLS: dict[str, Callable[[Any], Any]] = {**RECEIVES, **SENDS, "sockatmark": lowsock.sockatmark}
SENDING = pytest.mark.parametrize("send", SENDS.values(), ids=list(SENDS))
RECEIVING = pytest.mark.parametrize("receive", RECEIVES.values(), ids=list(RECEIVES))
CALLING = pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))


# ---- more than the system takes ----


@pytest.mark.parametrize("passed", (lambda sock: sock, lambda sock: sock.fileno()), ids=("socket", "descriptor"))
def test_more_buffers_than_the_system_takes_are_refused(passed: Callable[[socket.socket], Any], dgram_pair: Any) -> None:
    for call in (lowsock.sendmsg, lowsock.recvmsg_into):
        with pytest.raises(OSError) as caught:
            call(passed(dgram_pair.a), [bytearray(40)] * 1025)
        assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(BlockingIOError):
        dgram_pair.b.recv(1, socket.MSG_DONTWAIT)


def test_as_many_buffers_as_the_system_takes_arrive(dgram_pair: Any) -> None:
    assert lowsock.sendmsg(dgram_pair.a, [bytes([i % 256]) * 40 for i in range(1024)]) == 40960
    buffers = [bytearray(40) for _ in range(1024)]
    assert lowsock.recvmsg_into(dgram_pair.b, buffers)[0] == 40960
    assert buffers == [bytearray([i % 256]) * 40 for i in range(1024)]


def test_more_small_buffers_than_the_system_takes_are_refused_too(dgram_pair: Any) -> None:
    """That they could be joined makes no difference: the socket module gives EMSGSIZE."""
    for buffers in ([b"ab"] * 1025, (b"ab" for _ in range(1025)), (bytearray(b"ab"),) * 1025):
        with pytest.raises(OSError) as caught:
            lowsock.sendmsg(dgram_pair.a, buffers)
        assert caught.value.errno == errno.EMSGSIZE


def test_a_datagram_that_is_too_large_is_refused(udp_pair: Any) -> None:
    for buffers in ([bytes(70_000)], [bytes(35_000)] * 2):
        with pytest.raises(OSError) as caught:
            lowsock.sendmsg(udp_pair.a, buffers)
        assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize("count", (254, 1000))
def test_more_descriptors_than_the_system_takes_are_refused(count: int, unix_pair: Any) -> None:
    with pytest.raises(OSError) as caught:
        lowsock.sendmsg(unix_pair.a, [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4 * count))])
    assert caught.value.errno in (errno.EINVAL, errno.ETOOMANYREFS)
    with pytest.raises(BlockingIOError):
        unix_pair.b.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("receive", [RECEIVES[name] for name in RECEIVES if name != "plain"])
def test_as_many_descriptors_as_the_system_takes_arrive(receive: Any, unix_pair: Any) -> None:
    lowsock.send_fds(unix_pair.a, [b"x"], [0] * 253)
    data, msg_flags, fds = receive(unix_pair.b)
    for fd in fds:
        os.close(fd)
    assert (data, len(set(fds)), msg_flags & socket.MSG_CTRUNC) == (b"x", 253, 0)


# ---- no socket ----


@CALLING
@pytest.mark.parametrize("fd", (-1, -5, 10**6, 2**31 - 1))
def test_a_descriptor_that_was_never_opened_is_a_bad_one(fd: int, call: Callable[[Any], Any]) -> None:
    with pytest.raises(OSError) as caught:
        call(fd)
    assert (caught.value.errno, caught.value.strerror) == (errno.EBADF, os.strerror(errno.EBADF))


@CALLING
@pytest.mark.parametrize("timeout", (None, 0.0, 5.0))
def test_a_closed_socket_is_a_bad_one(timeout: Any, call: Callable[[Any], Any]) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.close()
    with pytest.raises(OSError) as caught:
        call(sock)
    assert caught.value.errno == errno.EBADF


@CALLING
def test_what_is_no_socket_is_refused(call: Callable[[Any], Any]) -> None:
    with open(os.devnull, "rb") as file, pytest.raises(OSError) as caught:
        call(file)
    assert caught.value.errno in (errno.ENOTSOCK, errno.ENOTTY)


def test_an_unconnected_socket_says_so() -> None:
    for type_ in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, type_) as sock, pytest.raises(OSError) as caught:
            lowsock.sendmsg(sock, [b"x"])
        assert caught.value.errno == errno.ENOTCONN


# ---- nobody there ----


@SENDING
def test_a_peer_that_is_gone_is_a_broken_pipe(send: Callable[[Any], int]) -> None:
    a, b = socket.socketpair()
    with a:
        b.close()
        for sender in (a, a.fileno()):
            with pytest.raises(BrokenPipeError):
                send(sender)


def test_a_connection_that_was_reset_says_so_and_then_ends(tcp_pair: Any) -> None:
    tcp_pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp_pair.b.close()
    with pytest.raises(ConnectionResetError):
        lowsock.recvmsg(tcp_pair.a, 10)
    assert lowsock.recvmsg(tcp_pair.a, 10)[0] == b""


@pytest.mark.parametrize("send", ("sendmsg(a, [b'x'])", "sendmsg(a, [bytes(20000)] * 2)", "send_fds(a, [b'x'], [0])"))
def test_a_gone_peer_does_not_kill_the_process(send: str) -> None:
    code = (
        "import lowsock, signal, socket\n"
        "assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN\n"
        "a, b = socket.socketpair(); b.close()\n"
        f"try: lowsock.{send}\n"
        "except BrokenPipeError: print('told')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


@pytest.mark.parametrize(("action", "status"), (("SIG_DFL", -13), ("SIG_IGN", 0)))
def test_sigpipe_comes_where_the_socket_module_would_have_it(action: str, status: int) -> None:
    for module in ("lowsock.sendmsg(a, [b'x'])", "a.sendmsg([b'x'])"):
        code = (
            "import lowsock, signal, socket\n"
            f"signal.signal(signal.SIGPIPE, signal.{action})\n"
            "a, b = socket.socketpair(); b.close()\n"
            f"try: {module}\n"
            "except BrokenPipeError: pass\n"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr


# ---- full and empty sockets that do not wait ----


def as_socket(sock: socket.socket) -> Any:
    sock.setblocking(False)
    return sock


def as_description(sock: socket.socket) -> Any:
    """The socket object believes that it blocks."""
    os.set_blocking(sock.fileno(), False)
    return sock


def as_descriptor(sock: socket.socket) -> Any:
    sock.setblocking(False)
    return sock.fileno()


def fill(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1000), socket.MSG_DONTWAIT)


NOT_WAITING = pytest.mark.parametrize("passed", (as_socket, as_description, as_descriptor))


@NOT_WAITING
@RECEIVING
def test_an_empty_socket_that_does_not_wait_says_so(receive: Any, passed: Callable[[Any], Any], pair: Any) -> None:
    with pytest.raises(BlockingIOError):
        receive(passed(pair.a))


@NOT_WAITING
@SENDING
def test_a_full_socket_that_does_not_wait_says_so(send: Any, passed: Callable[[Any], Any], unix_pair: Any) -> None:
    fill(unix_pair.a)
    with pytest.raises(BlockingIOError):
        send(passed(unix_pair.a))


@pytest.mark.parametrize("passed", (lambda sock: sock, lambda sock: sock.fileno()), ids=("socket", "descriptor"))
def test_timeouts_of_the_kernels_own_say_so(passed: Callable[[Any], Any], unix_pair: Any) -> None:
    """SO_RCVTIMEO and SO_SNDTIMEO make a call of a blocking descriptor end with EAGAIN."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        unix_pair.a.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, 10_000))
    fill(unix_pair.a)
    for call in (*RECEIVES.values(), *SENDS.values()):
        with pytest.raises(BlockingIOError):
            call(passed(unix_pair.a))


# ---- an error that waits in the socket ----


@pytest.fixture(params=(None, 5.0, 0.0), ids=("blocking", "timeout", "non-blocking"))
def refused(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A UDP socket connected to a port where nobody listens, which has been told so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            sock.connect(nobody.getsockname())
        sock.send(b"anybody?")
        sock.settimeout(request.param)
        yield sock


@pytest.mark.parametrize("call", [*RECEIVES.values(), *SENDS.values()], ids=[*RECEIVES, *SENDS])
def test_the_error_of_a_connected_socket_is_raised_once(call: Callable[[Any], Any], refused: socket.socket) -> None:
    with pytest.raises(ConnectionRefusedError):
        call(refused)
    with pytest.raises(BlockingIOError):
        lowsock.recvmsg(refused.fileno(), 10, 0, socket.MSG_DONTWAIT)


# ---- no descriptor left ----


@pytest.fixture
def crowded() -> Iterator[Callable[[int], None]]:
    """A callable: ``crowded(room)`` leaves this process ``room`` descriptors that it can still open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []

    def crowd(room: int) -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, before[1]))
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(room):
            os.close(fillers.pop())

    yield crowd
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for fd in fillers:
        os.close(fd)


@pytest.mark.parametrize("room", (0, 1, 2))
@pytest.mark.parametrize("receive", [RECEIVES[name] for name in RECEIVES if name != "plain"])
def test_descriptors_that_find_no_room_are_cut_off_and_the_data_is_kept(
    receive: Any, room: int, unix_pair: Any, crowded: Callable[[int], None], open_fds: Callable[[], set[int]]
) -> None:
    before = open_fds()
    lowsock.send_fds(unix_pair.a, [b"data"], [0, 0])
    crowded(room)
    data, msg_flags, fds = receive(unix_pair.b)
    for fd in fds:
        os.close(fd)
    assert (data, len(fds), bool(msg_flags & socket.MSG_CTRUNC)) == (b"data", room, room < 2)
    assert not before & set(fds)


def test_data_is_sent_and_received_without_a_descriptor_to_spare(pair: Any, crowded: Callable[[int], None]) -> None:
    pair.a.settimeout(60)
    pair.b.settimeout(60)
    crowded(0)
    for receive in RECEIVES.values():
        lowsock.sendmsg(pair.a, [b"data"])
        assert receive(pair.b)[0] == b"data"
