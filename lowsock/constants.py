# SPDX-License-Identifier: MIT
"""The constants of sockets and their control messages, by the names that the kernel's headers give them.

Every name is an ``int``. A value comes from the system's headers; where those are older than the kernel, it is the
value of the kernel's ABI. That a name is here does not mean that the running kernel knows it: ask the kernel
(``python -m lowsock`` does). A name that this platform lacks raises an `AttributeError` that
says so.

See socket(7), ip(7), ipv6(7), udp(7), tcp(7), unix(7), packet(7), netlink(7), vsock(7).
"""

from lowsock._system.constants import ABSENT, CONSTANTS

__all__ = sorted(CONSTANTS)  # constants.pyi has them for type checkers
globals().update(CONSTANTS)


def __getattr__(name: str) -> int:
    if name in ABSENT:
        raise AttributeError(f"this platform has no {name}")
    raise AttributeError(f"module {__name__!r} has no constant {name!r}")


def __dir__() -> list[str]:
    return __all__
