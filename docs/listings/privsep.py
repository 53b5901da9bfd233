# SPDX-License-Identifier: MIT
"""Privilege separation: a parent that may open files hands them to a child that may not.

The child gives up what it was allowed (started by root, it becomes another user) before it asks for the first file. The
parent decides by a list of its own and answers with a descriptor; the child owns what came, and nothing more came than that.
"""

import os
import socket
import subprocess
import sys
import tempfile

from lowsock import peer, recv_owned_fds, recvmsg, send_fds, sendmsg

NOBODY = 65534


def child(number):
    with socket.socket(fileno=number) as sock:
        drop_privileges()
        for name in ("report", "../../etc/shadow"):
            sendmsg(sock, [name.encode()])
            answer = recv_owned_fds(sock, 1000, maxfds=1)
            with answer.fds as fds:  # closes what is not taken
                if not fds:
                    print(f"child: {name}: {answer.data.decode()}")
                    continue
                print(f"child: by its path: {by_path(answer.data.decode())}")
                with open(fds.take(), encoding="utf-8") as file:  # from here on the file object owns it
                    print(f"child: by its descriptor: {file.read()}")


def drop_privileges():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def by_path(path):
    try:
        open(path, "rb").close()
    except PermissionError as error:
        return error.strerror
    return "opened, for root did not start this program"


def parent():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryDirectory() as directory:  # which its owner alone may enter
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        files = {b"report": os.path.join(directory, "report")}
        with open(files[b"report"], "w", encoding="utf-8") as file:
            file.write("only the parent can open this")
        print("parent: the pair is of this process:", peer.credentials(ours).pid == os.getpid(), flush=True)
        with process:
            serve(ours, files)


def serve(sock, files):
    """Answers until the other end is closed. What may be asked for are names in a table, not paths to be checked."""
    while True:
        name, ancdata, flags, address = recvmsg(sock, 100)
        if not name:
            return
        if name not in files:
            sendmsg(sock, [b"refused"])
            continue
        with open(files[name], "rb") as file:
            send_fds(sock, [files[name].encode()], [file])  # a copy travels; this one is closed here


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(int(sys.argv[1]))
    else:
        parent()
