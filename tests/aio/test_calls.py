# SPDX-License-Identifier: MIT
"""The awaitable calls: what they take, return and refuse is what the calls of `lowsock` do; only EAGAIN waits."""

import inspect
import os
import socket
import subprocess
import sys

import pytest

import lowsock
from lowsock import aio
from lowsock.constants import MSG_DONTWAIT

CALLS = [name for name in aio.__all__ if hasattr(lowsock, name)]
SPACE = lowsock.CMSG_SPACE(4)


def bare(function):
    signature = inspect.signature(function)
    return signature.replace(parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()])


@pytest.fixture
def two(pair):
    """A pair of sockets that do not block."""
    pair.a.setblocking(False)
    pair.b.setblocking(False)
    return pair


# ---- the names ----


def test_every_call_of_the_contract_is_there():
    calls = {name for name in lowsock.__all__ if name.startswith(("send", "recv"))}
    assert calls == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_signature_is_that_of_the_blocking_call(name):
    """But for `wait_all`, which a batch keeps what came for."""
    ours, theirs = (str(bare(getattr(module, name))).partition(" ->")[0] for module in (aio, lowsock))
    assert ours == theirs.replace(", *, wait_all=False", "")
    assert inspect.signature(getattr(aio, name)).return_annotation == (
        inspect.signature(getattr(lowsock, name)).return_annotation
    )


@pytest.mark.parametrize("name", [name for name in aio.__all__ if name.islower() and name != "close"])
def test_a_call_is_a_coroutine_function_that_names_a_man_page(name):
    function = getattr(aio, name)
    assert inspect.iscoroutinefunction(function)
    assert "(2)" in function.__doc__ or "(7)" in function.__doc__
    assert set(function.__annotations__) == {*inspect.signature(function).parameters, "return"}


IMPORTS = """
import sys
import lowsock.aio, lowsock.aio.udp, lowsock.aio.errqueue
print([name for name in ("asyncio", "trio", "uvloop") if name in sys.modules])
"""


def test_the_import_brings_in_no_framework():
    done = subprocess.run([sys.executable, "-I", "-c", IMPORTS], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"


def test_lowsock_does_not_bring_it_in():
    program = "import sys, lowsock.udp, lowsock.errqueue; print('lowsock.aio' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"False"


# ---- what they return ----


async def send_by_each(sock):
    """Sends thirteen messages, their numbers; returns what the calls returned."""
    batch = lowsock.SendBatch(4, 100)
    batch.extend([b"9", b"10"])
    return [
        await aio.sendmsg(sock, [b"0"]),
        await aio.sendmsg(sock, (bytearray(b"1"), memoryview(b"")), [], 0),
        await aio.sendmsg(sock, iter([b"2"]), iter([])),
        await aio.send1msg(sock, b"3"),
        await aio.send1msg(sock, bytearray(b"4"), 0, iter([])),
        await aio.sendmmsg(sock, [([b"5"],), ([b"6"], [])]),
        await aio.sendmmsg(sock, iter([([b"7"],), ([b"8"], [])])),
        await aio.send_batch(batch, sock),
        await aio.send_fds(sock, iter([b"11"]), iter([])),
        await aio.send_fds(sock, iter([b"12"]), iter([])),
    ]


RECEIVES = {
    "recvmsg": lambda sock, flags=0: aio.recvmsg(sock, 100, 0, flags),
    "recvmsg_into": lambda sock, flags=0: aio.recvmsg_into(sock, iter([bytearray(100)]), 0, flags),
    "recv1msg": lambda sock, flags=0: aio.recv1msg(sock, flags=flags),
    "recvmmsg": lambda sock, flags=0: aio.recvmmsg(sock, 1, 100, 0, flags),
    "recv_fds": lambda sock, flags=0: aio.recv_fds(sock, 100, 1, flags),
    "recv_owned_fds": lambda sock, flags=0: aio.recv_owned_fds(sock, 100, 2, flags),
}
BLOCKING = {
    "recvmsg": lambda sock: lowsock.recvmsg(sock, 100),
    "recvmsg_into": lambda sock: lowsock.recvmsg_into(sock, [bytearray(100)]),
    "recv1msg": lambda sock: lowsock.recv1msg(sock),
    "recvmmsg": lambda sock: lowsock.recvmmsg(sock, 1, 100),
    "recv_fds": lambda sock: lowsock.recv_fds(sock, 100, 1),
    "recv_owned_fds": lambda sock: lowsock.recv_owned_fds(sock, 100, 2),
}


def told(result):
    """A result; an owner of descriptors as how many it has."""
    return [len(part) if isinstance(part, lowsock.OwnedFds) else part for part in result]


def test_each_call_sends(backend, message_pair):
    message_pair.a.setblocking(False)
    assert backend.run(send_by_each, message_pair.a) == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert [message_pair.b.recv(100) for _ in range(13)] == [b"%d" % i for i in range(13)]


@pytest.mark.parametrize("name", RECEIVES)
@pytest.mark.parametrize("waits", [False, True])
def test_each_call_receives_what_the_blocking_one_would(backend, two, name, waits):
    async def main():
        if not waits:
            two.b.send(b"data")
        task = backend.start(RECEIVES[name], two.a)
        await backend.settle()
        assert task.done() == (not waits)
        if waits:
            two.b.send(b"data")
        return await task.outcome()

    result = backend.run(main)
    two.b.send(b"data")
    two.a.settimeout(10)
    assert told(result) == told(BLOCKING[name](two.a))


def test_a_batch_is_received_into_and_sent(backend, message_pair):
    a, b = message_pair.a, message_pair.b
    a.setblocking(False)
    b.setblocking(False)

    async def main():
        with lowsock.RecvBatch(3, 100) as received, lowsock.SendBatch(3, 100) as sent:
            task = backend.start(aio.recv_batch, received, a)
            await backend.settle()
            sent.extend([b"one", b"two"])
            assert await aio.send_batch(sent, b) == 2
            assert (await task.outcome(), len(sent)) == (len(received), 0)
            return [bytes(data) for data, _ in received]

    assert b"one" in backend.run(main)


def test_descriptors_arrive_and_are_close_on_exec(backend, unix_pair):
    a, b = unix_pair.a, unix_pair.b
    a.setblocking(False)
    b.setblocking(False)

    async def main():
        with open(os.devnull, "rb") as file:
            tasks = [backend.start(aio.recv_fds, a, 10, 4)]
            await backend.settle()
            assert await aio.send_fds(b, [b"x"], [file.fileno()]) == 1
            (_, fds, *_) = await tasks[0].outcome()
            await aio.send_fds(b, [b"y"], [file])
            with (await aio.recv_owned_fds(a, 10)).fds as owner:
                return fds, [os.get_inheritable(fd) for fd in [*fds, *owner]]

    fds, inheritable = backend.run(main)
    assert inheritable == [False, False]
    for fd in fds:
        os.close(fd)


# ---- what they refuse ----


def test_many_messages_on_a_stream_are_for_a_batch(backend, stream_pair):
    stream_pair.a.setblocking(False)

    async def main():
        with pytest.raises(ValueError, match=r"sock must not be a stream.* fill a SendBatch, and use send_batch"):
            await aio.sendmmsg(stream_pair.a, [([b"x"],)])
        with lowsock.SendBatch(1, 1) as batch:
            batch.append(b"y")
            assert await aio.send_batch(batch, stream_pair.a) == 1

    backend.run(main)
    assert stream_pair.b.recv(9) == b"y"


OLD = {
    "recvmmsg, wait_all": (
        lambda sock: aio.recvmmsg(sock, 1, 1, wait_all=True),
        r"recvmmsg\(\) takes no wait_all: recv_batch\(batch, sock, wait_all=True\) keeps what had come",
    ),
    "recvmmsg, a typo": (
        lambda sock: aio.recvmmsg(sock, 1, 1, flag=1),
        r"recvmmsg\(\) got an unexpected keyword argument 'flag'",
    ),
    "send_batch, flags": (
        lambda sock: aio.send_batch(lowsock.SendBatch(1, 1), sock, 0),
        r"send_batch\(\) takes flags by keyword: flags=\.\.\.",
    ),
    "recv_batch, flags": (
        lambda sock: aio.recv_batch(lowsock.RecvBatch(1, 1), sock, 0),
        r"recv_batch\(\) takes flags and wait_all by keyword: flags=\.\.\., wait_all=\.\.\.",
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_spelling_is_a_type_error_that_says_the_new_one(backend, two, name):
    call, says = OLD[name]

    async def main():
        with pytest.raises(TypeError, match=says):
            await call(two.a)

    backend.run(main)


@pytest.mark.parametrize(("name", "new"), [("send_rights", "send_fds"), ("recv_rights", "recv_owned_fds")])
def test_a_name_that_is_gone_says_the_new_one(name, new):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': use {new}$"):
        getattr(aio, name)


async def refused(call):
    with pytest.raises(ValueError, match=r"^sock must be non-blocking, its timeout is (None|3\.0)"):
        await call


@pytest.mark.parametrize("timeout", [None, 3.0])
@pytest.mark.parametrize("name", RECEIVES)
def test_a_socket_with_a_timeout_is_refused(backend, udp_pair, name, timeout):
    udp_pair.a.settimeout(timeout)
    udp_pair.b.send(b"data")
    backend.run(refused, RECEIVES[name](udp_pair.a))
    assert udp_pair.a.recv(10) == b"data"


SENDS = {
    "sendmsg": lambda sock, to=None: aio.sendmsg(sock, [b"x"], (), 0, to),
    "send1msg": lambda sock: aio.send1msg(sock, b"x"),
    "sendmmsg": lambda sock, to=None: aio.sendmmsg(sock, [([b"x"], (), to)]),
    "send_fds": lambda sock, to=None: aio.send_fds(sock, [b"x"], [], 0, to),
    "send_batch": lambda sock, to=None: aio.send_batch(filled(to), sock),
}


def filled(address):
    batch = lowsock.SendBatch(1, 10)
    batch.append(b"x", address=address)
    return batch


@pytest.mark.parametrize("timeout", [None, 3.0])
@pytest.mark.parametrize("name", SENDS)
def test_a_socket_with_a_timeout_sends_nothing(backend, udp_pair, name, timeout):
    udp_pair.a.settimeout(timeout)
    backend.run(refused, SENDS[name](udp_pair.a))
    udp_pair.b.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp_pair.b.recv(10)


@pytest.mark.parametrize("name", [name for name in SENDS if name != "send1msg"])
def test_a_host_name_is_refused_and_a_number_is_not(backend, udp_pair, name):
    with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)

        async def main():
            with pytest.raises(ValueError, match="to look up 'localhost' would block"):
                await SENDS[name](sock, ("localhost", 9))
            await SENDS[name](sock, lone.getsockname())

        with socket.socket(udp_pair.family, socket.SOCK_DGRAM) as lone:
            lone.bind((udp_pair.a.getsockname()[0], 0))
            backend.run(main)
            lone.settimeout(10)
            assert lone.recv(10) == b"x"


@pytest.mark.parametrize("name", RECEIVES)
def test_a_descriptor_that_blocks_does_not_block_the_loop(backend, pair, name):
    """A bare int has no timeout that could be looked at, so every call passes MSG_DONTWAIT."""

    async def main():
        task = backend.start(RECEIVES[name], pair.a.fileno())
        await backend.settle()
        waited = not task.done()
        pair.b.send(b"data")
        await task.outcome()
        return waited

    assert backend.run(main)


def test_a_full_peer_does_not_block_the_loop(backend, stream_pair):
    """A send on a bare descriptor that blocks."""

    async def main():
        task = backend.start(send_until_full, stream_pair.a.fileno())
        await backend.settle()
        waited = not task.done()
        stream_pair.b.setblocking(False)
        while not task.done():
            await backend.settle()
            drain_some(stream_pair.b)
        return waited, await task.outcome()

    waited, sent = backend.run(main)
    assert waited
    assert sent > 0


def drain_some(sock):
    try:
        sock.recv(2**20)
    except BlockingIOError:
        pass


async def send_until_full(fd):
    """Sends until one more had to be waited for."""
    sent = 0
    while True:
        try:
            sent += lowsock.sendmsg(fd, [bytes(65536)], (), MSG_DONTWAIT)
        except BlockingIOError:
            return sent + await aio.sendmsg(fd, [bytes(65536)])


BAD = {
    "buffers": (lambda module, sock: module.sendmsg(sock, 3), TypeError),
    "ancdata": (lambda module, sock: module.sendmsg(sock, [b""], 3), TypeError),
    "flags": (lambda module, sock: module.recvmsg(sock, 1, 0, 1.5), TypeError),
    "bufsize": (lambda module, sock: module.recvmsg(sock, -1), ValueError),
    "messages": (lambda module, sock: module.sendmmsg(sock, b"no"), TypeError),
    "fds": (lambda module, sock: module.send_fds(sock, [b"x"], 3), TypeError),
    "vlen": (lambda module, sock: module.recvmmsg(sock, -1, 1), ValueError),
    "sock": (lambda module, sock: module.recvmsg("no", 1), TypeError),
    "sock (closed)": (lambda module, sock: module.recvmsg(-1, 1), OSError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_the_same_words(backend, pair, name):
    call, kind = BAD[name]
    pair.a.setblocking(False)

    async def main():
        await call(aio, pair.a)

    with pytest.raises(kind) as expected:
        call(lowsock, pair.a)
    with pytest.raises(kind) as raised:
        backend.run(main)
    assert str(raised.value) == str(expected.value)


def test_without_a_framework_nothing_can_be_waited_for(pair):
    pair.a.setblocking(False)
    call = aio.recvmsg(pair.a, 100)
    with pytest.raises(RuntimeError, match=r"^nothing to wait with: neither a task of trio nor a loop of asyncio runs"):
        call.send(None)


def test_without_a_framework_what_is_there_is_received(pair):
    pair.a.setblocking(False)
    pair.b.send(b"data")
    with pytest.raises(StopIteration) as stopped:
        aio.recvmsg(pair.a, 100).send(None)
    assert stopped.value.value[0] == b"data"
