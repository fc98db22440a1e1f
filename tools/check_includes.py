#!/usr/bin/env python3
"""Holds the include table of docs/design.md: who may include whom.

    check_includes.py [ROOT]

The fenced `include-table` block is the only source of the rules; a line reads

    folder -> other folder{a.h b.h} kernels/*{list.h}

`other`: any of its headers, and whatever `other` may include itself. `folder{a.h}`: these headers
and nothing behind them ({*}: any header, still nothing behind it). `*` in a folder stands for one
or more path components. Every folder may include itself and the public headers "nibble/...". A
folder of tests/ may include what its namesake under src/ may, plus what its own line adds.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
TABLE = re.compile(r"^```include-table\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GRANT = re.compile(r"([\w/*]+)(?:\{([^}]*)\})?")
ACCELERATOR_HEADERS = re.compile(r"(cuda|cu(blas|tlass|te|dnn)|torch|ATen|c10|nccl|nv)[\w.]*(/|$)")


@dataclass(frozen=True)
class Grant:
    folder: str  # may hold *
    files: tuple[str, ...] | None  # None: every header, and what the folder may include itself

    def covers(self, folder: str, file: str) -> bool:
        if not fnmatchcase(folder, self.folder):
            return False
        return self.files is None or "*" in self.files or file in self.files


class Table:
    """The rules, parsed from docs/design.md."""

    def __init__(self, document: str) -> None:
        match = TABLE.search(document)
        if match is None:
            raise ValueError("docs/design.md has no ```include-table block")
        self.rows: dict[str, list[Grant]] = {}
        for line in filter(str.strip, match.group(1).splitlines()):
            folder, arrow, right = line.partition("->")
            if not arrow:
                raise ValueError(f"include table: no '->' in line '{line}'")
            self.rows[folder.strip()] = [
                Grant(name, tuple(files.split()) if files else None)
                for name, files in GRANT.findall(right)
            ]
        for folder, grants in self.rows.items():
            for grant in grants:
                if not any(fnmatchcase(known, grant.folder) for known in self.rows):
                    raise ValueError(f"include table: '{folder}' names unknown '{grant.folder}'")

    @cached_property
    def _by_length(self) -> list[str]:
        return sorted(self.rows, key=len, reverse=True)

    def folder_of(self, path: str) -> str | None:
        """Where a path such as text/jinja/lexer.h belongs: to the longest row that fits. Of a row
        with *, to the folder that it stands for, so that two of them may not include each other."""
        parts = path.split("/")
        for row in self._by_length:
            depth = row.count("/") + 1
            folder = "/".join(parts[:depth])
            if len(parts) > depth and fnmatchcase(folder, row):
                return folder
        return None

    def _row_of(self, folder: str) -> list[Grant]:
        fitting = (row for row in self._by_length if fnmatchcase(folder, row))
        return self.rows.get(next(fitting, ""), [])

    def grants(self, folder: str) -> list[Grant]:
        """What a folder may include, with everything that stands behind it."""
        found: list[Grant] = []
        seen: set[str] = set()
        open_folders = [folder]
        while open_folders:
            current = open_folders.pop()
            if current in seen:
                continue
            seen.add(current)
            found.append(Grant(current, None))
            for grant in self._row_of(current):
                if grant.files is None:
                    open_folders += [row for row in self.rows if fnmatchcase(row, grant.folder)]
                else:
                    found.append(grant)
        return found


class Checker:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.table = Table((root / "docs/design.md").read_text(encoding="utf-8"))

    def violations(self) -> list[str]:
        found = []
        for top in ("include", "src", "apps", "tests", "bench"):
            for path in sorted((self.root / top).rglob("*")):
                if path.suffix in SUFFIXES:
                    found += self._check_file(path.relative_to(self.root).as_posix())
        return found

    def _check_file(self, path: str) -> list[str]:
        text = (self.root / path).read_text(encoding="utf-8")
        found = []
        for match in INCLUDE.finditer(text):
            reason = self._reason_against(path, match.group(1) == '"', match.group(2))
            if reason:
                line = text.count("\n", 0, match.start(2)) + 1
                found.append(f"{path}:{line}: includes {match.group(2)}: {reason}")
        if path.endswith((".h", ".cuh")) and "#pragma once" not in text:
            found.append(f"{path}:1: has no #pragma once")
        return found

    def _reason_against(self, path: str, quoted: bool, target: str) -> str | None:
        if path.startswith("include/") and ACCELERATOR_HEADERS.match(target):
            return "public headers name no CUDA or torch header"
        if target.startswith("nlohmann/"):
            allowed = not path.endswith(".h") or path.startswith("tests/")
            allowed = allowed or target == "nlohmann/json_fwd.hpp"
            return None if allowed else "nlohmann/json belongs in .cc files, it is slow to compile"
        if target.startswith("nibble/"):
            return None
        if not quoted and not (self.root / "src" / target).is_file():
            return None  # the standard library and the dependencies
        if path.startswith("include/"):
            return "public headers include public headers only"
        return self._reason_against_folder(path, target)

    def _reason_against_folder(self, path: str, target: str) -> str | None:
        if (self.root / target).is_file() and target.startswith(("tests/", "bench/")):
            same = target.split("/")[0] == path.split("/")[0]
            return None if same or path.startswith("bench/") else "only tests include test helpers"
        if not (self.root / "src" / target).is_file():
            return "not a path from include/ or src/"
        source, grants = self._grants_of(path)
        if grants is None:
            return f"{source} is not in the include table of docs/design.md"
        folder = self.table.folder_of(target)
        if folder is None:
            return f"{target} is in no folder of the include table of docs/design.md"
        file = target.removeprefix(folder + "/")
        if any(grant.covers(folder, file) for grant in grants):
            return None
        return f"{source} may not include {folder}"

    def _grants_of(self, path: str) -> tuple[str, list[Grant] | None]:
        if path.startswith("src/"):
            folder = self.table.folder_of(path.removeprefix("src/"))
            return folder or path, None if folder is None else self.table.grants(folder)
        grants: list[Grant] = []
        names = [self.table.folder_of(path)]
        if path.startswith("tests/"):
            names.append(self.table.folder_of(path.removeprefix("tests/")))
        for name in filter(None, names):
            grants += self.table.grants(name)
        return str(Path(path).parent), grants or None


def main(argv: list[str]) -> int:
    root = Path(argv[0]) if argv else Path(__file__).resolve().parent.parent
    try:
        found = Checker(root).violations()
    except (OSError, ValueError) as error:
        print(f"check_includes: {error}", file=sys.stderr)
        return 1
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
