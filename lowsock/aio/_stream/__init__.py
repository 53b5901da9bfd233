# SPDX-License-Identifier: MIT
"""`aio.UnixStream`: bytes, descriptors, credentials and whole messages on a connected AF_UNIX stream.

In: a socket or a path, bytes, descriptors. Out: bytes with an owner of their descriptors (`UnixMessage`), also after a
cancellation. Called by: `aio` alone. It waits with `_wait`; `unix` has the receive buffer and all that does not wait.

`stream.py`: the public methods, who may send and receive when, what is left of a cancelled send. `connecting.py`:
`connect_unix`. `serving.py`: `serve_unix`.
"""
