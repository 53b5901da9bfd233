# SPDX-License-Identifier: MIT
"""What user code that runs in the middle of a call could do to it: numbers reused, handlers, poisoned caches."""

import os
import signal
import socket
import sys
import threading
import types

import pytest

import lowsock
from lowsock._memory import address as _address

PYPY = sys.implementation.name == "pypy"


@pytest.fixture
def stranger():
    """Sockets of somebody else; the first gets a number that was another's."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b


@pytest.mark.parametrize(
    "ancdata", [(), [(socket.IPPROTO_IP, socket.IP_TTL, bytes([9, 0, 0, 0]))]], ids=("plain", "control")
)
def test_a_number_reused_while_a_name_is_resolved_is_not_sent_through(monkeypatch, stranger, ancdata):
    a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    copies = []

    def resolved(*_):
        copies.append(socket.socket(fileno=os.dup2(stranger[0].fileno(), a.detach())))
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lowsock.sendmsg(a, [b"for somebody"], ancdata, 0, ("some.host", 9))
    with copies[0], pytest.raises(BlockingIOError):
        stranger[1].recv(100, socket.MSG_DONTWAIT)


def test_a_name_is_resolved_once_for_a_send_that_is_refused(monkeypatch):
    asked = []

    def resolved(*_):
        asked.append(1)
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, pytest.raises(OSError, match="Message too long"):
        lowsock.sendmsg(a, [bytes(70_000)], (), 0, ("some.host", 9))
    assert asked == [1]


def test_a_handler_of_the_wrong_arity_makes_nothing_go_twice():
    """Calling it fails without a frame of its own, in the middle of a send of which a part has gone."""
    a, b = socket.socketpair()
    received = bytearray()

    def read():
        while piece := b.recv(65536):
            received.extend(piece)

    reader = threading.Thread(target=read)
    before = signal.signal(signal.SIGALRM, threading.Event().set)
    try:
        with a, b:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            threading.Timer(0.2, reader.start).start()
            with pytest.raises(TypeError):  # noqa: PT012 - the signal comes in one or in the other
                lowsock.sendmsg(a, [bytearray(b"x" * 400_000)])
                signal.pause()
            a.shutdown(socket.SHUT_WR)
            while reader.ident is None:
                threading.Event().wait(0.01)
            reader.join()
            assert len(received) <= 400_000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(PYPY, reason="PyPy fills 2 GiB of bytes with zeros one by one")
@pytest.mark.parametrize(
    "send", [lambda sock, data: lowsock.sendmsg(sock, [data]), lowsock.send1msg], ids=("sendmsg", "send1msg")
)
def test_more_than_2_gib_in_one_buffer_goes_in_part(stream_pair, send):
    stream_pair.a.setblocking(False)
    assert 0 < send(stream_pair.a, bytes(2**31)) < 2**31


class Odd(tuple):
    """A tuple that says it is every other tuple."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash(("127.0.0.1", 9))


class Port:
    """A number without a hash."""

    __hash__ = None

    def __index__(self):
        return 9


@pytest.mark.parametrize(
    "address", [Odd(("127.0.0.1", 9)), ("127.0.0.1", Port()), (bytearray(b"127.0.0.1"), 9)], ids=("tuple", "port", "host")
)
def test_only_plain_addresses_are_remembered(address):
    _address._encode_cache.clear()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
        assert lowsock.sendmsg(a, [b"x"], (), 0, address) == 1
    assert not _address._encode_cache


def test_a_module_that_is_still_being_imported_is_no_obstacle(monkeypatch, dgram_pair):
    monkeypatch.setitem(sys.modules, "ssl", types.ModuleType("ssl"))

    class Own(socket.socket):
        pass

    with Own(fileno=os.dup(dgram_pair.a.fileno())) as own:
        assert lowsock.sendmsg(own, [b"x"]) == 1


def test_what_tcp_does_not_copy_stays_as_it_is(tcp_pair):
    tcp_pair.a.sendall(b"12345")
    buffers = [bytearray(b"--"), bytearray(b"---")]
    assert lowsock.recvmsg_into(tcp_pair.b, buffers, 0, socket.MSG_TRUNC)[0] == 5
    assert buffers == [b"--", b"---"]


@pytest.mark.parametrize("host", [b"", b"<broadcast>", b"127.0.0.1", bytearray(b"127.0.0.1")])
def test_a_host_of_bytes_is_what_it_is_as_str(host):
    assert _address.encode(socket.AF_INET, (host, 9)) == _address.encode(socket.AF_INET, (host.decode(), 9))


def test_an_interface_name_ends_at_its_end():
    if "AF_PACKET" not in _address.CONSTANTS:
        pytest.skip("no packet sockets on this platform")
    with pytest.raises(ValueError, match="ifname"):
        _address.encode(_address.CONSTANTS["AF_PACKET"], ("lo\0x", 1))


def test_an_int_that_lies_about_itself_closes_nothing(stranger, open_fds):
    class Liar(int):
        def __lt__(self, other):
            return False

        __gt__ = __le__ = __ge__ = __lt__

        def __index__(self):
            return self

    a, b = stranger
    lowsock.send_fds(a, [b"x"], [0])
    before = open_fds()
    with pytest.raises((ValueError, OverflowError)):
        lowsock.recv_fds(b, 1, Liar(-2))
    assert open_fds() == before
