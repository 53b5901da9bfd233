# SPDX-License-Identifier: MIT
"""Who is at the other end of an ``AF_UNIX`` socket.

There are two questions, and two times at which the kernel answers them.

*Who connected?* Four functions ask it of a connected stream or seqpacket socket, and of a pair: `credentials`, `groups`,
`pidfd`, `security`. The kernel took the answer when the peer called connect(2), listen(2) or socketpair(2), and it does not
change. It does not say which process writes now: a socket can be passed on, or inherited by a child.

*Who sent this?* Control messages say it of each message, on datagram sockets too. The receiver sets an option of the socket,
and then they come with every message:

================  ========================  ====================================================================
SO_PASSCRED       `cmsg.Credentials`        pid, uid, gid; a sender may put other ones there that are its own (real,
                                            effective, saved), with privileges any, which the kernel checks as it sends
SO_PASSPIDFD      `cmsg.PidFd`              a pidfd of the sender, made as the message is received (Linux 6.5); use
                                            `lowsock.recv_owned_fds`, which owns it: ``owner.pidfd``
SO_PASSSEC        `cmsg.Security`           the sender's label, where a security module labels sockets
================  ========================  ====================================================================

No sender has to send any of them: the kernel fills in the sender's own where the sender put none. It does so as the message
is sent, if the option is set by then: one that was under way before comes as pid 0, uid and gid 65534, and without a pidfd.
On a stream, messages of different senders are not merged into one receive while SO_PASSCRED or SO_PASSPIDFD is set.

A number names a process only as long as it lives: once the peer has ended and somebody has waited for it, its pid may be
another's, and what ``/proc/PID`` or kill(2) say then is of that one. A pidfd names the process itself, for ever. So, to look
something up by number without a race:

1. get the pidfd, and then the pid (`credentials`, or ``Pid:`` in ``/proc/self/fdinfo/FD``);
2. read what is to be known from ``/proc/PID``;
3. ask by the pidfd whether the process is still there: ``signal.pidfd_send_signal(fd, 0)`` raises `ProcessLookupError` and
   ``Pid:`` is -1 once it has been waited for, and a pidfd is readable for poll(2) from its end on. If it is there, it was
   there in step 2, and the number was its own.

To signal it, or to wait for its end, no number is needed at all. See unix(7), pidfd_open(2), credentials(7).
"""

# In: an AF_UNIX socket. Out: numbers, a list of groups, a label, an owner of a pidfd. Called by users and the command. This
# file has the public functions and turns what `_options.py` reads by getsockopt(2) into what they return.

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lowsock._system.exports import public
from lowsock.peer import _options

if TYPE_CHECKING:
    from lowsock._message.owned import OwnedFds
    from lowsock._system.types import Socket

__all__ = ["PeerCredentials", "credentials", "groups", "pidfd", "security"]


class PeerCredentials(NamedTuple):
    """Process, user and group of a peer. See credentials(7)."""

    pid: int | None
    """None if unknown: the process is in a pid namespace that we do not see into, or the system keeps none."""
    uid: int
    """Effective; 65534 for one of a user namespace that has no number in ours."""
    gid: int
    """Effective; see `uid`."""


def credentials(sock: Socket) -> PeerCredentials:
    """Process, user and group of the peer, as they were when it connected, listened or made the pair.

    Raises `OSError`: ENOTCONN for a socket without such a peer (a datagram socket that is of no pair, another family, not
    connected), of which Linux would say pid 0 and uid -1; `lowsock.UnsupportedError` where the system tells
    nothing of the kind. See SO_PEERCRED in unix(7); LOCAL_PEERCRED on FreeBSD and macOS.
    """
    pid, uid, gid = _options.identity(sock)
    return PeerCredentials(pid or None, uid, gid)


def groups(sock: Socket) -> list[int]:
    """The supplementary groups of the peer, as the kernel lists them, at the time of `credentials`.

    Raises `OSError`: ENODATA for a socket without such a peer; `lowsock.UnsupportedError` where there is no SO_PEERGROUPS
    (Linux 4.13). See unix(7), getgroups(2).
    """
    return _options.groups(sock)


def pidfd(sock: Socket) -> OwnedFds:
    """A pidfd of the process that connected, listened or made the pair: an `OwnedFds` with one descriptor, close-on-exec.

    ``with peer.pidfd(sock) as (fd,):`` lends it, ``peer.pidfd(sock).take()`` gives it. Each call makes a new one.
    Raises `OSError`: ENODATA for a socket without such a peer (before Linux 6.16 ESRCH, and EINVAL or ESRCH once the peer
    has been waited for); `lowsock.UnsupportedError` where the kernel has no SO_PEERPIDFD (Linux 6.5). See pidfd_open(2),
    unix(7).
    """
    return _options.pidfd(sock)


def security(sock: Socket) -> str | None:
    """The security label of the peer, without its closing NUL; None where no security module labels sockets.

    Its bytes are decoded as file names are. Linux says ENOPROTOOPT both where there is no module that labels (AppArmor,
    SELinux, Smack) and where the peer has no label: neither is an error here, since there is nothing to learn.
    Raises `OSError` for other failures. See SO_PEERSEC in unix(7).
    """
    label = _options.label(sock)
    return None if label is None else os.fsdecode(label.rstrip(b"\0"))


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would take any name
    __getattr__, __dir__ = public(__name__, {})
