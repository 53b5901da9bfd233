# SPDX-License-Identifier: MIT
"""Who sent it: credentials and pidfds, sent and received across a fork by processes with other ids."""

import errno
import os
import resource
import select
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

import lowsock
from lowsock import constants
from lowsock.cmsg import ControlMessage, decode, enable, space
from lowsock.cmsg._socket import Credentials, PidFd, Rights

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="struct ucred is Linux's")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root takes other ids")

IDS = REAL, EFFECTIVE, SAVED = 20001, 20002, 20003  # of a sender that is not root
NOBODY = 65534


@pytest.fixture
def pair():
    """Two local datagram sockets; the second one asks for credentials."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        b.settimeout(20)
        enable(b, Credentials)
        yield a, b


def received(sock, *classes):
    """What came beside the next message, decoded; every descriptor in it is closed, but its number is still there."""
    ancdata = lowsock.recvmsg(sock, 100, space(Credentials, PidFd, *classes))[1]
    messages = decode(ancdata)
    for message in messages:
        for fd in getattr(message, "fds", ()) or [getattr(message, "fd", -1)]:
            if fd >= 0:
                os.close(fd)
    return messages


SENDER = """
import os, socket, sys
import lowsock
from lowsock.cmsg._socket import *
sock = socket.socket(fileno=int(sys.argv[1]))
os.setgroups([])
ids = eval(sys.argv[2])
os.setresgid(*ids)
os.setresuid(*ids)
try:
    lowsock.sendmsg(sock, [b"x"], eval(sys.argv[3]))
except OSError as error:
    sys.exit(error.errno)
finally:
    sock.close()
sys.stdin.read()
"""


@contextmanager
def sender(sock, messages, ids=IDS):
    """A process that takes these ids, sends once, and lives until the end of the block."""
    command = [sys.executable, "-I", "-c", SENDER, str(sock.fileno()), repr(ids), messages]
    with subprocess.Popen(command, pass_fds=[sock.fileno()], stdin=subprocess.PIPE) as process:
        yield process


def send_as_another(sock, messages, ids=IDS):
    """The process id of the sender, and the errno that sending gave or 0."""
    with sender(sock, messages, ids) as process:
        process.communicate(timeout=60)
    return process.pid, process.returncode


# ---- what the kernel tells ----


@linux
@root
def test_the_kernel_tells_the_real_ids_of_a_sender_that_tells_none(pair):
    pid, failed = send_as_another(pair[0], "[]")
    assert (failed, received(pair[1])) == (0, [Credentials(pid=pid, uid=REAL, gid=REAL)])


@linux
def test_it_tells_them_with_every_message(pair):
    for data in (b"one", b"two"):
        pair[0].send(data)
        assert received(pair[1]) == [Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())]


@linux
def test_of_what_was_sent_before_anybody_asked_it_tells_nobody():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        a.send(b"early")
        enable(b, Credentials)
        assert received(b) == [Credentials(pid=0, uid=NOBODY, gid=NOBODY)]


@linux
def test_they_stand_before_the_descriptors_and_are_found_by_type(pair):
    lowsock.sendmsg(pair[0], [b"x"], [Rights(fds=[0, 1])])
    assert [type(message) for message in received(pair[1], Rights)] == [Credentials, Rights]


@linux
def test_they_come_unasked_on_a_socket_whose_listener_asked():
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")  # an abstract name
        enable(listener, Credentials)
        listener.listen(1)
        client.connect(listener.getsockname())
        client.send(b"x")
        with listener.accept()[0] as accepted:
            assert [message.pid for message in received(accepted)] == [os.getpid()]


@linux
def test_the_option_gives_a_sender_without_a_name_an_abstract_one(pair):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.bind("")
        enable(asking, Credentials)
        assert not asking.getsockname()
        asking.sendto(b"x", to.getsockname())
        assert asking.getsockname()[:1] in (b"\0", "\0")


@linux
def test_what_is_cut_off_stays_raw(pair):
    pair[0].send(b"x")
    ancdata, flags = lowsock.recvmsg(pair[1], 100, lowsock.CMSG_LEN(8))[1:3]
    (message,) = decode(ancdata)
    assert (type(message), len(message.data), flags & socket.MSG_CTRUNC) == (ControlMessage, 8, socket.MSG_CTRUNC)


RECEIVER = """
import socket, sys
import lowsock
from lowsock.cmsg import _socket, decode
with socket.socket(fileno=int(sys.argv[1])) as sock:
    print(decode(lowsock.recvmsg(sock, 10, 100)[1]))
"""


@linux
@root
@pytest.mark.parametrize(
    ("namespaces", "seen"),
    [(["--pid"], {"pid": 0, "uid": REAL, "gid": REAL}), (["--pid", "--user"], {"pid": 0, "uid": NOBODY, "gid": NOBODY})],
    ids=["pid", "pid and user"],
)
def test_what_has_no_number_in_the_receivers_namespaces_is_nobody(pair, namespaces, seen):
    if subprocess.run(["unshare", *namespaces, "--fork", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no namespaces may be made here")
    assert send_as_another(pair[0], "[]")[1] == 0
    command = ["unshare", *namespaces, "--fork", sys.executable, "-I", "-c", RECEIVER, str(pair[1].fileno())]
    done = subprocess.run(command, pass_fds=[pair[1].fileno()], stdout=subprocess.PIPE, timeout=60, check=True)
    assert eval(done.stdout, {"Credentials": Credentials}) == [Credentials(**seen)]


# ---- what a sender tells ----


@linux
@root
@pytest.mark.parametrize("claimed", IDS)
def test_a_sender_may_tell_its_real_effective_and_saved_ids(pair, claimed):
    pid, failed = send_as_another(pair[0], f"[Credentials(uid={claimed}, gid={claimed})]")
    assert (failed, received(pair[1])) == (0, [Credentials(pid=pid, uid=claimed, gid=claimed)])


@linux
@root
@pytest.mark.parametrize("claimed", ["uid=0", "gid=0", "uid=20004", "pid=1", "pid=os.getppid()"])
def test_other_ids_are_refused_without_privileges(pair, claimed):
    assert send_as_another(pair[0], f"[Credentials({claimed})]")[1] == errno.EPERM


@linux
@root
def test_without_arguments_they_are_the_effective_ones(pair):
    pid, failed = send_as_another(pair[0], "[Credentials()]")
    assert (failed, received(pair[1])) == (0, [Credentials(pid=pid, uid=EFFECTIVE, gid=EFFECTIVE)])


@linux
@root
def test_root_may_tell_the_ids_of_another_process(pair):
    told = Credentials(pid=1, uid=REAL, gid=EFFECTIVE)
    lowsock.sendmsg(pair[0], [b"x"], [told])
    assert received(pair[1]) == [told]


@linux
@root
@pytest.mark.parametrize(
    ("fields", "error"), [({"pid": 0}, errno.ESRCH), ({"pid": 2**22 + 1}, errno.ESRCH), ({"uid": 2**32 - 1}, errno.EINVAL)]
)
def test_what_nobody_can_have_is_refused_even_to_root(pair, fields, error):
    with pytest.raises(OSError) as caught:
        lowsock.sendmsg(pair[0], [b"x"], [Credentials(**fields)])
    assert caught.value.errno == error


@linux
def test_without_arguments_they_are_this_process():
    assert Credentials() == Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())


@linux
@pytest.mark.parametrize("field", ["pid", "uid", "gid"])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (2**32, OverflowError), ("1", TypeError), (1.0, TypeError)])
def test_a_bad_id_is_named(field, value, error):
    with pytest.raises(error, match=field):
        Credentials(**{field: value})


# ---- pidfds ----


@pytest.fixture
def with_pidfd(pair):
    try:
        enable(pair[1], PidFd)
    except NotImplementedError as lacking:
        pytest.skip(str(lacking))
    return pair


def process_of(pidfd):
    """The process id behind a pidfd, -1 if it has been reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        (pid,) = (int(line.split()[1]) for line in lines if line.startswith("Pid:"))
    return pid


def pidfd_beside(sock):
    (message,) = (each for each in decode(lowsock.recvmsg(sock, 100, space(Credentials, PidFd))[1]) if type(each) is PidFd)
    return message


@linux
@root
def test_a_pidfd_is_the_child_that_sent(with_pidfd):
    with sender(with_pidfd[0], "[]") as process:
        fd = pidfd_beside(with_pidfd[1]).fd
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        alive = (process_of(fd), poll.poll(0), os.get_inheritable(fd))
        process.communicate(timeout=60)
        ended = poll.poll(20_000)
    os.close(fd)
    assert alive == (process.pid, [], False)
    assert [events & select.POLLIN for _, events in ended] == [select.POLLIN]


@linux
@root
def test_the_pidfd_of_a_process_that_is_gone_is_nobodys(with_pidfd):
    """Before Linux 6.16 there is none, and the kernel gives -errno."""
    send_as_another(with_pidfd[0], "[]")
    fd = pidfd_beside(with_pidfd[1]).fd
    if fd >= 0:
        gone = process_of(fd)
        os.close(fd)
        assert gone == -1
    else:
        assert fd in (-errno.EINVAL, -errno.ESRCH)


@linux
def test_a_pidfd_for_which_there_is_no_room_is_an_errno(with_pidfd):
    with_pidfd[0].send(b"x")
    lowest = os.dup(0)
    os.close(lowest)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        ancdata = lowsock.recvmsg(with_pidfd[1], 100, space(Credentials, PidFd))[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert decode(ancdata)[1] == PidFd(fd=-errno.EMFILE)


@linux
def test_a_pidfd_cannot_be_sent(pair):
    with pytest.raises(OSError) as caught:
        lowsock.sendmsg(pair[0], [b"x"], [PidFd(fd=0)])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("fd", "error"), [(-5000, OverflowError), (2**31, OverflowError), (None, TypeError)])
def test_a_bad_pidfd_is_named(fd, error):
    if not hasattr(constants, "SCM_PIDFD"):
        pytest.skip("this platform has no SCM_PIDFD")
    with pytest.raises(error, match="fd"):
        PidFd(fd=fd)
