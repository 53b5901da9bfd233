# SPDX-License-Identifier: MIT
"""Address tuples, shaped as in the ``socket`` module, to and from ``struct sockaddr``; and caches of them."""

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
from lowsock._system import socket_class as kinds
from lowsock._system.arguments import checked_field
from lowsock._system.constants import CONSTANTS
from lowsock._system.errors import fail, raised_here
from lowsock._system.ffi import ffi, lib
from lowsock._system.layouts import LAYOUTS
from lowsock._system.target import fileno

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any, Callable

    from lowsock._memory.recv_pool import Reply
    from lowsock._system.types import Address, Socket

CACHE_SIZE = 1024  # entries: only IPv4 and IPv6 are cached, whose tuples depend on the bytes alone
_UINT16, _UINT32 = 2**16 - 1, 2**32 - 1

_inet_cache: dict[int, tuple[str, int]] = {}
_inet6_cache: dict[bytes, tuple[str, int, int, int]] = {}
cached_inet, cached_inet6 = _inet_cache.get, _inet6_cache.get  # batches look here first
_encode_cache: dict[Any, tuple[int, bytes]] = {}
_cached_name = _encode_cache.get
_AF = CONSTANTS  # PyPy's socket module lacks some families

_INET = (AF_INET, AF_INET6)
_OTHER_FAMILY: dict[int, int] = {AF_INET: AF_INET6, AF_INET6: AF_INET}
_FAMILY_NAMES: dict[int, str] = {AF_INET: "AF_INET", AF_INET6: "AF_INET6"}
_string = ffi.string
_misses = itertools.count()
_SAMPLE_MASK = 15  # one miss in 16 is cached: a frequent source is soon found, and a flood of new sources costs little


def _cache_put(cache: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(cache) >= CACHE_SIZE:
        cache.clear()
    cache[key] = value
    return value


# ---- decoding ----


def decode(reply: Reply, source: int) -> Address:
    """The address of a reply; ``source`` is the third number of its info."""
    if source >= 0:
        address = _inet_cache.get(source)
        if address is None:
            address = _string(reply.host).decode(), source & _UINT16
            if next(_misses) & _SAMPLE_MASK == 0:
                _cache_source(reply, source, address)
        return address
    if source == -1:
        return None
    name = reply.name[: reply.struct.name_size]
    return _inet6_cache.get(name) or decode_name(name)


def decode_inet(source: int) -> tuple[str, int]:
    """The address that is ``host << 16 | port``. Look in `cached_inet` first, which is quicker."""
    address = inet_ntoa((source >> 16).to_bytes(4, "big")), source & _UINT16
    if next(_misses) & _SAMPLE_MASK == 0:
        _cache_put(_inet_cache, source, address)
    return address


def _cache_source(reply: Reply, source: int, address: Address) -> None:
    _cache_put(_inet_cache, source, address)
    reply.cached_address = address
    reply.struct.cached_source = source


def decode_name(name: bytes) -> Address:
    """The address in the bytes of a ``struct sockaddr``; None if they are too short for a family."""
    layout = LAYOUTS["sockaddr"]
    if len(name) < layout.offsets["sa_data"]:
        return None
    family = layout.unpack(name)[0]
    row = _FAMILIES[family]
    return (family, name[layout.offsets["sa_data"] :]) if row is None else row[1](name)


def _decode_inet(name: bytes) -> tuple[str, int]:
    _, port, host = LAYOUTS["sockaddr_in"].unpack(name)
    return inet_ntoa(host), int.from_bytes(port, "big")


def _decode_inet6(name: bytes) -> tuple[str, int, int, int]:
    _, port, flow, host, scope = LAYOUTS["sockaddr_in6"].unpack(name)
    address = inet_ntop(AF_INET6, host), int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope
    _cache_put(_inet6_cache, name, address)
    return address


def _decode_unix(name: bytes) -> Any:
    path = name[LAYOUTS["sockaddr_un"].offsets["sun_path"] :]
    if path[:1] == b"\0":  # Linux: an abstract name, all bytes of which count
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
    return os.fsdecode(ffi.buffer(name, size)[:]) if size > 0 else ""  # it is gone: the socket module returns the same


def _decode_vsock(name: bytes) -> tuple[int, int]:
    _, port, cid = LAYOUTS["sockaddr_vm"].unpack(name)
    return cid, port


# ---- encoding ----


def family_of(sock: Socket) -> int:
    """The address family of a socket, or -errno."""
    return (
        kinds.family_of(sock)
        if issubclass(type(sock), kinds.Base)
        else lib.lowsock_family(sock if type(sock) is int else fileno(sock))
    )


def cached_encoding(address: Address) -> tuple[int, bytes] | None:
    """Family and ``struct sockaddr`` of an address, if they were made before."""
    if type(address) is tuple:
        try:
            cached = _cached_name(address)
        except TypeError as error:  # a bytearray as host cannot be hashed
            if not raised_here(error):
                raise
            return None
        if cached is not None and ((len(address) == 2 and type(address[1]) is int) or _is_plain(address)):
            return cached
    return None


def encode_for(sock: Socket, address: Address, numeric_for: int | None = None) -> bytes:
    """The ``struct sockaddr`` of an address for this socket; if the host is numeric, it is cached.

    With ``numeric_for``, the socket's family, a host name raises `ValueError`: looking it up would block.
    """
    family = family_of(sock) if numeric_for is None else numeric_for
    if type(address) is tuple:
        cached = None
        try:
            cached = _cached_name(address)
        except TypeError as error:  # a bytearray as host cannot be hashed
            if not raised_here(error):
                raise
        if (
            cached is not None
            and cached[0] == family
            and ((len(address) == 2 and type(address[1]) is int) or _is_plain(address))
        ):
            return cached[1]
    if family < 0:
        fail(family)
    name = encode(family, address) if numeric_for is None else _encode_numeric(family, address)
    if family in _INET and _is_plain(address) and _is_numeric(family, address[0]):
        _cache_put(_encode_cache, address, (family, name))
    return name


def _encode_numeric(family: int, address: Address) -> bytes:
    if family in _INET and isinstance(address, tuple) and address:
        host = _host(address[0])
        if host not in ("", "<broadcast>") and not _is_numeric(family, host) and not _has_scope(family, host):
            other = _OTHER_FAMILY[family]
            if _is_numeric(other, host):
                raise ValueError(f"address host must be of the socket's family, {host!r:.80} is of {_FAMILY_NAMES[other]}")
            raise ValueError(f"address host must be numeric here: to look up {host!r:.80} would block")
    return encode(family, address)


def _has_scope(family: int, host: str) -> bool:
    """Whether a host that inet_pton(3) refuses is numeric all the same: fe80::1%eth0, 127.1."""
    try:
        _getaddrinfo(host, None, family, SOCK_DGRAM, 0, AI_NUMERICHOST)
    except (gaierror, UnicodeError):
        return False
    return True


def encode(family: int, address: Address) -> bytes:
    """The ``struct sockaddr`` of an address for a socket of ``family``. A host name is resolved, each time.

    Raises `TypeError`, `ValueError` or `OverflowError` naming what is wrong, and `socket.gaierror` for an unknown name.
    """
    row = _FAMILIES[family]
    return _encode_other(address) if row is None else row[0](address)


def _is_plain(address: Any) -> bool:
    """Whether an address is a tuple of a str and ints. 80.0 and True equal ports; other types may equal anything."""
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
    """The numeric form of a host and its scope; a name goes to getaddrinfo(3), as in the socket module."""
    if _is_numeric(family, name):
        return name, 0
    found: Any = _getaddrinfo(name, None, family, SOCK_DGRAM)[0][4]
    return found[0].split("%")[0], found[3] if family == AF_INET6 else 0


def _getaddrinfo(*arguments: Any) -> Any:
    """``socket.getaddrinfo``, for a library of green threads may have replaced it by one that does not block them."""
    return getattr(sys.modules.get("socket"), "getaddrinfo", getaddrinfo)(*arguments)


def _encode_unix(address: Address) -> bytes:
    path = os.fsencode(address) if isinstance(address, str) else as_bytes("address path", address)
    layout = LAYOUTS["sockaddr_un"]
    abstract = path[:1] in (b"", b"\0")  # Linux; an empty path means no name
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
_ROWS: dict[int, tuple[str, Callable[[Address], bytes], Callable[[bytes], Address]]] = {
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


class _Families(dict):  # type: ignore[type-arg]
    """Encoder and decoder of a family; None if there is none here. A row is entered when its family first comes."""

    def __missing__(self, family: int) -> Any:
        row = _ROWS.get(family)
        if row is None or row[0] not in LAYOUTS:
            return None
        return self.setdefault(family, row[1:])


_FAMILIES = _Families()
