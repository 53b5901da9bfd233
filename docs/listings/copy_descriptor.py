# SPDX-License-Identifier: MIT
"""Copies descriptors between two processes: a file to a child, and an answer's file back.

Neither file has a name that the other process could open. The way there packs the control message by hand; the way
back uses send_fds and recv_fds, which do the same in one call.
"""

import os
import socket
import subprocess
import sys
import tempfile
from array import array

from lowsock import recv1msg, recv_fds, send1msg, send_fds
from lowsock.constants import SCM_RIGHTS, SOL_SOCKET


def send_descriptor(sock, fd):
    rights = array("i", [fd]).tobytes()
    send1msg(sock, b"!", ancillary=[(SOL_SOCKET, SCM_RIGHTS, rights)])


def receive_descriptors(sock):
    data, flags, ancillary = recv1msg(sock, 1)
    fds = array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) // fds.itemsize * fds.itemsize])
    return fds.tolist()


def parent():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, tempfile.TemporaryFile() as file:
        with theirs:  # the child inherits it; our copy is closed as soon as the child runs
            command = [sys.executable, __file__, str(theirs.fileno())]
            child = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        with child:
            file.write(b"written by the parent")
            file.seek(0)
            send_descriptor(ours, file.fileno())

            data, fds, flags, address = recv_fds(ours, 1, maxfds=1)
            if not fds:
                raise SystemExit("the child sent no descriptor")
            with os.fdopen(fds[0], "rb") as answer:
                print("the copy is inheritable:", os.get_inheritable(answer.fileno()))
                print("parent read:", answer.read().decode())


def child(number):
    with socket.socket(fileno=number) as sock, tempfile.TemporaryFile() as answer:
        fd, *surplus = receive_descriptors(sock)  # all of them are ours now, and ours to close
        for other in surplus:
            os.close(other)
        with os.fdopen(fd, "rb") as file:
            text = file.read().decode()
        answer.write(f"the child read {text!r}".encode())
        answer.seek(0)
        send_fds(sock, [b"!"], [answer.fileno()])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(int(sys.argv[1]))
    else:
        parent()
