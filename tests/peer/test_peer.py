# SPDX-License-Identifier: MIT
"""lowsock.peer: who is at the other end, asked of the socket."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import contextmanager, suppress

import pytest

from lowsock import constants, peer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what the kernel tells is Linux's")
ROOT = os.geteuid() == 0
FUNCTIONS = {name: getattr(peer, name) for name in peer.__all__ if name != "PeerCredentials"}
WITHOUT_A_PEER = {"credentials": errno.ENOTCONN, "groups": errno.ENODATA, "pidfd": errno.ENODATA}


def call(function, sock):
    """What a function says; a pidfd is closed, and skipped where there is none."""
    try:
        answer = function(sock)
    except NotImplementedError as error:
        pytest.skip(str(error))
    if function is peer.pidfd:
        answer.close()
    return answer


@contextmanager
def connected_by(identity):
    """A socket whose peer was a child that did ``identity()``, connected and lives until the end of the block."""
    name = f"\0lowsock test {os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            pid = os.fork()
        if pid == 0:
            try:
                identity()
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(name)
                    sock.recv(1)
            finally:
                os._exit(0)
        accepted, _ = listener.accept()
    with accepted:
        yield accepted, pid
        accepted.close()
    with suppress(ChildProcessError):  # the test may have done it
        os.waitpid(pid, 0)


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def process_of(pidfd):
    """The number of a pidfd's process; -1 once it has been waited for."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        return int(next(line for line in info if line.startswith("Pid:")).split()[1])


# ---- credentials ----


def test_a_pair_is_of_this_process(unix_pair, passed):
    credentials = peer.credentials(passed(unix_pair.b))
    assert credentials == (os.getpid(), os.geteuid(), os.getegid())
    assert credentials._fields == ("pid", "uid", "gid")


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_another_user_is_told():
    def somebody_else():
        os.setgroups([])
        os.setgid(1234)
        os.setuid(4321)

    with connected_by(somebody_else) as (sock, pid):
        assert peer.credentials(sock) == (pid, 4321, 1234)


def test_credentials_are_those_of_the_time_of_connecting():
    with connected_by(lambda: None) as (sock, pid):
        before = peer.credentials(sock)
        end(pid)
        assert peer.credentials(sock) == before == (pid, os.geteuid(), os.getegid())


@pytest.mark.skipif(not ROOT, reason="only root can make a namespace")
def test_a_process_that_has_no_number_here_is_none():
    """Seen from a pid namespace of its own, the process outside has none."""
    a, b = socket.socketpair()
    script = "import os, sys; from lowsock import peer; print(peer.credentials(int(sys.argv[1])).pid)"
    with a, b:
        command = ["unshare", "--pid", "--fork", sys.executable, "-I", "-c", script, str(a.fileno())]
        done = subprocess.run(command, pass_fds=[a.fileno()], capture_output=True, text=True, check=False)
    if done.stderr.startswith("unshare"):
        pytest.skip(done.stderr)
    assert (done.stdout, done.stderr) == ("None\n", "")


# ---- groups ----


@pytest.mark.skipif(not ROOT, reason="only root can change groups")
@pytest.mark.parametrize("count", [0, 1, 64, 65, 300, 5000])
def test_groups_are_told_however_many(count):
    groups = list(range(1000, 1000 + count))
    with connected_by(lambda: os.setgroups(groups)) as (sock, _):
        assert call(peer.groups, sock) == groups


def test_groups_of_this_process(unix_pair):
    assert call(peer.groups, unix_pair.a) == sorted(os.getgroups())


# ---- pidfds ----


def test_a_pidfd_is_of_the_process_that_made_the_pair(unix_pair, open_fds):
    before = open_fds()
    call(peer.pidfd, unix_pair.a)
    assert open_fds() == before
    with peer.pidfd(unix_pair.a) as owner:
        (fd,) = owner
        assert (open_fds() - before, owner.pidfd) == ({fd}, fd)
        assert not os.get_inheritable(fd)
        assert process_of(fd) == os.getpid()
    assert open_fds() == before


def test_a_pidfd_sees_the_end_of_its_process():
    with connected_by(lambda: None) as (sock, pid):
        call(peer.pidfd, sock)
        with peer.pidfd(sock) as (fd,):
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            assert poll.poll(0) == []
            end(pid)
            ((ready, events),) = poll.poll(60_000)
            assert (ready, events & select.POLLIN) == (fd, select.POLLIN)


def test_a_pidfd_is_never_of_another_process():
    """Once the peer has been waited for, its number may be another's, but no pidfd is."""
    with connected_by(lambda: None) as (sock, pid):
        call(peer.pidfd, sock)
        with peer.pidfd(sock) as (fd,):
            assert process_of(fd) == pid
            end(pid)
            assert process_of(fd) == -1


def test_a_pidfd_may_be_asked_for_too_late():
    """Linux before 6.16 refuses; later ones give the pidfd of a process that is gone."""
    with connected_by(lambda: None) as (sock, pid):
        call(peer.pidfd, sock)
        end(pid)
        with suppress(OSError), peer.pidfd(sock) as (fd,):
            assert process_of(fd) == -1


# ---- labels ----


def test_a_label_is_text_or_none(unix_pair):
    label = peer.security(unix_pair.a)
    if label is None:
        with pytest.raises(OSError, match="Protocol not available"):
            unix_pair.a.getsockopt(socket.SOL_SOCKET, constants.SO_PEERSEC, 256)
    else:
        assert label == unix_pair.a.getsockopt(socket.SOL_SOCKET, constants.SO_PEERSEC, 256).rstrip(b"\0").decode()


@pytest.mark.parametrize("size", [0, 10, 256, 257, 70_000])
@pytest.mark.parametrize("ending", [b"", b"\0"])
def test_a_label_of_any_length_is_read(monkeypatch, size, ending):
    """As a security module would tell it: ERANGE until there is room."""
    raw = b"\xff" * size + ending

    class Lib:
        def lowsock_read_option(self, fd, level, option, value, room):
            if room < len(raw):
                return -errno.ERANGE
            peer._options.ffi.memmove(value, raw, len(raw))
            return len(raw)

    monkeypatch.setattr(peer._options, "lib", Lib())
    assert peer.security(0) == "\udcff" * size


# ---- what cannot be told ----


def loose_dgram():
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def loose_stream():
    return socket.socket(socket.AF_UNIX)


@pytest.mark.parametrize("make", [loose_dgram, loose_stream, socket.socket])
@pytest.mark.parametrize("name", WITHOUT_A_PEER)
def test_a_socket_without_a_peer_is_an_error(unix_pair, make, name):
    call(FUNCTIONS[name], unix_pair.a)  # skips where the system lacks it
    with make() as sock, pytest.raises(OSError, match=r"No data|not connected|No such process") as caught:
        FUNCTIONS[name](sock)
    assert caught.value.errno in (WITHOUT_A_PEER[name], errno.ESRCH)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_no_socket_is_an_error(function):
    with open(os.devnull) as file, pytest.raises(OSError, match="non-socket"):
        function(file)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_has_no_descriptor_is_named(function):
    with pytest.raises(TypeError, match="sock must be an int or have a fileno"):
        function("0")


MISSING = {"credentials": "SO_PEERCRED", "groups": "SO_PEERGROUPS", "pidfd": "SO_PEERPIDFD"}


@pytest.mark.parametrize("number", [errno.ENOPROTOOPT, errno.ENOSYS])
@pytest.mark.parametrize("name", MISSING)
def test_what_the_system_lacks_is_named(monkeypatch, name, number):
    """As a kernel, or a libc, without it answers."""

    class Lib:
        def __getattr__(self, function):
            return lambda *arguments: -number

    if name == "credentials" and number == errno.ENOPROTOOPT:
        number = errno.ENOSYS
    monkeypatch.setattr(peer._options, "lib", Lib())
    with pytest.raises(NotImplementedError, match=MISSING[name]):
        FUNCTIONS[name](0)


def test_without_the_constant_there_is_no_pidfd(monkeypatch):
    monkeypatch.delitem(peer._options.CONSTANTS, "SO_PEERPIDFD", raising=False)
    with pytest.raises(NotImplementedError, match="SO_PEERPIDFD"):
        peer.pidfd(0)
