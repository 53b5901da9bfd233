# SPDX-License-Identifier: MIT
"""Who sent it on FreeBSD: two structures of one number, on bytes laid out as there."""

import importlib.util
import sys

import pytest

import lowsock
from lowsock import constants
from lowsock._system.constants import CONSTANTS
from lowsock._system.layouts import LAYOUTS, Field, Layout
from lowsock.cmsg import ControlMessage, _base, _socket, decode, space

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have some of it")


def fields(at, *rows):
    """Fields of four bytes one after the other, and then what ``rows`` say."""
    return [Field(name, kind, at + 4 * i, 4) for i, (name, kind) in enumerate(rows)]


SOCK = (("sc_uid", "u"), ("sc_euid", "u"), ("sc_gid", "u"), ("sc_egid", "u"), ("sc_ngroups", "i"), ("sc_groups", "b"))
CMSG = (("cmcred_pid", "i"), ("cmcred_uid", "u"), ("cmcred_euid", "u"), ("cmcred_gid", "u"))
LAID_OUT = {
    "cmsgcred": Layout(84, [*fields(0, *CMSG), Field("cmcred_ngroups", "u", 16, 2), Field("cmcred_groups", "b", 20, 64)]),
    "sockcred": Layout(24, fields(0, *SOCK)),
    "sockcred2": Layout(32, fields(4, ("sc_pid", "i"), *SOCK)),
}
NUMBERS = {"SCM_CREDS": 3, "SCM_CREDS2": 8, "SOL_LOCAL": 0, "LOCAL_CREDS": 2, "LOCAL_CREDS_PERSISTENT": 3}
FOREIGN = {"SCM_CREDENTIALS", "SO_PASSCRED", "SCM_SECURITY"}  # 3 is FreeBSD's SCM_CREDS


@pytest.fixture
def freebsd(monkeypatch):
    """The module as it is on FreeBSD, with a register of its own."""
    for name, layout in LAID_OUT.items():
        monkeypatch.setitem(LAYOUTS, name, layout)
    for name, number in NUMBERS.items():
        monkeypatch.setitem(CONSTANTS, name, number)
    for name in FOREIGN:
        monkeypatch.delitem(CONSTANTS, name, raising=False)
    monkeypatch.setattr(_base, "_REGISTRY", {})
    spec = importlib.util.spec_from_file_location("lowsock.cmsg._freebsd", _socket.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(*numbers):
    return b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)


def half(number):
    return number.to_bytes(2, sys.byteorder)


CMSGCRED = words(7, 1, 2, 3) + half(2) + bytes(2) + words(10, 11, *[0] * 14)
FORMS = {
    "cmsgcred": ("Creds", CMSGCRED, (7, 1, 2, 3, None, (10, 11))),
    "sockcred of one group": ("Creds", words(1, 2, 3, 4, 1, 10), (None, 1, 2, 3, 4, (10,))),
    "sockcred of three groups": ("Creds", words(1, 2, 3, 4, 3, 10, 11, 12), (None, 1, 2, 3, 4, (10, 11, 12))),
    "sockcred of no group": ("Creds", words(1, 2, 3, 4, 0), (None, 1, 2, 3, 4, ())),
    "sockcred2": ("Creds2", words(0, 7, 1, 2, 3, 4, 2, 10, 11), (7, 1, 2, 3, 4, (10, 11))),
    "sockcred2 of no group": ("Creds2", words(0, 7, 1, 2, 3, 4, 0), (7, 1, 2, 3, 4, ())),
}


@pytest.mark.parametrize(("name", "payload", "ids"), FORMS.values(), ids=FORMS)
def test_freebsds_forms_are_told_apart_by_size(freebsd, name, payload, ids):
    cls = getattr(freebsd, name)
    (message,) = decode([(constants.SOL_SOCKET, NUMBERS[f"SCM_{name.upper()}"], payload)])
    assert type(message) is cls
    assert tuple(getattr(message, field) for field in message._fields) == ids


@pytest.mark.parametrize(("name", "payload", "ids"), FORMS.values(), ids=FORMS)
def test_freebsds_forms_are_made_from_their_fields(freebsd, name, payload, ids):
    cls = getattr(freebsd, name)
    made = cls(**dict(zip(cls._fields, ids)))
    assert made.data == payload
    assert eval(repr(made), vars(freebsd)) == made


def test_freebsds_list_may_claim_more_groups_than_there_are(freebsd):
    assert freebsd.Creds.from_data(words(1, 2, 3, 4, 9, 10)).groups == (10,)
    assert freebsd.Creds.from_data(words(1, 2, 3, 4, 2**32 - 1, 10)).groups == ()


@pytest.mark.parametrize("size", [0, 4, 19, 21, 23])
def test_freebsds_short_and_broken_ones_stay_raw(freebsd, size):
    (message,) = decode([(constants.SOL_SOCKET, NUMBERS["SCM_CREDS"], bytes(size))])
    assert type(message) is ControlMessage


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"uid": -1}, ValueError, "uid"),
        ({"pid": 2**31}, OverflowError, "pid"),
        ({"egid": 2**32}, OverflowError, "egid"),
        ({"groups": [1, "2"]}, TypeError, r"groups\[1\]"),
        ({"groups": range(17)}, ValueError, "at most 16"),
    ],
)
def test_a_bad_field_of_freebsds_is_named(freebsd, fields, error, named):
    with pytest.raises(error, match=named):
        freebsd.Creds(**fields)


@linux
def test_elsewhere_freebsds_are_not_there():
    for cls in (_socket.Creds, _socket.Creds2):
        with pytest.raises(NotImplementedError, match="this platform has no SCM_CREDS"):
            cls()


def test_room_is_for_all_the_groups_that_freebsd_tells(freebsd):
    assert space(freebsd.Creds) >= lowsock.CMSG_SPACE(84)
