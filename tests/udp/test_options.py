# SPDX-License-Identifier: MIT
"""What an endpoint sets on a socket, and takes back where it cannot be made."""

import errno
import socket
import sys
import time

import pytest

from lowsock import constants, udp
from lowsock.errqueue import ZeroCopySender
from lowsock.udp import _endpoint as _udp

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these options are Linux's")

COMMON = ["SOL_SOCKET/SO_TIMESTAMP", "SOL_SOCKET/SO_TIMESTAMPNS", "SOL_SOCKET/SO_TIMESTAMPING", "SOL_SOCKET/SO_ZEROCOPY"]
COMMON += ["SOL_UDP/UDP_GRO", "SOL_UDP/UDP_SEGMENT"]
IPV4 = ["IPPROTO_IP/IP_RECVTOS", "IPPROTO_IP/IP_PKTINFO", "IPPROTO_IP/IP_RECVERR"]
IPV6 = ["IPPROTO_IPV6/IPV6_RECVTCLASS", "IPPROTO_IPV6/IPV6_RECVPKTINFO", "IPPROTO_IPV6/IPV6_RECVERR"]
EVERYTHING = {"recv_timestamps": True, "recv_errors": True, "zerocopy": True}


def values(sock):
    names = COMMON + IPV4 + (IPV6 if sock.family == socket.AF_INET6 else [])
    places = [[getattr(constants, part) for part in name.split("/")] for name in names]
    return dict(zip(names, (sock.getsockopt(*place) for place in places)))


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["4", "6"])
def sock(request):
    with socket.socket(request.param, socket.SOCK_DGRAM) as made:
        yield made


def test_an_endpoint_that_cannot_be_made_leaves_no_trace(sock):
    before = values(sock)
    with pytest.raises(OSError) as info:
        udp.Endpoint(sock, txtime_clock=1000, **EVERYTHING)
    assert info.value.errno == errno.EINVAL
    assert values(sock) == before


@pytest.mark.parametrize("name", [*COMMON[:2], *COMMON[4:5], *IPV4])
def test_what_was_set_before_stays_set(sock, name):
    sock.setsockopt(*(getattr(constants, part) for part in name.split("/")), 1)
    before = values(sock)
    with pytest.raises(OSError):
        udp.Endpoint(sock, txtime_clock=1000, **EVERYTHING)
    assert values(sock) == before
    assert before[name] == 1


@pytest.mark.parametrize(
    "step", ["has_coalescing", "_enabled", "_zerocopy_sender", "Sender", "kernel_max_segments", "set_clock"]
)
def test_whatever_a_signal_handler_interrupts_is_undone(sock, monkeypatch, step):
    class Interrupted(BaseException):
        pass

    def interrupted(*args):
        real(*args)
        raise Interrupted

    before, real = values(sock), getattr(_udp, step)
    with monkeypatch.context() as patch:
        patch.setattr(_udp, step, interrupted)
        with pytest.raises(Interrupted):
            udp.Endpoint(sock, gro=step != "has_coalescing", txtime_clock=time.CLOCK_MONOTONIC, **EVERYTHING)
    assert values(sock) == before


def test_an_endpoint_with_zero_copy_can_be_made_after_one_that_could_not(sock):
    host = "127.0.0.1" if sock.family == socket.AF_INET else "::1"
    sock.bind((host, 0))
    with pytest.raises(OSError):
        udp.Endpoint(sock, txtime_clock=1000, zerocopy=True)
    with udp.Endpoint(sock, zerocopy=True) as one:
        assert one.send(bytes(20_000), address=sock.getsockname()) == 20_000
        assert one._zerocopy.wait(5)


def test_a_sender_that_was_there_first_is_left_alone(sock):
    with ZeroCopySender(sock):
        before = values(sock)
        with pytest.raises(ValueError, match="sender"):
            udp.Endpoint(sock, **EVERYTHING)
        assert values(sock) == before


def test_a_socket_that_is_closed_meanwhile_is_an_os_error(sock, monkeypatch):
    def closing(*args):
        sock.close()
        return real(*args)

    real = _udp._enabled
    monkeypatch.setattr(_udp, "_enabled", closing)
    with pytest.raises(OSError) as info:
        udp.Endpoint(sock, **EVERYTHING)
    assert info.value.errno == errno.EBADF
