# SPDX-License-Identifier: MIT
"""Gather and scatter: buffers of every kind, in every container, few and many, small and large."""

import array
import collections
import ctypes
import io
import itertools
import mmap
import socket
import threading

import pytest

import lowsock

SMALL, COPIED, LARGE = 24, 4096, 40_000  # bytes: joined; copied or exported; beyond what is joined
SIZES = (SMALL, COPIED, LARGE)


def content(size, seed=0):
    period = bytes((7 * place + seed) % 251 for place in range(251))
    return (period * (size // 251 + 1))[:size]


# ---- kinds of buffers: each makes one with these bytes, which `readable` takes out again ----


class Bytes(bytes):
    pass


class Bytearray(bytearray):
    pass


def mapped(data):
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def ctypes_array(data):
    return (ctypes.c_char * len(data)).from_buffer_copy(data)


def ctypes_ints(data):
    return (ctypes.c_int32 * (len(data) // 4)).from_buffer_copy(data)


def ctypes_struct(data):
    kind = type("Struct", (ctypes.Structure,), {"_fields_": [("data", ctypes.c_char * len(data))]})
    return kind.from_buffer_copy(data)


WRITABLE = {
    "bytearray": bytearray,
    "subclass of bytearray": Bytearray,
    "view": lambda data: memoryview(bytearray(data)),
    "part of a view": lambda data: memoryview(bytearray(b"<" + data + b">"))[1:-1],
    "view of 16-bit numbers": lambda data: memoryview(bytearray(data)).cast("H"),
    "view of 64-bit floats": lambda data: memoryview(bytearray(data)).cast("d"),
    "view of two dimensions": lambda data: memoryview(bytearray(data)).cast("B", [2, len(data) // 2]),
    "view of three dimensions of numbers": lambda data: memoryview(bytearray(data)).cast("H", [2, 2, len(data) // 8]),
    "array of bytes": lambda data: array.array("B", data),
    "array of 32-bit numbers": lambda data: array.array("i", data),
    "array of floats": lambda data: array.array("d", data),
    "mmap": mapped,
    "ctypes array": ctypes_array,
    "ctypes array of numbers": ctypes_ints,
    "ctypes structure": ctypes_struct,
    "BytesIO": lambda data: io.BytesIO(data).getbuffer(),
}
READABLE = {
    **WRITABLE,
    "bytes": bytes,
    "subclass of bytes": Bytes,
    "view of bytes": memoryview,
    "view of bytes as numbers": lambda data: memoryview(data).cast("Q"),
    "view that is read-only": lambda data: memoryview(bytearray(data)).toreadonly(),
}


def taken(buffer):
    return memoryview(buffer).tobytes()


@pytest.fixture(params=READABLE)
def readable(request):
    return READABLE[request.param]


@pytest.fixture(params=WRITABLE)
def writable(request):
    return WRITABLE[request.param]


@pytest.fixture
def wire():
    """Two sockets that take a message of any of the sizes whole."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        yield a, b


# ---- gather ----


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_of_any_kind_is_sent_as_its_bytes(wire, readable, size):
    a, b = wire
    data = content(size)
    for buffers in ([readable(data)], (readable(data),), iter([readable(data)])):
        assert lowsock.sendmsg(a, buffers) == size
        assert b.recv(2 * size) == data
    assert lowsock.send1msg(a, readable(data)) == size
    assert b.recv(2 * size) == data


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_of_any_kind_is_gathered_among_others(wire, readable, size):
    a, b = wire
    head, data, tail = content(5, 1), content(size, 2), content(3, 3)
    for buffers in ([head, readable(data), tail], (bytearray(head), readable(data), memoryview(tail))):
        assert lowsock.sendmsg(a, buffers) == size + 8
        assert b.recv(2 * size + 100) == head + data + tail


def test_an_object_without_a_length_may_be_a_buffer(wire):
    a, b = wire
    number = ctypes.c_uint32(0x01020304)
    for buffers in ([number], [b"x", number], [memoryview(number)]):
        lowsock.sendmsg(a, buffers)
        assert b.recv(10) == b"x" * (len(buffers) - 1) + bytes(number)


def test_a_stack_of_all_kinds_is_one_message(wire):
    a, b = wire
    data = [content(size, seed) for seed, size in enumerate((8, 2000, 8, 20_000) * 5)]
    makers = itertools.cycle(READABLE.values())
    lowsock.sendmsg(a, [maker(piece) for maker, piece in zip(makers, data)])
    assert b.recv(1 << 20) == b"".join(data)


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda items: (item for item in items),
    "deque": collections.deque,
    "keys of a dict": dict.fromkeys,
    "subclass of list": type("List", (list,), {}),
    "subclass of tuple": type("Tuple", (tuple,), {}),
    "old sequence": lambda items: type("Old", (), {"__getitem__": lambda self, place: items[place]})(),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("sizes", [(), (0,), (5,), (0, 5, 0), (5, 6, 7), (LARGE,), (5, LARGE, 6)])
def test_buffers_may_stand_in_any_iterable(wire, container, sizes):
    a, b = wire
    data = [content(size, seed) for seed, size in enumerate(sizes)]
    if container is dict.fromkeys:
        data = list(dict.fromkeys(data))
    assert lowsock.sendmsg(a, container(data)) == len(b"".join(data))
    assert b.recv(2 * LARGE) == b"".join(data)


def test_a_set_is_taken_in_its_own_order(wire):
    a, b = wire
    pieces = {b"one", b"two", b"three"}
    lowsock.sendmsg(a, pieces)
    assert b.recv(100) == b"".join(pieces)


def test_every_kind_of_socket_gathers(pair):
    pieces = [b"a" * 10, bytearray(b"b" * 3000), memoryview(b"c" * 17_000), b"", b"d"]
    size = sum(map(len, pieces))
    assert lowsock.sendmsg(pair.a, pieces) == size
    assert pair.b.recv(2 * size, socket.MSG_WAITALL if not pair.stream else 0) == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 16, 60])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_1024_buffers_are_one_message(wire, size, kind):
    a, b = wire
    data = [content(size, seed) for seed in range(1024)]
    assert lowsock.sendmsg(a, [kind(piece) for piece in data]) == 1024 * size
    assert b.recv(1 << 17) == b"".join(data)


def received(sock, size):
    """What a second thread received, when it is called."""
    pieces = []

    def run():
        while sum(map(len, pieces)) < size:
            pieces.append(sock.recv(1 << 20))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join()
        return b"".join(pieces)

    return result


@pytest.mark.parametrize("kinds", [(bytes,), (bytearray, bytes), (bytes, memoryview, bytearray)])
def test_megabytes_go_through_a_stream_in_parts(stream_pair, kinds):
    """A partial send says how much went, and the rest can follow."""
    whole = content(3 << 20)
    stream_pair.a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    stream_pair.a.settimeout(60)  # so a send is partial, where a blocking one is whole

    def send_from(start):
        rest = memoryview(whole)[start:]
        part = len(rest) // len(kinds) + 1
        return lowsock.sendmsg(stream_pair.a, [kind(rest[n * part :][:part]) for n, kind in enumerate(kinds)])

    sent = send_from(0)
    assert 0 < sent < len(whole)  # nobody has read anything
    result = received(stream_pair.b, len(whole))
    while sent < len(whole):
        sent += send_from(sent)
    assert result() == whole


def test_a_blocking_socket_takes_megabytes_at_once(stream_pair):
    data = [content(1 << 20, seed) for seed in range(3)]
    result = received(stream_pair.b, 3 << 20)
    assert lowsock.sendmsg(stream_pair.a, data) == 3 << 20
    assert result() == b"".join(data)


@pytest.mark.parametrize("send", [lowsock.sendmsg, lambda sock, data: lowsock.send1msg(sock, data[0])])
@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_is_free_again_after_sending(wire, send, size):
    data = bytearray(size)
    send(wire[0], [data])
    data.append(1)  # BufferError while it is exported


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_is_free_again_after_a_send_that_failed(size, count):
    """Though the exception is kept, and with it the frames that made the call."""
    data = bytearray(size)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError, match=r"not connected|too long") as error:
            lowsock.sendmsg(sock, [data] * count)
        data.append(1)
        del error


# ---- scatter ----


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_of_any_kind_is_filled(wire, writable, size):
    a, b = wire
    buffer = writable(bytes(size))
    a.send(content(size))
    assert lowsock.recvmsg_into(b, [buffer])[0] == size
    assert taken(buffer) == content(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_is_filled_as_far_as_data_came(wire, writable, size):
    a, b = wire
    buffer = writable(b"-" * size)
    a.send(content(size // 2))
    assert lowsock.recvmsg_into(b, [buffer])[0] == size // 2
    assert taken(buffer) == content(size // 2) + b"-" * (size - size // 2)


def test_the_buffers_are_filled_in_their_order(wire, writable):
    a, b = wire
    buffers = [bytearray(5), writable(bytes(SMALL)), bytearray(0), writable(bytes(SMALL)), bytearray(10)]
    data = content(2 * SMALL + 8)
    a.send(data)
    assert lowsock.recvmsg_into(b, buffers)[0] == len(data)
    assert b"".join(map(taken, buffers)) == data + bytes(7)


def test_only_the_view_of_a_part_is_filled(wire):
    a, b = wire
    whole = bytearray(b"-" * 10)
    a.send(b"a long message")
    assert lowsock.recvmsg_into(b, [memoryview(whole)[3:6]])[0] == 3
    assert whole == b"---a l----"


def test_one_buffer_may_stand_there_twice(wire):
    a, b = wire
    whole = bytearray(10)
    a.send(b"abcdefghij")
    lowsock.recvmsg_into(b, [memoryview(whole)[5:], memoryview(whole)[:5]])
    assert whole == b"fghijabcde"


SCATTER_CONTAINERS = {name: CONTAINERS[name] for name in CONTAINERS if name != "keys of a dict"}


@pytest.mark.parametrize("container", SCATTER_CONTAINERS.values(), ids=SCATTER_CONTAINERS)
def test_buffers_to_fill_may_stand_in_any_iterable(wire, container):
    a, b = wire
    buffers = [bytearray(3), bytearray(0), bytearray(4)]
    a.send(b"message")
    assert lowsock.recvmsg_into(b, container(buffers))[0] == 7
    assert b"".join(buffers) == b"message"


@pytest.mark.parametrize("buffers", [[], [bytearray()], (bytearray(), bytearray())])
def test_without_room_a_datagram_is_taken_and_cut(message_pair, buffers):
    message_pair.a.send(b"first")
    message_pair.a.send(b"second")
    count, _, msg_flags, _ = lowsock.recvmsg_into(message_pair.b, buffers)
    assert (count, msg_flags & socket.MSG_TRUNC) == (0, socket.MSG_TRUNC)
    assert message_pair.b.recv(10) == b"second"


def test_every_kind_of_socket_scatters(pair):
    buffers = [bytearray(2), bytearray(3000), bytearray(20_000)]
    data = content(20_000)
    pair.a.send(data)
    assert lowsock.recvmsg_into(pair.b, buffers)[0] == len(data)
    assert b"".join(buffers)[: len(data)] == data


def test_1024_buffers_are_filled(wire):
    a, b = wire
    buffers = [bytearray(60) for _ in range(1024)]
    a.send(content(1024 * 60 - 5))
    assert lowsock.recvmsg_into(b, buffers)[0] == 1024 * 60 - 5
    assert b"".join(buffers) == content(1024 * 60 - 5) + bytes(5)


def test_megabytes_are_received_into_one_buffer(stream_pair):
    whole, space = content(3 << 20), bytearray(3 << 20)
    thread = threading.Thread(target=stream_pair.a.sendall, args=(whole,))
    thread.start()
    parts = [memoryview(space)[:1000], memoryview(space)[1000:]]
    count = lowsock.recvmsg_into(stream_pair.b, parts, 0, socket.MSG_WAITALL)[0]
    thread.join()
    assert (count, space) == (len(whole), whole)


def test_a_buffer_is_free_again_after_receiving(wire, writable):
    a, b = wire
    space = bytearray(SMALL)
    a.send(b"x")
    lowsock.recvmsg_into(b, [space, writable(bytes(SMALL))])
    space.append(1)


FAILURES = {
    "nothing there": (BlockingIOError, lambda sock, space: lowsock.recvmsg_into(sock, [space])),
    "nothing there, with room": (BlockingIOError, lambda sock, space: lowsock.recvmsg_into(sock, [space], 100)),
    "nothing there, by descriptor": (BlockingIOError, lambda sock, space: lowsock.recvmsg_into(sock.fileno(), [space])),
    "a read-only one beside it": (TypeError, lambda sock, space: lowsock.recvmsg_into(sock, [space, b"read-only"])),
    "no buffer beside it": (TypeError, lambda sock, space: lowsock.recvmsg_into(sock, (space, 5))),
}


@pytest.mark.parametrize(("kind", "call"), FAILURES.values(), ids=FAILURES)
def test_a_buffer_is_free_again_after_a_receive_that_failed(wire, kind, call):
    """Though the exception is kept, and with it the frames that made the call."""
    space = bytearray(SMALL)
    wire[1].setblocking(False)
    with pytest.raises(kind) as error:
        call(wire[1], space)
    space.append(1)
    del error
