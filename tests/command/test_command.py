# SPDX-License-Identifier: MIT
"""The `lowsock` command: its exit status, its words, its JSON, and that it tells the truth when something fails."""

import errno
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time

import pytest

from lowsock import __main__ as command
from lowsock._command import mainjob as _mainjob
from lowsock._command import probes as _probes
from lowsock._command import probing as _probing

pytestmark = pytest.mark.unsanitized

ENVIRONMENT = {"lowsock", "python", "kernel", "machine", "libc", "cffi"}
JOB = ["tcp", "udp", "unix", "gather and scatter", "descriptor", "out-of-band"]


def run(directory, *arguments):
    """Runs ``python -m lowsock`` in a directory, with every warning an error."""
    python = [sys.executable, "-I", "-X", "dev", "-W", "error", "-m", "lowsock"]
    return subprocess.run([*python, *arguments], capture_output=True, text=True, cwd=directory)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return run(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What ``--json`` prints, parsed."""
    done = run(tmp_path_factory.mktemp("empty"), "--json")
    assert done.returncode == 0
    return json.loads(done.stdout)


# ---- the command ----


def test_it_succeeds_and_says_nothing_on_stderr(words):
    assert (words.returncode, words.stderr) == (0, "")


def test_its_words_name_every_part_of_the_main_job(words):
    assert re.findall(r"^  (\S.*?) +ok  ", words.stdout, re.MULTILINE) == JOB


def test_its_words_tell_bytes_and_calls(words):
    assert re.search(r"sent [1-9]\d+ bytes over TCP with send1msg; recv1msg received the same bytes", words.stdout)
    assert re.search(r"sent a file's descriptor to process \d+, which read 100000 bytes through it", words.stdout)


def test_its_words_have_a_row_for_every_feature(words):
    rows = re.findall(r"^  (\S.*?) +(?:yes|no)   ?(\S.*)$", words.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == [probe.name for probe in _probes.PROBES]


def test_its_words_begin_with_where_it_runs(words):
    version = importlib.metadata.version("lowsock")
    assert words.stdout.startswith(f"lowsock {version} on {platform.python_implementation()} {platform.python_version()},")


def test_its_words_end_with_a_sum(words):
    assert re.fullmatch(r"All parts went well; \d+ of \d+ features are there\.", words.stdout.splitlines()[-1])


def test_the_console_script_is_main():
    (script,) = [
        entry for entry in importlib.metadata.distribution("lowsock").entry_points if entry.group == "console_scripts"
    ]
    assert (script.name, script.load()) == ("lowsock", command.main)


def test_help_tells_the_options_the_status_and_the_keys(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert [word for word in ("--json", "exit status", "environment", "available") if word not in told] == []


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lowsock {importlib.metadata.version('lowsock')}\n")


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--xml"])
    assert ended.value.code == 2
    assert "--xml" in capsys.readouterr().err


# ---- for machines ----


def test_json_has_the_documented_keys(told):
    assert set(told) == {"ok", "environment", "job", "features"}
    assert set(told["environment"]) == ENVIRONMENT
    assert {frozenset(part) for part in told["job"]} == {frozenset({"name", "ok", "text", "size"})}
    assert {frozenset(row) for row in told["features"]} == {frozenset({"name", "available", "detail"})}


def test_json_has_the_documented_types(told):
    assert told["ok"] is True
    assert {type(value) for value in told["environment"].values()} == {str}
    assert {tuple(map(type, part.values())) for part in told["job"]} == {(str, bool, str, int)}
    assert {tuple(map(type, row.values())) for row in told["features"]} == {(str, bool, str)}


def test_json_tells_the_bytes_of_every_part(told):
    assert {part["name"]: part["size"] > 0 for part in told["job"]} == dict.fromkeys(JOB, True)


def test_json_leaves_nothing_empty(told):
    texts = [*told["environment"].values(), *(row["detail"] for row in told["features"])]
    assert "" not in texts


def test_every_feature_has_a_name_of_its_own(told):
    names = [row["name"] for row in told["features"]]
    assert sorted(set(names)) == sorted(names)


# ---- a part that fails ----


def broken(_):
    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


@pytest.fixture
def few_probes(monkeypatch):
    """In process, one probe is enough where the main job counts."""
    monkeypatch.setattr(_probes, "PROBES", _probes.PROBES[:1])


@pytest.mark.parametrize("name", JOB)
def test_any_part_that_fails_gives_a_status_that_is_not_0(name, monkeypatch, few_probes, capsys):
    monkeypatch.setitem(_mainjob.PARTS, name, broken)
    assert command.main([]) == 1
    assert f"1 of 6 parts FAILED: {name};" in capsys.readouterr().out


def test_a_part_that_fails_is_told_and_the_others_are_done(monkeypatch, few_probes, capsys):
    monkeypatch.setitem(_mainjob.PARTS, "tcp", broken)
    command.main(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [part["name"] for part in told["job"] if part["ok"]] == JOB[1:]
    failed = told["job"][0]
    assert (failed["size"], failed["text"]) == (0, f"OSError: [Errno {errno.ENETUNREACH}] Network is unreachable")


def test_a_feature_that_is_missing_is_no_failure(monkeypatch, capsys):
    monkeypatch.setattr(_probes, "PROBES", [_probing.Probe("time travel", broken, "a machine")])
    assert command.main([]) == 0
    assert "0 of 1 features are there" in capsys.readouterr().out


def spoilt(receive):
    """``receive`` with the last byte of its data changed."""

    def wrapper(*args, **kwargs):
        data, *rest = receive(*args, **kwargs)
        return (data[:-1] + bytes(255 - byte for byte in data[-1:]), *rest)

    return wrapper


def one_less(receive):
    """``recvmsg_into`` that tells one byte less than it received."""

    def wrapper(*args, **kwargs):
        size, *rest = receive(*args, **kwargs)
        return (size - 1, *rest)

    return wrapper


@pytest.mark.parametrize("name", JOB)
def test_every_part_notices_data_that_is_not_what_went(name, monkeypatch):
    monkeypatch.setattr(_mainjob, "recv1msg", spoilt(_mainjob.recv1msg))
    monkeypatch.setattr(_mainjob, "recvmsg_into", one_less(_mainjob.recvmsg_into))
    part = _mainjob._run(name, _mainjob.PARTS[name])
    assert not part.ok
    assert part.size == 0


def test_a_mark_that_is_not_seen_is_noticed(monkeypatch):
    monkeypatch.setattr(_mainjob, "sockatmark", lambda sock: False)
    part = _mainjob._run("out-of-band", _mainjob.PARTS["out-of-band"])
    assert part.text == "Missing: read b'before', and sockatmark is not true"


def test_out_of_band_data_that_does_not_come_is_noticed(monkeypatch):
    monkeypatch.setattr(_mainjob, "TIMEOUT", 0.01)
    monkeypatch.setattr(_mainjob, "send1msg", lambda sock, data, flags=0: len(data))
    assert "no out-of-band data came" in _mainjob._run("out-of-band", _mainjob.PARTS["out-of-band"]).text


# ---- the child process ----


def descriptor_part():
    return _mainjob._run("descriptor", _mainjob.PARTS["descriptor"])


def test_a_child_that_dies_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setattr(_mainjob, "CHILD_CODE", "raise SystemExit('no lowsock here')")
    part = descriptor_part()
    assert not part.ok
    assert part.text.endswith("the child answered '' no lowsock here")


def test_a_child_that_reads_something_else_is_noticed(monkeypatch):
    answer = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).send(b'100000 of something else')"
    monkeypatch.setattr(_mainjob, "CHILD_CODE", answer)
    assert "the child answered '100000 of something else'" in descriptor_part().text


def test_a_child_that_does_not_answer_is_killed(monkeypatch):
    monkeypatch.setattr(_mainjob, "CHILD_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(_mainjob, "CHILD_TIMEOUT", 0.1)
    begun = time.monotonic()
    assert not descriptor_part().ok
    assert time.monotonic() - begun < 30


# ---- descriptors ----


def test_the_whole_command_twice_leaves_no_descriptor(open_fds, capsys):
    counts = []
    for _ in range(2):
        assert command.main(["--json"]) == 0
        counts.append(len(open_fds()))
    assert counts[0] == counts[1]
