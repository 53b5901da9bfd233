# SPDX-License-Identifier: MIT
"""What this kernel, libc and interpreter can do: tried on real sockets, never inferred from a name or a version.

A probe is a function that opens sockets, tries the feature and says in a few words what it saw, or raises. The probes
stand in tables, one file for each family.
"""

import errno
import importlib
import importlib.metadata
import os
import platform
import socket
import sysconfig

from lowsock._command import probes_error as _probes_error
from lowsock._command import probes_ip as _probes_ip
from lowsock._command import probes_other as _probes_other
from lowsock._command import probes_unix as _probes_unix
from lowsock._command.loopback import TIMEOUT, Sockets, Unsupported
from lowsock._command.probing import Probe, Row
from lowsock._system.errors import UnsupportedError

PROBES: list[Probe] = [*_probes_unix.PROBES, *_probes_ip.PROBES, *_probes_error.PROBES, *_probes_other.PROBES]


def run() -> list[Row]:
    """Tries everything, in the order of the tables."""
    return [_run(probe) for probe in PROBES]


def _run(probe: Probe) -> Row:
    try:
        with Sockets() as sockets:
            return Row(probe.name, True, probe.run(sockets))
    except Unsupported as error:
        return Row(probe.name, False, str(error))
    except Exception as error:  # a probe that fails is an answer
        reason = _reason(error)
    return Row(probe.name, False, f"{reason}; needs {probe.needs}" if probe.needs else reason)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return f"nothing came within {TIMEOUT} s"
    if isinstance(error, UnsupportedError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)} ({os.strerror(error.errno)})"
    return str(error) or type(error).__name__


# ---- where it runs ----


def environment() -> dict[str, str]:
    """Names and versions of what lowsock stands on."""
    return {
        "lowsock": version("lowsock"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": _libc(),
        "cffi": str(importlib.import_module("_cffi_backend").__version__),  # the part of cffi that is there at run time
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _libc() -> str:
    """glibc tells its name and version; of musl the interpreter's build knows; elsewhere it comes with the system."""
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        glibc = None
    return glibc or ("musl" if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE")) else "the system's")
