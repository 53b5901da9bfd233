# SPDX-License-Identifier: MIT
"""A signal handler that uses a SendBatch between any two steps of a call: each message goes once, with what is beside it."""

import dis
import socket
import struct
import sys
from types import FrameType
from typing import Any, Callable, NamedTuple

import pytest
from injecting import Injector, Point

from lowsock import SendBatch, constants, recvmmsg

LAST = b"last"


class World:
    """A batch and sockets. With ``beside``, each appended message has an address and a TTL that tells its length."""

    def __init__(self, beside: bool) -> None:
        self.beside = beside
        self.a, self.b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.b.bind(("127.0.0.1", 0))
        self.b.setsockopt(socket.IPPROTO_IP, constants.IP_RECVTTL, 1)
        if not beside:
            self.a.connect(self.b.getsockname())
        self.batch = SendBatch(8, 10, 32)

    def append(self, data: bytes) -> None:
        if self.beside:
            ttl = (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 100 + len(data)))
            self.batch.append(data, ancdata=[ttl], address=self.b.getsockname())
        else:
            self.batch.append(data)

    def extend(self, pieces: list[bytes]) -> None:
        self.batch.extend(pieces, address=self.b.getsockname() if self.beside else None)

    def send(self, _: Any = None) -> None:
        self.batch.send(self.a)

    def clear(self, _: Any = None) -> None:
        self.batch.clear()

    def come(self) -> dict[bytes, int]:
        """All that was sent, once the rest was, and one more; with the TTLs."""
        while len(self.batch):
            self.send()
        self.append(LAST)
        self.send()
        found = recvmmsg(self.b, 20, 10, 64, socket.MSG_DONTWAIT)
        came = {data: int.from_bytes(ancdata[0][2][:1], sys.byteorder) for data, ancdata, _, _ in found}
        assert len(came) == len(found), "nothing went twice"
        return came

    def close(self) -> None:
        self.a.close()
        self.b.close()


class Step(NamedTuple):
    use: Callable[[World, Any], None]
    data: Any = None


def append(data: bytes) -> Step:
    return Step(World.append, data)


def extend(*pieces: bytes) -> Step:
    return Step(World.extend, list(pieces))


SEND, CLEAR = Step(World.send), Step(World.clear)
CALLS = {
    "append": [append(b"1"), append(b"22")],
    "extend": [extend(b"1", b"22")],
    "send": [SEND],
}
HANDLERS = {
    "append": [append(b"hhhh")],
    "extend": [extend(b"hhhh", b"hhhhh")],
    "append, send": [append(b"hhhh"), SEND],
    "send, append": [SEND, append(b"hhhh")],
    "send, append, send": [SEND, append(b"hhhh"), SEND],
    "send, extend, send": [SEND, extend(b"hhhh", b"hhhhh"), SEND],
    "clear, extend": [CLEAR, extend(b"hhhh", b"hhhhh")],
    "clear, append, send": [CLEAR, append(b"hhhh"), SEND],
}


def run(world: World, steps: list[Step]) -> None:
    for step in steps:
        step.use(world, step.data)


def pieces_of(steps: list[Step]) -> set[bytes]:
    return {piece for step in steps if step.data for piece in (step.data if type(step.data) is list else [step.data])}


class Handler(Injector):
    """Does something at a bytecode, and raises nothing."""

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._left -= 1
            if self._left == -1:
                self.point = Point(frame.f_code.co_name, frame.f_lineno, dis.opname[frame.f_code.co_code[frame.f_lasti]])
                self._just_before()
        return self._step


@pytest.mark.parametrize("beside", (False, True))
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_lost_and_nothing_goes_twice(call, handler, beside):
    """Only what the handler cleared may be missing; and each has its own address and TTL."""
    waiting = [append(b"w")] if call != "append" else []
    wrong = []
    for number in range(3000):
        world = World(beside)
        run(world, waiting)
        injector = Handler(number, Exception(), lambda world=world: run(world, HANDLERS[handler]))
        before = sys.gettrace()
        sys.settrace(injector)
        try:
            run(world, CALLS[call])
        finally:
            sys.settrace(before)
        came = world.come()
        world.close()
        if injector.point is None:
            break
        old, new = pieces_of(waiting + CALLS[call]), pieces_of(HANDLERS[handler])
        missing = (new if CLEAR in HANDLERS[handler] else old | new) - came.keys()
        if missing or LAST not in came or not came.keys() <= old | new | {LAST}:
            wrong.append((injector.point, sorted(came)))
        if beside and any(came[data] != 100 + len(data) for data in came if append(data) in (*waiting, *CALLS[call])):
            wrong.append((injector.point, came))
    assert number > 10, "the call was not traced"
    assert not wrong
