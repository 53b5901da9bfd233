# SPDX-License-Identifier: MIT
"""Every kind of first argument: a descriptor, a plain socket, a derived one, an object with ``fileno()``, and wrong ones."""

import errno
import gc
import os
import socket
import ssl
import subprocess
import sys
import weakref
from unittest import mock

import pytest

import lowsock
from lowsock._system import target as targets

SEND = {
    "sendmsg": lambda sock: lowsock.sendmsg(sock, [b"x"]),
    "sendmsg, defaults spelled out": lambda sock: lowsock.sendmsg(sock, [b"x"], [], 0, None),
    "sendmsg, a tuple": lambda sock: lowsock.sendmsg(sock, (b"x",), (), flags=0, address=None),
    "sendmsg, flags": lambda sock: lowsock.sendmsg(sock, [b"x"], [], socket.MSG_DONTWAIT),
    "sendmsg, large": lambda sock: lowsock.sendmsg(sock, [b"x" * 20_000, bytearray(b"y" * 20_000)]),
    "send1msg": lambda sock: lowsock.send1msg(sock, b"x"),
    "send1msg, defaults spelled out": lambda sock: lowsock.send1msg(sock, b"x", 0, []),
    "send_fds": lambda sock: lowsock.send_fds(sock, [b"x"], [0]),
    "sendmmsg": lambda sock: lowsock.sendmmsg(sock, [([b"x"],), ([b"y"],)]),
    "sendmmsg of one": lambda sock: lowsock.sendmmsg(sock, [([b"x"],)]),
}
RECEIVE = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 100),
    "recvmsg, defaults spelled out": lambda sock: lowsock.recvmsg(sock, 100, 0, 0),
    "recvmsg, room": lambda sock: lowsock.recvmsg(sock, 100, 100),
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(10), bytearray(90)]),
    "recv1msg": lambda sock: lowsock.recv1msg(sock, 100),
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 100, 1),
    "recvmmsg": lambda sock: lowsock.recvmmsg(sock, 2, 100),
    "recvmmsg of one": lambda sock: lowsock.recvmmsg(sock, 1, 100),
}
ALL = {**SEND, **RECEIVE}


class Number(int):
    """An int that is not exactly one."""


class Asked:
    """Answers ``fileno()`` with whatever it is told to."""

    def __init__(self, answer):
        self.answer = answer

    def fileno(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b


@pytest.fixture
def filled(pair):
    """A socket with three messages to be received."""
    for data in (b"one", b"two", b"three"):
        pair[0].send(data)
    return pair[1]


@pytest.mark.parametrize("call", SEND)
def test_all_kinds_send_the_same(call, pair, passed, drain):
    a, b = pair
    assert SEND[call](passed(a)) == SEND[call](a)
    b.setblocking(False)
    first = b.recv(50_000)
    second = b.recv(50_000) if call != "sendmmsg" else (b.recv(9), b.recv(50_000))[1]
    assert first == second


@pytest.mark.parametrize("call", RECEIVE)
def test_all_kinds_receive_the_same(call, filled, passed):
    count = 2 if call == "recvmmsg" else 1
    expected = [b"one", b"two"][:count]
    got = RECEIVE[call](passed(filled))
    messages = got if type(got) is list else [got]
    assert [message[0] for message in messages] == ([3] if call == "recvmsg_into" else expected)


@pytest.mark.parametrize("call", ALL)
def test_an_int_of_a_derived_class_is_a_descriptor(call, filled, pair):
    assert ALL[call](Number((filled if call in RECEIVE else pair[0]).fileno()))


@pytest.mark.parametrize("kind", [lambda fd: fd, Number, Asked], ids=["int", "derived", "object"])
@pytest.mark.parametrize("number", [-1, -5])
@pytest.mark.parametrize("call", ALL)
def test_a_closed_descriptor_is_refused_by_the_kernel(call, kind, number):
    with pytest.raises(OSError) as raised:
        ALL[call](kind(number))
    assert raised.value.errno == errno.EBADF


@pytest.mark.parametrize("call", ALL)
def test_a_closed_socket_is_refused_by_the_kernel(call, pair, passed):
    a, _ = pair
    sock = passed(a)
    a.close()
    if hasattr(sock, "close"):
        sock.close()
    with pytest.raises(OSError) as raised:
        ALL[call](sock)
    assert raised.value.errno == errno.EBADF


FRESH = """
import os, socket, sys
import lowsock

a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
a.bind(("127.0.0.1", 0))
a.sendto(b"precious", a.getsockname())
os.dup2(a.fileno(), 0)
closed = socket.socket()
closed.close()
for sock in (closed, -1):
    try:
        lowsock.recvmsg(sock, -1)
    except ValueError as error:
        print(error)
print(a.recv(100))
"""


def test_a_first_receive_of_a_wrong_size_from_a_closed_socket_touches_no_other():
    """A reply that nothing was received into yet remembers no descriptor, not even number 0."""
    done = subprocess.run([sys.executable, "-I", "-c", FRESH], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "bufsize must not be negative: -1\n" * 2 + "b'precious'\n"


@pytest.mark.parametrize("kind", [lambda fd: fd, Number, Asked], ids=["int", "derived", "object"])
@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 10**30])
@pytest.mark.parametrize("call", ALL)
def test_a_number_that_is_no_descriptor_is_named(call, kind, number):
    with pytest.raises(OverflowError, match=rf"^sock: descriptor {number} does not fit a C int$"):
        ALL[call](kind(number))


@pytest.mark.parametrize(("answer", "name"), [("7", "str"), (7.0, "float"), (None, "NoneType"), (mock.Mock(), "Mock")])
@pytest.mark.parametrize("call", ALL)
def test_a_fileno_that_is_no_int_is_named(call, answer, name):
    with pytest.raises(TypeError, match=rf"^sock.fileno\(\) must return an int, not {name}$"):
        ALL[call](Asked(answer))


@pytest.mark.parametrize("thing", [None, "7", 7.0, object(), [7]], ids=repr)
@pytest.mark.parametrize("call", ALL)
def test_what_has_no_fileno_is_named(call, thing):
    with pytest.raises(TypeError, match=r"^sock must be an int or have a fileno\(\) method, not \w+$"):
        ALL[call](thing)


@pytest.mark.parametrize(
    "error", [AttributeError("mine"), TypeError("mine"), OverflowError("mine"), KeyboardInterrupt("mine")]
)
@pytest.mark.parametrize("call", ALL)
def test_what_fileno_raises_comes_out(call, error, filled):
    with pytest.raises(type(error), match=r"^mine$"):
        ALL[call](Asked(error))
    assert filled.recv(10) == b"one"


@pytest.mark.parametrize("call", RECEIVE)
def test_an_object_is_asked_for_its_descriptor_each_time(call, filled, pair):
    sock = Asked(filled.fileno())
    RECEIVE[call](sock)
    filled.send(b"to the other")
    sock.answer = pair[0].fileno()
    got = RECEIVE[call](sock)
    message = got[0] if type(got) is list else got
    assert message[0] in (b"to the other", 12)


def test_an_instance_may_get_a_timeout_later(pair):
    """What was found of a class is no answer: the object is asked again."""
    sock = Asked(pair[0].fileno())
    os.set_blocking(pair[0].fileno(), False)
    with pytest.raises(BlockingIOError):
        lowsock.recvmsg(sock, 10)
    sock.gettimeout = lambda: 0.001
    with pytest.raises(socket.timeout):
        lowsock.recvmsg(sock, 10)


def test_a_class_may_get_a_timeout_later(pair):
    class Late(Asked):
        pass

    os.set_blocking(pair[0].fileno(), False)
    for call in (lowsock.recvmsg, lowsock.recv1msg):
        with pytest.raises(BlockingIOError):
            call(Late(pair[0].fileno()), 10)
    Late.gettimeout = lambda self: 0.001
    for call in (lowsock.recvmsg, lowsock.recv1msg):
        with pytest.raises(socket.timeout):
            call(Late(pair[0].fileno()), 10)


class Watched(socket.socket):
    """A derived socket whose methods are its own."""

    asked = ()

    def fileno(self):
        self.asked = (*self.asked, "fileno")
        return super().fileno()

    def gettimeout(self):
        self.asked = (*self.asked, "gettimeout")
        return super().gettimeout()


@pytest.mark.parametrize("call", ALL)
def test_methods_of_a_derived_class_are_asked(call, filled, pair):
    with Watched(fileno=os.dup((filled if call in RECEIVE else pair[0]).fileno())) as sock:
        ALL[call](sock)
        assert {"fileno", "gettimeout"} <= set(sock.asked)


@pytest.mark.parametrize("call", ALL)
def test_a_class_that_is_claimed_reaches_no_system_call(call):
    """``__class__`` of a mock is that of its spec."""
    liar = mock.Mock(spec=socket.socket)
    assert liar.__class__ is socket.socket
    liar.gettimeout.return_value = None
    with pytest.raises(TypeError, match=r"^sock.fileno\(\) must return an int, not Mock$"):
        ALL[call](liar)


@pytest.mark.parametrize("call", ALL)
def test_an_ssl_socket_is_refused(call, pair):
    class Derived(ssl.SSLSocket):
        pass

    for cls in (ssl.SSLSocket, Derived):
        with pytest.raises(NotImplementedError, match="TLS has no messages"):
            ALL[call](cls.__new__(cls))


def test_a_class_that_was_asked_is_not_kept():
    class Gone(Asked):
        pass

    with pytest.raises(OSError):
        lowsock.recvmsg(Gone(-1), 10)
    kept, known = weakref.ref(Gone), len(targets._ADMITTED)
    del Gone
    for _ in range(3):
        gc.collect()
    assert kept() is None
    assert len(targets._ADMITTED) < known


# ---- addresses, which a descriptor alone does not know the family of ----


@pytest.mark.parametrize("ancdata", [[], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")]], ids=["plain", "control"])
def test_an_address_of_another_family_is_refused_and_nothing_sent(ancdata, passed, ipv6):
    """Linux itself would send to an IPv4 address from an IPv6 socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        four.bind(("127.0.0.1", 0))
        address = four.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            lowsock.sendmsg(other, [b"known"], address=address)  # its structure is at hand from now on
        with pytest.raises(OSError):
            lowsock.sendmsg(passed(six), [b"wrong"], ancdata, 0, address)
        four.setblocking(False)
        assert four.recv(10) == b"known"
        with pytest.raises(BlockingIOError):
            four.recv(10)


def test_an_address_goes_by_every_kind(passed):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        for _ in range(3):
            assert lowsock.sendmsg(passed(a), [b"x"], [], 0, b.getsockname()) == 1
            assert b.recv(10) == b"x"
        with pytest.raises(TypeError, match="address port"):
            lowsock.sendmsg(passed(a), [b"x"], [], 0, ("127.0.0.1", 80.0))
