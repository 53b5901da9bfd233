# SPDX-License-Identifier: MIT
"""Probes of AF_UNIX sockets: descriptors, credentials, names, out-of-band data. See unix(7)."""

import os
import secrets
import socket
import struct
from array import array

from lowsock import constants, recvmsg, send_fds, sendmsg, sockatmark
from lowsock._loopback import Missing, Sockets
from lowsock._probing import ROOM, Probe, greatest, pair, payload, takes

UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid
INT = struct.Struct("i")


# ---- descriptors ----


def _descriptors(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    _same_file(_passed(sockets, ours, theirs)[0], ours.fileno())
    most = greatest(lambda n: takes(lambda: _sent_and_dropped(ours, theirs, n)), 1024)
    return f"a copy came of one; at most {most} in one message"


def _sent_and_dropped(ours: socket.socket, theirs: socket.socket, count: int) -> None:
    """Sends many descriptors and leaves the other end no room for them; what stays in flight counts against a limit."""
    send_fds(ours, [b"x"], [ours.fileno()] * count)
    recvmsg(theirs, 1)


def _passed(sockets: Sockets, ours: socket.socket, theirs: socket.socket) -> tuple[int, int]:
    """Sends the descriptor of ``ours`` through itself; returns the copy and the flags of the message."""
    send_fds(ours, [b"x"], [ours.fileno()])
    flags = getattr(constants, "MSG_CMSG_CLOEXEC", 0)
    _, ancdata, msg_flags, _ = recvmsg(theirs, 1, ROOM, flags)
    return _owned(sockets, payload(ancdata, "SCM_RIGHTS")), msg_flags


def _owned(sockets: Sockets, data: bytes) -> int:
    fd: int = array("i", data)[0]
    sockets.callback(os.close, fd)
    return fd


def _same_file(one: int, other: int) -> None:
    if not os.path.samestat(os.fstat(one), os.fstat(other)):
        raise Missing("the descriptor that came is of another file")


def _close_on_exec(sockets: Sockets) -> str:
    fd, msg_flags = _passed(sockets, *sockets.unix())
    if not msg_flags & constants.MSG_CMSG_CLOEXEC:
        raise Missing("the kernel does not answer with MSG_CMSG_CLOEXEC")
    if os.get_inheritable(fd):
        raise Missing("the descriptor that came can be inherited")
    return "set by the kernel as the descriptor arrives"


# ---- who is there ----


def _credentials(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    theirs.setsockopt(*pair("SO_PASSCRED"), 1)
    sent = UCRED.pack(os.getpid(), os.geteuid(), os.getegid())
    sendmsg(ours, [b"x"], [(*pair("SCM_CREDENTIALS"), sent)])
    data = payload(recvmsg(theirs, 1, ROOM)[1], "SCM_CREDENTIALS")
    return _identity(data)


def _peer_credentials(sockets: Sockets) -> str:
    ours, _ = sockets.unix()
    return _identity(ours.getsockopt(*pair("SO_PEERCRED"), UCRED.size))


def _identity(data: bytes) -> str:
    pid, uid, gid = UCRED.unpack(data)
    if (pid, uid, gid) != (os.getpid(), os.geteuid(), os.getegid()):
        raise Missing(f"process {os.getpid()} was taken for process {pid} of user {uid} and group {gid}")
    return f"process {pid}, user {uid}, group {gid}"


def _pidfd(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    theirs.setsockopt(*pair("SO_PASSPIDFD"), 1)
    sendmsg(ours, [b"x"])
    data = payload(recvmsg(theirs, 1, ROOM)[1], "SCM_PIDFD")
    return _process_of(_owned(sockets, data))


def _peer_pidfd(sockets: Sockets) -> str:
    ours, _ = sockets.unix()
    data = ours.getsockopt(*pair("SO_PEERPIDFD"), INT.size)
    return _process_of(_owned(sockets, data))


def _process_of(pidfd: int) -> str:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    pid = fields.get("Pid", "none").strip()
    if pid != str(os.getpid()):
        raise Missing(f"the descriptor that came is of process {pid}, not {os.getpid()}")
    return f"a descriptor of process {pid}"


def _security_label(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    theirs.setsockopt(*pair("SO_PASSSEC"), 1)
    sendmsg(ours, [b"x"])
    return payload(recvmsg(theirs, 1, ROOM)[1], "SCM_SECURITY").rstrip(b"\0").decode("ascii", "replace")


# ---- kinds of sockets, names, urgent data ----


def _abstract_name(sockets: Sockets) -> str:
    ours = sockets.open(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs = sockets.open(socket.AF_UNIX, socket.SOCK_DGRAM)
    names = [f"\0lowsock {secrets.token_hex(8)} {end}".encode() for end in ("sends", "receives")]
    ours.bind(names[0])
    theirs.bind(names[1])
    sendmsg(ours, [b"x"], address=names[1])
    source = recvmsg(theirs, 1)[3]
    if source != names[0]:
        raise Missing(f"sent from {names[0]!r}, received from {source!r}")
    return f"sent from and to names of {len(names[0])} and {len(names[1])} bytes"


def _seqpacket(sockets: Sockets) -> str:
    ours, theirs = sockets.unix(socket.SOCK_SEQPACKET)
    for data in (b"one", b"two"):
        sendmsg(ours, [data])
    received = [recvmsg(theirs, 100)[0] for _ in range(2)]
    if received != [b"one", b"two"]:
        raise Missing(f"sent two messages, received {received}")
    return "two messages came as two"


def _out_of_band(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    sendmsg(ours, [b"before"])
    sendmsg(ours, [b"!"], (), constants.MSG_OOB)
    before = recvmsg(theirs, 100)[0]
    at_mark = sockatmark(theirs)
    urgent = recvmsg(theirs, 1, 0, constants.MSG_OOB)[0]
    if (before, urgent) != (b"before", b"!"):
        raise Missing(f"received {before!r} and {urgent!r}")
    return f"a byte came, sockatmark {'saw' if at_mark else 'did not see'} its mark"


PROBES = [
    Probe("descriptors", _descriptors),
    Probe("close-on-exec at once", _close_on_exec, "MSG_CMSG_CLOEXEC (Linux, the BSDs)"),
    Probe("credentials", _credentials, "Linux"),
    Probe("peer credentials", _peer_credentials, "Linux"),
    Probe("pidfds", _pidfd, "Linux 6.5"),
    Probe("peer pidfd", _peer_pidfd, "Linux 6.5"),
    Probe("security labels", _security_label, "a security module that labels sockets"),
    Probe("abstract names", _abstract_name, "Linux"),
    Probe("seqpacket", _seqpacket),
    Probe("out-of-band on AF_UNIX", _out_of_band, "Linux 5.15 with CONFIG_AF_UNIX_OOB"),
]
