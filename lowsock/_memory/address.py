# SPDX-License-Identifier: MIT
"""Address tuples, in the shapes of the ``socket`` module, to and from ``struct sockaddr``."""

from __future__ import annotations

import itertools
import os
import sys
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    AI_NUMERICHOST,
    SOCK_DGRAM,
    gaierror,
    getaddrinfo,
    inet_ntoa,
    inet_ntop,
    inet_pton,
)

from lowsock._memory.buffers import as_bytes
from lowsock._system import kinds
from lowsock._system.arguments import checked_field
from lowsock._system.constants import CONSTANTS
from lowsock._system.descriptor import target
from lowsock._system.errors import fail, raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.layouts import LAYOUTS

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any, Callable

    from lowsock._memory.reply import Reply
    from lowsock._system.types import Address, Socket

CACHED = 1024  # addresses in each cache: an IPv4 or IPv6 address is a pure function of its bytes, others are not
_UINT16, _UINT32 = 2**16 - 1, 2**32 - 1

_inet: dict[int, tuple[str, int]] = {}
_inet6: dict[bytes, tuple[str, int, int, int]] = {}
KNOWN, KNOWN_NAMES = _inet.get, _inet6.get  # what batches ask first
_encoded: dict[Any, tuple[int, bytes]] = {}
_AF = CONSTANTS  # PyPy's socket module lacks some families

_INET = (AF_INET, AF_INET6)
_OTHER: dict[int, int] = {AF_INET: AF_INET6, AF_INET6: AF_INET}
_NAMES: dict[int, str] = {AF_INET: "AF_INET", AF_INET6: "AF_INET6"}
_string = ffi.string
_turns = itertools.count()
_SELDOM = 15  # one new IPv4 source in 16 is kept: whoever comes often is soon among them, a flood of others costs little


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(cache) >= CACHED:
        cache.clear()
    cache[key] = value
    return value


# ---- decoding ----


def decode(reply: Reply, source: int) -> Address:
    """The address of a reply; ``source`` is what its info says of it."""
    if source >= 0:
        address = _inet.get(source)
        if address is None:
            address = _string(reply.host).decode(), source & _UINT16
            if next(_turns) & _SELDOM == 0:
                _keep(reply, source, address)
        return address
    if source == -1:
        return None
    name = reply.name[: reply.struct.name_size]
    return _inet6.get(name) or decode_name(name)


def decode_inet(source: int) -> tuple[str, int]:
    """The address that is ``host << 16 | port``. Whoever looked for it in `KNOWN` before had the quick way."""
    address = inet_ntoa((source >> 16).to_bytes(4, "big")), source & _UINT16
    if next(_turns) & _SELDOM == 0:
        _remember(_inet, source, address)
    return address


def _keep(reply: Reply, source: int, address: Address) -> None:
    _remember(_inet, source, address)
    reply.address = address
    reply.struct.cached_source = source


def decode_name(name: bytes) -> Address:
    """The address in the bytes of a ``struct sockaddr``; one too short to tell its family is None."""
    layout = LAYOUTS["sockaddr"]
    if len(name) < layout.offsets["sa_data"]:
        return None
    family = layout.unpack(name)[0]
    row = _FAMILIES.get(family)
    if row is None or row[0] not in LAYOUTS:
        return family, name[layout.offsets["sa_data"] :]
    return row[2](name)


def _decode_inet(name: bytes) -> tuple[str, int]:
    _, port, host = LAYOUTS["sockaddr_in"].unpack(name)
    return inet_ntoa(host), int.from_bytes(port, "big")


def _decode_inet6(name: bytes) -> tuple[str, int, int, int]:
    _, port, flow, host, scope = LAYOUTS["sockaddr_in6"].unpack(name)
    address = inet_ntop(AF_INET6, host), int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope
    _remember(_inet6, name, address)
    return address


def _decode_unix(name: bytes) -> Any:
    path = name[LAYOUTS["sockaddr_un"].offsets["sun_path"] :]
    if path[:1] == b"\0":  # Linux: an abstract name, every byte of it counts
        return path
    return os.fsdecode(path.split(b"\0")[0])


def _decode_netlink(name: bytes) -> tuple[int, int]:
    _, pid, groups = LAYOUTS["sockaddr_nl"].unpack(name)
    return pid, groups


def _decode_packet(name: bytes) -> tuple[str, int, int, int, bytes]:
    layout = LAYOUTS["sockaddr_ll"]
    _, protocol, ifindex, hatype, pkttype, halen, _ = layout.unpack(name)
    hardware = name[layout.offsets["sll_addr"] :][:halen]  # longer than its field for InfiniBand
    return _interface(ifindex), int.from_bytes(protocol, "big"), pkttype, hatype, hardware


def _interface(ifindex: int) -> str:
    name = ffi.new("char[]", lib.LOWSOCK_NAME)
    size = lib.lowsock_interface_name(ifindex, name)
    return os.fsdecode(ffi.buffer(name, size)[:]) if size > 0 else ""  # it went away: the socket module says the same


def _decode_vsock(name: bytes) -> tuple[int, int]:
    _, port, cid = LAYOUTS["sockaddr_vm"].unpack(name)
    return cid, port


# ---- encoding ----


def family_of(sock: Socket) -> int:
    """The address family of a socket, or -errno."""
    return kinds.family_of(sock) if type(sock) is kinds.Socket else lib.lowsock_family(target(sock)[0])


def encode_for(sock: Socket, address: Address, numeric_for: int | None = None) -> bytes:
    """The ``struct sockaddr`` of an address for this socket; that of a numeric host is kept for the next time.

    With ``numeric_for``, the socket's family, a host name is a `ValueError`: to look one up would block.
    """
    if numeric_for is not None:
        family = numeric_for
    else:
        family = kinds.family_of(sock) if type(sock) is kinds.Socket else lib.lowsock_family(target(sock)[0])
    if type(address) is tuple:
        kept = None
        try:
            kept = _encoded.get(address)
        except TypeError as error:  # a bytearray as host cannot be hashed
            if not raised_here(error):
                raise
        if kept is not None and kept[0] == family and _is_same(address):
            return kept[1]
    if family < 0:
        fail(family)
    name = encode(family, address) if numeric_for is None else _encode_numeric(family, address)
    if family in _INET and _is_plain(address) and _is_numeric(family, address[0]):
        _remember(_encoded, address, (family, name))
    return name


def _encode_numeric(family: int, address: Address) -> bytes:
    if family in _INET and isinstance(address, tuple) and address:
        host = _host(address[0])
        if host not in ("", "<broadcast>") and not _is_numeric(family, host) and not _has_scope(family, host):
            other = _OTHER[family]
            if _is_numeric(other, host):
                raise ValueError(f"address host must be of the socket's family, {host!r:.80} is of {_NAMES[other]}")
            raise ValueError(f"address host must be numeric here: to look up {host!r:.80} would block")
    return encode(family, address)


def _has_scope(family: int, host: str) -> bool:
    """Whether a host that inet_pton(3) refuses is a numeric one all the same: fe80::1%eth0, 127.1."""
    try:
        _getaddrinfo(host, None, family, SOCK_DGRAM, 0, AI_NUMERICHOST)
    except (gaierror, UnicodeError):
        return False
    return True


def encode(family: int, address: Address) -> bytes:
    """The ``struct sockaddr`` of an address for a socket of ``family``. A host name is resolved, each time.

    Raises `TypeError`, `ValueError` or `OverflowError` naming what is wrong, and `socket.gaierror` for a name that is not
    found.
    """
    row = _FAMILIES.get(family)
    return _encode_other(address) if row is None or row[0] not in LAYOUTS else row[1](address)


def _is_same(address: tuple[Any, ...]) -> bool:
    """Whether an address that is equal to a plain one is plain itself."""
    return (len(address) == 2 and type(address[1]) is int) or _is_plain(address)


def _is_plain(address: Any) -> bool:
    """Whether an address is a tuple of a str and ints: 80.0 and True are equal to ports, other types to what they like."""
    if type(address) is not tuple or type(address[0]) is not str or type(address[1]) is not int:
        return False
    return len(address) == 2 or all(type(number) is int for number in address[2:])


def _is_numeric(family: int, host: str) -> bool:
    try:
        inet_pton(family, host)
    except (OSError, TypeError, UnicodeError) as error:
        if not raised_here(error):
            raise
        return False
    return True


def _checked_tuple(address: Address, shape: str, least: int, most: int) -> tuple[Any, ...]:
    if not isinstance(address, tuple):
        raise TypeError(f"address must be a tuple {shape}, not {type(address).__name__}")
    if not least <= len(address) <= most:
        raise TypeError(f"address must be a tuple {shape}, not one of {len(address)}")
    return address


def _port(value: Any) -> bytes:
    return checked_field("address port", value, _UINT16).to_bytes(2, "big")


def _encode_inet(address: Address) -> bytes:
    host, port = _checked_tuple(address, "(host, port) for AF_INET", 2, 2)
    number = _port(port)
    special = {"": "0.0.0.0", "<broadcast>": "255.255.255.255"}
    name = _host(host)
    numeric, _ = _resolve(AF_INET, special.get(name, name))
    return LAYOUTS["sockaddr_in"].pack(AF_INET, number, inet_pton(AF_INET, numeric))


def _encode_inet6(address: Address) -> bytes:
    shape = "(host, port[, flowinfo[, scope_id]]) for AF_INET6"
    host, port, *rest = _checked_tuple(address, shape, 2, 4)
    number = _port(port)
    flow = checked_field("address flowinfo", rest[0] if rest else 0, 2**20 - 1).to_bytes(4, "big")
    numeric, scope = _resolve(AF_INET6, _host(host) or "::")
    if rest[1:]:
        scope = checked_field("address scope_id", rest[1], _UINT32)
    packed = inet_pton(AF_INET6, numeric)
    return LAYOUTS["sockaddr_in6"].pack(AF_INET6, number, flow, packed, scope)


def _host(host: Any) -> str:
    if not isinstance(host, (str, bytes, bytearray)):
        raise TypeError(f"address host must be str, bytes or bytearray, not {type(host).__name__}")
    name = host if isinstance(host, str) else bytes(host).decode("latin-1")
    if "\0" in name:
        raise ValueError("address host must not contain a null character")
    return name


def _resolve(family: int, name: str) -> tuple[str, int]:
    """The numeric form of a host and its scope; a name goes to getaddrinfo(3), as the socket module sends it."""
    if _is_numeric(family, name):
        return name, 0
    found: Any = _getaddrinfo(name, None, family, SOCK_DGRAM)[0][4]
    return found[0].split("%")[0], found[3] if family == AF_INET6 else 0


def _getaddrinfo(*arguments: Any) -> Any:
    """The program's own: a library of green threads may have put one in its place that does not hold the others up."""
    return getattr(sys.modules.get("socket"), "getaddrinfo", getaddrinfo)(*arguments)


def _encode_unix(address: Address) -> bytes:
    path = os.fsencode(address) if isinstance(address, str) else as_bytes("address path", address)
    layout = LAYOUTS["sockaddr_un"]
    abstract = path[:1] in (b"", b"\0")  # Linux; an empty path stands for no name
    if not abstract and b"\0" in path:
        raise ValueError("address path must not contain a null character")
    if len(path) + (not abstract) > layout.sizes["sun_path"]:
        raise OSError("AF_UNIX path too long")
    return layout.pack(AF_UNIX, path)[: layout.offsets["sun_path"] + len(path) + (not abstract)]


def _encode_netlink(address: Address) -> bytes:
    pid, groups = _checked_tuple(address, "(pid, groups) for AF_NETLINK", 2, 2)
    pid, groups = _uint32("pid", pid), _uint32("groups", groups)
    return LAYOUTS["sockaddr_nl"].pack(_AF["AF_NETLINK"], pid, groups)


def _encode_packet(address: Address) -> bytes:
    shape = "(ifname, proto[, pkttype[, hatype[, addr]]]) for AF_PACKET"
    fields = _checked_tuple(address, shape, 2, 5)
    defaults = 0, 0, b""
    name, protocol, pkttype, hatype, hardware = fields + defaults[len(fields) - 2 :]
    if not isinstance(name, str):
        raise TypeError(f"address ifname must be str, not {type(name).__name__}")
    if "\0" in name:
        raise ValueError("address ifname must not contain a null character")
    hardware = as_bytes("address addr", hardware)
    if len(hardware) > LAYOUTS["sockaddr_ll"].sizes["sll_addr"]:
        raise ValueError(f"address addr is too long for a hardware address: {len(hardware)} bytes")
    number = checked_field("address proto", protocol, _UINT16).to_bytes(2, "big")
    hatype = checked_field("address hatype", hatype, _UINT16)
    pkttype = checked_field("address pkttype", pkttype, 255)
    ifindex = lib.lowsock_interface_index(os.fsencode(name)) if name else 0
    if ifindex < 0:
        fail(ifindex)
    return LAYOUTS["sockaddr_ll"].pack(_AF["AF_PACKET"], number, ifindex, hatype, pkttype, len(hardware), hardware)


def _encode_vsock(address: Address) -> bytes:
    cid, port = _checked_tuple(address, "(cid, port) for AF_VSOCK", 2, 2)
    cid, port = _uint32("cid", cid), _uint32("port", port)
    return LAYOUTS["sockaddr_vm"].pack(_AF["AF_VSOCK"], port, cid)


def _uint32(name: str, value: Any) -> int:
    return checked_field(f"address {name}", value, _UINT32)


def _encode_other(address: Address) -> bytes:
    family, data = _checked_tuple(address, "(family, bytes) for a family that lowsock has no shape for", 2, 2)
    layout = LAYOUTS["sockaddr"]
    data = as_bytes("address data", data)
    if layout.offsets["sa_data"] + len(data) > lib.LOWSOCK_NAME:
        raise ValueError(f"address data is too long: {len(data)} bytes")
    family = checked_field("address family", family, 2 ** (8 * layout.sizes["sa_family"]) - 1)
    return layout.pack(family, b"")[: layout.offsets["sa_data"]] + data


# ---- the families ----


# address family: structure, encoder, decoder
_FAMILIES: dict[int, tuple[str, Callable[[Address], bytes], Callable[[bytes], Address]]] = {
    _AF[name]: (layout, encoder, decoder)
    for name, layout, encoder, decoder in (
        ("AF_INET", "sockaddr_in", _encode_inet, _decode_inet),
        ("AF_INET6", "sockaddr_in6", _encode_inet6, _decode_inet6),
        ("AF_UNIX", "sockaddr_un", _encode_unix, _decode_unix),
        ("AF_NETLINK", "sockaddr_nl", _encode_netlink, _decode_netlink),
        ("AF_PACKET", "sockaddr_ll", _encode_packet, _decode_packet),
        ("AF_VSOCK", "sockaddr_vm", _encode_vsock, _decode_vsock),
    )
    if name in _AF
}
