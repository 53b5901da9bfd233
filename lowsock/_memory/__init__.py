# SPDX-License-Identifier: MIT
"""Memory to Python values and back: what a system call reads and writes.

In: the caller's buffers, addresses and control messages, and the bytes that the kernel wrote. Out: pointers that hold still
for one call, ``struct sockaddr`` as bytes, control buffers, tuples. Called by `_message`, `_batch` and the public modules.

`buffers` gathers and scatters the caller's buffers. `address` encodes and decodes addresses, and caches them. `ancillary`
does the same with control messages; `closing` closes received descriptors that nobody gets. `recv_pool` has the memory that
receives fill.
"""
