# SPDX-License-Identifier: MIT
"""What `public` gives a module: names of its own, names that come later, names that are gone."""

import sys
import types

import pytest

from lowsock._system.exports import public


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType("some_module")
    module.__all__ = ["here"]
    module.here = 1
    monkeypatch.setitem(sys.modules, "some_module", module)
    return module


def test_a_name_that_is_gone_says_what_to_use(module):
    module.__getattr__, module.__dir__ = public("some_module", {}, gone={"old": "use new"})
    with pytest.raises(AttributeError, match=r"^module 'some_module' has no attribute 'old': use new$"):
        module.old  # noqa: B018
    assert dir(module) == ["here"]


def test_another_name_says_nothing_more(module):
    module.__getattr__, module.__dir__ = public("some_module", gone={"old": "use new"})
    with pytest.raises(AttributeError, match=r"^module 'some_module' has no attribute 'other'$"):
        module.other  # noqa: B018
