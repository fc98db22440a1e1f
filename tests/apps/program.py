"""The `nibble` program for its tests, which take its path and the folder of the two checkpoints that
`make demo` makes: NAME_test.py PROGRAM DEMO_FOLDER. Both are taken off the arguments here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = sys.argv.pop(1)
DEMO = Path(sys.argv.pop(1))
BF16, NVFP4 = DEMO / "smollm2-bf16", DEMO / "smollm2-nvfp4"
for model in (BF16, NVFP4):
    if not model.is_dir():
        sys.exit(f"{model} is missing; `make demo` makes it")


def run(*args: str, env: dict[str, str] | None = None, stdin: str = "", code: int | None = 0):
    """Runs the program; `code` is the exit code that is expected."""
    result = subprocess.run(
        [PROGRAM, *map(str, args)],
        input=stdin.encode(),
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=120,
    )
    out, err = result.stdout.decode(), result.stderr.decode()
    if code is not None and result.returncode != code:
        raise AssertionError(f"{args}: exit code {result.returncode}\n{out}\n{err}")
    return out, err


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="cli_test."))
        self.addCleanup(shutil.rmtree, self.dir)

    def copy_model(self, source: Path) -> Path:
        """A folder of links that a test can break."""
        copy = self.dir / "model"
        copy.mkdir()
        for file in source.iterdir():
            (copy / file.name).symlink_to(file.resolve())
        return copy

    def replace(self, folder: Path, name: str, data: bytes) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
