# SPDX-License-Identifier: MIT
"""Calls in the spelling of before 0.2 end in an error that names the new one."""

import inspect
import time

import pytest

from lowsock import cmsg, udp

OPTIONS = ("gso", "gro", "recv_ecn", "recv_pktinfo", "recv_timestamps", "recv_errors", "zerocopy")
TO = ("127.0.0.1", 9)

OLD = {
    "a size": (lambda e: e.recv(1500), r"recv\(\) takes no size: flags="),
    "a size, joined": (lambda e: e.recv_coalesced(1500), r"recv_coalesced\(\) takes no size: flags="),
    "flags of recv_into": (lambda e: e.recv_into([bytearray(9)], 64), r"recv_into\(\) takes no flags by position: flags="),
    "an address": (lambda e: e.send(b"x", TO), r"send\(\) takes no address by position: address="),
    "no address": (lambda e: e.send(b"x", segment_size=1), r"send\(\) takes the address by keyword: address="),
    "source": (lambda e: e.send(b"x", address=TO, source="127.0.0.1"), r"send\(\) takes no source: local="),
    "txtime": (lambda e: e.send(b"x", address=TO, txtime=1), r"send\(\) takes no txtime: txtime_ns="),
    "nonsense": (lambda e: e.send(b"x", address=TO, nonsense=1), r"send\(\) got an unexpected keyword argument 'nonsense'"),
    "source of many": (lambda e: e.send_many([], source="127.0.0.1"), r"send_many\(\) takes no source: local="),
    "ecn": (lambda e: udp.Endpoint(e, ecn=cmsg.ECN.ECT_0), r"Endpoint\(\) takes no ecn: recv_ecn=.*send\(..., ecn=...\)"),
    "local": (lambda e: udp.Endpoint(e, local=True), r"Endpoint\(\) takes no local: recv_pktinfo="),
    "timestamps": (lambda e: udp.Endpoint(e, timestamps=True), r"Endpoint\(\) takes no timestamps: recv_timestamps="),
    "errors": (lambda e: udp.Endpoint(e, errors=True), r"Endpoint\(\) takes no errors: recv_errors="),
    "clock": (lambda e: udp.Endpoint(e, txtime=time.CLOCK_MONOTONIC), r"Endpoint\(\) takes no txtime: txtime_clock="),
    "nonsense of options": (lambda e: udp.Endpoint(e, nonsense=1), "unexpected keyword argument 'nonsense'"),
}


@pytest.mark.parametrize("name", OLD)
def test_a_call_in_the_old_spelling_names_the_new_one(two4, name):
    call, said = OLD[name]
    with pytest.raises(TypeError, match=said):
        call(udp.Endpoint(two4.a))


def test_who_counts_datagrams_is_told_before_anything_is_sent(two4):
    """``data[sent * segment_size:]`` would leave out what was not sent: `send` counted datagrams once."""
    one = udp.Endpoint(two4.a)
    for old in (lambda: one.send(b"abcd", two4.to, segment_size=2), lambda: one.send(b"abcd", segment_size=2)):
        with pytest.raises(TypeError, match=r"it returns bytes: data\[sent:\] is the rest"):
            old()
    two4.b.settimeout(0)
    with pytest.raises(BlockingIOError):
        two4.b.recv(9)
    assert one.send(b"abcd", address=two4.to, segment_size=2) == 4


GONE = {"ecn": "recv_ecn", "local": "recv_pktinfo", "timestamps": "recv_timestamps", "errors": "recv_errors",
        "txtime": "txtime_clock"}  # fmt: skip


@pytest.mark.parametrize("name", GONE)
def test_a_property_that_is_gone_names_the_new_one(two4, name):
    with pytest.raises(AttributeError, match=f"'{name}': use {GONE[name]}$"):
        getattr(udp.Endpoint(two4.a), name)
    assert not hasattr(udp.Endpoint(two4.a), "nonsense")


def test_fields_that_are_gone_name_the_new_ones():
    datagram, joined = udp.Datagram(b"x", None), udp.Coalesced(b"abc", 2, None, timestamp_ns=7)
    for thing in (datagram, joined, udp.Scattered(1, 1, None)):
        with pytest.raises(AttributeError, match="'timestamp': use timestamp_ns"):
            thing.timestamp  # noqa: B018
    for name in ("segments", "datagrams"):
        with pytest.raises(AttributeError, match=rf"'{name}': use .*split\(\)"):
            getattr(joined, name)
    assert joined.split() == [udp.Datagram(b"ab", None, timestamp_ns=7), udp.Datagram(b"c", None, timestamp_ns=7)]
    with pytest.raises(AttributeError, match="'Received': use Scattered"):
        udp.Received  # noqa: B018


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [cmsg.ECN.ECT_0, cmsg.ECN.NOT_ECT, 1, 0, None, "127.0.0.1"], ids=repr)
def test_an_option_is_true_or_false_and_not_a_value(two4, name, value):
    with pytest.raises(TypeError, match=f"^{name} must be True or False, not"):
        udp.Endpoint(two4.a, **{name: value})


@pytest.mark.parametrize("value", [True, False, "TAI", 1.0])
def test_a_clock_is_a_number(two4, value):
    with pytest.raises(TypeError, match=r"^txtime_clock must be"):
        udp.Endpoint(two4.a, txtime_clock=value)


SIGNATURES = {
    "send": "(self, data, *, address, segment_size=None, ecn=None, local=None, ifindex=None, txtime_ns=None, flags=0)",
    "send_many": "(self, datagrams, *, ecn=None, local=None, flags=0)",
    "recv": "(self, *, flags=0)",
    "recv_coalesced": "(self, *, flags=0)",
    "recv_into": "(self, buffers, *, flags=0)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_show_the_new_spelling_alone(name):
    function = getattr(udp.Endpoint, name)
    bare = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in bare.parameters.values()]
    assert str(bare.replace(parameters=parameters, return_annotation=bare.empty)) == SIGNATURES[name]
    assert {*function.__annotations__} == {*bare.parameters, "return"} - {"self"}
    assert (function.__name__, function.__module__) == (name, "lowsock.udp")
    assert function.__doc__
