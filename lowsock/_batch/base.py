# SPDX-License-Identifier: MIT
"""What the two batches that are used again share: their size, and a `close` that is final."""

from __future__ import annotations

from lowsock._batch.inbox import checked_vlen
from lowsock._system.arguments import checked_int
from lowsock._system.unique import Unique

TYPE_CHECKING = False  # typing's own would cost an import of typing
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self


class Reused(Unique):
    """``_memory`` is the inbox or outbox; None once the batch is closed."""

    __slots__ = ("_bufsize", "_memory", "_vlen")

    def __init__(self, vlen: int, bufsize: int) -> None:
        self._vlen = checked_vlen(vlen)
        self._bufsize = checked_int("bufsize", bufsize, least=0)
        self._memory: Any = None

    @property
    def vlen(self) -> int:
        """How many messages there is room for."""
        return self._vlen

    @property
    def bufsize(self) -> int:
        """How many bytes of data there is room for in each."""
        return self._bufsize

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._memory is None

    def _opened(self) -> Any:
        if self._memory is None:
            raise ValueError("the batch is closed")
        return self._memory

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
