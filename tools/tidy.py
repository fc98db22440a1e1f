#!/usr/bin/env python3
"""Runs clang-tidy over src/ and apps/, skipping what passed before with the same contents.

    tidy.py [BUILD]        BUILD (default: build/cpu) has been built, so ninja knows every header

clang-tidy takes seconds a file. A file that passed leaves a stamp in the user's cache folder, named
by the hash of the file, of every header of ours it includes, of .clang-tidy and of the compiler's
arguments; a fresh clone finds it there too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def headers_by_object(build: Path) -> dict[str, list[Path]]:
    """Object file (as ninja names it) to the files of this repository it was made from."""
    out = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], check=True, capture_output=True, text=True
    ).stdout
    result: dict[str, list[Path]] = {}
    files: list[Path] = []
    for line in out.splitlines():
        if line and not line.startswith(" "):
            files = result.setdefault(line.split(":")[0], [])
        elif line:
            path = (build / line.strip()).resolve()
            if path.is_relative_to(ROOT):
                files.append(path)
    return result


def stamp_of(entry: dict[str, str], files: list[Path], version: bytes) -> str:
    digest = hashlib.sha256(version)
    digest.update((ROOT / ".clang-tidy").read_bytes())
    digest.update(entry["command"].replace(str(ROOT), "").encode())
    for path in sorted(set(files)):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def main(argv: list[str]) -> int:
    build = (ROOT / (argv[0] if argv else "build/cpu")).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nibble/tidy"
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], check=True, capture_output=True).stdout
    headers = headers_by_object(build)

    work = []
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        source = Path(entry["file"])
        if not source.is_relative_to(ROOT / "src") and not source.is_relative_to(ROOT / "apps"):
            continue
        arguments = shlex.split(entry["command"])
        built = arguments[arguments.index("-o") + 1]
        if built not in headers:
            print(f"tidy: {built} is not built yet", file=sys.stderr)
            return 1
        stamp = cache / stamp_of(entry, [source, *headers[built]], version)
        if not stamp.exists():
            work.append((source, stamp))

    def check(job: tuple[Path, Path]) -> bool:
        source, stamp = job
        command = ["clang-tidy", "-p", str(build), "--quiet", "--warnings-as-errors=*", str(source)]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.returncode:
            print(run.stdout or run.stderr, flush=True)
            return False
        stamp.touch()
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(check, work))
    print(f"tidy: {len(work)} files checked, {passed.count(False)} with findings")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
