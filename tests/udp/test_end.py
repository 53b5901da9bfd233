# SPDX-License-Identifier: MIT
"""The end of an endpoint: it owns its socket until it is closed, or gives it back."""

import copy
import errno
import os
import pickle
import socket
import warnings

import pytest
from datagram_loops import of_lowsock
from udp_sockets import linux

from lowsock import aio, constants, udp
from lowsock.errqueue import ZeroCopySender
from lowsock.udp._sending import Sending

CALLS = {
    "send": lambda endpoint: endpoint.send(b"x", address=("127.0.0.1", 9)),
    "send_many": lambda endpoint: endpoint.send_many([(b"x", ("127.0.0.1", 9))]),
    "Transmit": lambda endpoint: endpoint.send_many([udp.Transmit(b"x", ("127.0.0.1", 9), ecn=1)]),
    "recv": lambda endpoint: endpoint.recv(),
    "recv_coalesced": lambda endpoint: endpoint.recv_coalesced(),
    "recv_into": lambda endpoint: endpoint.recv_into([bytearray(9)]),
    "read_errors": lambda endpoint: endpoint.read_errors(),
}


@pytest.mark.parametrize("ending", ["close", "with", "with and an exception"])
@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_it_closes_its_socket(two4, ending, kind):
    fd = two4.a.fileno()
    endpoint = udp.Endpoint(two4.a if kind == "socket" else two4.a.detach())
    if ending == "close":
        endpoint.close()
    elif ending == "with":
        with endpoint:
            pass
    else:
        with pytest.raises(ZeroDivisionError), endpoint:
            raise ZeroDivisionError
    with pytest.raises(OSError):
        os.fstat(fd)
    assert endpoint.fileno() == -1
    endpoint.close()  # again


@linux
@pytest.mark.parametrize("ending", ["close", "detach"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_after_the_end_fails_as_on_a_closed_socket(two4, ending, name):
    """Also if the number of the descriptor is another's by then."""
    fd = two4.a.detach()
    endpoint = udp.Endpoint(fd)
    getattr(endpoint, ending)()
    with pytest.raises(OSError) as info:
        CALLS[name](endpoint)
    assert info.value.errno == errno.EBADF
    if ending == "detach":
        os.close(fd)


@pytest.mark.parametrize("kind", ["socket", "descriptor"])
def test_detach_gives_back_what_it_was_made_with(two4, kind):
    sock = two4.a if kind == "socket" else two4.a.fileno()
    with udp.Endpoint(sock) as endpoint:
        assert endpoint.detach() is sock
    assert two4.a.sendto(b"x", two4.to) == 1
    with pytest.raises(ValueError, match="this endpoint is closed, or its socket given back"):
        endpoint.detach()


def test_an_endpoint_that_cannot_be_made_leaves_the_socket_to_its_owner(two4):
    for wrong in ({"recv_ecn": 1}, {"txtime_clock": -1}, {"txtime_clock": True}):
        with pytest.raises((TypeError, ValueError)):
            udp.Endpoint(two4.a, **wrong)
    assert two4.a.sendto(b"x", two4.to) == 1


class Unowned:
    """Has a descriptor, and no ``close()``."""

    def __init__(self, sock):
        self.fileno = sock.fileno


@linux
@pytest.mark.parametrize("make", [udp.Endpoint, aio.udp.Endpoint])
def test_what_it_cannot_close_is_refused_before_an_option_is_set(two4, make):
    with pytest.raises(TypeError, match=r"^sock must be an int or have close\(\), .*, not Unowned"):
        make(Unowned(two4.a))
    assert not two4.a.getsockopt(socket.IPPROTO_IP, constants.IP_RECVTOS)
    assert not two4.a.getsockopt(constants.SOL_UDP, constants.UDP_GRO)


@pytest.mark.parametrize("make", [udp.Endpoint, aio.udp.Endpoint])
@pytest.mark.parametrize("call", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_has_no_copies(two4, make, call):
    two4.a.setblocking(False)
    with pytest.raises(TypeError, match=r"^an Endpoint can be neither copied nor pickled"):
        call(make(two4.a))


# ---- MSG_ZEROCOPY ----


@pytest.fixture
def flying(in_flight):
    """An endpoint with a zero-copy send in flight."""
    endpoint = udp.Endpoint(in_flight.sock, zerocopy=True)
    if not endpoint.zerocopy:
        pytest.skip("this kernel has no zero-copy sends of UDP")
    endpoint.send(bytes(30_000), address=in_flight.to, segment_size=1000)
    yield endpoint, in_flight.sock, in_flight.let_go
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        endpoint.close(0)


@linux
def test_drain_waits_and_says_whether_all_is_done(flying):
    endpoint, _, let_go = flying
    assert endpoint.drain(0.01) is False
    let_go()
    assert endpoint.drain(5) is True
    with pytest.raises(TypeError, match="timeout"):
        endpoint.drain("1")


@linux
@pytest.mark.parametrize("ending", [lambda e: e.close(0.01), lambda e: e.__exit__(ValueError, None, None)])
def test_what_is_in_flight_does_not_keep_a_socket_open(flying, ending):
    endpoint, a, _ = flying
    with pytest.warns(ResourceWarning, match="kept for good"):
        ending(endpoint)
    assert a.fileno() == -1
    assert not endpoint.zerocopy


@linux
def test_the_socket_is_closed_though_the_warning_is_an_error(flying):
    endpoint, a, _ = flying
    with pytest.raises(ResourceWarning):
        endpoint.close(0)
    assert a.fileno() == -1


@linux
def test_a_close_that_is_interrupted_closes(flying, monkeypatch):
    endpoint, a, _ = flying
    real, calls = ZeroCopySender.close, []

    def close(self, timeout=None):
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(self, timeout)

    monkeypatch.setattr(ZeroCopySender, "close", close)
    with pytest.warns(ResourceWarning), pytest.raises(KeyboardInterrupt):
        endpoint.close()
    assert (calls, a.fileno()) == ([None, 0], -1)


@linux
def test_a_socket_that_was_given_back_takes_another_sender(flying):
    endpoint, a, let_go = flying
    with pytest.warns(ResourceWarning):
        assert endpoint.detach() is a
    let_go()
    with udp.Endpoint(a, zerocopy=True) as after:
        assert after.zerocopy


@linux
@pytest.mark.filterwarnings("ignore:a ZeroCopySender was closed:ResourceWarning")
@pytest.mark.parametrize("moment", ["before", "within"])
@pytest.mark.parametrize("name", ["send", "drain"])
def test_an_end_during_a_zero_copy_call_of_another_thread_is_ebadf(flying, monkeypatch, name, moment):
    """Before its sender is asked, and while it works."""
    endpoint, _, _ = flying
    cls, inner = (Sending, "_send_zerocopy") if name == "send" and moment == "before" else (ZeroCopySender, name)
    if name == "drain":
        inner = "wait" if moment == "before" else "_read_queue"
    elif moment == "within":
        inner = "_attempt"
    real = getattr(cls, inner)

    @of_lowsock
    def ended(self, *args, **named):
        monkeypatch.setattr(cls, inner, real)
        endpoint.close(0)
        return real(self, *args, **named)

    monkeypatch.setattr(cls, inner, ended)
    with pytest.raises(OSError) as info:
        endpoint.drain(5) if name == "drain" else endpoint.send(bytes(30_000), address=("127.0.0.1", 9))
    assert info.value.errno == errno.EBADF


def test_without_zero_copy_there_is_nothing_to_drain(two4):
    assert udp.Endpoint(two4.a).drain() is True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert udp.Endpoint(sock).drain(0) is True
