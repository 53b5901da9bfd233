# SPDX-License-Identifier: MIT
"""Control messages of every kind of socket, but for times: socket(7), unix(7)."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from lowsock._system.arguments import INT_MAX, checked_int, iterated
from lowsock.cmsg._base import NO_OPTION, ControlMessage, registered
from lowsock.cmsg._fields import INT, INT_SIZE, UINT, UINT32, layout, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

MAX_FDS = 253  # Linux: SCM_MAX_FD
_ERRNO_MAX = 4095  # Linux: MAX_ERRNO
_LABEL_ROOM = 256

_UCRED = layout("ucred")
_ucred_pid, _ucred_uid, _ucred_gid = map(_UCRED.reader, ("pid", "uid", "gid"))

_int = INT.unpack
_uint = UINT.unpack


# ---- with local messages ----


@registered("SCM_RIGHTS", step=INT_SIZE, option=NO_OPTION, room=MAX_FDS * INT_SIZE)
class Rights(ControlMessage):
    """Descriptors: sent, those to copy; received, the copies. They arrive without an option, wherever there is room.

    A message never owns a descriptor: received ones are yours to close, and `lowsock.recv_owned_fds` gives an owner that
    does. Linux takes at most 253 in one send; two messages in one send arrive as one, other systems lose the second. See
    unix(7).
    """

    __slots__ = ()
    _fields = ("fds",)

    def __new__(cls, *, fds: Iterable[Any] = ()) -> Self:
        """``fds``: ints or objects with ``fileno()``, at most 253; keep them open until they are sent."""
        numbers = [_descriptor(f"fds[{i}]", fd) for i, fd in enumerate(iterated("fds", "descriptors", fds))]
        if len(numbers) > MAX_FDS:
            raise ValueError(f"fds: one message carries at most {MAX_FDS} descriptors, not {len(numbers)}")
        return cls.from_data(array("i", numbers).tobytes())

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors, in the order of sending."""
        return tuple(array("i", self[2]))


def _descriptor(name: str, item: Any) -> int:
    if hasattr(item, "fileno"):
        item = item.fileno()  # -1 of a closed socket
    elif not hasattr(item, "__index__"):
        raise TypeError(f"{name} must be an int or have a fileno() method, not {type(item).__name__}")
    return checked_int(name, item, least=0)


@registered("SCM_CREDENTIALS", sizes=(_UCRED.size,), option="SO_PASSCRED")
class Credentials(ControlMessage):
    """Who sent it, as the kernel vouches. Arrives with SO_PASSCRED, with each message, also of senders that sent none.

    Sent: what the kernel is to tell. Without privileges the pid has to be the sender's own, uid and gid one of its real,
    effective or saved ones, else EPERM; a pid that there is not is ESRCH. Of a sender that sends none the kernel tells the
    real uid and gid. Received: a process of another pid namespace has pid 0, an id without a mapping is 65534, and so is
    what was sent before anybody had set the option. The option goes from a listening socket to what it accepts, and gives
    a socket without a name an abstract one when it connects or sends. See unix(7), credentials(7).
    """

    __slots__ = ()
    _fields = ("pid", "uid", "gid")

    def __new__(cls, *, pid: int | None = None, uid: int | None = None, gid: int | None = None) -> Self:
        """None: the calling process's own pid, effective uid, effective gid."""
        return cls.from_data(
            _UCRED.pack(
                number("pid", os.getpid() if pid is None else pid, INT_MAX),
                number("uid", os.geteuid() if uid is None else uid, UINT32),
                number("gid", os.getegid() if gid is None else gid, UINT32),
            )
        )

    @property
    def pid(self) -> int:
        """The process, by its number in the receiver's pid namespace; 0 if it has none there."""
        (pid,) = _ucred_pid(self[2])
        return pid

    @property
    def uid(self) -> int:
        (uid,) = _ucred_uid(self[2])
        return uid

    @property
    def gid(self) -> int:
        (gid,) = _ucred_gid(self[2])
        return gid


@registered("SCM_PIDFD", sizes=(INT_SIZE,), option="SO_PASSPIDFD", since="Linux 6.5")
class PidFd(ControlMessage):
    """Received with SO_PASSPIDFD (Linux 6.5): a descriptor of the process that sent the message, close-on-exec.

    A message never owns a descriptor: it is yours to close, and `lowsock.recv_owned_fds` gives an owner that does. See
    pidfd_open(2), unix(7).
    """

    __slots__ = ()
    _fields = ("fd",)

    def __new__(cls, *, fd: int) -> Self:
        return cls.from_data(INT.pack(checked_int("fd", fd, least=-_ERRNO_MAX)))

    @property
    def fd(self) -> int:
        """The pidfd. If negative, there is none and this is -errno: of a process that is gone (before Linux 6.16), of a full
        table of descriptors (-EMFILE).
        """
        return _int(self[2])[0]


@registered("SCM_SECURITY", option="SO_PASSSEC", room=_LABEL_ROOM)
class Security(ControlMessage):
    """Received with SO_PASSSEC: the sender's label, where a security module gives labels (SELinux, Smack, AppArmor).

    One that was cut off, as MSG_CTRUNC tells, looks like a shorter one. See unix(7), SO_PASSSEC.
    """

    __slots__ = ()
    _fields = ("label",)

    def __new__(cls, *, label: str) -> Self:
        if not isinstance(label, str):
            raise TypeError(f"label must be a str, not {type(label).__name__}")
        if "\0" in label:
            raise ValueError(f"label must have no null character: {label!r:.60}")
        try:
            return cls.from_data(os.fsencode(label))
        except UnicodeEncodeError:
            raise ValueError(f"label must be text that the file system's encoding has: {label!r:.60}") from None

    @property
    def label(self) -> str:
        """Without the null character that SELinux puts at its end; what is not UTF-8 is there as `os.fsdecode` shows it."""
        return os.fsdecode(self[2].rstrip(b"\0"))


# ---- with datagrams ----


@registered("SO_RXQ_OVFL", sizes=(INT_SIZE,), option="SO_RXQ_OVFL")
class Drops(ControlMessage):
    """Received with SO_RXQ_OVFL: how many datagrams had been lost at this socket when this one came into its queue.

    It does not come before the first loss, and a loss is told by the first datagram that found room again. See socket(7).
    """

    __slots__ = ()
    _fields = ("dropped",)

    def __new__(cls, *, dropped: int) -> Self:
        return cls.from_data(UINT.pack(number("dropped", dropped, UINT32)))

    @property
    def dropped(self) -> int:
        """Since the socket was made; it wraps at 2**32."""
        return _uint(self[2])[0]


@registered("SO_MARK", sizes=(INT_SIZE,), option="SO_RCVMARK", since="Linux 5.19")
class Mark(ControlMessage):
    """The firewall's mark of a datagram. Received with SO_RCVMARK (Linux 5.19), sent in place of the socket's own SO_MARK.

    Sending one wants CAP_NET_ADMIN or CAP_NET_RAW, else EPERM; so does the option in some kernels. See socket(7).
    """

    __slots__ = ()
    _fields = ("mark",)

    def __new__(cls, *, mark: int) -> Self:
        return cls.from_data(UINT.pack(number("mark", mark, UINT32)))

    @property
    def mark(self) -> int:
        return _uint(self[2])[0]


@registered("SO_PRIORITY", sizes=(INT_SIZE,), option="SO_RCVPRIORITY", since="Linux 6.14")
class Priority(ControlMessage):
    """The priority of a datagram. Received with SO_RCVPRIORITY, sent in place of the socket's own SO_PRIORITY (Linux 6.14).

    Above 6 it wants CAP_NET_ADMIN or CAP_NET_RAW, else EPERM. See socket(7).
    """

    __slots__ = ()
    _fields = ("priority",)

    def __new__(cls, *, priority: int) -> Self:
        return cls.from_data(UINT.pack(number("priority", priority, UINT32)))

    @property
    def priority(self) -> int:
        return _uint(self[2])[0]


@registered("SCM_WIFI_STATUS", sizes=(INT_SIZE,), option="SO_WIFI_STATUS")
class WifiStatus(ControlMessage):
    """Received with SO_WIFI_STATUS, on the error queue: whether the other station acknowledged the frame. See socket(7)."""

    __slots__ = ()
    _fields = ("acked",)

    def __new__(cls, *, acked: bool) -> Self:
        return cls.from_data(INT.pack(number("acked", acked, 1)))

    @property
    def acked(self) -> bool:
        return bool(_int(self[2])[0])


# ---- FreeBSD ----

_CMSGCRED, _SOCKCRED, _SOCKCRED2 = map(layout, ("cmsgcred", "sockcred", "sockcred2"))
_GROUPS = _SOCKCRED.offsets.get("sc_groups", 0)  # where the list begins
_GROUPS2 = _SOCKCRED2.offsets.get("sc_groups", 0)
_SCM_CREDS = "SCM_CREDS" if _SOCKCRED.size else "SCM_CREDS of FreeBSD"  # others have the name, for structures of their own
_GID_SIZE = array("I").itemsize
_MAX_GROUPS = 16  # FreeBSD: CMGROUP_MAX


def _room(groups: int) -> int:
    return groups + _MAX_GROUPS * _GID_SIZE


class _Ids(NamedTuple):
    """Who sent a message; None for what it does not tell."""

    pid: int | None
    uid: int
    euid: int
    gid: int
    egid: int | None
    groups: tuple[int, ...]


class _Sender(ControlMessage):
    """The ids of the process that sent the message."""

    __slots__ = ()
    _fields = _Ids._fields

    def _ids(self) -> _Ids:
        raise NotImplementedError

    pid: int | None = property(lambda self: self._ids().pid, doc="None in a struct sockcred.")  # type: ignore[assignment]
    uid: int = property(lambda self: self._ids().uid)  # type: ignore[assignment]
    euid: int = property(lambda self: self._ids().euid)  # type: ignore[assignment]
    gid: int = property(lambda self: self._ids().gid)  # type: ignore[assignment]
    egid: int | None = property(lambda self: self._ids().egid, doc="None in a struct cmsgcred.")  # type: ignore[assignment]
    groups: tuple[int, ...] = property(lambda self: self._ids().groups)  # type: ignore[assignment]


@registered(_SCM_CREDS, least=_GROUPS, step=_GID_SIZE, option="LOCAL_CREDS", room=_room(_GROUPS))
class Creds(_Sender):
    """FreeBSD: who sent it, as the kernel vouches. `Creds()` is sent; the kernel fills it, a struct cmsgcred.

    Received: that one, without an option, or with LOCAL_CREDS a struct sockcred, which has egid and no pid. Their sizes
    tell them apart, but for a list of 16 groups, which makes them equal: that is taken as a struct cmsgcred. See unix(4).
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        pid: int | None = 0,
        uid: int = 0,
        euid: int = 0,
        gid: int = 0,
        egid: int | None = None,
        groups: Iterable[int] = (),
    ) -> Self:
        """With ``egid`` a struct sockcred, which has no ``pid``; else a struct cmsgcred, with at most 16 groups."""
        ids = _checked_ids(_Ids(pid, uid, euid, gid, egid, tuple(groups)))
        count, gids = len(ids.groups), array("I", ids.groups).tobytes()
        if egid is not None:
            return cls.from_data(_SOCKCRED.pack(ids.uid, ids.euid, ids.gid, ids.egid, count, b"")[:_GROUPS] + gids)
        if count > _MAX_GROUPS:
            raise ValueError(f"groups: a struct cmsgcred holds at most {_MAX_GROUPS}, not {count}")
        return cls.from_data(_CMSGCRED.pack(ids.pid or 0, ids.uid, ids.euid, ids.gid, count, gids))

    def _ids(self) -> _Ids:
        data = self[2]
        if len(data) == _CMSGCRED.size:
            pid, uid, euid, gid, count, gids = _CMSGCRED.unpack(data)
            return _Ids(pid, uid, euid, gid, None, _unpack_groups(gids, count))
        uid, euid, gid, egid, count, _ = _SOCKCRED.unpack(data)
        return _Ids(None, uid, euid, gid, egid, _unpack_groups(data[_GROUPS:], count))


@registered(
    "SCM_CREDS2", least=_GROUPS2, step=_GID_SIZE, option="LOCAL_CREDS_PERSISTENT", room=_GROUPS2 + _MAX_GROUPS * _GID_SIZE
)
class Creds2(_Sender):
    """FreeBSD 13: who sent it, received with LOCAL_CREDS_PERSISTENT, with each message. See unix(4)."""

    __slots__ = ()

    def __new__(
        cls, *, pid: int = 0, uid: int = 0, euid: int = 0, gid: int = 0, egid: int = 0, groups: Iterable[int] = ()
    ) -> Self:
        ids = _checked_ids(_Ids(pid, uid, euid, gid, egid, tuple(groups)))
        packed = _SOCKCRED2.pack(*ids[:5], len(ids.groups), b"")
        return cls.from_data(packed[:_GROUPS2] + array("I", ids.groups).tobytes())

    def _ids(self) -> _Ids:
        pid, uid, euid, gid, egid, count, _ = _SOCKCRED2.unpack(self[2])
        return _Ids(pid, uid, euid, gid, egid, _unpack_groups(self[2][_GROUPS2:], count))


def _checked_ids(ids: _Ids) -> _Ids:
    for name, value in zip(ids._fields[:5], ids):
        if value is not None:
            number(name, value, INT_MAX if name == "pid" else UINT32)
    for i, gid in enumerate(ids.groups):
        number(f"groups[{i}]", gid, UINT32)
    return ids


def _unpack_groups(gids: bytes, count: int) -> tuple[int, ...]:
    """The first ``count`` groups, or as many as there are."""
    return tuple(array("I", gids[: max(count, 0) * _GID_SIZE]))
