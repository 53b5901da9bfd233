# SPDX-License-Identifier: MIT
"""Making a transport: resolves names, opens and prepares the socket. See udp(7)."""

from __future__ import annotations

import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, Callable

from lowsock._system.arguments import checked_bool, checked_int
from lowsock._system.spellings import renamed
from lowsock.aio._datagram.backends import backend_for
from lowsock.aio._datagram.transport import DatagramTransport
from lowsock.udp._former import OLD_OPTIONS

if TYPE_CHECKING:
    import asyncio

    from lowsock.aio._datagram.backends import Backend

    Addresses = tuple[Any, Any]  # local, remote
    Candidate = tuple[int, int, Addresses]  # family, protocol

_INET = (socket.AF_INET, socket.AF_INET6)
_OPTIONAL = ("recv_ecn", "recv_pktinfo")  # None: as the protocol needs it
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
# The options for IP's second byte, TOS or traffic class. An IPv6 socket has both, because it may send by IPv4.
_TOS_OPTIONS = {
    socket.AF_INET: ((socket.IPPROTO_IP, socket.IP_TOS),),
    socket.AF_INET6: ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS), (socket.IPPROTO_IP, socket.IP_TOS)),
}


@renamed("create_datagram_endpoint", OLD_OPTIONS)
async def create_datagram_endpoint(
    protocol_factory: Callable[[], Any],
    local_addr: Any = None,
    remote_addr: Any = None,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    reuse_port: bool | None = None,
    allow_broadcast: bool | None = None,
    sock: socket.socket | None = None,
    gso: bool = True,
    gro: bool = True,
    recv_ecn: bool | None = None,
    recv_pktinfo: bool | None = None,
    recv_timestamps: bool = False,
    recv_errors: bool = False,
    default_ecn: int | None = None,
) -> tuple[DatagramTransport, Any]:
    """Makes a datagram endpoint as the loop's own method does, with the same arguments; returns ``(transport, protocol)``.

    The transport calls the protocol as the loop's own transport would. If the protocol has a method ``datagrams_received``,
    that gets all that came by one system call, as a list of `lowsock.udp.Datagram`, and ``datagram_received`` is not called.

    ``gso`` and ``gro`` are segmentation offload in sends and in receives. ``recv_ecn`` and ``recv_pktinfo``: let datagrams
    come with their ECN, and with our address and the interface; None: if the protocol has ``datagrams_received``.
    ``recv_timestamps``: with the time. ``recv_errors``: the transport reads the error queue, and calls ``errors_received``
    with the list of its events (`lowsock.errqueue`). ``default_ecn``: 0 to 3 or a `cmsg.ECN`, for all that is sent.

    It takes a running asyncio loop, stock or uvloop. Raises what the loop's own method raises, and `TypeError` for an option
    that is neither True nor False. See udp(7).
    """
    loop = _running_loop()
    asked = {
        "recv_ecn": recv_ecn,
        "recv_pktinfo": recv_pktinfo,
        "recv_timestamps": recv_timestamps,
        "recv_errors": recv_errors,
    }
    _check_options({**asked, "gso": gso, "gro": gro})
    default = None if default_ecn is None else checked_int("default_ecn", default_ecn, least=0, most=3)
    address, given = None, sock is not None
    if sock is not None:
        modifiers = {
            "local_addr": local_addr, "remote_addr": remote_addr, "family": family, "proto": proto, "flags": flags,
            "reuse_port": reuse_port, "allow_broadcast": allow_broadcast,
        }  # fmt: skip
        _check_socket(sock, modifiers)
        sock.setblocking(False)
    else:
        candidates = await _candidates(loop, local_addr, remote_addr, family, proto, flags)
        sock, address = _open_socket(candidates, bool(reuse_port), bool(allow_broadcast))
    try:
        if default is not None:
            _set_ecn(sock, default)
        protocol = protocol_factory()
        transport = DatagramTransport(loop, sock, protocol, _backend(sock, protocol, asked, gso, gro), address)
    except BaseException:
        if not given:
            sock.close()
        raise
    await _start(loop, transport, protocol)
    return transport, protocol


def _running_loop() -> asyncio.AbstractEventLoop:
    module: Any = sys.modules.get("asyncio")  # if nobody has imported it, no loop runs
    loop: asyncio.AbstractEventLoop | None = None if module is None else module._get_running_loop()
    if loop is None:
        raise RuntimeError("create_datagram_endpoint takes a running asyncio loop: protocols are asyncio's")
    return loop


async def _start(loop: asyncio.AbstractEventLoop, transport: DatagramTransport, protocol: Any) -> None:
    """Calls ``connection_made``, then starts reading, then returns."""
    waiter = loop.create_future()
    loop.call_soon(protocol.connection_made, transport)
    loop.call_soon(transport._start_reading)
    loop.call_soon(_wake, waiter)
    try:
        await waiter
    except BaseException:
        transport.close()
        raise


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# ---- the socket ----


def _check_socket(sock: socket.socket, modifiers: dict[str, Any]) -> None:
    if sock.type != socket.SOCK_DGRAM:
        raise ValueError(f"sock must be a datagram socket, not {sock!r}")
    given = [name for name, value in modifiers.items() if value]
    if given:
        raise ValueError(f"with sock, these cannot be given: {', '.join(given)}")


async def _candidates(
    loop: asyncio.AbstractEventLoop, local: Any, remote: Any, family: int, proto: int, flags: int
) -> list[Candidate]:
    """The sockets to try, in the order in which names were resolved."""
    if not (local or remote):
        if not family:
            raise ValueError("family must be given if no address is")
        return [(family, proto, (None, None))]
    if family == socket.AF_UNIX:
        for name, path in (("local_addr", local), ("remote_addr", remote)):
            if path is not None and not isinstance(path, str):
                raise TypeError(f"{name} must be a str for AF_UNIX, not {type(path).__name__}")
        return [(family, proto, (local, remote))]
    found: dict[tuple[int, int], list[Any]] = {}
    for i, (name, address) in enumerate((("local_addr", local), ("remote_addr", remote))):
        if address is not None:
            for row in await _resolved(loop, name, address, family, proto, flags):
                found.setdefault((row[0], row[2]), [None, None])[i] = row[4]
    candidates = [
        (*key, (own, peer))
        for key, (own, peer) in found.items()
        if not ((local and own is None) or (remote and peer is None))
    ]
    if not candidates:
        raise ValueError("local_addr and remote_addr have no address family in common")
    return candidates


async def _resolved(loop: asyncio.AbstractEventLoop, name: str, address: Any, family: int, proto: int, flags: int) -> Any:
    if not isinstance(address, tuple) or len(address) != 2:
        raise TypeError(f"{name} must be a tuple (host, port), not {address!r:.80}")
    host, port = address
    if isinstance(port, int) and not 0 <= port <= 0xFFFF:  # getaddrinfo(3) would take its lower half
        raise OverflowError(f"{name} port must be 0 to 65535, not {port}")
    kind = socket.SOCK_DGRAM
    try:  # a numeric address takes no thread, which the loop would use
        return socket.getaddrinfo(host, port, family, kind, proto, flags | _NUMERIC)
    except (socket.gaierror, UnicodeError):
        return await loop.getaddrinfo(host, port, family=family, type=kind, proto=proto, flags=flags)


def _open_socket(candidates: list[Candidate], reuse_port: bool, broadcast: bool) -> tuple[socket.socket, Any]:
    """The first socket that can be made. If there is none, raises the error of the first."""
    failed = []
    for family, proto, (local, remote) in candidates:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM, proto)
            _prepare(sock, local, remote, reuse_port, broadcast)
            return sock, remote
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            failed.append(error)
    raise failed[0]


def _prepare(sock: socket.socket, local: Any, remote: Any, reuse_port: bool, broadcast: bool) -> None:
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("reuse_port: this platform has no SO_REUSEPORT")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if broadcast:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setblocking(False)
    if local:
        if sock.family == socket.AF_UNIX:
            _remove_stale(local)
        sock.bind(local)
    if remote and not broadcast:
        sock.connect(remote)


def _remove_stale(path: str) -> None:
    """Removes a socket that another process has left behind at a path, as the loops do."""
    if path[0] == "\0":
        return
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except OSError:  # if it matters, bind(2) says why
        pass


# ---- its options ----


def _check_options(options: dict[str, bool | None]) -> None:
    for name, value in options.items():
        if value is not None or name not in _OPTIONAL:
            checked_bool(name, value)


def _set_ecn(sock: socket.socket, ecn: int) -> None:
    rows = _TOS_OPTIONS.get(sock.family)
    if rows is None:
        raise ValueError("default_ecn takes a UDP socket")
    for level, option in rows:
        sock.setsockopt(level, option, sock.getsockopt(level, option) & ~3 | ecn)


def _backend(sock: socket.socket, protocol: Any, asked: dict[str, bool | None], gso: bool, gro: bool) -> Backend:
    default = hasattr(protocol, "datagrams_received") and sock.family in _INET
    wanted = {name: default if value is None else value for name, value in asked.items()}
    if wanted["recv_errors"] and not hasattr(protocol, "errors_received"):
        raise TypeError("recv_errors takes a protocol that has a method errors_received")
    return backend_for(sock, gso=gso, gro=gro, **wanted)
