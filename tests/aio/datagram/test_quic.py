# SPDX-License-Identifier: MIT
"""aioquic, unchanged, client and server, over the datagram transport."""

import asyncio
import datetime
import hashlib
import random
import socket
import ssl

import pytest

from lowsock import aio, cmsg, udp

pytest.importorskip("aioquic", reason="aioquic is not installed (the extra `integration`)")
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

SIZE = 2 * 2**20


@pytest.fixture(scope="module")
def certificate():
    """A self-signed one for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    return builder.sign(key, hashes.SHA256()), key


def configurations(certificate):
    server = QuicConfiguration(is_client=False)
    server.certificate, server.private_key = certificate
    client = QuicConfiguration(is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE)
    return server, client


def answer(content):
    """A stream handler: sends the content to whoever asks."""

    async def serve(reader, writer):
        await reader.read()
        writer.write(content)
        writer.write_eof()

    return lambda reader, writer: asyncio.ensure_future(serve(reader, writer))


async def transfer(certificate, content, **options):
    """Asks for the content; returns what came, and the transports' extra info."""
    server, client = configurations(certificate)
    transport, protocol = await aio.create_datagram_endpoint(
        lambda: QuicServer(configuration=server, stream_handler=answer(content)), local_addr=("127.0.0.1", 0), **options
    )
    connection = QuicConnection(configuration=client)
    ours, asking = await aio.create_datagram_endpoint(
        lambda: QuicConnectionProtocol(connection), local_addr=("127.0.0.1", 0), **options
    )
    try:
        asking.connect(transport.get_extra_info("sockname"))
        await asking.wait_connected()
        reader, writer = await asking.create_stream()
        writer.write(b"please")
        writer.write_eof()
        return await reader.read()
    finally:
        asking.close()
        await asking.wait_closed()
        ours.close()
        protocol.close()
        await asyncio.sleep(0)


def test_a_transfer_of_megabytes_comes_whole(asyncio_loop, certificate):
    content = random.Random(1).randbytes(SIZE)
    found = asyncio_loop.run(transfer, certificate, content)
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()


def test_without_offload_as_well(asyncio_loop, certificate):
    content = bytes(SIZE // 8)
    assert asyncio_loop.run(transfer, certificate, content, gso=False, gro=False) == content


@pytest.mark.parametrize("ecn", [cmsg.ECN.ECT_0, cmsg.ECN.ECT_1])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_its_packets_carry_ecn_when_asked(asyncio_loop, certificate, ecn, host, ipv6):
    """On IPv4 as well as IPv6, and on IPv4 by a dual-stack socket, which is what aioquic opens."""

    async def main():
        _, client = configurations(certificate)
        family, bound = (socket.AF_INET, "127.0.0.1") if host[:3] == "127" else (socket.AF_INET6, "::")
        with socket.socket(family, socket.SOCK_DGRAM) as receiving:
            receiving.bind((bound, 0))
            receiving.settimeout(20)
            endpoint = udp.Endpoint(receiving)
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((bound, 0))
            transport, protocol = await aio.create_datagram_endpoint(
                lambda: QuicConnectionProtocol(QuicConnection(configuration=client)), sock=sock, default_ecn=ecn
            )
            protocol.connect((host, receiving.getsockname()[1], *((0, 0) if ":" in host else ())))
            await asyncio.sleep(0)
            assert {datagram.ecn for datagram in endpoint.recv()} == {ecn}
            protocol._quic._close_end()
            protocol._timer.cancel()
            transport.close()
            await asyncio.sleep(0)

    asyncio_loop.run(main)
