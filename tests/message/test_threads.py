# SPDX-License-Identifier: MIT
"""Other threads, other processes and the caller's own code at work in the middle of a call."""

import array
import collections
import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import lowsock

PYPY = sys.implementation.name == "pypy"
LARGE = 40_000  # bytes: an export is held, not a copy made
THREADS, MESSAGES = 8, 200
PATIENCE = 60.0  # seconds that no test should need


class Worker(threading.Thread):
    """A thread whose answer, or error, is asked for at the end."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._answer: Any = None
        self._error: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._answer = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._answer


class Begun:
    """A socket that tells when a call has begun with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.event = threading.Event()
        self.gettimeout = sock.gettimeout

    def fileno(self) -> int:
        self.event.set()
        return self._sock.fileno()


def until(condition: Callable[[], bool]) -> bool:
    """Looks again and again; whether it came true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        select.poll().poll(1)
    return False


# ---- buffers that their owner resizes meanwhile ----


def resize(buffer: bytearray) -> bool:
    """Moves the buffer elsewhere; False where that is refused."""
    try:
        buffer.extend(bytes(16 * LARGE))
        del buffer[LARGE:]
    except BufferError:
        return False
    return True


@pytest.fixture(params=(None, PATIENCE), ids=("blocking", "timeout"))
def pair_of_streams(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    a, b = socket.socketpair()
    a.settimeout(request.param)
    with a, b:
        yield [a, b]


def resized_meanwhile(sock: socket.socket, call: Callable[[Any], Any], buffer: bytearray, release: Callable[[], Any]) -> Any:
    """Has another thread make a call that waits, resizes its buffer, lets the call go on; answers with its answer."""
    begun = Begun(sock)
    worker = Worker(lambda: call(begun))
    assert begun.event.wait(PATIENCE)
    if PYPY:
        for _ in range(50):
            assert resize(buffer)
    else:
        assert until(lambda: not resize(buffer)), "the buffer is not held"
    release()
    return worker.result()


def test_a_buffer_resized_during_a_receive_is_refused_or_has_the_data(pair_of_streams: list[socket.socket]) -> None:
    """CPython refuses to resize it; on PyPy, which does not, the data is not lost into freed memory."""
    a, b = pair_of_streams
    buffer = bytearray(LARGE)
    answer = resized_meanwhile(
        a, lambda sock: lowsock.recvmsg_into(sock, [buffer]), buffer, lambda: b.sendall(b"\xa5" * 1000)
    )
    assert answer[0] == 1000
    assert buffer[:1001] == b"\xa5" * 1000 + b"\0"
    assert resize(buffer), "let go after the call"


@pytest.mark.skipif(not PYPY, reason="CPython does not let a held buffer shrink")
def test_a_buffer_that_shrank_during_a_receive_has_what_it_holds(pair_of_streams: list[socket.socket]) -> None:
    a, b = pair_of_streams
    buffer, rest, begun = bytearray(LARGE), bytearray(LARGE), Begun(a)
    worker = Worker(lambda: lowsock.recvmsg_into(begun, [buffer, rest]))
    assert begun.event.wait(PATIENCE)
    del buffer[10:]
    b.sendall(b"\xa5" * 1000)
    with contextlib.suppress(BufferError, ValueError, IndexError):
        assert worker.result()[0] <= 1000
    assert set(buffer) <= {0, 0xA5}
    assert len(buffer) == 10


def fill(sock: socket.socket) -> None:
    blocking = os.get_blocking(sock.fileno())
    os.set_blocking(sock.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sock.fileno(), b"f" * 2**16)
    os.set_blocking(sock.fileno(), blocking)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(2**16), b""))


SENDS: dict[str, Callable[[Any, bytearray], int]] = {
    "sendmsg": lambda sock, buffer: lowsock.sendmsg(sock, [buffer, b"end"]),
    "send1msg": lambda sock, buffer: lowsock.send1msg(sock, buffer),
    "send_fds": lambda sock, buffer: lowsock.send_fds(sock, [buffer], [0]),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=list(SENDS))
def test_a_buffer_resized_during_a_send_is_refused_or_sent_as_it_was(
    send: Callable[[Any, bytearray], int], pair_of_streams: list[socket.socket]
) -> None:
    a, b = pair_of_streams
    buffer = bytearray(b"\xa5" * LARGE)
    fill(a)
    readers = []
    sent = resized_meanwhile(a, lambda sock: send(sock, buffer), buffer, lambda: readers.append(Worker(lambda: read_all(b))))
    a.shutdown(socket.SHUT_WR)
    received = readers[0].result().lstrip(b"f")
    assert received == (b"\xa5" * LARGE + b"end")[:sent]
    assert resize(buffer), "let go after the call"


# ---- the caller's own code, run in the middle ----


class Meddler:
    """An int whose `__index__` does something first."""

    def __init__(self, value: int, action: Callable[[], Any]) -> None:
        self._value = value
        self._action = action

    def __index__(self) -> int:
        self._action()
        return self._value


@pytest.fixture
def dgrams() -> Iterator[list[socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield [a, b]


def received_fds(sock: socket.socket) -> int:
    fds = lowsock.recv_fds(sock, 10, 100)[1]
    for fd in fds:
        os.close(fd)
    return len(fds)


def test_a_list_of_descriptors_may_shrink_while_it_is_read(dgrams: list[socket.socket]) -> None:
    fds: list[Any] = [Meddler(0, lambda: fds.clear())] * 50
    assert lowsock.send_fds(dgrams[0], [b"x"], fds) == 1
    assert received_fds(dgrams[1]) in (1, 50)


def test_control_messages_may_change_while_they_are_read(dgrams: list[socket.socket]) -> None:
    ancdata: list[Any] = []
    ancdata.extend([(Meddler(socket.SOL_SOCKET, ancdata.clear), socket.SCM_RIGHTS, bytes(4))] * 50)
    assert lowsock.sendmsg(dgrams[0], [b"x"], ancdata) == 1
    assert received_fds(dgrams[1]) in (1, 50)


def test_data_may_change_once_it_was_read(dgrams: list[socket.socket]) -> None:
    """The buffer of a control message is copied before the next one's `__index__` runs."""
    data = bytearray(array.array("i", [0]).tobytes())
    change = Meddler(socket.SOL_SOCKET, lambda: data.clear())
    rights = socket.SCM_RIGHTS
    assert lowsock.sendmsg(dgrams[0], [b"x"], [(socket.SOL_SOCKET, rights, data), (change, rights, bytes(4))]) == 1
    assert received_fds(dgrams[1]) == 2


def test_buffers_may_come_from_a_generator_that_uses_the_socket(dgrams: list[socket.socket]) -> None:
    def buffers() -> Iterator[bytes]:
        lowsock.sendmsg(dgrams[0], [b"first"])
        yield b"second"

    assert lowsock.sendmsg(dgrams[0], buffers()) == 6
    assert [dgrams[1].recv(10), dgrams[1].recv(10)] == [b"first", b"second"]


def test_buffers_to_receive_into_may_come_from_a_generator_that_receives(dgrams: list[socket.socket]) -> None:
    for data in (b"first", b"second"):
        dgrams[1].send(data)
    buffer, seen = bytearray(10), []

    def buffers() -> Iterator[bytearray]:
        seen.append(lowsock.recvmsg(dgrams[0], 10)[0])
        yield buffer

    assert lowsock.recvmsg_into(dgrams[0], buffers())[0] == 6
    assert (seen, buffer) == ([b"first"], bytearray(b"second\0\0\0\0"))


@pytest.mark.parametrize("call", ("sendmsg", "recvmsg_into", "send_fds"))
def test_a_generator_that_closes_the_socket_ends_the_call(call: str, dgrams: list[socket.socket]) -> None:
    dgrams[1].send(b"kept")

    def closing(value: Any) -> Iterator[Any]:
        dgrams[0].close()
        yield value

    arguments = {"sendmsg": [closing(b"x")], "recvmsg_into": [closing(bytearray(1))], "send_fds": [[b"x"], closing(0)]}
    with pytest.raises(OSError, match="Bad file descriptor"):
        getattr(lowsock, call)(dgrams[0], *arguments[call])


@pytest.mark.parametrize("call", ("sendmsg", "recvmsg_into", "send_fds"))
def test_a_generator_that_has_the_number_reused_harms_nobody(call: str, dgrams: list[socket.socket]) -> None:
    """It closes the socket, and the number comes back as another one, which the call must not touch."""
    others = list(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    others[1].send(b"not yours")

    def closing(value: Any) -> Iterator[Any]:
        others.append(socket.socket(fileno=os.dup2(others[0].fileno(), dgrams[0].detach())))
        yield value

    arguments = {"sendmsg": [closing(b"x")], "recvmsg_into": [closing(bytearray(1))], "send_fds": [[b"x"], closing(0)]}
    with contextlib.ExitStack() as stack:
        with pytest.raises(OSError, match="Bad file descriptor"):
            getattr(lowsock, call)(dgrams[0], *arguments[call])
        for sock in others:
            stack.enter_context(sock)
        assert others[0].recv(20, socket.MSG_DONTWAIT) == b"not yours"
        with pytest.raises(BlockingIOError):
            others[1].recv(20, socket.MSG_DONTWAIT)


# ---- many threads ----


def message(thread: int, number: int) -> bytes:
    """One of its own for each, of a length of its own, with its own byte all through."""
    head = b"%d %d " % (thread, number)
    return head + bytes([65 + thread]) * (1 + (thread * 131 + number * 7) % 900)


RECEIVES: dict[str, Callable[[Any], bytes]] = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 4096)[0],
    "recvmsg with room": lambda sock: lowsock.recvmsg(sock, 4096, 256)[0],
    "recv1msg": lambda sock: lowsock.recv1msg(sock)[0],
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 4096, 1)[0],
}


def recv_into(sock: Any) -> bytes:
    buffers = [bytearray(5), bytearray(4096)]
    size = lowsock.recvmsg_into(sock, buffers)[0]
    return b"".join(buffers)[:size]


RECEIVES["recvmsg_into"] = recv_into


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=list(RECEIVES))
def test_threads_that_share_a_socket_lose_and_mix_nothing(
    receive: Callable[[Any], bytes], dgrams: list[socket.socket]
) -> None:
    a, b = dgrams

    def send(thread: int) -> None:
        for number in range(MESSAGES):
            lowsock.sendmsg(a, [message(thread, number)])

    def take() -> list[bytes]:
        return list(iter(lambda: receive(b), b"stop"))

    takers = [Worker(take) for _ in range(THREADS)]
    for sender in [Worker(lambda thread=thread: send(thread)) for thread in range(THREADS)]:
        sender.result()
    for _ in takers:
        lowsock.sendmsg(a, [b"stop"])
    came = collections.Counter(data for taker in takers for data in taker.result())
    assert came == collections.Counter(message(thread, n) for thread in range(THREADS) for n in range(MESSAGES))


def echo(receive: Callable[[Any], bytes], thread: int) -> None:
    """Sends and receives on sockets of its own: the memory below is what threads share."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        for number in range(MESSAGES):
            lowsock.sendmsg(a, [message(thread, number)])
            assert receive(b) == message(thread, number)


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=list(RECEIVES))
def test_threads_with_sockets_of_their_own_see_no_data_of_others(receive: Callable[[Any], bytes]) -> None:
    for worker in [Worker(lambda thread=thread: echo(receive, thread)) for thread in range(THREADS)]:
        worker.result()


def test_threads_that_pass_descriptors_get_each_its_own() -> None:
    def pass_one(thread: int) -> None:
        a, b = socket.socketpair()
        with a, b, open(__file__, "rb") as file:
            for _ in range(MESSAGES):
                lowsock.send_fds(a, [b"x"], [file.fileno(), a.fileno()][: 1 + thread % 2])
                fds = lowsock.recv_fds(b, 1, 2)[1]
                same = [os.path.sameopenfile(fd, ours) for fd, ours in zip(fds, (file.fileno(), a.fileno()))]
                for fd in fds:
                    os.close(fd)
                assert same == [True] * (1 + thread % 2)

    for worker in [Worker(lambda thread=thread: pass_one(thread)) for thread in range(THREADS)]:
        worker.result()


# ---- closed, or gone, meanwhile ----


def test_closing_in_another_thread_ends_a_wait_by_its_timeout(dgrams: list[socket.socket]) -> None:
    dgrams[0].settimeout(0.3)
    begun = Begun(dgrams[0])
    worker = Worker(lambda: lowsock.recvmsg(begun, 10))
    assert begun.event.wait(PATIENCE)
    dgrams[0].close()
    with pytest.raises(OSError):  # EBADF, or the timeout: poll(2) does not notice
        worker.result()


def test_shutting_down_in_another_thread_wakes_a_receive(pair_of_streams: list[socket.socket]) -> None:
    begun = Begun(pair_of_streams[0])
    worker = Worker(lambda: lowsock.recvmsg(begun, 10))
    assert begun.event.wait(PATIENCE)
    pair_of_streams[0].shutdown(socket.SHUT_RDWR)
    assert worker.result()[0] == b""


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_in_the_middle_works(dgrams: list[socket.socket]) -> None:
    """Some threads are inside a receive when the process is copied; the child has none of them."""
    waiting = [Begun(dgrams[0]) for _ in range(3)]
    workers = [Worker(lambda begun=begun: lowsock.recvmsg(begun, 10)) for begun in waiting]
    assert all(begun.event.wait(PATIENCE) for begun in waiting)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(PATIENCE))
            for receive in RECEIVES.values():
                echo(receive, 1)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    for _ in workers:
        dgrams[1].send(b"on")
    assert [worker.result()[0] for worker in workers] == [b"on"] * 3
