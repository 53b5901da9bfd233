# SPDX-License-Identifier: MIT
"""The `lowsock` command, also ``python -m lowsock``: does the main job and tells what this machine can do.

``--json`` prints one object; these keys stay::

    ok            true if every part of the main job went well: the exit status says the same
    environment   {"lowsock", "python", "kernel", "machine", "libc", "cffi"}: names and versions
    job           [{"name", "ok", "text", "size"}]: a part, what happened, the bytes that came as they went
    features      [{"name", "available", "detail"}]: a thing tried; what was seen, or why not and what it needs
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NamedTuple, Optional

from lowsock._command import mainjob as _mainjob
from lowsock._command import probes as _probes
from lowsock._command.probing import Row

_DESCRIPTION = """\
Does what lowsock is for, on real sockets of this machine: data over TCP, UDP and AF_UNIX, a message gathered and
scattered, a file's descriptor for a child process, an out-of-band byte. Then tries what else this kernel, libc and
interpreter can do, and tells it in a table."""

_EPILOG = """\
The exit status is 0 if every part of the main job went well, 1 if not. A feature that is not there is a row of the
table, not a failure. The keys of the JSON object: ok, environment, job (name, ok, text, size), features (name,
available, detail)."""


class Report(NamedTuple):
    """All that the command tells."""

    environment: dict[str, str]
    job: list[_mainjob.Part]
    features: list[Row]

    @property
    def ok(self) -> bool:
        return all(part.ok for part in self.job)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    report = Report(_probes.environment(), _mainjob.run(), _probes.run())
    print(_json(report) if arguments.json else _text(report))
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowsock", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.add_argument("--version", action="version", version=f"lowsock {_probes.version('lowsock')}")
    return parser


def _json(report: Report) -> str:
    return json.dumps(
        {
            "ok": report.ok,
            "environment": report.environment,
            "job": [part._asdict() for part in report.job],
            "features": [row._asdict() for row in report.features],
        },
        indent=2,
    )


# ---- in words ----


def _text(report: Report) -> str:
    env = report.environment
    head = f"lowsock {env['lowsock']} on {env['python']}, {env['kernel']} ({env['machine']}), {env['libc']}, "
    job = [(part.name, "ok" if part.ok else "FAILED", part.text) for part in report.job]
    features = [(row.name, "yes" if row.available else "no", row.detail) for row in report.features]
    return "\n".join(
        [
            f"{head}cffi {env['cffi']}",
            *("", "The main job", *_table(job)),
            *("", "What this kernel, libc and interpreter can do", *_table(features)),
            *("", _summary(report)),
        ]
    )


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    names, answers = (max(len(row[column]) for row in rows) for column in range(2))
    return [f"  {name:{names}}  {answer:{answers}}  {text}" for name, answer, text in rows]


def _summary(report: Report) -> str:
    failed = [part.name for part in report.job if not part.ok]
    parts = f"{len(failed)} of {len(report.job)} parts FAILED: {', '.join(failed)}" if failed else "All parts went well"
    available = sum(row.available for row in report.features)
    return f"{parts}; {available} of {len(report.features)} features are there."


if __name__ == "__main__":
    sys.exit(main())
