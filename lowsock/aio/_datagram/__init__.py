# SPDX-License-Identifier: MIT
"""The datagram transport: `aio.create_datagram_endpoint` and what it returns.

In: asyncio's arguments, an asyncio protocol, and datagrams for ``sendto``. Out: a transport, which calls the protocol with
datagrams and errors. Called by: `aio` alone, and then by the loop, in the loop's own thread. It does not use `_wait`.

`endpoint.py`: arguments, names, the socket. `transport.py`: receiving, delivery, the end. `sending.py`: sending, and what
leaves at once. `send_queue.py`: the queue, and what goes by one call. `backends.py`: the system
calls, for UDP and for other sockets. `readiness.py`: readiness callbacks, spurious wake-ups. `flow_control.py`:
flow control.
"""
