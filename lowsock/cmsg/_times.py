# SPDX-License-Identifier: MIT
"""Times: when the kernel received a datagram, sent one, or is to send it. socket(7), the kernel's timestamping.rst."""
RECEIVE_BY_SOFTWARE=0
class Timestamping: pass
class Timestamp: pass
class TimestampNs: pass
