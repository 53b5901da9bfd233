# SPDX-License-Identifier: MIT
"""A transfer by aioquic, unchanged, over the loop's own datagram transport and lowsock's.

python benchmarks/quic.py [--smoke] [--json FILE] [--rounds N]

Client and server are in one process, on one loop, and have the same transport. Most of the time is aioquic's own: it
encrypts and decrypts, and keeps its books in Python. Besides the throughput, the CPU seconds are told, of which the
system's are those of the calls.
"""

import asyncio
import datetime
import os
import ssl
import sys
from time import perf_counter
from typing import Any, Callable

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from transports import ROWS, heading, options, run, write

MEGABYTES = 8
KEYS = ("seconds", "user", "system")


def certificate() -> tuple[Any, Any]:
    """A self-signed one, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    return builder.sign(key, hashes.SHA256()), key


def answer(content: bytes) -> Callable[[Any, Any], None]:
    async def serve(reader: Any, writer: Any) -> None:
        await reader.read()
        writer.write(content)
        writer.write_eof()

    tasks = set()  # the loop keeps weak references only

    def begin(reader: Any, writer: Any) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    return begin


async def transfer(make: Callable[..., Any], identity: tuple[Any, Any], content: bytes) -> dict[str, float]:
    """Seconds by the clock and of the CPU that a transfer takes."""
    at_server = QuicConfiguration(is_client=False)
    at_server.certificate, at_server.private_key = identity
    at_client = QuicConfiguration(is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE)
    serving, server = await make(
        lambda: QuicServer(configuration=at_server, stream_handler=answer(content)), local_addr=("127.0.0.1", 0)
    )
    asking, client = await make(
        lambda: QuicConnectionProtocol(QuicConnection(configuration=at_client)), local_addr=("127.0.0.1", 0)
    )
    client.connect(serving.get_extra_info("sockname"))
    await client.wait_connected()
    reader, writer = await client.create_stream()
    start, before = perf_counter(), os.times()
    writer.write(b"please")
    writer.write_eof()
    assert await reader.read() == content
    after, seconds = os.times(), perf_counter() - start
    client.close()
    await client.wait_closed()
    asking.close()
    server.close()
    await asyncio.sleep(0.001)
    return {"seconds": seconds, "user": after.user - before.user, "system": after.system - before.system}


def main() -> int:
    given = options(__doc__, 6)
    content = os.urandom(2**16 if given.smoke else MEGABYTES * 2**20)
    identity, names = certificate(), list(ROWS)
    best: dict[str, dict[str, float]] = {}
    for turn in range(1 if given.smoke else given.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found = run(name, transfer, identity, content)
            if name not in best or found["seconds"] < best[name]["seconds"]:
                best[name] = found
    print(f"{heading()}; {len(content) / 2**20:.2f} MB; seconds, those of the CPU, and MB a second")
    print(f"{'':18}{'seconds':>9}{'user':>9}{'system':>9}{'MB/s':>9}{'times asyncio':>15}")
    for name in names:
        figures, speed = best[name], len(content) / best[name]["seconds"] / 2**20
        ratio = best["asyncio"]["seconds"] / figures["seconds"]
        print(f"{name:18}" + "".join(f"{figures[key]:9.2f}" for key in KEYS) + f"{speed:9.1f}{ratio:15.2f}")
    write(given.json, {"seconds": best})
    return 0


if __name__ == "__main__":
    sys.exit(main())
