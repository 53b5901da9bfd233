# SPDX-License-Identifier: MIT
"""The one door to the compiled module. ``_csrc/lowsock.h`` says what each function does; `types` has the types."""

from __future__ import annotations

try:
    from lowsock._native import ffi as _ffi  # type: ignore[import-not-found, unused-ignore]
    from lowsock._native import lib as _lib
except ModuleNotFoundError as error:
    if error.name != "lowsock._native":
        raise
    raise ImportError("this lowsock is not built: in a clone, install it and start python -I, or leave the folder") from None

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from lowsock._system.types import FFI, Lib

lib: Lib = _lib
ffi: FFI = _ffi
