# SPDX-License-Identifier: MIT
"""The house that lowsock lives in: the order of its wings, who imports whom, and a drawing of both.

``python docs/house.py`` prints the drawing that docs/design.md shows; ``--write`` puts it there. Tests import this file: one
fails if an import points up, another if the drawing is not the one that the sources give.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
WIDTH = 100

# From the top down. A module imports from its own wing and from rows below, never from another wing of its row or from a row
# above. A module is of the longest wing that its name begins with.
WINGS = (
    ("__main__",),
    ("_command",),
    ("__init__",),
    ("aio", "constants", "peer", "typing"),
    ("aio._datagram", "aio._stream"),
    ("aio._wait",),
    ("udp", "unix"),
    ("_batch", "errqueue"),
    ("cmsg",),
    ("_message",),
    ("_memory",),
    ("_system",),
)
DEPTH = {wing: depth for depth, row in enumerate(WINGS) for wing in row}


def module_of(path: Path, package: Path) -> str:
    """The name of a module within the package; a subpackage goes by its own name, the package by ``__init__``."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def wing_of(module: str) -> str:
    """The wing of a module; raises `LookupError` for a module that is of none."""
    wings = [wing for wing in DEPTH if f"{module}.".startswith(f"{wing}.")]
    if not wings:
        raise LookupError(f"{module} is of no wing")
    return max(wings, key=len)


class House:
    """The modules of a package and what each imports of the others."""

    def __init__(self, package: Path) -> None:
        self.paths = {module_of(path, package): path for path in sorted(package.rglob("*.py"))}
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in self.paths.items()}
        self.imports = {name: set(self._imported(name)) for name in self.paths}

    def _imported(self, module: str) -> Iterator[str]:
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from (self._own(alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "lowsock")
            elif isinstance(node, ast.ImportFrom) and node.level:
                raise ValueError(f"{module} imports by dots: write the name of the module in full")
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "lowsock":
                yield from (self._own(node.module, alias.name) for alias in node.names)

    def _own(self, module: str, name: str) -> str:
        """The module of the package that ``from MODULE import NAME`` reads."""
        inside = module.partition(".")[2]
        candidates = (f"{inside}.{name}".strip("."), inside)
        return next((each for each in candidates if each in self.paths), inside or "__init__")

    def upward(self, module: str) -> list[str]:
        """What a module imports that does not lie below it."""
        wing = wing_of(module)
        others = {each for each in self.imports[module] & set(self.paths) if wing_of(each) != wing}
        return sorted(each for each in others if DEPTH[wing_of(each)] <= DEPTH[wing])

    def reached_within(self, module: str) -> set[str]:
        """All modules of its wing that a module imports, and those that they import; itself only if there is a cycle."""
        found: set[str] = set()
        waiting = [module]
        while waiting:
            near = self.imports[waiting.pop()] & set(self.paths)
            new = {each for each in near if wing_of(each) == wing_of(module)} - found
            found |= new
            waiting += new
        return found

    # ---- the drawing ----

    def drawing(self) -> str:
        """All wings from the top down: what each is for, its rooms and the wings that it stands on."""
        return "\n".join(line for row in WINGS for wing in row for line in self._box(wing))

    def _box(self, wing: str) -> Iterator[str]:
        modules = [module for module in self.paths if wing_of(module) == wing]
        rooms = sorted((module[len(wing) + 1 :] for module in modules if module != wing), key=lambda room: room.strip("_"))
        reached = {each for module in modules for each in self.imports[module] & set(self.paths)}
        below = sorted({wing_of(each) for each in reached} - {wing}, key=lambda each: (DEPTH[each], each))
        yield f"+-- {wing} ".ljust(WIDTH - 1, "-") + "+"
        for text, indent in (
            ((ast.get_docstring(self.trees[wing]) or "").partition("\n")[0], ""),
            ("   ".join(rooms), "    "),
            (f"on {', '.join(below)}" if below else "", "    "),
        ):
            for line in textwrap.wrap(text, WIDTH - 8, break_on_hyphens=False):
                yield f"| {(indent + line).ljust(WIDTH - 4)} |"
        yield "+".ljust(WIDTH - 1, "-") + "+"


BLOCK = re.compile(r"(<!-- docs/house\.py -->\n```text\n).*?(\n```)", re.DOTALL)


def main() -> None:
    drawing = House(DOCS.parent / "lowsock").drawing()
    if sys.argv[1:] != ["--write"]:
        print(drawing)
        return
    page = DOCS / "design.md"
    text, count = BLOCK.subn(lambda match: match[1] + drawing + match[2], page.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{page} has no place for the drawing")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
