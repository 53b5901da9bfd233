# SPDX-License-Identifier: MIT
"""Probes of AF_UNIX sockets: descriptors, credentials, names, out-of-band data. See unix(7)."""

from __future__ import annotations

import os
import secrets
import socket
import sys

from lowsock import OwnedFds, cmsg, constants, peer, recv_owned_fds, recvmsg, send_fds, sendmsg, sockatmark
from lowsock._command.loopback import Missing, Sockets
from lowsock._command.probing import Probe, exchange, greatest, succeeds

# ---- descriptors ----


def _descriptors(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    with _pass_through_itself(ours, theirs)[0] as (fd,):
        _check_same_file(fd, ours.fileno())
    most = greatest(lambda n: succeeds(lambda: _send_and_drop(ours, theirs, n)), 1024)
    return f"a copy came of one; at most {most} in one message"


def _send_and_drop(ours: socket.socket, theirs: socket.socket, count: int) -> None:
    """Sends many descriptors and leaves the other end no room for them; what stays in flight counts against a limit."""
    rights = constants.SOL_SOCKET, constants.SCM_RIGHTS, ours.fileno().to_bytes(4, sys.byteorder) * count
    sendmsg(ours, [b"x"], [rights])  # `send_fds` knows the limit, and would not ask
    recvmsg(theirs, 1)


def _pass_through_itself(ours: socket.socket, theirs: socket.socket, flags: int = 0) -> tuple[OwnedFds, int]:
    """Sends the descriptor of ``ours`` through itself; returns the copy and the flags of the message."""
    send_fds(ours, [b"x"], [ours])
    came = recv_owned_fds(theirs, 1, flags=flags)
    if not came.fds:
        raise Missing("no SCM_RIGHTS message came")
    return came.fds, came.msg_flags


def _check_same_file(one: int, other: int) -> None:
    if not os.path.samestat(os.fstat(one), os.fstat(other)):
        raise Missing("the descriptor that came is of another file")


def _close_on_exec(sockets: Sockets) -> str:
    owner, msg_flags = _pass_through_itself(*sockets.unix(), constants.MSG_CMSG_CLOEXEC)
    with owner as (fd,):
        if not msg_flags & constants.MSG_CMSG_CLOEXEC:
            raise Missing("the kernel does not answer with MSG_CMSG_CLOEXEC")
        if os.get_inheritable(fd):
            raise Missing("the descriptor that came can be inherited")
    return "set by the kernel as the descriptor arrives"


# ---- identities ----


def _credentials(sockets: Sockets) -> str:
    return _check_identity(exchange(*sockets.unix(), cmsg.Credentials, cmsg.Credentials()))


def _peer_credentials(sockets: Sockets) -> str:
    return _check_identity(peer.credentials(sockets.unix()[0]))


def _check_identity(who: cmsg.Credentials | peer.PeerCredentials) -> str:
    """The ids, which must be ours; of a peer, macOS tells no pid."""
    pid, uid, gid = who.pid, who.uid, who.gid
    if pid not in (None, os.getpid()) or (uid, gid) != (os.geteuid(), os.getegid()):
        raise Missing(f"process {os.getpid()} was taken for process {pid} of user {uid} and group {gid}")
    return f"process {'not told' if pid is None else pid}, user {uid}, group {gid}"


def _peer_groups(sockets: Sockets) -> str:
    groups = peer.groups(sockets.unix()[0])
    if set(groups) != set(os.getgroups()):
        raise Missing(f"we are of groups {os.getgroups()}, and were said to be of {groups}")
    return f"{len(groups)} supplementary groups"


def _pidfd(sockets: Sockets) -> str:
    ours, theirs = sockets.unix()
    cmsg.enable(theirs, cmsg.PidFd)
    sendmsg(ours, [b"x"])
    with recv_owned_fds(theirs, 1).fds as owner:
        if owner.pidfd is None:
            raise Missing("no SCM_PIDFD message came")
        return _process_of(owner.pidfd)


def _peer_pidfd(sockets: Sockets) -> str:
    with peer.pidfd(sockets.unix()[0]) as (fd,):
        return _process_of(fd)


def _process_of(pidfd: int) -> str:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    pid = fields.get("Pid", "none").strip()
    if pid != str(os.getpid()):
        raise Missing(f"the descriptor that came is of process {pid}, not {os.getpid()}")
    return f"a descriptor of process {pid}"


def _security_label(sockets: Sockets) -> str:
    label = exchange(*sockets.unix(), cmsg.Security).label
    return label.encode("ascii", "replace").decode()


# ---- kinds of sockets, names, out-of-band data ----


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
    oob = recvmsg(theirs, 1, 0, constants.MSG_OOB)[0]
    if (before, oob) != (b"before", b"!"):
        raise Missing(f"received {before!r} and {oob!r}")
    return f"a byte came, sockatmark {'saw' if at_mark else 'did not see'} its mark"


PROBES = [
    Probe("descriptors", _descriptors),
    Probe("close-on-exec at once", _close_on_exec, "MSG_CMSG_CLOEXEC (Linux, the BSDs)"),
    Probe("credentials", _credentials, "Linux"),
    Probe("peer credentials", _peer_credentials, "Linux, FreeBSD or macOS"),
    Probe("peer groups", _peer_groups, "Linux 4.13"),
    Probe("pidfds", _pidfd, "Linux 6.5"),
    Probe("peer pidfd", _peer_pidfd, "Linux 6.5"),
    Probe("security labels", _security_label, "a security module that labels sockets"),
    Probe("abstract names", _abstract_name, "Linux"),
    Probe("seqpacket", _seqpacket),
    Probe("out-of-band on AF_UNIX", _out_of_band, "Linux 5.15 with CONFIG_AF_UNIX_OOB"),
]
