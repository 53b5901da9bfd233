# SPDX-License-Identifier: MIT
"""One message: sendmsg(2), recvmsg(2), and what is built on one of them.

In: a socket, buffers or sizes, control messages, descriptors, an address. Out: counts, bytes, tuples, owners of descriptors.
The functions are public, under `lowsock`; `_batch`, `udp` and `aio` call them too.

`sending` and `receiving` have the calls, each with its quick way first and the general one below. `sending_fds` and
`receiving_fds` pass plain descriptors, `receiving_owned_fds` receives owned ones; `owned` is their owner, `OwnedFds`.
`out_of_band` has sockatmark(3).
"""
