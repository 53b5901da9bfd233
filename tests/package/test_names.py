# SPDX-License-Identifier: MIT
"""What the public modules show, when it is loaded, and what it says of itself."""

import importlib.metadata
import inspect
import itertools
import pathlib
import pickle
import pydoc
import re
import subprocess
import sys

import pytest
from public_names import MODULES, OBJECTS, is_class, run

import lowsock

pytestmark = [pytest.mark.unsanitized, pytest.mark.smoke]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def submodules(module):
    return {each.rpartition(".")[2] for each in MODULES if each.rpartition(".")[0] == module}


# ---- what is shown ----


def test_all_public_modules_are_known():
    inner = {f"lowsock.{name}" for name in ("aio", "cmsg", "constants", "errqueue", "peer", "typing", "udp", "unix")}
    assert {"lowsock", "lowsock.aio.errqueue", "lowsock.aio.udp", *inner} == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_dir_shows_the_public_names_and_no_others(module):
    names = {*sys.modules[module].__all__, *submodules(module)}
    assert dir(sys.modules[module]) == sorted(names | {"__version__"} if module == "lowsock" else names)


@pytest.mark.parametrize("module", MODULES)
def test_every_name_in_all_is_there_once(module):
    names = sys.modules[module].__all__
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(sys.modules[module], name)] == []


def private_bases(module):
    """The private classes that public ones are derived from: pydoc shows what comes from where."""
    classes = [thing for thing in vars(sys.modules[module]).values() if inspect.isclass(thing)]
    return {f"{base.__module__}.{base.__qualname__}" for cls in classes for base in cls.__mro__ if "._" in base.__module__}


@pytest.mark.parametrize("module", MODULES)
def test_help_names_nothing_private(module):
    """But for the list of files in a package, which pydoc makes itself, and for bases that classes have in common."""
    text = pydoc.plain(pydoc.render_doc(sys.modules[module]))
    text = re.sub(r"^PACKAGE CONTENTS\n(?: .*\n)+", "", text, flags=re.MULTILINE)
    named = set(re.findall(r"\blowsock(?:\.\w+)*\._\w+(?:\.\w+)*", text))
    bases = private_bases(module)
    assert {name for name in named if not any(f"{name}.".startswith(f"{base}.") for base in bases)} == set()
    headings = re.findall(r"^    (?:class |async )?(\w+)\(", text, re.MULTILINE)
    assert [name for name in headings if name.startswith("_")] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_name_that_is_not_there_is_an_error_that_says_so(module):
    with pytest.raises(AttributeError, match=f"module '{module}' has no .*'nonsense'"):
        sys.modules[module].nonsense  # noqa: B018


def test_a_star_brings_the_constants():
    names = {}
    exec("from lowsock.constants import *", names)
    assert {"IP_PKTINFO", "SCM_RIGHTS", "MSG_TRUNC"} <= set(names)
    assert {name: value for name, value in names.items() if name != "__builtins__"} == {
        name: getattr(lowsock.constants, name) for name in lowsock.constants.__all__
    }


def test_the_version_is_the_installed_one():
    assert lowsock.__version__ == importlib.metadata.version("lowsock")


# ---- what it says of itself ----


@pytest.mark.parametrize(("module", "name"), OBJECTS)
def test_an_object_says_that_it_is_of_a_module_that_exports_it(module, name):
    thing = getattr(sys.modules[module], name)
    home = getattr(thing, "__module__", None)
    if home not in (None, "builtins", "typing"):  # a union of classes is typing's, or has none
        assert home in MODULES
        assert getattr(sys.modules[home], name) is thing


CLASSES = sorted({thing for thing in (getattr(sys.modules[m], n) for m, n in OBJECTS) if is_class(thing)}, key=str)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_class_is_pickled_by_its_public_name(cls, protocol):
    data = pickle.dumps(cls, protocol)
    assert b"._" not in data
    assert b"\n_" not in data
    assert pickle.loads(data) is cls


NAMED = [cls for cls in CLASSES if issubclass(cls, tuple) and hasattr(cls, "_make")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cls", NAMED, ids=lambda cls: cls.__name__)
def test_a_named_tuple_is_pickled_as_itself(cls, protocol):
    thing = cls._make(range(len(cls._fields)))
    data = pickle.dumps(thing, protocol)
    assert b"lowsock._" not in data
    assert type(pickle.loads(data)) is cls
    assert pickle.loads(data) == thing


# ---- when it is loaded ----

LOADED = """
import sys
import lowsock
print(*sorted(sys.modules))
"""


def test_the_package_alone_brings_in_little():
    modules = set(run(LOADED))
    site = set(run("import sys; print(*sorted(sys.modules))"))  # what the interpreter has loaded by itself
    costly = {
        "socket",
        "enum",
        "typing",
        "collections",
        "collections.abc",
        "array",
        "selectors",
        "argparse",
        "re",
        "importlib",
    }
    assert modules & costly - site == set()
    public = ("aio", "cmsg", "constants", "errqueue", "peer", "typing", "udp", "unix")
    later = [f"lowsock.{name}" for name in (*public, "_batch", "_command")]
    assert modules & set(later) == set()
    assert "lowsock._message.sending" in modules


BROUGHT = """
import sys
before = set(sys.modules)
import lowsock
for name in set(sys.modules) - before:
    origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None) or ""
    if "site-packages" in origin:
        print(name.partition(".")[0])
"""


def test_nothing_but_cffis_runtime_is_brought_in():
    assert set(run(BROUGHT)) <= {"lowsock", "_cffi_backend"}


FIRST_USE = """
import lowsock
print(lowsock.cmsg.TTL.__name__, lowsock.aio.udp.Endpoint.__name__, lowsock.errqueue.read.__name__)
print(lowsock.aio.errqueue.wait.__name__, lowsock.peer.credentials.__name__, lowsock.udp.Endpoint.__name__)
print(lowsock.constants.IP_PKTINFO > 0, lowsock.SendBatch.__name__, lowsock.aio.create_datagram_endpoint.__name__)
print(all(name in vars(lowsock) for name in ("cmsg", "aio", "errqueue", "peer", "udp", "constants", "SendBatch")))
print("create_datagram_endpoint" in vars(lowsock.aio))
"""


def test_a_name_is_loaded_when_it_is_first_asked_for_and_stays():
    said = ["TTL", "Endpoint", "read", "wait", "credentials", "Endpoint", "True", "SendBatch", "create_datagram_endpoint"]
    assert run(FIRST_USE) == [*said, "True", "True"]


THREADS = """
import sys, threading
import lowsock
sys.setswitchinterval(1e-6)
start, got = threading.Barrier(8), []

def look():
    start.wait()
    got.append((lowsock.aio.udp.Endpoint, lowsock.cmsg.TTL, lowsock.RecvBatch, lowsock.aio.create_datagram_endpoint))

threads = [threading.Thread(target=look) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(got), len(set(got)))
"""


def test_threads_that_ask_at_once_get_the_same():
    assert run(THREADS) == ["8", "1"]


BOTH = """
import sys, threading
import lowsock
start, failed = threading.Barrier(2), []

def look(names):
    start.wait()
    try:
        thing = lowsock
        for name in names.split("."):
            thing = getattr(thing, name)
    except BaseException as error:
        failed.append(f"{names}:{type(error).__name__}")

threads = [threading.Thread(target=look, args=(names,)) for names in sys.argv[1:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*failed)
"""
WINGS = ("aio", "aio.errqueue", "aio.udp", "cmsg", "errqueue", "udp", "sendmmsg")


@pytest.mark.parametrize("names", list(itertools.combinations(WINGS, 2)), ids="-".join)
def test_threads_may_ask_for_different_modules_at_once(names):
    """Without the order that test_wings.py watches, two of three such runs end in an ImportError."""
    for _ in range(4):
        assert run(BOTH, *names) == []


KINDS = """
import {first}
import {second}
import lowsock
from lowsock._system import socket_class as kinds

a, b = __import__("socket").socketpair()
before = kinds.Socket.__module__
print(lowsock.sendmsg(a, [b"x"]), lowsock.recvmsg(b, 9)[0], lowsock.sendmsg(a.fileno(), [b"y"]), lowsock.recvmsg(b, 9)[0])
print(before, kinds.Socket.__module__)
"""


@pytest.mark.parametrize(
    ("order", "before"), [(("socket", "lowsock"), "socket"), (("lowsock", "socket"), "lowsock._system.socket_class")]
)
def test_a_plain_socket_is_known_whichever_is_imported_first(order, before):
    said = run(KINDS.format(first=order[0], second=order[1]))
    assert said == ["1", "b'x'", "1", "b'y'", before, "socket"]


PROGRAM = pathlib.Path(__file__).with_name("at_the_limit.py")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it calls what only Linux has")
def test_no_call_imports_anything():
    """Every public name is looked up; then, with no descriptor left, all is called, and nothing is imported."""
    done = subprocess.run([sys.executable, "-I", str(PROGRAM)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("nothing was imported\n", "", 0)
