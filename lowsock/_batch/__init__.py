# SPDX-License-Identifier: MIT
"""Many messages in one call: sendmmsg(2), recvmmsg(2), and batches that are used again.

In: a socket and many messages, or a batch. Out: counts, lists of messages, views of a batch's memory. Public, under
`lowsock`; `udp` and `aio` use the outbox and the inbox too.

`functions` has `sendmmsg` and `recvmmsg`. `send_batch` and `recv_batch` have the batches, `base` what both share. `outbox`
encodes what is sent and has the loop that sends it; `inbox` decodes what came and has the loop that receives.
"""
