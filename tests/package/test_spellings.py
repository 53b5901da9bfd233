# SPDX-License-Identifier: MIT
"""The spellings of before 0.2.0 are gone: from the docs, the listings, the command, the benchmarks and the sources."""

import re

import pytest
from places import DOCS, LISTINGS, ROOT

OLD = {
    "send_rights and recv_rights": r"(?<![\w_])(send|recv)_rights\b",
    "BrokenStream": r"\bBrokenStream\b",
    "aio.Received, udp.Received": r"\b(aio|udp)\.Received\b",
    "receive and datagrams of a batch": r"\bbatch\.(receive|datagrams)\(",
    "options of an endpoint that are named like values": r"Endpoint\([^)]*\b(ecn|local|timestamps|errors|txtime)=",
    "options of a transport": r"create_datagram_endpoint\([^)]*[ (](ecn|local|timestamps|errors)=",
    "source= of a send": r"\bsource=",
    "txtime= of a send": r"\btxtime=",
    "nanoseconds": r"\.nanoseconds\b|\bnanoseconds=",
    "fds= of enable and space": r"\b(enable|space)\([^)]*\bfds=",
    "take_fds() without a count": r"\.take_fds\(\)",
    "segments and datagrams of Coalesced": r"\b(coalesced|came|joined)\.(segments|datagrams)\b",
    "timeout= of an awaitable": r"await [\w.]+\([^)]*\btimeout=",
}
PAGES = [*DOCS.glob("*.md"), *LISTINGS.glob("*.py"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PROGRAMS = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("lowsock/_command/*.py"), ROOT / "lowsock" / "__main__.py"]


@pytest.mark.parametrize("old", OLD)
def test_an_old_spelling_is_nowhere(old):
    found = []
    for path in [*PAGES, *PROGRAMS]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(OLD[old], line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []
