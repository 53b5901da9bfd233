# SPDX-License-Identifier: MIT
"""What a transport is told in the spelling of before 0.2 ends in an error that names the new one."""

import inspect
import socket

import pytest

from lowsock import aio, cmsg


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ecn": True}, r"takes no ecn: recv_ecn="),
        ({"local": True}, r"takes no local: recv_pktinfo="),
        ({"timestamps": True}, r"takes no timestamps: recv_timestamps="),
        ({"errors": False}, r"takes no errors: recv_errors="),
        ({"recv_ecn": cmsg.ECN.ECT_0}, "recv_ecn must be True or False"),
        ({"recv_pktinfo": "127.0.0.1"}, "recv_pktinfo must be True or False"),
        ({"recv_timestamps": None}, "recv_timestamps must be True or False"),
        ({"recv_errors": 1}, "recv_errors must be True or False"),
        ({"gso": 1}, "gso must be True or False"),
        ({"gro": None}, "gro must be True or False"),
    ],
)
def test_an_option_in_the_old_spelling_or_with_a_value_is_refused(asyncio_loop, recorder, options, said):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(TypeError, match=said):
                await aio.create_datagram_endpoint(recorder, sock=sock, **options)
            assert sock.fileno() >= 0

    asyncio_loop.run(main)


def test_an_address_of_ours_is_local(asyncio_loop, recorder):
    async def main():
        transport, protocol = await aio.create_datagram_endpoint(recorder, local_addr=("127.0.0.1", 0))
        with pytest.raises(TypeError, match=r"^sendto\(\) takes no source: local="):
            transport.sendto(b"x", transport.get_extra_info("sockname"), source="127.0.0.1")
        await protocol.closed()
        assert type(transport).sendto.__name__ == "sendto"
        assert "local" in type(transport).sendto.__doc__
        bare = inspect.signature(type(transport).sendto).parameters
        assert [*bare] == ["self", "data", "addr", "ecn", "local", "segment_size"]

    asyncio_loop.run(main)
