# SPDX-License-Identifier: MIT
"""`aio.UnixStream`: bytes, descriptors, credentials and whole messages on a connected AF_UNIX stream.

In: a socket, bytes, descriptors. Out: bytes with an owner of their descriptors (`Received`), also after a cancellation.
Called by: `aio` alone. It waits with `_wait`, and sends and receives with `_message`.

`stream.py`: the public methods, who may send and receive when, what is left of a cancelled send. `incoming.py`: the receive
buffer, which descriptors belong to which bytes, and when the stream is broken; it never waits.
"""
