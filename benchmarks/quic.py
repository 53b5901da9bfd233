# SPDX-License-Identifier: MIT
"""A transfer by aioquic, unchanged, over the loop's own datagram transport and lowsock's.

python benchmarks/quic.py [--smoke] [--json FILE] [--rounds N]

Client and server share a process and a loop, and use the same transport. aioquic itself takes most of the time: it encrypts,
decrypts and keeps its state in Python. Next to the throughput are the CPU seconds; those of the system are the calls'.
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
from transports import ROWS, heading, parse_args, run, write

MEGABYTES = 8
KEYS = ("seconds", "user", "system")


def certificate() -> tuple[Any, Any]:
    """A self-signed certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    return builder.sign(key, hashes.SHA256()), key


def stream_handler(content: bytes) -> Callable[[Any, Any], None]:
    async def serve(reader: Any, writer: Any) -> None:
        await reader.read()
        writer.write(content)
        writer.write_eof()

    tasks = set()  # the loop keeps weak references only

    def handle(reader: Any, writer: Any) -> None:
        tasks.add(asyncio.ensure_future(serve(reader, writer)))

    return handle


async def transfer(make: Callable[..., Any], identity: tuple[Any, Any], content: bytes) -> dict[str, float]:
    """Makes one transfer; returns the seconds that it takes by the clock and of the CPU."""
    server_config = QuicConfiguration(is_client=False)
    server_config.certificate, server_config.private_key = identity
    client_config = QuicConfiguration(is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE)
    server_transport, server = await make(
        lambda: QuicServer(configuration=server_config, stream_handler=stream_handler(content)), local_addr=("127.0.0.1", 0)
    )
    client_transport, client = await make(
        lambda: QuicConnectionProtocol(QuicConnection(configuration=client_config)), local_addr=("127.0.0.1", 0)
    )
    client.connect(server_transport.get_extra_info("sockname"))
    await client.wait_connected()
    reader, writer = await client.create_stream()
    start, before = perf_counter(), os.times()
    writer.write(b"please")
    writer.write_eof()
    assert await reader.read() == content
    after, seconds = os.times(), perf_counter() - start
    client.close()
    await client.wait_closed()
    client_transport.close()
    server.close()
    await asyncio.sleep(0.001)
    return {"seconds": seconds, "user": after.user - before.user, "system": after.system - before.system}


def main() -> int:
    args = parse_args(__doc__, 6)
    content = os.urandom(2**16 if args.smoke else MEGABYTES * 2**20)
    identity, names = certificate(), list(ROWS)
    best: dict[str, dict[str, float]] = {}
    for i in range(1 if args.smoke else args.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            figures = run(name, transfer, identity, content)
            if name not in best or figures["seconds"] < best[name]["seconds"]:
                best[name] = figures
    print(f"{heading()}; {len(content) / 2**20:.2f} MB; seconds, those of the CPU, and MB a second")
    print(f"{'':18}{'seconds':>9}{'user':>9}{'system':>9}{'MB/s':>9}{'times asyncio':>15}")
    for name in names:
        figures, speed = best[name], len(content) / best[name]["seconds"] / 2**20
        ratio = best["asyncio"]["seconds"] / figures["seconds"]
        print(f"{name:18}" + "".join(f"{figures[key]:9.2f}" for key in KEYS) + f"{speed:9.1f}{ratio:15.2f}")
    write(args.json, {"seconds": best})
    return 0


if __name__ == "__main__":
    sys.exit(main())
