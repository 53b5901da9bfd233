# SPDX-License-Identifier: MIT
"""lowsock.constants: the names, their values, and the names that there are not."""

import socket
import sys

import pytest

from lowsock import constants
from lowsock._system.constants import ABSENT

NAMES = """
    SOL_SOCKET SCM_RIGHTS SCM_CREDENTIALS SO_PASSCRED SCM_PIDFD SO_PASSPIDFD SCM_SECURITY SO_PASSSEC
    SCM_TIMESTAMP SO_TIMESTAMP SCM_TIMESTAMPNS SO_TIMESTAMPNS SCM_TIMESTAMPING SO_TIMESTAMPING
    SCM_TIMESTAMPING_PKTINFO SOF_TIMESTAMPING_OPT_PKTINFO SOF_TIMESTAMPING_OPT_ID SCM_TIMESTAMPING_OPT_STATS
    SCM_TS_OPT_ID SO_RXQ_OVFL SO_MARK SO_RCVMARK SO_PRIORITY SO_RCVPRIORITY SCM_TXTIME SO_TXTIME SO_ZEROCOPY
    SO_WIFI_STATUS
    IPPROTO_IP IP_PKTINFO IP_TTL IP_RECVTTL IP_TOS IP_RECVTOS IP_ORIGDSTADDR IP_RECVORIGDSTADDR IP_RECVFRAGSIZE
    IP_RECVERR IP_RECVOPTS IP_RETOPTS IP_CHECKSUM IP_PROTOCOL
    IPPROTO_IPV6 IPV6_PKTINFO IPV6_RECVPKTINFO IPV6_HOPLIMIT IPV6_RECVHOPLIMIT IPV6_TCLASS IPV6_RECVTCLASS
    IPV6_ORIGDSTADDR IPV6_RECVORIGDSTADDR IPV6_RECVFRAGSIZE IPV6_PATHMTU IPV6_RECVPATHMTU IPV6_RECVERR
    IPV6_HOPOPTS IPV6_DSTOPTS IPV6_RTHDR IPV6_RECVHOPOPTS IPV6_RECVDSTOPTS IPV6_RECVRTHDR IPV6_FLOWINFO IPV6_DONTFRAG
    SOL_UDP UDP_SEGMENT UDP_GRO SOL_TCP TCP_CM_INQ TCP_INQ
    SOL_TLS TLS_SET_RECORD_TYPE TLS_GET_RECORD_TYPE
    SOL_ALG ALG_SET_OP ALG_SET_IV ALG_SET_AEAD_ASSOCLEN
    SOL_PACKET PACKET_AUXDATA PACKET_TX_TIMESTAMP SOL_NETLINK NETLINK_PKTINFO VSOCK_RECVERR
    SO_EE_ORIGIN_LOCAL SO_EE_ORIGIN_ICMP SO_EE_ORIGIN_ICMP6 SO_EE_ORIGIN_ZEROCOPY SO_EE_ORIGIN_TIMESTAMPING
    SO_EE_ORIGIN_TXTIME SO_EE_CODE_ZEROCOPY_COPIED
    MSG_OOB MSG_PEEK MSG_TRUNC MSG_CTRUNC MSG_DONTWAIT MSG_WAITALL MSG_EOR MSG_ERRQUEUE MSG_NOSIGNAL MSG_MORE
    MSG_CMSG_CLOEXEC MSG_WAITFORONE MSG_ZEROCOPY MSG_CONFIRM MSG_DONTROUTE MSG_FASTOPEN
"""
LINUX = NAMES.split()
ELSEWHERE = ("SCM_CREDS", "IP_RECVDSTADDR", "IP_RECVIF")  # the BSDs and macOS
OURS = sorted(dir(constants))

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names are Linux's")


@linux
@pytest.mark.parametrize("name", LINUX)
def test_linux_has_every_name_that_control_messages_need(name):
    assert type(getattr(constants, name)) is int


def test_values_are_those_of_the_socket_module():
    theirs = {name: getattr(socket, name) for name in OURS if hasattr(socket, name)}
    assert {name: getattr(constants, name) for name in theirs} == theirs


def test_every_listed_name_is_an_int():
    assert [name for name in OURS if type(getattr(constants, name)) is not int] == []


def test_the_list_is_sorted():
    assert dir(constants) == sorted(set(dir(constants)))


@linux
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_the_platform_lacks_says_so(name):
    with pytest.raises(AttributeError, match=f"^this platform has no {name}$"):
        getattr(constants, name)


def test_a_name_that_the_platform_lacks_is_not_listed():
    assert ABSENT.isdisjoint(OURS)
    assert [name for name in sorted(ABSENT) if hasattr(constants, name)] == []


def test_nonsense_is_called_no_constant():
    with pytest.raises(AttributeError, match="has no constant 'MSG_NONSENSE'"):
        constants.MSG_NONSENSE  # noqa: B018


def test_names_can_be_imported():
    from lowsock.constants import SCM_RIGHTS, SOL_SOCKET

    assert (SOL_SOCKET, SCM_RIGHTS) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def test_a_name_that_is_absent_cannot_be_imported():
    with pytest.raises(ImportError):
        from lowsock.constants import MSG_NONSENSE  # noqa: F401
