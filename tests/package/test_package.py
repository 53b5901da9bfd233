# SPDX-License-Identifier: MIT
"""The package as it was installed: what is in it, the rules that its sources keep, the contract of its calls."""

import ast
import importlib.metadata
import inspect
import pathlib
import re
import socket

import pytest
from places import ROOT

import lowsock
import lowsock.constants

pytestmark = [pytest.mark.smoke, pytest.mark.unsanitized]

PACKAGE = pathlib.Path(lowsock.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

SIGNATURES = {
    "CMSG_LEN": "(length)",
    "CMSG_SPACE": "(length)",
    "OwnedFds": "(fds=())",
    "ReceivedFds": "(data, fds, msg_flags, address)",
    "RecvBatch": "(vlen, bufsize, ancbufsize=0)",
    "SendBatch": "(vlen, bufsize, ancbufsize=0)",
    "recv1msg": "(sock, maxsize=8192, *, flags=0, cmsg_size=4096)",
    "recv_fds": "(sock, bufsize, maxfds, flags=0)",
    "recv_owned_fds": "(sock, bufsize, maxfds=253, flags=0)",
    "recvmmsg": "(sock, vlen, bufsize, ancbufsize=0, flags=0, *, wait_all=False)",
    "recvmsg": "(sock, bufsize, ancbufsize=0, flags=0)",
    "recvmsg_into": "(sock, buffers, ancbufsize=0, flags=0)",
    "send1msg": "(sock, data, flags=0, ancillary=())",
    "send_fds": "(sock, buffers, fds, flags=0, address=None)",
    "sendmmsg": "(sock, messages, flags=0)",
    "sendmsg": "(sock, buffers, ancdata=(), flags=0, address=None)",
    "sockatmark": "(sock)",
}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def nodes(path, kind):
    return [node for node in ast.walk(tree(path)) if isinstance(node, kind)]


# ---- what is installed ----


def test_the_imported_package_is_the_installed_one():
    installed = importlib.metadata.distribution("lowsock").locate_file("lowsock/__init__.py")
    assert pathlib.Path(str(installed)).resolve() == pathlib.Path(lowsock.__file__).resolve()


def test_the_imported_package_is_not_the_clone():
    assert PACKAGE.resolve() != ROOT / "lowsock"


def test_the_marker_for_type_checkers_is_installed():
    assert (PACKAGE / "py.typed").is_file()


def test_no_c_source_is_installed():
    installed = {path.suffix for path in PACKAGE.rglob("*") if path.is_file()}
    assert installed <= {".py", ".pyc", ".pyi", ".typed", ".so"} | {""}


# ---- the rules of the house ----


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_errno_is_never_asked_of_ffi(path):
    owners = [node.value for node in nodes(path, ast.Attribute) if node.attr == "errno"]
    assert [owner.id for owner in owners if isinstance(owner, ast.Name) and "ffi" in owner.id.lower()] == []


def raised(node):
    error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return getattr(error, "id", "")


def is_os_error(name):
    kind = getattr(__import__("builtins"), name, None)
    return isinstance(kind, type) and issubclass(kind, OSError)


def test_os_error_is_raised_in_one_place():
    """But for the one that the socket module raises itself, which names no error of the kernel."""
    places = {
        (path.relative_to(PACKAGE).as_posix(), ast.unparse(node))
        for path in SOURCES
        for node in nodes(path, ast.Raise)
        if is_os_error(raised(node)) and path != PACKAGE / "_system" / "errors.py"
    }
    assert places <= {("_memory/address.py", "raise OSError('AF_UNIX path too long')")}


# ---- what it shows ----


def test_all_is_sorted_and_has_no_duplicates():
    assert lowsock.__all__ == sorted(set(lowsock.__all__))


def test_the_contract_is_whole():
    assert set(SIGNATURES) <= set(lowsock.__all__)


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signatures_are_those_of_the_contract(name):
    signature = inspect.signature(getattr(lowsock, name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    shown = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert str(shown) == SIGNATURES[name]


@pytest.mark.parametrize("name", lowsock.__all__)
def test_every_public_function_names_a_man_page(name):
    assert re.search(r"\b\w+\([23478]\)", inspect.getdoc(getattr(lowsock, name)) or "")


METHODS = {
    ("OwnedFds", "take"): "(self, i=None)",
    ("SendBatch", "append"): "(self, data, *, ancdata=(), address=None)",
    ("SendBatch", "extend"): "(self, pieces, *, address=None)",
    ("SendBatch", "send"): "(self, sock, *, flags=0)",
    ("RecvBatch", "recv"): "(self, sock, *, flags=0, wait_all=False)",
    ("RecvBatch", "take_fds"): "(self, i)",
}


@pytest.mark.parametrize(("cls", "name"), METHODS)
def test_signatures_of_methods_are_those_of_the_contract(cls, name):
    signature = inspect.signature(getattr(getattr(lowsock, cls), name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    shown = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert str(shown) == METHODS[cls, name]


@pytest.mark.parametrize(("name", "new"), [("send_rights", "send_fds"), ("recv_rights", "recv_owned_fds")])
def test_a_name_that_is_gone_says_the_new_one(name, new):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': use {new}$"):
        getattr(lowsock, name)


@pytest.mark.parametrize("name", [name for name in lowsock.__all__ if name != "UnsupportedError"])
def test_every_public_function_is_typed(name):
    function = getattr(lowsock, name)
    typed = function
    if isinstance(function, type):
        typed = function.__new__ if issubclass(function, tuple) else function.__init__
    assert {*typed.__annotations__} - {"return"} == {*inspect.signature(function).parameters}


# ---- what it returns ----


BUILTIN = (int, bytes, str, bool, type(None))


def kinds(value):
    """The exact types in a result, its lists and tuples opened."""
    if type(value) in (list, tuple):
        return {kind for item in value for kind in kinds(item)}
    return {type(value)}


CALLS = {
    "CMSG_LEN": lambda pair: lowsock.CMSG_LEN(4),
    "CMSG_SPACE": lambda pair: lowsock.CMSG_SPACE(4),
    "sendmsg": lambda pair: lowsock.sendmsg(pair.b, [b"a", bytearray(b"b")]),
    "send1msg": lambda pair: lowsock.send1msg(pair.b, b"a"),
    "send_fds": lambda pair: lowsock.send_fds(pair.b, [b"a"], []),
    "sendmmsg": lambda pair: lowsock.sendmmsg(pair.b, [([b"a"],), ([b"b"], [])]),
    "recvmmsg": lambda pair: lowsock.recvmmsg(pair.a, 3, 100, 100),
    "recvmsg": lambda pair: lowsock.recvmsg(pair.a, 100),
    "recvmsg (with room)": lambda pair: lowsock.recvmsg(pair.a, 100, 100),
    "recvmsg_into": lambda pair: lowsock.recvmsg_into(pair.a, [bytearray(100)], 100),
    "recv1msg": lambda pair: lowsock.recv1msg(pair.a),
    "recv_fds": lambda pair: lowsock.recv_fds(pair.a, 100, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_results_are_of_builtin_types(pair, call):
    if pair.kind.startswith("udp"):
        pair.a.setsockopt(*OPTIONS[pair.family], 1)
    pair.b.send(b"data")
    assert kinds(CALLS[call](pair)) <= set(BUILTIN)


def test_the_mark_is_a_bool(tcp_pair):
    assert type(lowsock.sockatmark(tcp_pair.a)) is bool


OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, 8),  # IP_PKTINFO
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
