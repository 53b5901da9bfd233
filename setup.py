# SPDX-License-Identifier: MIT
"""What setuptools has no declarative form for: the cffi module, the abi3 tag and a plain word when a tool is missing."""

import os
import shutil
import sys
import sysconfig

from setuptools import setup
from setuptools.command.build_ext import build_ext

# cffi builds for the limited API by itself wherever there is one; the wheel's tag has to say so.
# It does not for debug builds and, in time, builds something else for free-threaded ones.
_PLAIN = not sysconfig.get_config_var("Py_GIL_DISABLED") and not hasattr(sys, "gettotalrefcount")
ABI3 = sys.implementation.name == "cpython" and _PLAIN


class BuildExt(build_ext):
    def run(self) -> None:
        compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
        header = os.path.join(sysconfig.get_path("include"), "Python.h")
        if shutil.which(compiler) is None or not os.path.exists(header):
            raise SystemExit(f"lowsock needs a C compiler ({compiler}) and Python's headers ({header}) to be installed")
        super().run()


setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp39"}} if ABI3 else {},
)
