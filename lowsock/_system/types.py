# SPDX-License-Identifier: MIT
"""The types of the package's own annotations; `lowsock.typing` shows some of them. Nothing else imports this at run time:
importing `typing` takes longer than importing lowsock.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Callable, Protocol, Union

CData = Any  # cffi's own objects have no types; none of them leaves the package
Bytes = Union[bytes, CData]  # cffi takes bytes for a `char *` that C only reads


class Lib(Protocol):
    """The functions and constants of ``_csrc/lowsock.h``, ``system.cdef`` and ``constants.txt``."""

    LOWSOCK_MORE: int
    LOWSOCK_INFO: int
    LOWSOCK_ROW: int
    LOWSOCK_NAME: int
    LOWSOCK_CACHED: int
    LOWSOCK_TAKEN: int
    LOWSOCK_CLOSED: int
    LOWSOCK_PEEKED: int
    LOWSOCK_BATCH: int
    LOWSOCK_PIECES: int
    LOWSOCK_MOVED: int
    LOWSOCK_BUSY: int
    LOWSOCK_ALIGNED: int
    LOWSOCK_SOCKADDR: int
    LOWSOCK_COUNT: int
    LOWSOCK_SIZES: int
    LOWSOCK_FIRST_SHIFT: int
    LOWSOCK_SOURCES: int
    LOWSOCK_FLAGS: int
    LOWSOCK_CONTROL: int
    LOWSOCK_DATAGRAM: int
    LOWSOCK_CONTROL_ROOM: int
    LOWSOCK_SEGMENT_SHIFT: int
    LOWSOCK_SIZE: int
    LOWSOCK_CHANGED_SHIFT: int
    LOWSOCK_BURST: int
    LOWSOCK_KEY: int
    HAVE_MMSG: int
    lowsock_names: CData
    lowsock_values: CData
    lowsock_present: CData
    lowsock_fields: Sequence[CData]

    def lowsock_recv(self, reply: CData, fd: int, size: int) -> int: ...
    def lowsock_recv_again(self, reply: CData) -> int: ...
    def lowsock_recv_into(self, reply: CData, fd: int, bases: Sequence[CData], sizes: Sequence[int], count: int) -> int: ...
    def lowsock_recvmsg(self, reply: CData, fd: int, size: int, control_size: int, flags: int) -> int: ...
    def lowsock_recvmsg_into(
        self,
        reply: CData,
        fd: int,
        bases: Sequence[CData],
        sizes: Sequence[int],
        count: int,
        control_size: int,
        flags: int,
    ) -> int: ...
    def lowsock_recv_fds(self, reply: CData, fd: int, size: int, control_size: int, most: int, flags: int) -> int: ...
    def lowsock_recv_rights(self, reply: CData, fd: int, size: int, control_size: int, flags: int, owned: CData) -> int: ...
    def lowsock_owned_option(self, fd: int, level: int, option: int, owned: CData) -> int: ...
    def lowsock_owned_take(self, source: CData, first: int, count: int, to: CData) -> None: ...
    def lowsock_owned_take_first(self, owned: CData, to: CData) -> int: ...
    def lowsock_owned_put_back(self, to: CData, source: CData) -> None: ...
    def lowsock_owned_close(self, owned: CData) -> int: ...
    def lowsock_owned_collect(self, owned: CData) -> None: ...
    def lowsock_first_closed(self, fds: Sequence[int], count: int) -> int: ...
    def lowsock_peer(self, fd: int, ids: CData) -> int: ...
    def lowsock_parse(self, reply: CData, size: int) -> int: ...
    def lowsock_reply_close(self, reply: CData) -> None: ...
    def lowsock_send(self, fd: int, data: Bytes, size: int) -> int: ...
    def lowsock_send_one(
        self,
        fd: int,
        data: Bytes,
        size: int,
        level: int,
        kind: int,
        payload: bytes,
        length: int,
        name: bytes,
        name_size: int,
        flags: int,
        family: int,
    ) -> int: ...
    def lowsock_send_fds(
        self, fd: int, data: Bytes, size: int, fds: Sequence[int], count: int, flags: int, family: int
    ) -> int: ...
    def lowsock_send_gathered(self, fd: int, bases: Sequence[CData], sizes: Sequence[int], count: int) -> int: ...
    def lowsock_sendto(self, fd: int, data: Bytes, size: int, name: bytes, name_size: int, flags: int) -> int: ...
    def lowsock_sendto_family(
        self, fd: int, family: int, data: Bytes, size: int, name: bytes, name_size: int, flags: int
    ) -> int: ...
    def lowsock_sendmsg(
        self,
        fd: int,
        data: Bytes,
        size: int,
        payload: bytes,
        table: Sequence[int],
        rows: int,
        name: bytes,
        name_size: int,
        flags: int,
    ) -> int: ...
    def lowsock_sendmsg_from(
        self,
        fd: int,
        bases: Sequence[CData],
        sizes: Sequence[int],
        count: int,
        payload: bytes,
        table: Sequence[int],
        rows: int,
        name: bytes,
        name_size: int,
        flags: int,
    ) -> int: ...
    def lowsock_cmsg_len(self, length: int) -> int: ...
    def lowsock_cmsg_space(self, length: int) -> int: ...
    def lowsock_sockatmark(self, fd: int) -> int: ...
    def lowsock_shutdown(self, fd: int, how: int) -> int: ...
    def lowsock_option(self, fd: int, level: int, option: int) -> int: ...
    def lowsock_set_option(self, fd: int, level: int, option: int, value: int) -> int: ...
    def lowsock_write_option(self, fd: int, level: int, option: int, value: bytes, size: int) -> int: ...
    def lowsock_read_option(self, fd: int, level: int, option: int, value: CData, size: int) -> int: ...
    def lowsock_headers_size(self, count: int) -> int: ...
    def lowsock_sendmmsg(self, outbox: CData, fd: int, count: int, flags: int) -> int: ...
    def lowsock_send_joined(
        self,
        outbox: CData,
        next: int,
        first: int,
        count: int,
        sizes: Sequence[int],
        size_count: int,
        name: bytes,
        name_size: int,
        fd: int,
        flags: int,
        data: bytes,
    ) -> int: ...
    def lowsock_send_pieces(
        self,
        outbox: CData,
        next: int,
        first: int,
        count: int,
        sizes: Sequence[int],
        size_count: int,
        name: bytes,
        name_size: int,
        fd: int,
        flags: int,
        *pieces: bytes,
    ) -> int: ...
    def lowsock_outbox_skip(self, outbox: CData, next: int, whole: bool) -> int: ...
    def lowsock_pack_control(self, control: CData, space: int, payload: bytes, table: Sequence[int], rows: int) -> int: ...
    def lowsock_recvmmsg(
        self, inbox: CData, fd: int, first: int, count: int, bufsize: int, ancbufsize: int, flags: int
    ) -> int: ...
    def lowsock_inbox_rows(self, inbox: CData, first: int, count: int, rows: CData, most: int) -> int: ...
    def lowsock_inbox_close(self, inbox: CData) -> None: ...
    def lowsock_inbox_move_out(self, inbox: CData, i: int, generation: int, owned: CData) -> int: ...
    def lowsock_inbox_take_back(self, inbox: CData, i: int, generation: int, control: int, owned: CData) -> None: ...
    def lowsock_inbox_forget(self, inbox: CData) -> None: ...
    def lowsock_udp_send(
        self,
        fd: int,
        data: Bytes,
        size: int,
        control: bytes,
        control_size: int,
        name: bytes,
        name_size: int,
        flags: int,
    ) -> int: ...
    def lowsock_udp_send_each(
        self,
        fd: int,
        data: Bytes,
        size: int,
        segment: int,
        control: bytes,
        control_size: int,
        name: bytes,
        name_size: int,
        flags: int,
    ) -> int: ...
    def lowsock_udp_recv(self, arrival: CData, fd: int, size: int, flags: int) -> int: ...
    def lowsock_udp_recv_into(
        self, arrival: CData, fd: int, bases: Sequence[CData], sizes: Sequence[int], count: int, flags: int
    ) -> int: ...
    def lowsock_udp_recv_burst(self, arrival: CData, burst: CData, fd: int, flags: int) -> int: ...
    def lowsock_udp_peer(self, fd: int, name: CData) -> int: ...
    def lowsock_family(self, fd: int) -> int: ...
    def lowsock_interface_index(self, name: bytes) -> int: ...
    def lowsock_interface_name(self, index: int, name: CData) -> int: ...


class FFI(Protocol):
    """What the package uses of cffi's ``ffi``: nothing that 1.15, PyPy's own, lacks."""

    NULL: CData

    def new(self, cdecl: str, init: Any = ...) -> CData: ...
    def new_allocator(self, *, should_clear_after_alloc: bool) -> Callable[..., CData]: ...
    def gc(self, cdata: CData, destructor: Callable[[CData], object]) -> CData: ...
    def buffer(self, cdata: CData, size: int = ...) -> CData: ...
    def unpack(self, cdata: CData, length: int) -> Any: ...
    def string(self, cdata: CData) -> bytes: ...
    def from_buffer(self, *buffer: Any) -> CData: ...  # [cdecl,] buffer[, require_writable]
    def release(self, cdata: CData) -> None: ...
    def cast(self, cdecl: str, value: Any) -> CData: ...
    def memmove(self, dest: Any, src: Any, n: int) -> None: ...
    def sizeof(self, cdecl: Union[str, CData]) -> int: ...
    def typeof(self, cdecl: str) -> CData: ...


class HasFileno(Protocol):
    """Anything with a ``fileno()``; if it has a ``gettimeout()`` too, calls keep to its timeout."""

    def fileno(self) -> int: ...


Socket = Union[int, HasFileno]
if TYPE_CHECKING:  # C-contiguous; as in the socket module, nothing says whether it can be written to
    from typing_extensions import Buffer as Buffer
else:
    Buffer = Any  # collections.abc.Buffer came with Python 3.12
Address = Any  # a tuple, str or bytes, as the socket module has it for the family; None: there is no address
Host = Union[str, IPv4Address, IPv6Address]  # a numeric one; only run time tells its family
ControlMessage = tuple[int, int, Any]  # (level, type, data)
Ancillary = list[tuple[int, int, bytes]]
Message = Union[tuple[Any], tuple[Any, Any], tuple[Any, Any, Any]]  # (buffers[, ancdata[, address]])
Received = tuple[bytes, Ancillary, int, Address]
Attempt = Callable[[int], int]
