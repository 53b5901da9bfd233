# SPDX-License-Identifier: MIT
"""lowsock._memory.address: address tuples to and from the kernel's bytes, beside the socket module and the kernel itself."""

import ctypes
import socket
import struct
import subprocess
import sys

import pytest

import lowsock
from lowsock._memory import address as _address

LINUX = sys.platform.startswith("linux")
AF_NETLINK, AF_PACKET, AF_VSOCK = (16, 17, 40) if LINUX else (None, None, None)  # PyPy's socket lacks some
LONGEST = 107 if LINUX else 103  # bytes of a path with its null: the size of sun_path
LIBC = ctypes.CDLL(None)
LOOPBACK = next(name for name in (b"lo", b"lo0") if LIBC.if_nametoindex(name))
linux = pytest.mark.skipif(not LINUX, reason="the families are Linux's")


def raw_name(sock):
    """The bytes of a socket's own address, from getsockname(2) itself."""
    name, size = ctypes.create_string_buffer(256), ctypes.c_uint32(256)
    assert LIBC.getsockname(sock.fileno(), name, ctypes.byref(size)) == 0
    return name.raw[: size.value]


@pytest.fixture
def bound(request, tmp_path, monkeypatch):
    """A socket bound to the parameter (family, type, protocol, address), or a skip that says why not."""
    family, kind, protocol, address = request.param
    if family is None:
        pytest.skip("the family is Linux's")
    monkeypatch.chdir(tmp_path)
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        pytest.skip(f"no socket of this family: {error}")
    with sock:
        try:
            sock.bind(address)
        except (OSError, ValueError) as error:  # PyPy: "unknown address family"
            pytest.skip(f"cannot be bound: {error}")
        yield sock


UNIX_NAMES = {
    "path": "socket",
    "path of bytes": b"socket",
    "path beyond ASCII": "sökét",
    "path that is not UTF-8": b"sock\xff\xfe",
    "path with surrogates": "sock\udcff",
    "longest path": "p" * LONGEST,
    "abstract": b"\0lowsock-test",
    "abstract with nulls": b"\0low\0sock\0",
    "abstract that is not UTF-8": b"\0lowsock\xff\xfe",
    "longest abstract": b"\0" + b"a" * LONGEST,
    "chosen by the kernel": "",
}
NAMES = {
    "IPv4": (socket.AF_INET, socket.SOCK_DGRAM, 0, ("127.0.0.1", 0)),
    "IPv4 of any host": (socket.AF_INET, socket.SOCK_DGRAM, 0, ("", 0)),
    "IPv6": (socket.AF_INET6, socket.SOCK_DGRAM, 0, ("::1", 0)),
    "IPv6 of any host": (socket.AF_INET6, socket.SOCK_DGRAM, 0, ("", 0)),
    **{f"unix {name}": (socket.AF_UNIX, socket.SOCK_DGRAM, 0, address) for name, address in UNIX_NAMES.items()},
    "netlink": (AF_NETLINK, socket.SOCK_RAW, 2, (0, 0)),  # NETLINK_USERSOCK
    "netlink group": (AF_NETLINK, socket.SOCK_RAW, 2, (0, 1)),
    "packet": (AF_PACKET, socket.SOCK_DGRAM, 0, ("lo", 0x88B5)),
    "vsock": (AF_VSOCK, socket.SOCK_STREAM, 0, (2**32 - 1, 40961)),
}
every_name = pytest.mark.parametrize("bound", NAMES.values(), ids=NAMES, indirect=True)


@every_name
def test_decoding_gives_what_the_socket_module_gives(bound):
    theirs = bound.getsockname()
    ours = _address.decode_name(raw_name(bound))
    assert (ours, type(ours)) == (theirs, type(theirs))


@every_name
def test_encoding_gives_what_the_kernel_gives(bound):
    raw = raw_name(bound)
    encoded = _address.encode(bound.family, bound.getsockname())
    assert encoded[: len(raw)] == raw  # the kernel leaves out the unused end of a hardware address
    assert not any(encoded[len(raw) :])


def test_an_unnamed_unix_socket_has_the_empty_path():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert _address.decode_name(raw_name(sock)) == sock.getsockname() == ""


# ---- both ways, without a socket ----

ROUND = {
    "IPv4": (socket.AF_INET, ("192.0.2.7", 65535)),
    "IPv6": (socket.AF_INET6, ("2001:db8::7", 1, 0, 0)),
    "IPv6 with flow info and scope": (socket.AF_INET6, ("fe80::1", 53, 0xABCDE, 2**32 - 1)),
    "unix path": (socket.AF_UNIX, "/run/sock"),
    "unix path with surrogates": (socket.AF_UNIX, "/run/\udcff\udc80"),
    "unix abstract": (socket.AF_UNIX, b"\0a\0b"),
    "unix unnamed": (socket.AF_UNIX, ""),
    "netlink": (AF_NETLINK, (2**32 - 1, 0x80000001)),
    "packet": (AF_PACKET, ("lo", 0x0800, 4, 0xFFFE, b"\1\2\3\4\5\6")),
    "packet of no interface": (AF_PACKET, ("", 0, 0, 0, b"")),
    "vsock": (AF_VSOCK, (1, 2**32 - 1)),
    "another family": (250, (250, b"\1\2\3\0\5")),
    "another family, without data": (251, (251, b"")),
}


@pytest.mark.parametrize(("family", "address"), ROUND.values(), ids=ROUND)
def test_decoding_undoes_encoding(family, address):
    if family is None:
        pytest.skip("the family is Linux's")
    assert _address.decode_name(_address.encode(family, address)) == address


def test_flow_info_stands_in_network_order():
    name = _address.encode(socket.AF_INET6, ("::1", 0x0102, 0x30405, 6))
    assert name[2:8] == b"\x01\x02\x00\x03\x04\x05"
    assert name[24:28] == struct.pack("=I", 6)


@pytest.mark.parametrize("host", [b"127.0.0.1", bytearray(b"127.0.0.1")])
def test_a_host_may_be_bytes(host):
    assert _address.encode(socket.AF_INET, (host, 7)) == _address.encode(socket.AF_INET, ("127.0.0.1", 7))


@pytest.mark.parametrize("path", [b"/sock", bytearray(b"/sock"), memoryview(b"/sock")])
def test_a_path_may_be_bytes(path):
    assert _address.decode_name(_address.encode(socket.AF_UNIX, path)) == "/sock"


SHORT = {
    "nothing": (b"", None),
    "half a family": (b"\1", None),
    "unix without a path": (struct.pack("=H", socket.AF_UNIX), ""),
    "IPv4 family alone": (struct.pack("=H", socket.AF_INET), ("0.0.0.0", 0)),
    "IPv6 cut in its host": (
        struct.pack("=H", socket.AF_INET6) + b"\0\7" + bytes(4) + b"\xfe\x80",
        ("fe80::", 7, 0, 0),
    ),
    "unix path without its null": (struct.pack("=H", socket.AF_UNIX) + b"/sock", "/sock"),
    "unix path with more behind the null": (struct.pack("=H", socket.AF_UNIX) + b"/sock\0more", "/sock"),
    "unknown family": (struct.pack("=H", 250) + b"xyz", (250, b"xyz")),
}


@pytest.mark.parametrize(("name", "address"), SHORT.values(), ids=SHORT)
def test_a_name_of_any_length_is_decoded(name, address):
    assert _address.decode_name(name) == address


@linux
def test_a_hardware_address_longer_than_its_field_is_whole():
    """InfiniBand's has 20 bytes; the kernel lets it run past struct sockaddr_ll (packet(7))."""
    hardware = bytes(range(20))
    name = struct.pack("=HHiHBB", AF_PACKET, 0, 0, 32, 0, len(hardware)) + hardware
    assert _address.decode_name(name) == ("", 0, 0, 32, hardware)


# ---- AF_PACKET names interfaces ----


RENAME = """
import ctypes, fcntl, socket, struct
from lowsock._memory import address as _address

if ctypes.CDLL(None).unshare(0x40000000):  # CLONE_NEWNET
    raise SystemExit(77)
name = _address.encode(socket.AF_PACKET, ("lo", 0))
print(_address.decode_name(name)[0])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, 0x8923, struct.pack("16s24s", b"lo", b"renamed0"))  # SIOCSIFNAME
print(_address.decode_name(name)[0])
"""


@linux
def test_a_renamed_interface_shows_its_new_name():
    run = subprocess.run([sys.executable, "-I", "-c", RENAME], stdout=subprocess.PIPE)
    if run.returncode == 77:
        pytest.skip("a network namespace of its own takes root")
    assert (run.returncode, run.stdout.split()) == (0, [b"lo", b"renamed0"])


@linux
def test_an_interface_that_is_gone_has_no_name():
    name = struct.pack("=HHiHBB8x", AF_PACKET, 0, 2**31 - 1, 0, 0, 0)
    assert _address.decode_name(name)[0] == ""


# ---- host names ----


@pytest.fixture
def lookups(monkeypatch):
    """The names that were looked up, in their order."""
    names, getaddrinfo = [], socket.getaddrinfo

    def counted(host, *args, **kwargs):
        names.append(host)
        return getaddrinfo("127.0.0.1" if host == "name.invalid" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    return names


def test_a_name_is_resolved_each_time(lookups):
    for _ in range(3):
        assert _address.encode(socket.AF_INET, ("name.invalid", 9))[4:8] == b"\x7f\0\0\1"
    assert lookups == ["name.invalid"] * 3


def test_sending_to_a_name_resolves_it_each_time(lookups):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        for message in (b"1", b"2"):
            lowsock.sendmsg(a, [message], address=("name.invalid", b.getsockname()[1]))
            assert b.recv(10) == message
    assert lookups == ["name.invalid"] * 2


NUMERIC = [
    (socket.AF_INET, ("127.0.0.1", 1)),
    (socket.AF_INET, ("", 1)),
    (socket.AF_INET, ("<broadcast>", 1)),
    (socket.AF_INET6, ("::1", 1)),
    (socket.AF_INET6, ("::ffff:127.0.0.1", 1)),
    (socket.AF_INET6, ("", 1)),
]


@pytest.mark.parametrize(("family", "address"), NUMERIC)
def test_a_numeric_host_is_not_looked_up(lookups, family, address):
    _address.encode(family, address)
    assert lookups == []


def test_the_empty_host_is_any_host():
    assert _address.decode_name(_address.encode(socket.AF_INET, ("", 5))) == ("0.0.0.0", 5)
    assert _address.decode_name(_address.encode(socket.AF_INET6, ("", 5))) == ("::", 5, 0, 0)


def test_broadcast_is_a_name_for_the_broadcast_address():
    assert _address.decode_name(_address.encode(socket.AF_INET, ("<broadcast>", 5))) == ("255.255.255.255", 5)


def test_a_scope_in_the_host_is_kept():
    try:
        encoded = _address.encode(socket.AF_INET6, (f"fe80::1%{LOOPBACK.decode()}", 5))
    except socket.gaierror as error:
        pytest.skip(f"the resolver knows no scopes: {error}")
    assert _address.decode_name(encoded) == ("fe80::1", 5, 0, LIBC.if_nametoindex(LOOPBACK))
