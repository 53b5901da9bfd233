# SPDX-License-Identifier: MIT
"""The wings of the package: imports point down, one module is the door to C, and the drawing is true.

docs/house.py has the order of the wings, walks the imports and draws them.
"""

import ast
import importlib.util
import pathlib
import re

import pytest
from places import DOCS, ROOT

import lowsock

pytestmark = [pytest.mark.unsanitized, pytest.mark.smoke]


def loaded(path):
    spec = importlib.util.spec_from_file_location("house", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plan = loaded(DOCS / "house.py")
house = plan.House(pathlib.Path(lowsock.__file__).parent)


@pytest.mark.parametrize("module", house.paths)
def test_imports_point_down(module):
    assert house.upward(module) == []


@pytest.mark.parametrize("module", house.paths)
def test_imports_within_a_wing_go_one_way(module):
    assert module not in house.reached_within(module)


def test_every_wing_has_a_module():
    assert {plan.wing_of(module) for module in house.paths} == set(plan.DEPTH)


@pytest.mark.parametrize("wing", sorted(wing for wing in plan.DEPTH if wing not in ("__main__", "constants")))
def test_every_wing_opens_with_a_page(wing):
    """Its docstring; that of a public wing, which help() shows, may go on in a comment."""
    page = house.paths[wing].read_text(encoding="utf-8")
    rooms = [module.rpartition(".")[2] for module in house.paths if plan.wing_of(module) == wing != module]
    assert [room for room in rooms if not re.search(rf"(?:`|^#   |, | ){room}(?:`|\.py|,| \(|$)", page, re.MULTILINE)] == []


def is_public(module):
    return module == "__init__" or not any(part.startswith("_") for part in module.split("."))


def test_one_module_imports_the_compiled_one():
    assert [module for module, imported in house.imports.items() if "_native" in imported] == ["_system.ffi"]


def test_public_modules_do_not_see_the_compiled_one():
    assert [module for module, imported in house.imports.items() if is_public(module) and "_system.ffi" in imported] == []


def first_imports(module):
    """What a module imports of the package, in its order, at its head."""
    found = [node for node in house.trees[module].body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [alias.name if isinstance(node, ast.Import) else node.module for node in found for alias in node.names]
    return [name for name in names if name.startswith("lowsock.")]


@pytest.mark.parametrize("wing", ["errqueue", "udp"])
def test_a_wing_is_imported_before_its_private_rooms(wing):
    """An import of ``cmsg._ip`` takes the lock of that room, then that of `cmsg`. Whoever imports `cmsg` takes them in the
    other order: two threads would wait for each other."""
    inner = {each for module in house.paths if plan.wing_of(module) == wing for each in house.imports[module]}
    needed = {f"lowsock.{each.split('.')[0]}" for each in inner if re.match(r"[a-z]\w*\._", each)} - {f"lowsock.{wing}"}
    assert needed
    assert set(first_imports(wing)[: len(needed)]) == needed


def test_the_drawing_is_the_one_that_the_imports_give():
    """If it is not: python docs/house.py --write"""
    drawn = plan.BLOCK.search((DOCS / "design.md").read_text(encoding="utf-8"))
    shown = drawn[0].partition("```text\n")[2].rpartition("\n```")[0]
    assert shown == plan.House(ROOT / "lowsock").drawing()


# ---- the walk itself: what is wrong is found ----


def made(folder, **modules):
    for name, source in {"__init__": "", **modules}.items():
        path = folder.joinpath(*name.split("__in__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return plan.House(folder)


def test_an_import_that_points_up_is_found(tmp_path):
    wrong = made(tmp_path, _system__in____init__="", _system__in__ffi="def f():\n    from lowsock import aio\n", aio="")
    assert wrong.upward("_system.ffi") == ["aio"]


def test_an_import_from_another_wing_of_the_same_row_is_found(tmp_path):
    wrong = made(tmp_path, peer="import lowsock.constants\n", constants="")
    assert wrong.upward("peer") == ["constants"]


def test_a_cycle_within_a_wing_is_found(tmp_path):
    first, second = "from lowsock.udp._b import x\n", "from lowsock.udp import _a\n"
    wrong = made(tmp_path, udp__in____init__="", udp__in___a=first, udp__in___b=second)
    assert "udp._a" in wrong.reached_within("udp._a")


def test_a_module_of_no_wing_is_found(tmp_path):
    with pytest.raises(LookupError, match="corridor is of no wing"):
        plan.wing_of("corridor")


def test_a_relative_import_is_refused(tmp_path):
    with pytest.raises(ValueError, match="peer imports by dots"):
        made(tmp_path, peer="from . import constants\n")
