#!/usr/bin/env python3
"""Fills the tables of figures in README.md and docs/*.md from bench/results/*.json.

    update_tables.py [--check] [ROOT]

A table stands between the lines

    <!-- table: NAME [column column ...] -->
    <!-- end -->

NAME is bench/results/NAME.json, a measurement written by a program and never by hand:

    {"device": "...", "cpu": "...", "driver": "...", "commit": "...", "command": "...",
     "date": "YYYY-MM-DD", "rows": [{"column": value, ...}, ...]}

"driver" may be missing (no accelerator). Without columns all of the first row's are shown. Under
the table stand the device, the date, the commit and the command, so a reader can repeat it.
--check changes nothing and fails where a page differs from its measurements.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

MARKER = re.compile(r"(<!-- table: ([\w-]+)((?: \w+)*) -->\n).*?(<!-- end -->)", re.DOTALL)
OPENING = re.compile(r"^<!-- table:", re.MULTILINE)
REQUIRED = ("device", "cpu", "commit", "command", "date", "rows")


class TableError(Exception):
    """A marker or a result file is malformed."""


def read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise TableError(f"{path}: {error}") from error
    for key in REQUIRED:
        if key not in result:
            raise TableError(f"{path}: '{key}' is missing")
    if not result["rows"]:
        raise TableError(f"{path}: has no rows")
    return result


def show(value: Any) -> str:
    """Three significant digits for measurements; whole numbers and words as they are."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def align(values: list[Any]) -> str:
    numbers = all(value is None or isinstance(value, (int, float)) for value in values)
    return "--:" if numbers else "---"


def render(result: dict[str, Any], columns: list[str], path: Path) -> str:
    rows = result["rows"]
    columns = columns or list(rows[0])
    for column in columns:
        if not any(column in row for row in rows):
            raise TableError(f"{path}: no row has the column '{column}'")
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + "|".join(align([row.get(column) for row in rows]) for column in columns) + "|",
    ]
    for row in rows:
        lines.append("| " + " | ".join(show(row.get(column)) for column in columns) + " |")
    where = result["device"] if result["device"] == result["cpu"] else (
        f"{result['device']}, {result['cpu']}")
    if result.get("driver"):
        where += f", driver {result['driver']}"
    source = f"{where}; {result['date']}, commit {result['commit'][:10]}"
    return "\n".join(lines) + f"\n\n{source}: `{result['command']}`\n"


def update(text: str, results: Path, page: Path) -> str:
    def replacement(match: re.Match[str]) -> str:
        source = results / f"{match.group(2)}.json"
        return match.group(1) + render(read_result(source), match.group(3).split(), source) + (
            match.group(4))

    new_text, count = MARKER.subn(replacement, text)
    if count != len(OPENING.findall(text)):
        raise TableError(f"{page}: a table marker is malformed or has no <!-- end -->")
    return new_text


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fill tables from bench/results.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    args = parser.parse_args(argv)
    stale = []
    try:
        for page in [args.root / "README.md", *sorted((args.root / "docs").glob("*.md"))]:
            text = page.read_text(encoding="utf-8")
            new_text = update(text, args.root / "bench/results", page)
            if new_text == text:
                continue
            if args.check:
                stale.append(page)
            else:
                page.write_text(new_text, encoding="utf-8")
    except (TableError, OSError) as error:
        print(f"update_tables: {error}", file=sys.stderr)
        return 1
    for page in stale:
        print(f"update_tables: {page} differs from bench/results; run `make tables`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
