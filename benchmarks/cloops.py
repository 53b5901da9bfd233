# SPDX-License-Identifier: MIT
"""Compiles the loops in C for the interpreter that runs the benchmark, in a directory that is removed again."""

import importlib.util
import pathlib
import sys
import tempfile
from typing import Any

from cffi import FFI

HERE = pathlib.Path(__file__).parent


def _text(suffix: str) -> str:
    return "".join((HERE / f"{name}.{suffix}").read_text() for name in ("loops", "batches", "offload"))


def load() -> tuple[Any, Any]:
    """``(ffi, lib)`` of the compiled loops."""
    builder = FFI()
    builder.cdef(_text("cdef"))
    builder.set_source("_loops", _text("c"), extra_compile_args=["-O2"])
    with tempfile.TemporaryDirectory() as directory:
        spec = importlib.util.spec_from_file_location("_loops", builder.compile(tmpdir=directory))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["_loops"] = module
        spec.loader.exec_module(module)
    return module.ffi, module.lib
