# SPDX-License-Identifier: MIT
"""What strict type checkers say of programs that use lowsock: nothing of a right one, every wrong line of a wrong one."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from places import ROOT, TESTS

from lowsock import aio, cmsg, errqueue, peer, typing, udp, unix
from lowsock.aio import errqueue as aio_errqueue
from lowsock.aio import udp as aio_udp

pytestmark = [
    pytest.mark.unsanitized,
    pytest.mark.smoke,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the classes are Linux's"),
]

PROGRAMS = TESTS / "package" / "programs"
RIGHT, WRONG = (PROGRAMS / f"{name}.py" for name in ("right", "wrong"))
LINES = [
    pytest.param(number, id=line.partition("  #")[0].strip())
    for number, line in enumerate(WRONG.read_text(encoding="utf-8").splitlines(), 1)
    if line.endswith("# wrong")
]


def by_mypy():
    """The lines of each program that mypy finds an error in."""
    command = [
        sys.executable,
        "-I",
        "-m",
        "mypy",
        "--strict",
        "--cache-dir=/dev/null",
        "--config-file=",
        str(RIGHT),
        str(WRONG),
    ]
    done = subprocess.run(command, cwd=PROGRAMS, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    found = re.findall(r"(\w+)\.py:(\d+): error: ", done.stdout)
    assert found, done.stdout
    return {(name, int(line)) for name, line in found}


def by_pyright():
    command = [sys.executable, "-I", "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(PROGRAMS)]
    done = subprocess.run(command, cwd=PROGRAMS, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    assert found, done.stdout
    return {(re.findall(r"(\w+)\.py$", each["file"])[0], each["range"]["start"]["line"] + 1) for each in found}


@pytest.fixture(scope="module", params=[by_mypy, by_pyright], ids=["mypy", "pyright"])
def said(request):
    """The errors of both programs: (name, line)."""
    checker = request.param.__name__[len("by_") :]
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: it is in the extra lint")
    return request.param()


def test_a_right_program_needs_no_ignores(said):
    assert {line for name, line in said if name == "right"} == set()


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_line_is_named(said, line):
    assert ("wrong", line) in said


def test_no_other_line_is_named(said):
    assert {line for name, line in said if name == "wrong"} <= {param.values[0] for param in LINES}


MODULES = {"": __import__("lowsock"), "aio.": aio, "aio.errqueue.": aio_errqueue, "aio.udp.": aio_udp}
MODULES.update({"cmsg.": cmsg, "errqueue.": errqueue, "peer.": peer, "typing.": typing, "udp.": udp, "unix.": unix})


@pytest.mark.parametrize("name", [prefix + name for prefix, module in MODULES.items() for name in module.__all__])
def test_the_right_program_uses_every_name(name):
    program = RIGHT.read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(name)}\b" if "." in name else rf"(?:lowsock\.|import .*|[ (]){name}\b", program)


def test_the_stub_of_the_constants_is_the_one_that_the_table_gives():
    """If it is not: python build_ffi.py > lowsock/constants.pyi"""
    done = subprocess.run([sys.executable, "-I", str(ROOT / "build_ffi.py")], stdout=subprocess.PIPE, text=True, check=True)
    assert (ROOT / "lowsock" / "constants.pyi").read_text(encoding="ascii") == done.stdout
