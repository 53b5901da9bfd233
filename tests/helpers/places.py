# SPDX-License-Identifier: MIT
"""Where the clone's files are, for tests that read them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LISTINGS = DOCS / "listings"
TESTS = ROOT / "tests"
FUZZ = TESTS / "fuzz"
