# SPDX-License-Identifier: MIT
"""Arguments of the wrong type, shape or size: the error names the argument, nothing moves, nothing stays held."""

import contextlib
import ctypes
import io
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, Callable, NamedTuple

import pytest

import lowsock

PYPY = sys.implementation.name == "pypy"
STRIDED = memoryview(bytes(20))[::2]
READ_ONLY = (b"x", memoryview(b"x"))
LARGE = 20_000  # bytes: too large to be copied or joined, so its export is held

GOOD: dict[str, dict[str, Any]] = {  # arguments with which each call would succeed
    "sendmsg": {"buffers": [b"x"], "ancdata": [], "flags": 0},
    "send1msg": {"data": b"x", "flags": 0, "ancillary": []},
    "send_fds": {"buffers": [b"x"], "fds": [], "flags": 0},
    "recvmsg": {"bufsize": 10, "ancbufsize": 0, "flags": 0},
    "recvmsg_into": {"buffers": [bytearray(10)], "ancbufsize": 0, "flags": 0},
    "recv1msg": {"maxsize": 10, "flags": 0, "cmsg_size": 4096},
    "recv_fds": {"bufsize": 10, "maxfds": 1, "flags": 0},
}
SIZES = {"recvmsg": ("bufsize", "ancbufsize"), "recvmsg_into": ("ancbufsize",), "recv1msg": ("maxsize", "cmsg_size")}
SIZES["recv_fds"] = ("bufsize", "maxfds")

NOT_SEQUENCES = (b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc", 5, None)
NOT_BUFFERS = (5, "x", None, [b"x"], (b"x",), 1.5, object())
NOT_INTS = (None, "1", b"1", 1.5, [1], Decimal(1), Fraction(1))
NOT_ZERO = (0.0, Decimal(0), Fraction(0), 0j)  # equal to the default, and no ints
NOT_TRIPLES = (5, None, (), (1, 2), (1, 2, b"", 4), "abc", b"abc", {1, 2, 3})
TOO_LARGE = (2**63, 2**200)


class Row(NamedTuple):
    call: str
    argument: str
    value: Any
    error: type[Exception]

    def arguments(self) -> dict[str, Any]:
        return {**GOOD[self.call], self.argument: self.value}

    def __str__(self) -> str:
        return re.sub(" at 0x[0-9a-f]+", "", f"{self.call} {self.argument}={self.value!r:.60}")


def integers() -> Iterator[Row]:
    for call in GOOD:
        yield from (Row(call, "flags", value, TypeError) for value in NOT_INTS + NOT_ZERO)
        yield from (Row(call, "flags", value, OverflowError) for value in (2**31, -(2**31) - 1, *TOO_LARGE))
    for call, names in SIZES.items():
        for name in names:
            yield from (Row(call, name, value, TypeError) for value in (*NOT_INTS, float(GOOD[call][name])))
            yield from (Row(call, name, value, OverflowError) for value in TOO_LARGE)
            yield from (Row(call, name, value, ValueError) for value in (-1, -(2**31)))


def buffers() -> Iterator[Row]:
    for call in ("sendmsg", "send_fds", "recvmsg_into"):
        yield from (Row(call, "buffers", value, TypeError) for value in NOT_SEQUENCES)
        for place in (0, 1):
            good = [bytearray(1)] * place
            yield from (Row(call, "buffers", [*good, value], TypeError) for value in NOT_BUFFERS)
            yield Row(call, "buffers", [*good, STRIDED], BufferError)
    yield from (Row("send1msg", "data", value, TypeError) for value in NOT_BUFFERS)
    yield Row("send1msg", "data", STRIDED, BufferError)
    yield from (Row("recvmsg_into", "buffers", [value], TypeError) for value in READ_ONLY)
    yield Row("recvmsg_into", "buffers", [memoryview(bytearray(20))[::2]], BufferError)


def control_messages() -> Iterator[Row]:
    for call, name in (("sendmsg", "ancdata"), ("send1msg", "ancillary")):
        yield from (Row(call, name, value, TypeError) for value in (5, None, 1.5, object()))
        yield from (Row(call, name, [item], TypeError) for item in NOT_TRIPLES)
        for value in NOT_INTS:
            yield from (Row(call, name, [item], TypeError) for item in ((value, 1, b""), (1, value, b"")))
        for value in (2**31, -(2**31) - 1, *TOO_LARGE):
            yield from (Row(call, name, [item], OverflowError) for item in ((value, 1, b""), (1, value, b"")))
        yield from (Row(call, name, [(1, 1, value)], TypeError) for value in NOT_BUFFERS)
        yield Row(call, name, [(1, 1, STRIDED)], BufferError)


def descriptors() -> Iterator[Row]:
    yield from (Row("send_fds", "fds", value, TypeError) for value in (5, None, 1.5, object()))
    yield from (Row("send_fds", "fds", [value], TypeError) for value in NOT_INTS)
    yield from (Row("send_fds", "fds", [value], OverflowError) for value in (2**31, -(2**31) - 1, *TOO_LARGE))


ROWS = [*integers(), *buffers(), *control_messages(), *descriptors()]
WAYS: dict[str, Callable[[socket.socket], Any]] = {"socket": lambda sock: sock, "descriptor": lambda sock: sock.fileno()}


@pytest.fixture
def waiting() -> Iterator[list[socket.socket]]:
    """A pair of datagram sockets, each with one datagram to receive."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.send(b"kept")
        b.send(b"kept")
        yield [a, b]


def check_untouched(pair: list[socket.socket]) -> None:
    """Each socket still has its one datagram and no other."""
    for sock in pair:
        assert sock.recv(100, socket.MSG_DONTWAIT) == b"kept"
        with pytest.raises(BlockingIOError):
            sock.recv(100, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_bad_argument_is_named_and_nothing_moves(row: Row, way: str, waiting: list[socket.socket]) -> None:
    with pytest.raises(row.error) as caught:
        getattr(lowsock, row.call)(WAYS[way](waiting[0]), **row.arguments())
    assert caught.type is row.error
    assert row.argument in str(caught.value)
    check_untouched(waiting)


@pytest.mark.skipif(PYPY, reason="PyPy's own socket module raises other types than CPython's")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.9 still takes a Decimal for flags
@pytest.mark.parametrize("row", [row for row in ROWS if row.call in ("sendmsg", "recvmsg", "recvmsg_into")], ids=str)
def test_the_error_is_of_the_type_that_the_socket_module_raises(row: Row, waiting: list[socket.socket]) -> None:
    waiting[0].setblocking(False)
    try:
        with contextlib.suppress(OSError):  # the socket module let it through
            getattr(waiting[0], row.call)(*row.arguments().values())
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        strided = row.call == "recvmsg_into" and row.error is BufferError  # "not writable", says the socket module
        assert type(error) is (TypeError if strided else row.error)  # noqa: PT017 - or nothing is raised


@pytest.mark.parametrize("length", (*NOT_INTS, 4.0))
@pytest.mark.parametrize("macro", ("CMSG_LEN", "CMSG_SPACE"))
def test_the_macros_take_ints_only(macro: str, length: Any) -> None:
    with pytest.raises(TypeError, match="length"):
        getattr(lowsock, macro)(length)


@pytest.mark.parametrize("length", (-1, 2**31, *TOO_LARGE, -(2**200)))
@pytest.mark.parametrize("macro", ("CMSG_LEN", "CMSG_SPACE"))
def test_the_macros_overflow_as_those_of_the_socket_module_do(macro: str, length: int) -> None:
    for module in (socket, lowsock):
        with pytest.raises(OverflowError):
            getattr(module, macro)(length)


# ---- what looks odd and is right ----


class Index:
    """An integer of somebody's own."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", SIZES)
def test_sizes_and_flags_may_be_anything_with_an_index(call: str, way: str, waiting: list[socket.socket]) -> None:
    chosen = {name: Index(GOOD[call][name]) for name in (*SIZES[call], "flags")}
    answer = getattr(lowsock, call)(WAYS[way](waiting[0]), **{**GOOD[call], **chosen})
    assert answer[0] in (b"kept", 4)


def no_address() -> memoryview:
    return io.BytesIO(b"wxyz").getbuffer()


ODD_BUFFERS: dict[str, Callable[[], Any]] = {
    "without a raw address": no_address,
    "a ctypes int": lambda: ctypes.c_uint32(int.from_bytes(b"wxyz", sys.byteorder)),
    "a ctypes array": lambda: (ctypes.c_ubyte * 4)(*b"wxyz"),
    "a view without dimensions": lambda: memoryview(ctypes.c_uint32(int.from_bytes(b"wxyz", sys.byteorder))),
    "a view of two dimensions": lambda: memoryview(bytearray(b"wxyz")).cast("B", (2, 2)),
}


@pytest.mark.parametrize("others", (0, 1), ids=("alone", "beside another"))
@pytest.mark.parametrize("odd", ODD_BUFFERS)
def test_every_contiguous_buffer_can_be_sent(odd: str, others: int, waiting: list[socket.socket]) -> None:
    item = ODD_BUFFERS[odd]()
    waiting[1].recv(100)
    assert lowsock.sendmsg(waiting[0], [item, *[bytes(LARGE)] * others]) == 4 + LARGE * others
    assert waiting[1].recv(4) == b"wxyz"


@pytest.mark.parametrize("odd", ODD_BUFFERS)
def test_every_contiguous_writable_buffer_can_be_received_into(odd: str, waiting: list[socket.socket]) -> None:
    item = ODD_BUFFERS[odd]()
    assert lowsock.recvmsg_into(waiting[0], [item])[0] == 4
    assert memoryview(item).tobytes() == b"kept"


def test_a_buffer_without_a_raw_address_can_be_control_data(waiting: list[socket.socket]) -> None:
    with pytest.raises(OSError, match="Invalid argument"):  # the kernel saw the level and the type
        lowsock.sendmsg(waiting[0], [b"x"], [(socket.SOL_SOCKET, 12345, no_address())])


# ---- nothing stays held ----


FAILURES: dict[str, Callable[[socket.socket, bytearray], Any]] = {
    "sendmsg, a later buffer": lambda sock, buffer: lowsock.sendmsg(sock, [buffer, 5]),
    "sendmsg, ancdata": lambda sock, buffer: lowsock.sendmsg(sock, [buffer], [5]),
    "sendmsg, control data": lambda sock, buffer: lowsock.sendmsg(sock, [], [(1, 1, buffer), (1, 1, 5)]),
    "sendmsg, flags": lambda sock, buffer: lowsock.sendmsg(sock, [buffer], flags=None),
    "sendmsg, address": lambda sock, buffer: lowsock.sendmsg(sock, [buffer], address=5),
    "sendmsg, the kernel": lambda sock, buffer: lowsock.sendmsg(sock, [buffer] * 20),
    "sendmsg, too many": lambda sock, buffer: lowsock.sendmsg(sock, [buffer] * 1025),
    "send1msg, ancillary": lambda sock, buffer: lowsock.send1msg(sock, buffer, 0, [5]),
    "send_fds, fds": lambda sock, buffer: lowsock.send_fds(sock, [buffer], [None]),
    "recvmsg_into, a later buffer": lambda sock, buffer: lowsock.recvmsg_into(sock, [buffer, b"x"]),
    "recvmsg_into, ancbufsize": lambda sock, buffer: lowsock.recvmsg_into(sock, [buffer], -1),
    "recvmsg_into, ancbufsize too large": lambda sock, buffer: lowsock.recvmsg_into(sock, [buffer], 2**200),
    "recvmsg_into, flags": lambda sock, buffer: lowsock.recvmsg_into(sock, [buffer], 0, None),
    "recvmsg_into, sock": lambda sock, buffer: lowsock.recvmsg_into(None, [buffer]),
    "recvmsg_into, the kernel": lambda sock, buffer: lowsock.recvmsg_into(-1, [buffer]),
    "recvmsg_into, too many": lambda sock, buffer: lowsock.recvmsg_into(sock, [buffer] * 1025),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_buffer_is_held_after_an_error(failure: str, waiting: list[socket.socket]) -> None:
    buffer = bytearray(LARGE)
    with pytest.raises(Exception) as caught:  # which one is another test's
        FAILURES[failure](waiting[0], buffer)
    buffer.append(1)  # a held export would be a BufferError; `caught` keeps every frame alive
    assert caught.value.__traceback__ is not None


@pytest.mark.measures_memory
def test_no_buffer_is_held_when_memory_runs_out() -> None:
    """A control buffer that cannot be allocated; a process of its own has the limit."""
    run_limited(
        "buffer = bytearray(20_000)\n"
        "try: lowsock.recvmsg_into(a, [buffer], 2**31 - 1)\n"
        "except MemoryError as error: kept = error\n"
        "buffer.append(1)\n"
    )


# ---- sizes that are only large ----


def run_limited(body: str) -> None:
    """Runs ``body`` with a pair ``a``, ``b`` in a process that may have 1.5 GiB of memory."""
    code = (
        "import lowsock, resource, socket\n"
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "b.send(b'kept')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code + body], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.measures_memory
@pytest.mark.parametrize(
    "call",
    (
        "lowsock.recvmsg(a, 2**31 - 1)",
        "lowsock.recvmsg(a, 1, 2**31 - 1)",
        "lowsock.recvmsg_into(a, [bytearray(1)], 2**31 - 1)",
        "lowsock.recv1msg(a, 2**31 - 1)",
        "lowsock.recv1msg(a, 1, cmsg_size=2**31 - 100)",
        "lowsock.recv_fds(a, 2**31 - 1, 1)",
        "lowsock.recv_fds(a, 1, 2**29 - 10_000)",
    ),
)
def test_a_size_that_memory_has_no_room_for_is_a_memory_error(call: str) -> None:
    run_limited(f"try: {call}\nexcept MemoryError: pass\nelse: raise SystemExit('received')\nassert a.recv(9) == b'kept'\n")


@pytest.mark.measures_memory
def test_a_large_control_buffer_costs_only_the_memory_that_is_filled() -> None:
    run_limited(
        "rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = rss()\n"
        "assert lowsock.recvmsg(a, 9, 2**27)[0] == b'kept'\n"
        "assert rss() - before < 50_000, rss() - before\n"  # KiB
    )


# ---- whose descriptor ----


class Fileno:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def fileno(self) -> Any:
        return self._answer


class RaisingFileno:
    def fileno(self) -> int:
        raise LookupError("mine")


CALLS = (*GOOD, "sockatmark")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sock", (None, "0", b"0", 0.0, [0], object(), Fileno("0"), Fileno(None), Fileno(0.0), Fileno(b"0")))
def test_a_sock_that_is_none_is_a_type_error_that_names_it(call: str, sock: Any) -> None:
    with pytest.raises(TypeError, match="sock"):
        getattr(lowsock, call)(sock, **GOOD.get(call, {}))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sock", (2**31, 2**63, 2**200, Fileno(2**31), Fileno(-(2**200))), ids=lambda sock: str(sock)[:12])
def test_a_descriptor_out_of_range_is_an_overflow_error(call: str, sock: Any) -> None:
    with pytest.raises(OverflowError, match="sock"):
        getattr(lowsock, call)(sock, **GOOD.get(call, {}))


@pytest.mark.parametrize("call", CALLS)
def test_what_fileno_raises_comes_out(call: str) -> None:
    with pytest.raises(LookupError, match="mine"):
        getattr(lowsock, call)(RaisingFileno(), **GOOD.get(call, {}))


@pytest.mark.parametrize("call", GOOD)
def test_a_tls_socket_is_refused_before_anything_moves(call: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    a, b = socket.socketpair()
    with b, context.wrap_socket(a, do_handshake_on_connect=False) as tls:
        b.send(b"kept")
        with pytest.raises(NotImplementedError):
            getattr(lowsock, call)(tls, **GOOD[call])
        assert socket.socket.recv(tls, 9, socket.MSG_PEEK) == b"kept"
        with pytest.raises(BlockingIOError):
            b.recv(9, socket.MSG_DONTWAIT)
