# SPDX-License-Identifier: MIT
"""The main job of the `lowsock` command: what lowsock is for, done on real input and checked.

The parts are rows of a table. Each opens its own sockets, sends, receives, checks that it received what it sent, and says
so in a sentence. The input is this file, and a file without a name, which a child process can only read through the
descriptor that it is sent.
"""

import hashlib
import os
import select
import socket
import subprocess
import sys
import tempfile
from array import array
from typing import Callable, NamedTuple

from lowsock import constants, recv1msg, recv_fds, recvmsg_into, send1msg, sendmsg, sockatmark
from lowsock._command.loopback import Missing, Pair, Sockets

TIMEOUT = 2.0  # seconds that a part waits for what it has sent
CHILD_TIMEOUT = 20.0  # seconds to wait for a child process, which may start on a busy machine
FILE_SIZE = 100_000  # bytes


class Result(NamedTuple):
    """What a part did: how many bytes arrived, and the sentence."""

    size: int
    text: str


class Part(NamedTuple):
    """A part of the main job and how it ended; ``size`` is 0 if it failed."""

    name: str
    ok: bool
    text: str
    size: int


def run() -> list[Part]:
    """Does all parts. One that fails says why, and does not stop the others."""
    return [_run(name, part) for name, part in PARTS.items()]


def _run(name: str, part: Callable[[Sockets], Result]) -> Part:
    try:
        with Sockets(TIMEOUT) as sockets:
            size, text = part(sockets)
    except Exception as error:  # whatever it is, the user is to read it
        return Part(name, False, f"{type(error).__name__}: {error}", 0)
    return Part(name, True, text, size)


def _check(condition: bool, complaint: str) -> None:
    if not condition:
        raise Missing(complaint)


def _input() -> bytes:
    """Real input: this file, or, where it was installed without its source, as many bytes of the interpreter."""
    source = __file__ if os.path.exists(__file__) else sys.executable
    with open(source, "rb") as file:
        return file.read(8192)


# ---- regular data ----


def _tcp(sockets: Sockets) -> Result:
    text = _input()
    size, receives = _stream(sockets.tcp(), text)
    return Result(size, f"sent {size} bytes over TCP with send1msg; recv1msg received the same bytes in {receives} calls")


def _unix(sockets: Sockets) -> Result:
    text = _input()
    size, receives = _stream(sockets.unix(), text)
    how = f"recv1msg received the same bytes in {receives} calls"
    return Result(size, f"sent {size} bytes over an AF_UNIX stream with send1msg; {how}")


def _stream(pair: Pair, text: bytes) -> tuple[int, int]:
    """Sends all of ``text`` and reads to the end of the stream; returns the bytes and the calls that it took."""
    sender, receiver = pair
    left = memoryview(text)
    while left:
        left = left[send1msg(sender, left) :]
    sender.shutdown(socket.SHUT_WR)
    pieces = list(iter(lambda: recv1msg(receiver, 4096, cmsg_size=0)[0], b""))
    received = b"".join(pieces)
    _check(received == text, f"sent {len(text)} bytes, received {len(received)} that are not the same")
    return len(received), len(pieces)


def _udp(sockets: Sockets) -> Result:
    sender, receiver = sockets.udp()
    text = _input()[:1200]
    sent = send1msg(sender, text)
    data, msg_flags, _ = recv1msg(receiver, 2048)
    _check(data == text and sent == len(text), f"sent {sent} of {len(text)} bytes, received {len(data)}")
    _check(not msg_flags & constants.MSG_TRUNC, "the datagram was cut off")
    return Result(sent, f"sent one UDP datagram of {sent} bytes with send1msg; recv1msg received it whole")


# ---- gather and scatter ----


def _gather(sockets: Sockets) -> Result:
    sender, receiver = sockets.udp()
    text = _input()[:1200]
    head, body, tail = text[:16], bytearray(text[16:1000]), memoryview(text)[1000:]
    sent = sendmsg(sender, [head, body, tail])
    room = [bytearray(100), bytearray(500), bytearray(1000)]
    received, _, _, address = recvmsg_into(receiver, room)
    _check(b"".join(room)[:received] == text, f"sent {sent} bytes, received {received} that are not the same")
    _check(address == sender.getsockname(), f"sent from {sender.getsockname()}, received from {address}")
    shares = [min(len(text) - start, size) for start, size in ((0, 100), (100, 500), (600, 1000))]
    return Result(
        received,
        f"sent one UDP datagram of {sent} bytes gathered from buffers of {len(head)}, {len(body)} and {len(tail)}; "
        f"recvmsg_into scattered it into buffers of {shares[0]}, {shares[1]} and {shares[2]}",
    )


# ---- a descriptor for a child process ----

CHILD_CODE = "import sys; sys.path[:] = sys.argv[2:]; from lowsock._command.mainjob import child; child(int(sys.argv[1]))"


def _descriptor(sockets: Sockets) -> Result:
    ours, theirs = sockets.unix()
    ours.settimeout(CHILD_TIMEOUT)
    content = os.urandom(FILE_SIZE)
    with tempfile.TemporaryFile() as file, _start_child(theirs) as process:
        file.write(content)
        file.flush()
        theirs.close()
        try:
            answer = _send_descriptor(ours, file.fileno())
            complaint = process.communicate(timeout=CHILD_TIMEOUT)[1].strip().splitlines()
        except BaseException:
            process.kill()
            raise
    digest = hashlib.sha256(content).hexdigest()
    _check(answer == f"{FILE_SIZE} {digest}", f"the child answered {answer!r:.90} {' '.join(complaint[-1:])}")
    return Result(
        FILE_SIZE,
        f"sent a file's descriptor to process {process.pid}, which read {FILE_SIZE} bytes through it; "
        f"its SHA-256 of them, {digest[:16]}..., is ours",
    )


def _send_descriptor(ours: socket.socket, descriptor: int) -> str:
    """Sends the child a descriptor and returns its answer; "" if it died, for then its last line on stderr says more."""
    packed = array("i", [descriptor]).tobytes()
    try:
        send1msg(ours, b"read", 0, [(constants.SOL_SOCKET, constants.SCM_RIGHTS, packed)])
        return recv1msg(ours, 100)[0].decode()
    except ConnectionError:
        return ""


def _start_child(theirs: socket.socket) -> "subprocess.Popen[str]":
    """The child process: this interpreter and, wherever it was imported from, this lowsock."""
    command = [sys.executable, "-I", "-c", CHILD_CODE, str(theirs.fileno()), *sys.path]
    return subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)


def child(number: int) -> None:
    """The child process: receives a descriptor from socket ``number``, reads the file, answers with its digest."""
    with socket.socket(fileno=number) as parent:
        _, (descriptor,), _, _ = recv_fds(parent, 100, 1)
        with open(descriptor, "rb") as file:
            file.seek(0)  # the parent's descriptor and this one share one file position
            content = file.read()
        send1msg(parent, f"{len(content)} {hashlib.sha256(content).hexdigest()}".encode())


# ---- out-of-band data ----


def _out_of_band(sockets: Sockets) -> Result:
    sender, receiver = sockets.tcp()
    send1msg(sender, b"before")
    send1msg(sender, b"!", constants.MSG_OOB)
    send1msg(sender, b"after")
    _wait_for_out_of_band(receiver)
    _check(not sockatmark(receiver), "sockatmark is true before the data in front of the mark has been read")
    before = recv1msg(receiver, 100)[0]
    _check(sockatmark(receiver), f"read {before!r}, and sockatmark is not true")
    oob = recv1msg(receiver, 1, flags=constants.MSG_OOB)[0]
    after = recv1msg(receiver, 100)[0]
    _check((before, oob, after) == (b"before", b"!", b"after"), f"received {before!r}, {oob!r} and {after!r}")
    return Result(
        12,
        "sent 11 bytes over TCP and 1 out-of-band byte between them; received 6 bytes, after which sockatmark saw the "
        "mark, then the out-of-band byte and the 5 bytes after it",
    )


def _wait_for_out_of_band(receiver: socket.socket) -> None:
    poll = select.poll()
    poll.register(receiver, select.POLLPRI)
    _check(bool(poll.poll(TIMEOUT * 1000)), "no out-of-band data came")


PARTS: dict[str, Callable[[Sockets], Result]] = {
    "tcp": _tcp,
    "udp": _udp,
    "unix": _unix,
    "gather and scatter": _gather,
    "descriptor": _descriptor,
    "out-of-band": _out_of_band,
}
