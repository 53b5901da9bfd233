# SPDX-License-Identifier: MIT
"""The probes of the `lowsock` command: each answers, says why not, and finds what this kernel is known to have."""

import errno
import json
import os
import platform
import re
import socket
import subprocess
import sys
import time

import pytest

from lowsock import cmsg, errqueue, peer, sendmsg
from lowsock._command import loopback as _loopback
from lowsock._command import probes as _probes
from lowsock._command import probes_error as _probes_error
from lowsock._command import probes_ip as _probes_ip
from lowsock._command import probes_unix as _probes_unix
from lowsock._command import probing as _probing
from lowsock._system.errors import UnsupportedError

LINUX = sys.platform.startswith("linux")
linux = pytest.mark.skipif(not LINUX, reason="the features are Linux's")

SINCE_4_18 = {
    "descriptors",
    "close-on-exec at once",
    "credentials",
    "peer credentials",
    "peer groups",
    "abstract names",
    "seqpacket",
    "timestamps (SO_TIMESTAMP)",
    "timestamps (SO_TIMESTAMPNS)",
    "timestamps (SO_TIMESTAMPING)",
    "packet info",
    "TTL",
    "TOS and ECN",
    "original destination",
    "source address of one datagram",
    "drop counter",
    "bytes still queued",
    "segmentation offload, sending",
    "error queue",
    "transmit timestamps",
    "transmit timestamp of one message",
    "acknowledgement timestamps",
    "batches",
    "netlink",
}
WITH_IPV6 = {
    "packet info, IPv6",
    "hop limit, IPv6",
    "traffic class and ECN, IPv6",
    "original destination, IPv6",
    "error queue, IPv6",
    "IPv4 on an IPv6 socket",
    "fragment size, IPv6",
}
SINCE_6_14 = {
    "pidfds",
    "peer pidfd",
    "mark, received",
    "priority",
    "transmit timestamp key",
    "segmentation offload, receiving",
    "zero copy",
}
PRIVILEGED = {"mark, sent", "packet sockets"}
CAP_NET_ADMIN, CAP_NET_RAW, PR_CAPBSET_DROP = 12, 13, 24


# Empties the bounding set: what is executed next has no capability, even as root. Without any there is none to give up.
WITHOUT_CAPABILITIES = f"""
import ctypes, os, sys
for capability in range(64):
    ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def available():
    """Name of a feature -> whether it is there."""
    return {row.name: row.available for row in _probes.run()}


def absent(available, names):
    return sorted(name for name in names if not available[name])


def has_capabilities(*numbers):
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return all(effective >> number & 1 for number in numbers)


def kernel():
    return tuple(map(int, re.findall(r"\d+", platform.release())[:2]))


# ---- what is there ----


@pytest.mark.parametrize("name", [probe.name for probe in _probes.PROBES])
def test_every_probe_answers_and_leaves_no_descriptor(name, open_fds):
    before = open_fds()
    (probe,) = [probe for probe in _probes.PROBES if probe.name == name]
    row = _probes._run(probe)
    assert (row.name, type(row.available), row.detail != "") == (name, bool, True)
    assert open_fds() == before


@linux
def test_what_every_linux_has_is_there(available):
    assert absent(available, SINCE_4_18) == []


@linux
def test_what_ipv6_brings_is_there(available):
    if not available["IPv6"]:
        pytest.skip("this system has no IPv6")
    assert absent(available, WITH_IPV6) == []


@linux
@pytest.mark.skipif(LINUX and kernel() < (6, 14), reason="the kernel is older than 6.14")
def test_what_a_recent_linux_has_is_there(available):
    assert absent(available, SINCE_6_14) == []


@linux
def test_what_privileges_allow_is_there(available):
    if not has_capabilities(CAP_NET_ADMIN, CAP_NET_RAW):
        pytest.skip("CAP_NET_ADMIN and CAP_NET_RAW are not there")
    assert absent(available, PRIVILEGED) == []


# ---- without privileges ----


@pytest.fixture(scope="module")
def unprivileged(tmp_path_factory):
    """What ``--json`` tells of the features to a process without a single capability."""
    python = [sys.executable, "-I", "-c", WITHOUT_CAPABILITIES, "-I", "-X", "dev", "-W", "error"]
    directory = tmp_path_factory.mktemp("empty")
    done = subprocess.run([*python, "-m", "lowsock", "--json"], capture_output=True, text=True, cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    return {row["name"]: row for row in json.loads(done.stdout)["features"]}


@linux
def test_what_every_linux_has_needs_no_privilege(unprivileged):
    assert [name for name in sorted(SINCE_4_18) if not unprivileged[name]["available"]] == []


@linux
@pytest.mark.parametrize("name", sorted(PRIVILEGED))
def test_what_needs_a_privilege_says_which(name, unprivileged):
    row = unprivileged[name]
    assert not row["available"]
    assert re.match(r"EPERM \(.+\); needs CAP_NET_", row["detail"])


# ---- on a poorer system ----

PORTABLE = {"descriptors", "seqpacket", "IPv6", "abstract names", "out-of-band on AF_UNIX"}
PORTABLE |= {"peer credentials", "batches", "AF_ALG"}  # C knows the names of these, or the interpreter

# Forgets the names that not every system has, before any class looks them up.
ON_A_POORER_SYSTEM = """
import json
from lowsock._system.constants import CONSTANTS
kept = {"AF_INET", "AF_INET6", "AF_UNIX", "MSG_DONTWAIT", "MSG_OOB", "MSG_PEEK", "MSG_TRUNC", "MSG_CTRUNC", "SCM_RIGHTS"}
for name in set(CONSTANTS) - kept:
    if name.startswith(("IP_", "IPV6_R", "IPV6_P", "IPV6_H", "IPV6_T", "IPV6_M", "MSG_", "NETLINK_", "PACKET_", "SCM_",
                        "SO_", "SOF_", "TCP_", "UDP_", "VMADDR_")):
        del CONSTANTS[name]
from lowsock._command import probes as _probes
print(json.dumps([row._asdict() for row in _probes.run()]))
"""


@pytest.fixture(scope="module")
def poorer(tmp_path_factory):
    python = [sys.executable, "-I", "-X", "dev", "-W", "error", "-c", ON_A_POORER_SYSTEM]
    done = subprocess.run(python, capture_output=True, text=True, cwd=tmp_path_factory.mktemp("empty"))
    assert (done.returncode, done.stderr) == (0, "")
    return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("name", [probe.name for probe in _probes.PROBES if probe.name not in PORTABLE])
def test_a_name_that_the_system_lacks_is_the_answer(name, poorer):
    row = poorer[name]
    assert not row["available"]
    assert re.search(r" has no .*\b[A-Z]\w*_\w+", row["detail"])


# ---- why not ----

REASONS = {
    "an error of the kernel": (OSError(errno.EPERM, "x"), "EPERM (Operation not permitted); needs a key"),
    "a name that the platform lacks": (
        AttributeError("this platform has no SO_X"),
        "this platform has no SO_X; needs a key",
    ),
    "an option that the kernel lacks": (UnsupportedError(errno.ENOPROTOOPT, "X: no SO_X"), "X: no SO_X; needs a key"),
    "a timeout": (socket.timeout("timed out"), f"nothing came within {_loopback.TIMEOUT} s; needs a key"),
    "something else than was sent": (_loopback.Missing("sent 1, received 2"), "sent 1, received 2; needs a key"),
    "what the interpreter lacks": (_loopback.Unsupported("no AF_X"), "no AF_X"),
    "an error without a word": (ValueError(), "ValueError; needs a key"),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_probe_that_raises_is_a_no_with_the_reason(case):
    error, detail = REASONS[case]

    def probe(_):
        raise error

    assert _probes._run(_probing.Probe("x", probe, "a key")) == ("x", False, detail)


def test_a_constant_that_is_not_there_is_the_answer():
    with pytest.raises(AttributeError, match="SO_NO_SUCH_OPTION"):
        _probing.pair("SO_NO_SUCH_OPTION")


def test_a_family_that_the_interpreter_lacks_is_told():
    with pytest.raises(_loopback.Unsupported, match="no AF_NO_SUCH_FAMILY"):
        _loopback.number("AF_NO_SUCH_FAMILY")


def test_a_control_message_that_does_not_come_is_told():
    with pytest.raises(_loopback.Missing, match="no SCM_RIGHTS message came"):
        _probing.expect([], cmsg.Rights)


OTHERS = {
    "a number": (_probes_ip._number("hops", 7), lambda: cmsg.TTL(hops=8), "sent 7, received 8"),
    "a traffic class": (_probes_ip._traffic, lambda: cmsg.TOS(dscp=46, ecn=1), r"sent .*ECT_0.*, received .*ECT_1"),
    "an address": (_probes_ip._local, lambda: cmsg.PktInfo6(local="fe80::1"), "sent to ::1, which became fe80::1"),
    "a destination": (
        _probes_ip._original,
        lambda: cmsg.OrigDstAddr6(address=("::1", 1)),
        r"sent to \('::1', 2, 0, 0\), which became \('::1', 1, 0, 0\)",
    ),
}


class Receiver:
    """Stands for a socket: where it is bound is all that is asked of it."""

    def getsockname(self):
        return "::1", 2, 0, 0


@linux
@pytest.mark.parametrize("case", OTHERS)
def test_what_changed_on_its_way_is_told(case):
    tell, message, told = OTHERS[case]
    with pytest.raises(_loopback.Missing, match=told):
        tell(message(), Receiver())


@pytest.mark.parametrize(("pid", "told"), [(os.getpid(), f"process {os.getpid()},"), (None, "process not told,")])
def test_who_is_there_may_be_told_without_the_process(pid, told):
    assert _probes_unix._check_identity(peer.PeerCredentials(pid, os.geteuid(), os.getegid())).startswith(told)


@pytest.mark.parametrize("place", range(3))
def test_somebody_else_is_told(place):
    ids = [os.getpid(), os.geteuid(), os.getegid()]
    ids[place] += 1
    with pytest.raises(_loopback.Missing, match=f"process {os.getpid()} was taken for process {ids[0]} of user {ids[1]}"):
        _probes_unix._check_identity(peer.PeerCredentials(*ids))


@pytest.fixture
def sockets():
    with _loopback.Sockets() as sockets:
        yield sockets


@linux
def test_an_event_of_another_kind_is_told(sockets):
    sender, receiver = sockets.udp()
    cmsg.enable(sender, cmsg.RecvErr)
    receiver.close()
    sendmsg(sender, [b"x"])
    with pytest.raises(_loopback.Missing, match="IcmpError came, not TransmitTimestamp"):
        _probes_error._events(sender, errqueue.TransmitTimestamp)


@linux
def test_an_event_that_does_not_come_is_not_waited_for_long(sockets, monkeypatch):
    """A pending error wakes poll(2) too, and again and again: no reading of an empty queue takes it."""
    monkeypatch.setattr(_probes_error, "TIMEOUT", 0.01)
    sender, receiver = sockets.udp()
    receiver.close()
    sendmsg(sender, [b"x"])
    with pytest.raises(_loopback.Missing, match=r"0 of 1 events came within 0.01 s"):
        _probes_error._events(sender, errqueue.IcmpError)


@pytest.mark.parametrize("seconds", [None, 0, 2**40])
def test_a_timestamp_of_another_time_is_none(seconds):
    with pytest.raises(_loopback.Missing):
        _probing.age(seconds and seconds * 10**9)


def test_the_age_of_a_timestamp_is_in_microseconds():
    assert 10**6 <= _probing.age(time.time_ns() - 10**9) < 60 * 10**6


@pytest.mark.parametrize("limit", [200, 1024])
@pytest.mark.parametrize("most", [0, 1, 63, 64, 127, 128])
def test_greatest_finds_the_last_that_works(most, limit):
    assert _probing.greatest(lambda number: number <= most, limit) == most
