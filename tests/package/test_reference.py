# SPDX-License-Identifier: MIT
"""The reference: every public name is in it, and its tables say of control messages what the code says."""

import inspect
import re

import pytest
from places import DOCS

from lowsock import OwnedFds, aio, cmsg, errqueue, peer, udp, unix
from lowsock.cmsg import ControlMessage
from lowsock.cmsg._base import NO_OPTION, row_of

pytestmark = pytest.mark.unsanitized

PAGE = (DOCS / "reference-cmsg.md").read_text(encoding="utf-8")
MAIN = (DOCS / "reference.md").read_text(encoding="utf-8")

ROW = re.compile(r"^\| `(\w+)\(([^)]*)\)` \| (.*) \|$", re.MULTILINE)
ROWS = {name: (fields.split(", "), [cell.strip() for cell in rest.split("|")]) for name, fields, rest in ROW.findall(PAGE)}
MEASURED = re.compile(r"^(?:struct .*|u\d+\[\d+\]|int), (\d+)")
ELSEWHERE = {"Creds", "Creds2", "DstAddr", "RecvIf"}  # of FreeBSD and macOS: not here on Linux


def registered():
    """The classes of messages that are registered, by name: questions and the base are not."""
    classes = ((name, getattr(cmsg, name)) for name in cmsg.__all__)
    found = {name: cls for name, cls in classes if isinstance(cls, type) and issubclass(cls, ControlMessage)}
    return {name: cls for name, cls in found.items() if cls._row is not None}


CLASSES = registered()


def test_every_class_has_a_row_and_every_row_a_class():
    assert set(ROWS) - ELSEWHERE == set(CLASSES) - ELSEWHERE


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_row_says_what_the_code_says(name):
    row, (fields, (kernel, direction, option, payload, since, pages)) = row_of(CLASSES[name]), ROWS[name]
    assert tuple(fields) == CLASSES[name]._fields
    assert kernel.strip("`") in {row.name, row.name.replace("_OLD", "")}
    assert option.strip("` ") == (row.option or NO_OPTION)
    assert (direction == "sent") == (row.option is None)
    assert row.since in {"", since}
    assert since
    assert pages
    size = MEASURED.match(payload)
    assert size is None or int(size[1]) in (row.sizes or (row.room,))


@pytest.mark.parametrize("name", cmsg.__all__)
def test_every_name_of_cmsg_is_on_its_page(name):
    assert re.search(rf"`(?:\w+\.)?{name}\b", PAGE), name


@pytest.mark.parametrize("name", errqueue.__all__)
def test_every_name_of_errqueue_is_in_the_reference(name):
    assert re.search(rf"`{name}\b", MAIN), name


AIO = (DOCS / "reference-aio.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*aio.__all__, "errqueue.read", "errqueue.wait", "udp.Endpoint"])
def test_every_awaitable_name_is_on_its_page(name):
    assert re.search(rf"`{name}\b", AIO), name


@pytest.mark.parametrize(
    "name", ["close", "connect_unix", "create_datagram_endpoint", "recv_batch", "send_batch", "serve_unix"]
)
def test_a_heading_has_the_signature_of_what_only_aio_has(name):
    bare = inspect.signature(getattr(aio, name))
    parameters = [p.replace(annotation=p.empty) for p in bare.parameters.values()]
    assert f"### `{name}{bare.replace(parameters=parameters, return_annotation=bare.empty)}`" in AIO


def test_every_method_of_a_stream_is_on_its_page():
    assert [
        name for name in members(aio.UnixStream) if not re.search(rf"`(await )?UnixStream\.{name}\b|`{name}\b", AIO)
    ] == []


@pytest.mark.parametrize("name", udp.__all__)
def test_every_name_of_udp_is_in_the_reference(name):
    assert re.search(rf"`{name}\b", MAIN), name


@pytest.mark.parametrize("name", unix.__all__)
def test_every_name_of_unix_is_in_the_reference(name):
    assert re.search(rf"`(?:unix\.)?{name}\b", MAIN), name


@pytest.mark.parametrize("name", peer.__all__)
def test_every_name_of_peer_is_in_the_reference(name):
    assert re.search(rf"`{name}\b", MAIN), name


def members(cls):
    own = [base for base in cls.__mro__ if base.__module__.startswith("lowsock")]
    return sorted({name for base in own for name in vars(base) if not name.startswith("_")})


@pytest.mark.parametrize(
    "cls", [OwnedFds, errqueue.ZeroCopySender, udp.Endpoint, unix.UnixStream], ids=lambda cls: cls.__name__
)
def test_every_method_is_in_the_reference(cls):
    assert [name for name in members(cls) if not re.search(rf"`(?:{cls.__name__}\.)?{name}\b", MAIN)] == []


EVENTS = [
    cls
    for name, cls in vars(errqueue).items()
    if isinstance(cls, type) and hasattr(cls, "_fields") and issubclass(cls, tuple)
]


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
def test_an_events_fields_are_in_its_row(cls):
    (row,) = re.findall(rf"^\| `{cls.__name__}` \| (.*) \|$", MAIN, re.MULTILINE)
    named = re.findall(r"`(\w+)`", row)
    assert [field for field in cls._fields if field not in (*named, "ancdata", "msg_flags")] == []


@pytest.mark.parametrize(
    "function",
    [
        cmsg.decode,
        cmsg.register,
        cmsg.space,
        cmsg.arrival,
        cmsg.find,
        errqueue.read,
        errqueue.wait,
        unix.connect,
        *map(peer.__dict__.get, ["credentials", "groups", "pidfd", "security"]),
    ],
    ids=lambda f: f.__qualname__,
)
def test_a_heading_has_the_signature(function):
    bare = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in bare.parameters.values()]
    signature = f"{function.__name__}{bare.replace(parameters=parameters, return_annotation=bare.empty)}"
    assert f"### `{signature}`" in PAGE + MAIN
