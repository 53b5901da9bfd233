# SPDX-License-Identifier: MIT
"""Paths of UNIX streams: what the socket module would cut short or make up is refused, by every call that takes a path."""

import asyncio
import copy
import os
import pickle
import socket

import pytest

from lowsock import aio, errqueue, unix

CALLS = {
    "unix.connect": unix.connect,
    "aio.connect_unix": lambda path: asyncio.run(aio.connect_unix(path)),
    "aio.serve_unix": lambda path: asyncio.run(aio.serve_unix(lambda stream: stream.aclose(), path)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [str, os.fsencode], ids=["str", "bytes"])
def test_a_null_character_is_refused(call, kind, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "target"))
        other.listen()
        with pytest.raises(ValueError, match=r"^path must not contain a null character$"):
            CALLS[call](kind(f"{tmp_path}/target\0.allowed"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_path_is_refused(call):
    with pytest.raises(ValueError, match=r"^path must not be empty"):
        CALLS[call]("")


@pytest.mark.skipif(os.name != "posix" or not os.path.isdir("/proc"), reason="abstract names are Linux's")
def test_an_abstract_name_may_have_more_of_them():
    name = b"\0lowsock\0" + os.urandom(8).hex().encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with unix.connect(name) as stream:
            assert stream.fileno() >= 0


@pytest.mark.parametrize("again", [copy.copy, pickle.dumps], ids=["copied", "pickled"])
def test_what_owns_a_socket_or_memory_cannot_be(again, udp_pair):
    a, b = socket.socketpair()
    with unix.UnixStream(a) as stream, b, errqueue.ZeroCopySender(udp_pair.a) as sender:
        for owner in (stream, sender):
            with pytest.raises(TypeError, match="can be neither copied nor pickled"):
                again(owner)
