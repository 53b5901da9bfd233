# SPDX-License-Identifier: MIT
"""What every public name has: a docstring with its man page, an entry in the reference and a test that names it.

Its place in the typing tests is the law of test_typing.py."""

import inspect
import re
import sys

import pytest
from places import DOCS, TESTS
from public_names import OBJECTS

REFERENCE = "".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("reference*.md")))
TYPES = {name for module, name in OBJECTS if module == "lowsock.typing"}  # test_typing.py has them all
SOURCES = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py") if path.parent.name != "package")
MAN = re.compile(r"\b\w+\([1-8]\)|RFC \d+|SO_\w+|\bIP_\w+|IPV6_\w+|MSG_\w+|SCM_\w+|kernel|asyncio|`\w")
ALIASES = {"Event"}  # a union of classes
CALLS = [(m, n) for m, n in OBJECTS if callable(getattr(sys.modules[m], n)) and m != "lowsock.typing" and n not in ALIASES]


def own_doc(thing):
    return thing.__doc__ if inspect.isclass(thing) else inspect.getdoc(thing)


@pytest.mark.parametrize(("module", "name"), CALLS)
def test_it_has_a_docstring_of_its_own(module, name):
    doc = own_doc(getattr(sys.modules[module], name)) or ""
    assert len(doc.split()) > 3
    assert not doc.startswith(f"{name}(")


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n in CALLS if not inspect.isclass(getattr(sys.modules[m], n))])
def test_a_functions_docstring_names_what_it_stands_on(module, name):
    assert MAN.search(own_doc(getattr(sys.modules[module], name)))


@pytest.mark.parametrize(("module", "name"), OBJECTS)
def test_it_is_in_the_reference(module, name):
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", REFERENCE)


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n in OBJECTS if n not in TYPES])
def test_a_test_names_it(module, name):
    assert re.search(rf"\b{name}\b", SOURCES)
