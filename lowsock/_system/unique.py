# SPDX-License-Identifier: MIT
"""The base of what owns something that a copy would own twice."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import NoReturn, SupportsIndex


class Unique:
    """An object that can be neither copied nor pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} can be neither copied nor pickled")
