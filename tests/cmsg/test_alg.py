# SPDX-License-Identifier: MIT
"""lowsock.cmsg: messages to the kernel's cryptography, on bytes and beside what the socket module's own helper sends."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys

import pytest

import lowsock
from lowsock import cmsg, constants
from lowsock.cmsg._base import row_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="AF_ALG is Linux's")


def u32(value):
    return value.to_bytes(4, sys.byteorder)


class AfAlgIv(ctypes.Structure):
    """struct af_alg_iv of linux/if_alg.h, without its flexible array."""

    _fields_ = (("ivlen", ctypes.c_uint32),)


# ---- payloads ----


@pytest.mark.parametrize("op", [*cmsg.AlgOperation, 2, 2**32 - 1])
def test_the_operation_is_32_bits(op):
    message = cmsg.AlgOp(op=op)
    assert message == (constants.SOL_ALG, constants.ALG_SET_OP, u32(int(op)))
    assert (message.op, type(message.op)) == (op, type(op))


def test_operations_are_those_of_the_kernel():
    assert (cmsg.AlgOperation.DECRYPT, cmsg.AlgOperation.ENCRYPT) == (constants.ALG_OP_DECRYPT, constants.ALG_OP_ENCRYPT)
    assert len(cmsg.AlgOperation) == 2


@pytest.mark.parametrize("size", [0, 1, 12, 16, 255])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_vector_comes_behind_its_length(size, kind):
    iv = bytes(range(size))
    message = cmsg.AlgIv(iv=kind(iv))
    assert message == (constants.SOL_ALG, constants.ALG_SET_IV, bytes(AfAlgIv(size)) + iv)
    assert (message.iv, type(message.iv)) == (iv, bytes)


VECTORS = [(u32(2) + b"abcd", b"ab"), (u32(0) + b"abcd", b""), (u32(9) + b"abcd", b"abcd"), (u32(2**32 - 1) + b"ab", b"ab")]


@pytest.mark.parametrize(("data", "iv"), VECTORS)
def test_a_vector_ends_where_its_length_or_the_payload_does(data, iv):
    (message,) = cmsg.decode([(constants.SOL_ALG, constants.ALG_SET_IV, data)])
    assert (type(message), message.iv) == (cmsg.AlgIv, iv)


@pytest.mark.parametrize("size", range(4))
def test_a_vector_without_its_length_stays_raw(size):
    (message,) = cmsg.decode([(constants.SOL_ALG, constants.ALG_SET_IV, bytes(size))])
    assert type(message) is cmsg.ControlMessage


@pytest.mark.parametrize("length", [0, 20, 2**32 - 1])
def test_the_associated_length_is_32_bits(length):
    message = cmsg.AlgAeadAssoclen(length=length)
    assert message == (constants.SOL_ALG, constants.ALG_SET_AEAD_ASSOCLEN, u32(length))
    assert message.length == length


BAD = [
    (lambda: cmsg.AlgOp(op=-1), ValueError, "op must not be negative"),
    (lambda: cmsg.AlgOp(op=2**32), OverflowError, "op is out of range"),
    (lambda: cmsg.AlgOp(op="encrypt"), TypeError, "op must be an int"),
    (lambda: cmsg.AlgIv(iv="text"), TypeError, "iv must be a bytes-like object"),
    (lambda: cmsg.AlgIv(iv=16), TypeError, "iv must be a bytes-like object"),
    (lambda: cmsg.AlgAeadAssoclen(length=-1), ValueError, "length must not be negative"),
    (lambda: cmsg.AlgAeadAssoclen(length=2**32), OverflowError, "length is out of range"),
]


@pytest.mark.parametrize(("make", "error", "told"), BAD)
def test_what_is_wrong_is_named(make, error, told):
    with pytest.raises(error, match=told):
        make()


@pytest.mark.parametrize("name", ["AlgOp", "AlgIv", "AlgAeadAssoclen"])
def test_they_are_only_sent(name):
    assert row_of(getattr(cmsg, name)).option is None
    with socket.socket() as sock, pytest.raises(ValueError, match=f"{name} is only sent"):
        cmsg.enable(sock, getattr(cmsg, name))


# ---- beside the socket module ----

WATCH = r"""
#include <sys/socket.h>
#include <stdlib.h>
#include <unistd.h>
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    (void)fd;
    (void)flags;
    return write(atoi(getenv("WATCHED")), message->msg_control, message->msg_controllen);
}
"""

# A unix socket that believes to be of AF_ALG: sendmsg(2) is watched, not made.
HELPER = """
import os, socket
end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0, os.dup(end.fileno()))
sock.sendmsg_afalg([b"data"], op=socket.ALG_OP_ENCRYPT, iv=b"12 bytes iv.", assoclen=20)
"""
OURS = """
import socket, lowsock
from lowsock import cmsg
end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
messages = [cmsg.AlgOp(op=cmsg.AlgOperation.ENCRYPT), cmsg.AlgIv(iv=b"12 bytes iv."), cmsg.AlgAeadAssoclen(length=20)]
lowsock.sendmsg(end, [b"data"], messages)
"""


@pytest.fixture
def watch(tmp_path):
    """A callable: the control buffer that a program passes to sendmsg(2)."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to watch sendmsg with")
    source, library = tmp_path / "watch.c", tmp_path / "watch.so"
    source.write_text(WATCH)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)

    def run(program):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reader:
            environment = {**os.environ, "LD_PRELOAD": str(library), "WATCHED": str(writing)}
            command = [sys.executable, "-I", "-c", program]
            try:
                subprocess.run(command, env=environment, pass_fds=[writing], check=True, timeout=60)
            finally:
                os.close(writing)
            return reader.read()

    return run


def messages_in(control):
    """The messages of a control buffer, lengths as they stand there: (cmsg_len, level, type, data)."""
    found, header = [], lowsock.CMSG_LEN(0)
    while control:
        length = int.from_bytes(control[: header - 8], sys.byteorder)
        level, kind = (int.from_bytes(control[at : at + 4], sys.byteorder) for at in (header - 8, header - 4))
        found.append((length, level, kind, control[header:length]))
        control = control[lowsock.CMSG_SPACE(length - header) :]
    return found


@pytest.mark.skipif(not hasattr(socket.socket, "sendmsg_afalg"), reason="this socket module has no sendmsg_afalg")
def test_the_messages_are_those_of_the_socket_modules_helper(watch):
    """But for the vector, whose length the helper rounds up to whole words: the kernel goes by ivlen."""
    ours, theirs = messages_in(watch(OURS)), messages_in(watch(HELPER))
    assert [message[1:3] for message in ours] == [message[1:3] for message in theirs]
    assert [ours[0], ours[2]] == [theirs[0], theirs[2]]
    assert theirs[1][3].startswith(ours[1][3])
    assert (ours[1][0], theirs[1][0]) == (lowsock.CMSG_LEN(16), lowsock.CMSG_SPACE(16))


def test_what_is_sent_is_what_was_built(watch):
    sent = [message[1:] for message in messages_in(watch(OURS))]
    assert [type(message).__name__ for message in cmsg.decode(sent)] == ["AlgOp", "AlgIv", "AlgAeadAssoclen"]


# ---- on the kernel ----


def test_the_kernel_encrypts_as_it_is_told():
    """AES-128 in counter mode over zeros gives the same stream both ways."""
    try:
        cipher = socket.socket(constants.AF_ALG, socket.SOCK_SEQPACKET)
    except OSError as error:
        pytest.skip(f"this kernel has no AF_ALG: {error}")
    with cipher:
        cipher.bind(("skcipher", "ctr(aes)"))
        cipher.setsockopt(constants.SOL_ALG, constants.ALG_SET_KEY, bytes(16))
        streams = []
        for op in cmsg.AlgOperation:
            with cipher.accept()[0] as operation:
                lowsock.sendmsg(operation, [bytes(16)], [cmsg.AlgOp(op=op), cmsg.AlgIv(iv=bytes(16))])
                streams.append(operation.recv(16))
        assert streams == [bytes.fromhex("66e94bd4ef8a2c3b884cfa59ca342b2e")] * 2
