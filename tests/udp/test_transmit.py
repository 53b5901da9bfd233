# SPDX-License-Identifier: MIT
"""`Transmit`, and received datagrams that are sent back: batches whose entries say more than data and address."""

import errno
import socket

import pytest
from datagram_loops import Full, of_lowsock
from udp_sockets import HOSTS, bound, cut, linux, numbered

from lowsock import cmsg, constants, udp
from lowsock._system.errors import fail
from lowsock.udp import _mixed as mixed
from lowsock.udp import _sending as sending


def drained(sock):
    endpoint, found = udp.Endpoint(sock), []
    sock.setblocking(False)
    while True:
        try:
            found += endpoint.recv()
        except BlockingIOError:
            return found


def told(found):
    return [(each.data, each.address[1], each.ecn) for each in found]


def test_a_transmit_has_its_fields_in_this_order_and_these_defaults():
    assert udp.Transmit(b"x", None) == (b"x", None, None, None, None, ())
    assert udp.Transmit._fields == ("data", "address", "local", "ecn", "segment_size", "ancdata")


@linux
@pytest.mark.parametrize("gso", [True, False])
def test_each_has_what_it_asks_for_and_the_rest_what_the_call_says(pair_of, gso):
    a, b = pair_of
    one, to = udp.Endpoint(a, gso=gso), b.getsockname()
    batch = [
        (b"pair", to),
        [bytearray(b"list"), to],
        udp.Transmit(b"plain", to),
        udp.Transmit(b"marked", to, ecn=cmsg.ECN.CE),
        udp.Transmit(b"unmarked", to, None, 0),
        udp.Transmit(memoryview(b"abcde"), to, segment_size=2, ecn=1),
        udp.Transmit(b"", to),
    ]
    assert one.send_many(iter(batch), ecn=2) == len(batch)
    port = a.getsockname()[1]
    expected = [
        (b"pair", 2),
        (b"list", 2),
        (b"plain", 2),
        (b"marked", 3),
        (b"unmarked", 0),
        (b"ab", 1),
        (b"cd", 1),
        (b"e", 1),
    ]
    assert told(drained(b)) == [(data, port, ecn) for data, ecn in [*expected, (b"", 2)]]


@linux
def test_it_is_sent_from_the_address_that_it_names():
    with bound(socket.AF_INET, "0.0.0.0") as a, bound(*HOSTS["4"]) as b:
        to = b.getsockname()
        batch = [udp.Transmit(b"%d" % i, to, local=f"127.0.0.{i}") for i in (5, 6, 5)]
        assert udp.Endpoint(a).send_many([*batch, (b"default", to)], local="127.0.0.7") == 4
        assert [(each.data, each.address[0]) for each in drained(b)] == [
            (b"5", "127.0.0.5"), (b"6", "127.0.0.6"), (b"5", "127.0.0.5"), (b"default", "127.0.0.7"),
        ]  # fmt: skip


@linux
@pytest.mark.parametrize("gso", [True, False])
def test_control_messages_of_the_callers_go_with_it(pair4, gso):
    a, b = pair4
    cmsg.enable(b, cmsg.TTL)
    one, to = udp.Endpoint(a, gso=gso), b.getsockname()
    batch = [udp.Transmit(b"abcd", to, segment_size=2, ancdata=[cmsg.TTL(hops=7)]), udp.Transmit(b"x", to)]
    assert one.send_many(batch) == 2
    b.setblocking(False)
    hops = []
    for _ in range(2 if gso else 3):
        ancdata = b.recvmsg(100, 200)[1]
        hops.append(cmsg.find(ancdata, cmsg.TTL).hops)
    assert hops == ([7, 64] if gso else [7, 7, 64])


@linux
@pytest.mark.parametrize("receive", ["recv", "recv_coalesced"])
def test_what_came_goes_back_to_where_it_came_from_by_the_address_that_it_came_to(receive):
    with bound(socket.AF_INET, "0.0.0.0") as a, bound(*HOSTS["4"]) as b:
        server, client = udp.Endpoint(a), udp.Endpoint(b)
        client.send(b"abcde", address=("127.0.0.77", a.getsockname()[1]), segment_size=2, ecn=cmsg.ECN.CE)
        came = getattr(server, receive)()
        batch = came if receive == "recv" else [came]
        assert server.send_many(batch) == len(batch)
        assert [(each.data, each.address[0], each.ecn) for each in drained(b)] == [
            (data, "127.0.0.77", cmsg.ECN.NOT_ECT) for data in (b"ab", b"cd", b"e")
        ]


@linux
def test_a_dual_stack_socket_sends_to_both_families():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as a, bound(*HOSTS["4"]) as v4, bound(*HOSTS["6"]) as v6:
        a.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        a.bind(("::", 0))
        mapped = ("::ffff:127.0.0.1", v4.getsockname()[1])
        batch = [udp.Transmit(b"4", mapped, "127.0.0.9", 1), udp.Transmit(b"6", v6.getsockname(), "::1", 2)] * 2
        assert udp.Endpoint(a).send_many(batch) == 4
        assert [(each.data, each.address[0], each.ecn) for each in drained(v4)] == [(b"4", "127.0.0.9", 1)] * 2
        assert [(each.data, each.address[0], each.ecn) for each in drained(v6)] == [(b"6", "::1", 2)] * 2


@linux
@pytest.mark.parametrize("count", [1, 63, 1024, 1025, 2500])
def test_every_length_goes_once_and_in_order(pair4, count):
    a, b = pair4
    one, to = udp.Endpoint(a), b.getsockname()
    for first in range(0, count, 2000):
        part = range(first, min(first + 2000, count))
        assert one.send_many([udp.Transmit(b"%d" % i, to, ecn=i % 4) for i in part]) == len(part)
        assert [(each.data, each.ecn) for each in drained(b)] == [(b"%d" % i, i % 4) for i in part]


@linux
def test_more_than_one_call_takes_is_sent_in_pieces(pair4):
    a, b = pair4
    one, to = udp.Endpoint(a), b.getsockname()
    data = numbered(100_000)
    assert (
        one.send_many([udp.Transmit(b"first", to), udp.Transmit(data, to, segment_size=1000), udp.Transmit(b"last", to)])
        == 3
    )
    assert [each.data for each in drained(b)] == [b"first", *cut(data, 1000), b"last"]


@linux
@pytest.mark.parametrize("ecn", [None, 1])
def test_refused_offload_is_done_without_and_remembered(pair4, ecn):
    a, b = pair4
    one, to = udp.Endpoint(a), b.getsockname()
    a.setsockopt(constants.SOL_SOCKET, constants.SO_NO_CHECK, 1)
    batch = [udp.Transmit(b"1", to), udp.Transmit(b"abcd", to, ecn=ecn, segment_size=2), udp.Transmit(b"2", to)]
    for _ in range(2):
        assert one.send_many(batch) == 3
        assert [each.data for each in drained(b)] == [b"1", b"ab", b"cd", b"2"]
        assert one.fallbacks == udp.Fallbacks(errno.EINVAL, None, {})


@linux
def test_refused_ecn_is_done_without_and_remembered(pair4, monkeypatch):
    a, b = pair4
    one, to = udp.Endpoint(a), b.getsockname()
    real, real_each = mixed._send_batch, sending._send_each

    @of_lowsock
    def send_batch(sender, entries, flags, wait):
        if entries[0].ancillary.ecn and sender.ecn_refused is None:
            fail(-errno.EINVAL)
        return real(sender, entries, flags, wait)

    monkeypatch.setattr(mixed, "_send_batch", send_batch)
    monkeypatch.setattr(sending, "_send_each", lambda *all: -errno.EINVAL if all[4] else real_each(*all))
    assert one.send_many([udp.Transmit(b"1", to, ecn=2), udp.Transmit(b"2", to, ecn=2)]) == 2
    assert told(drained(b)) == [(data, a.getsockname()[1], 0) for data in (b"1", b"2")]
    assert one.fallbacks == udp.Fallbacks(None, errno.EINVAL, {})


# ---- how far it goes ----


@linux
def test_one_of_which_a_part_went_never_goes_twice(pair4, monkeypatch):
    """The error says how much went, and so does a count that leaves out what has not begun."""
    a, b = pair4
    a.setblocking(False)
    full = Full(0)
    monkeypatch.setattr(sending, "_send_each", full.each)
    one, to = udp.Endpoint(a, gso=False), b.getsockname()
    batch = [udp.Transmit(b"1", to, ecn=1), udp.Transmit(b"abcde", to, segment_size=2), udp.Transmit(b"2", to)]
    assert one.send_many(batch) == 1, "nothing of the next one went"
    full.room = 2
    with pytest.raises(BlockingIOError) as info:
        one.send_many(batch)
    assert (info.value.characters_written, full.sent) == (5, [b"ab", b"cd"])
    with pytest.raises(BlockingIOError) as info:
        one.send_many(batch[1:])
    assert not hasattr(info.value, "characters_written")
    assert [each.data for each in drained(b)] == [b"1", b"1"]


@linux
def test_the_rest_of_one_of_which_a_part_went_is_waited_for(pair4, monkeypatch):
    a, b = pair4
    full = Full(1, refill=2)
    monkeypatch.setattr(sending, "_send_each", full.each)
    one, to = udp.Endpoint(a, gso=False), b.getsockname()
    a.settimeout(10)
    batch = [udp.Transmit(b"1", to, ecn=1), udp.Transmit(b"abcdefg", to, segment_size=2), udp.Transmit(b"2", to)]
    assert one.send_many(batch) == 3
    assert full.sent == [b"ab", b"cd", b"ef", b"g"]
    assert [each.data for each in drained(b)] == [b"1", b"2"]


@linux
def test_a_timeout_within_one_says_how_much_went(pair4, monkeypatch):
    a, b = pair4
    full = Full(1)
    monkeypatch.setattr(sending, "_send_each", full.each)
    one, to = udp.Endpoint(a, gso=False), b.getsockname()
    a.settimeout(0.02)
    with pytest.raises(socket.timeout) as info:
        one.send_many([udp.Transmit(b"abcd", to, segment_size=2), udp.Transmit(b"2", to)])
    assert (info.value.characters_written, full.sent) == (2, [b"ab"])


@linux
def test_an_error_after_the_first_ends_it_and_the_next_call_raises(pair4):
    a, b = pair4
    one, to = udp.Endpoint(a), b.getsockname()
    batch = [udp.Transmit(b"1", to, ecn=1), udp.Transmit(bytes(70_000), to), udp.Transmit(b"2", to)]
    assert one.send_many(batch) == 1
    with pytest.raises(OSError) as info:
        one.send_many(batch[1:])
    assert info.value.errno == errno.EMSGSIZE
    assert [each.data for each in drained(b)] == [b"1"]


BAD = {
    "data": (("text",), {}, TypeError, r"datagrams\[1\] data"),
    "a host name": ((b"x", ("localhost", 9)), {}, ValueError, r"datagrams\[1\] address"),
    "a port": ((b"x", ("127.0.0.1", -1)), {}, OverflowError, r"datagrams\[1\] address port"),
    "ecn": ((b"x",), {"ecn": 4}, OverflowError, r"datagrams\[1\] ecn"),
    "local": ((b"x",), {"local": "::1"}, ValueError, r"datagrams\[1\] local"),
    "no address": ((b"x",), {"local": 5}, TypeError, r"datagrams\[1\] local"),
    "a segment": ((b"x",), {"segment_size": 0}, ValueError, r"datagrams\[1\] segment_size"),
    "control messages": ((b"x",), {"ancdata": [(1, 2)]}, TypeError, r"datagrams\[1\] ancdata\[0\]"),
    "no control messages": ((b"x",), {"ancdata": 5}, TypeError, r"datagrams\[1\] ancdata"),
}


@linux
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_one_is_named_by_its_number_and_nothing_is_sent(pair4, name):
    a, b = pair4
    given, more, error, said = BAD[name]
    wrong = udp.Transmit(*given, **more) if len(given) > 1 else udp.Transmit(*given, b.getsockname(), **more)
    with pytest.raises(error, match=f"^{said}"):
        udp.Endpoint(a).send_many([udp.Transmit(b"good", b.getsockname()), wrong])
    assert drained(b) == []
