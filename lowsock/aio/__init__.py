# SPDX-License-Identifier: MIT
"""Awaitable calls, and transports for asyncio."""

from lowsock.aio._datagrams import create_datagram_endpoint

__all__ = ["create_datagram_endpoint"]
