# SPDX-License-Identifier: MIT
"""The documentation: every program runs, every quotation is true, every public name is there."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from places import DOCS, LISTINGS, ROOT

import lowsock

pytestmark = [pytest.mark.integration, pytest.mark.unsanitized]

PAGES = sorted(DOCS.glob("*.md"))

CHAPTERS = (
    "guide.md",
    "control-messages.md",
    "descriptors.md",
    "error-queue.md",
    "bulk-datagrams.md",
    "awaitable.md",
    "unix-streams.md",
)

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTATION = re.compile(r"# listings/(\w+\.py)\n(.*)", re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)")

SAYS = {
    "addresses.py": ("IPv4: tuple of 2, the sender's own: True", "unnamed: NoneType of 0"),
    "aio_errors.py": ("refused by the one who was asked: True", "received b'to myself'"),
    "aio_server.py": ("127.0.0.2 says: one.example is 192.0.2.1", "the server ended: Bad file descriptor"),
    "batches.py": (
        "by 1 call of sendmmsg",
        "answered 100",
        "replies: b'NUMBER 99'",
        "b'out']",
        "True that some are left, 1000 in all",
    ),
    "collector.py": (
        "some were dropped: True",
        "none is missing without a word: True",
        "hits: True bytes: True",
    ),
    "copy_descriptor.py": ("the copy is inheritable: False", "parent read: the child read 'written by the parent'"),
    "datagram_server.py": (
        "all answers came from the address that was asked: True",
        "in order: True",
        "marked: 5",
        "fewer calls than datagrams: True",
    ),
    "dbus_client.py": ("on the bus: :1.0 :1.1", "through the pipe that came: elif eht ni si tahw"),
    "descriptor_stream.py": (
        "1 files: [1000], sent by this process: True",
        "3 files: [3000, 3000, 3000], sent",
        "cut in the middle: True",
        "it came whole: 1000000 bytes, 1 descriptor",
        "broken: more than 10 descriptors came",
    ),
    "file_transfer.py": ("of them again: True; came marked: True", "the file came as it was sent: True"),
    "gather_scatter.py": ("kind 7, body 'scattered to the winds'", "a stream of 900000 bytes, all as sent: True"),
    "kernel_timestamp.py": ("b'tick' was read", "between the two, as it should be: True"),
    "multihomed.py": ("asked 127.0.0.2: I am 127.0.0.2", "asked 127.0.0.3: I am 127.0.0.3"),
    "out_of_band.py": ("TCP: b'before' stands before the mark", "TCP: b'!' is the urgent byte", "AF_UNIX: "),
    "packet_info.py": ("asked 127.0.0.2: I am 127.0.0.2", "asked 127.0.0.3: I am 127.0.0.3"),
    "privsep.py": ("child: by its descriptor: only the parent can open this", "child: ../../etc/shadow: refused"),
    "refuse_descriptors.py": ("dropped: True", "descriptors gained: 0", "a peek made a copy of its own: True"),
    "send_replacement.py": ("sent 12 bytes", "received b'regular data'", "after the end: b''"),
    "sent_when.py": ("message 0: sent ", "message 1: sent "),
    "timeouts.py": ("within 50 ms: None - waited: True", "the call goes on: b'from the handler'"),
    "timestamps.py": ("b'three' came at ", "in the order of sending: True", "between the sending and now: True"),
    "traceroute.py": ("to 127.0.0.1 (127.0.0.1):", "  1 127.0.0.1 after", "reached"),
    "truncation.py": ("b'0123' ['MSG_TRUNC']", "3000 bytes, found by peeking", "of 10 descriptors ['MSG_CTRUNC']"),
    "typed_messages.py": ("with 1 hops left", "DSCP 46, ECN.ECT_0", "still a tuple: True"),
    "udp_relay.py": ("client 0: 1000 datagrams came back, as sent: True", "client 1: 1000", "carried 4000 datagrams"),
    "zero_copy.py": ("incomplete: 0", "2097190 bytes came, all as sent: True"),
}
LINUX = {
    "aio_errors.py",
    "aio_server.py",
    "collector.py",
    "descriptor_stream.py",
    "file_transfer.py",
    "kernel_timestamp.py",
    "multihomed.py",
    "packet_info.py",
    "sent_when.py",
    "traceroute.py",
    "udp_relay.py",
    "zero_copy.py",
}
NEEDED = {"dbus_client.py": ("dbus-daemon", "jeepney")}  # programs and modules that few have


def missing(name):
    return [each for each in NEEDED.get(name, ()) if not (shutil.which(each) or importlib.util.find_spec(each))]


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def quotations():
    found = [(page.name, QUOTATION.fullmatch(block)) for page in PAGES for block in blocks(page)]
    return [pytest.param(*match.groups(), id=f"{page}-{match[1]}-{i}") for i, (page, match) in enumerate(found) if match]


def says_verbatim(text, quoted):
    """Whether the lines of ``quoted`` stand in ``text``, all of them indented by the same amount."""
    lines = quoted.rstrip("\n").splitlines()
    source = text.splitlines()
    windows = (source[i : i + len(lines)] for i in range(len(source) - len(lines) + 1))
    return any(textwrap.dedent("\n".join(window)) == "\n".join(lines) for window in windows)


def heading_anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_listing_is_tested():
    assert sorted(SAYS) == sorted(path.name for path in LISTINGS.glob("*.py"))


@pytest.mark.parametrize("name", sorted(SAYS))
def test_a_listing_runs_anywhere_and_says_what_it_did(name, tmp_path):
    if name in LINUX and not sys.platform.startswith("linux"):
        pytest.skip("its control messages are those of Linux")
    if missing(name):
        pytest.skip(f"it needs {' and '.join(missing(name))}")
    command = [sys.executable, "-I", "-W", "error", str(LISTINGS / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert [words for words in SAYS[name] if words not in done.stdout] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its error queue is Linux's")
def test_the_programs_of_the_readme_run(tmp_path):
    program = "".join(blocks(ROOT / "README.md"))
    command = [sys.executable, "-I", "-W", "ignore::ResourceWarning", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    said = ("hops=3", "TTL(hops=3)", "IcmpError(errno=111", "b'from two buffers'", "b'one whole message' ")
    assert [words for words in said if words not in done.stdout] == []


@pytest.mark.parametrize(("listing", "quoted"), quotations())
def test_what_a_page_quotes_stands_in_the_listing(listing, quoted):
    assert says_verbatim((LISTINGS / listing).read_text(encoding="utf-8"), quoted)


def test_the_guide_and_its_chapters_quote_every_listing():
    quoted = {match[1] for page in PAGES for block in blocks(page) for match in [QUOTATION.fullmatch(block)] if match}
    assert quoted == set(SAYS)


@pytest.mark.parametrize("page", CHAPTERS)
def test_all_python_in_the_guide_is_quoted(page):
    assert [block for block in blocks(DOCS / page) if not QUOTATION.fullmatch(block)] == []


def signature(name):
    function = getattr(lowsock, name)
    if isinstance(function, type) and issubclass(function, Exception):
        return name
    bare = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in bare.parameters.values()]
    return f"{name}{bare.replace(parameters=parameters, return_annotation=bare.empty)}"


@pytest.mark.parametrize("heading", [*map(signature, lowsock.__all__), "lowsock.constants"])
def test_the_reference_has_a_heading_for_every_public_name(heading):
    headings = re.findall(r"^##+ `(.+)`$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading in headings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in heading_anchors(target), anchor


@pytest.mark.parametrize("quoted", ["b\n    c", "a", "c\n\nd"])
def test_a_quotation_may_be_dedented(quoted):
    assert says_verbatim("  b\n      c\na\nc\n\nd\n", quoted)


@pytest.mark.parametrize("quoted", ["b\nc", "B", "a\nd", "b \n    c"])
def test_a_quotation_may_not_be_changed(quoted):
    assert not says_verbatim("  b\n      c\na\nc\n\nd\n", quoted)
