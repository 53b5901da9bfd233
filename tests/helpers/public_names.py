# SPDX-License-Identifier: MIT
"""The public modules and what they show; and programs in a fresh interpreter."""

import importlib
import pkgutil
import subprocess
import sys

import lowsock


def found(package):
    """The public modules of a package and of those in it, by a look at its files."""
    yield package.__name__
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not info.name.startswith("_"):
            yield from found(importlib.import_module(f"{package.__name__}.{info.name}"))


MODULES = tuple(found(lowsock))
NAMES = [(module, name) for module in MODULES for name in sys.modules[module].__all__]
OBJECTS = [(module, name) for module, name in NAMES if not module.endswith("constants")]


def is_class(thing):
    """Python 3.9 and 3.10 take ``tuple[int, int]`` for one."""
    return isinstance(thing, type) and not hasattr(thing, "__origin__")


def run(program, *arguments):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode().split()
