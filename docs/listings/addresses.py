# SPDX-License-Identifier: MIT
"""Where datagrams came from, as each family tells it."""

import os
import socket
import tempfile

from lowsock import recvmsg, sendmsg


def exchange(label, family, here, there):
    """Sends one datagram from a socket at ``here`` to one at ``there``; prints the source that arrives."""
    with socket.socket(family, socket.SOCK_DGRAM) as sender, socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(1)
        receiver.bind(there)
        if here is not None:
            sender.bind(here)
        sendmsg(sender, [b"hello"], [], 0, receiver.getsockname())
        data, ancdata, flags, source = recvmsg(receiver, 100)
        same = source == (sender.getsockname() or None)
        print(f"{label}: {type(source).__name__} of {len(source or ())}, the sender's own: {same}")


def main():
    exchange("IPv4", socket.AF_INET, ("127.0.0.1", 0), ("127.0.0.1", 0))
    try:
        exchange("IPv6", socket.AF_INET6, ("::1", 0), ("::1", 0))
    except OSError as error:
        print(f"IPv6: not here ({error.strerror})")
    with tempfile.TemporaryDirectory() as folder:
        exchange("path", socket.AF_UNIX, os.path.join(folder, "a"), os.path.join(folder, "b"))
        exchange("unnamed", socket.AF_UNIX, None, os.path.join(folder, "c"))
    if os.path.exists("/proc/net/unix"):  # abstract names are Linux's own; binding to no name asks for one
        exchange("abstract", socket.AF_UNIX, b"", b"")


if __name__ == "__main__":
    main()
