#!/usr/bin/env python3
"""Measures the CPU kernels and a model and writes bench/results/cpu_kernels.json and cpu_model.json.

    measure_cpu.py [--program FILE] [--model FOLDER] [--output FOLDER]

One run of `nibble bench cpu`, whose kernels take turns; about a minute. Needs what `make demo`
makes, or the program and a model folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure_demo import ROOT, cpu_name, run

KERNELS = ("read", "decode", "null", "prompt", "quantize")


def kernel_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": row["op"], "of": row["desc"], "threads": row["threads"],
        "rate": row["rate"], "unit": row["unit"],
        "share_of_read": row["share_of_read"] or None,
        "share_of_huge_read": row["share_of_huge_read"] or None,
    }  # fmt: skip


def model_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"what": row["op"], "of": row["desc"], "threads": row["threads"], "rate": row["rate"],
            "unit": row["unit"]}  # fmt: skip


def split(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, as its table shows them. A model's rows have it as what ran."""
    is_kernel = [row["op"] in KERNELS and "tokens" not in row["desc"] for row in rows]
    order = {op: i for i, op in enumerate(KERNELS)}
    kernels = [kernel_row(row) for row, kernel in zip(rows, is_kernel) if kernel]
    return {
        "cpu_kernels": sorted(kernels, key=lambda r: (r["threads"], order[r["what"]])),
        "cpu_model": sorted((model_row(row) for row, kernel in zip(rows, is_kernel) if not kernel),
                            key=lambda r: r["threads"]),
    }  # fmt: skip


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure the CPU kernels and a model.")
    parser.add_argument("--program", type=Path, default=ROOT / "build/bin/nibble")
    parser.add_argument("--model", type=Path, default=ROOT / "build/demo/smollm2-nvfp4")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results")
    args = parser.parse_args(argv)
    commit = os.environ.get("NIBBLE_COMMIT") or run(["git", "rev-parse", "HEAD"], ROOT).strip()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.json"
        subprocess.run([args.program, "bench", "cpu", args.model, "--json", file], check=True)
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    for name, part in split(rows).items():
        result = {
            "device": "CPU",
            "cpu": cpu_name(),
            "commit": commit,
            "command": " ".join(["tools/measure_cpu.py", *argv]),
            "date": datetime.date.today().isoformat(),
            "rows": part,
        }
        (args.output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n",
                                                  encoding="utf-8")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
