# SPDX-License-Identifier: MIT
"""lowsock.cmsg: what packet sockets and netlink sockets tell, in a network namespace with two ends of a wire."""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys

import pytest

import lowsock
from lowsock import cmsg, constants
from lowsock.cmsg import PacketStatus

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="packet and netlink sockets are Linux's")

CLONE_NEWNET = 0x40000000
ETH_P_ALL, ETH_P_8021Q, ETH_P_8021AD = 3, 0x8100, 0x88A8
EXPERIMENT = 0x88B5  # the EtherType for experiments
FRAME = bytes.fromhex("ffffffffffff 020000000001")  # from and to
PAYLOAD = b"a payload that is long enough for a frame of its own, untagged"
RTNLGRP_LINK, RTM_NEWLINK, RTM_GETLINK, NLM_F_REQUEST = 1, 16, 18, 0x1
SO_NO_CHECK = constants.SO_NO_CHECK if sys.platform.startswith("linux") else 0


# ---- a namespace ----


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def new_namespace():
    """The calling thread in an empty network namespace; sockets that it opens there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no namespace of our own: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)


@pytest.fixture
def namespace():
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command to make interfaces with")
    with new_namespace():
        yield


@pytest.fixture
def wire(namespace):
    """A sender of frames at one end of a wire (near), and all ways to see them at the other (far)."""
    with contextlib.ExitStack() as stack:

        def opened(kind, device, protocol):
            sock = stack.enter_context(socket.socket(constants.AF_PACKET, kind, 0))
            sock.bind((device, protocol))
            sock.settimeout(10)
            return sock

        ip("link", "add", "near", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "far")
        for device in ("far", "near"):  # near comes up with its carrier, or what is sent at once is dropped
            ip("link", "set", device, "up")
        yield (
            opened(socket.SOCK_RAW, "near", 0),
            opened(socket.SOCK_RAW, "far", ETH_P_ALL),
            opened(socket.SOCK_DGRAM, "far", ETH_P_ALL),
        )


def seen(sock, ending=PAYLOAD, size=2048):
    """The first packet with this ending, and its auxdata; the system's own packets go by."""
    while True:
        data, ancdata, msg_flags, address = lowsock.recvmsg(sock, size, cmsg.space(cmsg.Auxdata))
        if data.endswith(ending) and address[2] != constants.PACKET_OUTGOING:
            (auxdata,) = cmsg.decode(ancdata)
            assert (type(auxdata), msg_flags & socket.MSG_CTRUNC) == (cmsg.Auxdata, 0)
            return data, auxdata


def tag(protocol, priority, vlan, eligible=0):
    return struct.pack("!HH", protocol, priority << 13 | eligible << 12 | vlan)


def ether_type(number):
    return struct.pack("!H", number)


# ---- auxdata: payload ----

AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata of linux/if_packet.h


def test_auxdata_is_the_kernels_structure():
    message = cmsg.Auxdata(
        status=1, length=2, captured=3, mac_offset=4, network_offset=5, vlan_tci=6 << 13 | 7, vlan_tpid=ETH_P_8021AD
    )
    valid = constants.TP_STATUS_VLAN_VALID | constants.TP_STATUS_VLAN_TPID_VALID
    data = AUXDATA.pack(1 | valid, 2, 3, 4, 5, 6 << 13 | 7, ETH_P_8021AD)
    assert message == (constants.SOL_PACKET, constants.PACKET_AUXDATA, data)
    assert (message.vlan_id, message.vlan_priority) == (7, 6)


VALID = [
    (0, None, None),
    (constants.TP_STATUS_VLAN_VALID if sys.platform.startswith("linux") else 0, 0xFFFF, None),
    (constants.TP_STATUS_VLAN_TPID_VALID if sys.platform.startswith("linux") else 0, None, 0xFFFF),
]


@pytest.mark.parametrize(("status", "tci", "tpid"), VALID)
def test_a_tag_is_told_only_where_the_status_says_so(status, tci, tpid):
    message = cmsg.Auxdata.from_data(AUXDATA.pack(status, 0, 0, 0, 0, 0xFFFF, 0xFFFF))
    assert (message.vlan_tci, message.vlan_tpid) == (tci, tpid)
    assert (message.vlan_id, message.vlan_priority) == ((None, None) if tci is None else (0xFFF, 7))


@pytest.mark.parametrize("status", [0, 1, 0x51, 0x80000000, 0xFFFFFFFF, 0x00010000, 0x00010001])
def test_a_status_is_flags_and_its_repr_an_expression(status):
    flags = cmsg.Auxdata(status=status).status
    assert (flags, type(flags)) == (status, PacketStatus)
    copied = eval(repr(flags), vars(cmsg))
    assert (copied, type(copied)) == (flags, PacketStatus)


def test_flags_are_those_of_the_kernel():
    for flag in PacketStatus:
        assert getattr(constants, f"TP_STATUS_{flag.name}") == flag


@pytest.mark.parametrize("field", ["vlan_tci", "vlan_tpid", "mac_offset", "network_offset"])
def test_a_field_of_16_bits_takes_no_more(field):
    assert getattr(cmsg.Auxdata(**{field: 65535}), field) == 65535
    for value, error in ((65536, OverflowError), (-1, ValueError), ("1", TypeError)):
        with pytest.raises(error, match=f"{field} "):
            cmsg.Auxdata(**{field: value})


# ---- auxdata: on the kernel ----


def test_auxdata_tells_length_and_headers(wire):
    near, raw, cooked = wire
    frame = FRAME + ether_type(EXPERIMENT) + PAYLOAD
    assert cmsg.enable(raw, cmsg.Auxdata) == cmsg.enable(cooked, cmsg.Auxdata) == cmsg.space(cmsg.Auxdata)
    near.send(frame)
    for sock, data, header in ((raw, frame, 14), (cooked, PAYLOAD, 0)):
        expected = cmsg.Auxdata(status=PacketStatus.USER, length=len(data), captured=len(data), network_offset=header)
        assert seen(sock) == (data, expected)


def test_auxdata_tells_the_length_of_what_was_cut_off(wire):
    near, raw, _ = wire
    cmsg.enable(raw, cmsg.Auxdata)
    frame = FRAME + ether_type(EXPERIMENT) + PAYLOAD
    near.send(frame)
    data, auxdata = seen(raw, frame[:20], 20)
    assert (data, auxdata.length, auxdata.captured) == (frame[:20], len(frame), len(frame))


TAGS = {
    "a VLAN": (5, 42, 1),
    "the first priority": (0, 1, 0),
    "the last of all": (7, 4095, 1),
    "a priority only": (3, 0, 0),
}


@pytest.mark.parametrize(("priority", "vlan", "eligible"), TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("protocol", [ETH_P_8021Q, ETH_P_8021AD], ids=["802.1Q", "802.1ad"])
def test_a_tag_is_in_the_auxdata_and_not_in_the_packet(wire, protocol, priority, vlan, eligible):
    near, raw, cooked = wire
    near.send(FRAME + tag(protocol, priority, vlan, eligible) + ether_type(EXPERIMENT) + PAYLOAD)
    for sock, data in ((raw, FRAME + ether_type(EXPERIMENT) + PAYLOAD), (cooked, PAYLOAD)):
        cmsg.enable(sock, cmsg.Auxdata)
        packet, auxdata = seen(sock)
        assert packet == data
        assert auxdata.status == PacketStatus.USER | PacketStatus.VLAN_VALID | PacketStatus.VLAN_TPID_VALID
        assert (auxdata.vlan_tpid, auxdata.vlan_tci) == (protocol, priority << 13 | eligible << 12 | vlan)
        assert (auxdata.vlan_id, auxdata.vlan_priority, auxdata.length) == (vlan, priority, len(data))


def test_an_inner_tag_stays_in_the_packet(wire):
    near, raw, _ = wire
    cmsg.enable(raw, cmsg.Auxdata)
    inner = tag(ETH_P_8021Q, 3, 9) + ether_type(EXPERIMENT) + PAYLOAD
    near.send(FRAME + tag(ETH_P_8021AD, 0, 7) + inner)
    packet, auxdata = seen(raw)
    assert (packet, auxdata.vlan_id, auxdata.vlan_tpid) == (FRAME + inner, 7, ETH_P_8021AD)


def test_a_packet_without_a_tag_has_none(wire):
    near, raw, _ = wire
    cmsg.enable(raw, cmsg.Auxdata)
    near.send(FRAME + ether_type(EXPERIMENT) + PAYLOAD)
    auxdata = seen(raw)[1]
    assert [auxdata.vlan_tci, auxdata.vlan_tpid, auxdata.vlan_id, auxdata.vlan_priority] == [None] * 4


@pytest.mark.parametrize(("unchecked", "flag"), [(0, PacketStatus.CSUMNOTREADY), (1, PacketStatus(0))])
def test_the_status_tells_of_a_checksum_that_is_left_to_the_device(wire, unchecked, flag):
    """A datagram over veth is never summed up, unless its socket wants none at all."""
    _, _, cooked = wire
    cmsg.enable(cooked, cmsg.Auxdata)
    ip("address", "add", "192.0.2.1/24", "dev", "near")
    ip("neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, unchecked)
        sock.sendto(PAYLOAD, ("192.0.2.2", 9))
    assert seen(cooked)[1].status == PacketStatus.USER | flag


# ---- netlink ----


def test_a_group_is_the_kernels_structure():
    message = cmsg.NetlinkPktInfo(group=2**32 - 1)
    assert message == (constants.SOL_NETLINK, constants.NETLINK_PKTINFO, b"\xff" * 4)
    assert message.group == 2**32 - 1


@pytest.mark.parametrize(("group", "error"), [(-1, ValueError), (2**32, OverflowError), ("1", TypeError)])
def test_a_group_that_does_not_exist_is_refused(group, error):
    with pytest.raises(error, match="group "):
        cmsg.NetlinkPktInfo(group=group)


@pytest.fixture
def links(namespace):
    """A netlink socket that hears of interfaces, and asks for the group."""
    with socket.socket(constants.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_ROUTE) as sock:
        sock.bind((0, 1 << RTNLGRP_LINK - 1))
        sock.settimeout(10)
        assert cmsg.enable(sock, cmsg.NetlinkPktInfo) == cmsg.space(cmsg.NetlinkPktInfo)
        yield sock


def heard(sock):
    """The type of a netlink message, its sequence number and what came beside it."""
    data, ancdata, msg_flags, _ = lowsock.recvmsg(sock, 65536, cmsg.space(cmsg.NetlinkPktInfo))
    assert msg_flags & socket.MSG_CTRUNC == 0
    return (*struct.unpack_from("=4xH2xI", data), cmsg.decode(ancdata))


def test_a_new_interface_is_heard_of_by_its_group(links):
    ip("link", "add", "near", "type", "veth", "peer", "name", "far")
    kind, _, messages = heard(links)
    assert (kind, messages) == (RTM_NEWLINK, [cmsg.NetlinkPktInfo(group=RTNLGRP_LINK)])


def test_an_answer_comes_to_no_group(links):
    request = struct.pack("=IHHII", 32, RTM_GETLINK, NLM_F_REQUEST, 7, 0) + struct.pack("=BxHiII", 0, 0, 1, 0, 0)
    lowsock.sendmsg(links, [request], address=(0, 0))
    assert heard(links) == (RTM_NEWLINK, 7, [cmsg.NetlinkPktInfo(group=0)])
