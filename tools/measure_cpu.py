#!/usr/bin/env python3
"""Measures the CPU kernels and a model and writes bench/results/cpu_kernels.json, cpu_model.json and
cpu_parts.json.

    measure_cpu.py [--parts] [--program FILE] [--model FOLDER] [--output FOLDER]

One run of `nibble bench cpu`, whose kernels take turns; about a minute. Then what a token's time
goes to, by activation mode (--parts: only that); some 20 seconds. Needs what `make demo` makes, or
the program and a model folder.
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


def part_rows(program: Path, model: Path) -> list[dict[str, Any]]:
    """A row for each thread count and activation mode: speed, and percents of decoding."""
    rows = []
    for threads in dict.fromkeys((len(os.sched_getaffinity(0)), 1)):
        for activation in ("int8", "bf16"):
            found = json.loads(run([str(program.resolve()), "bench", "model", str(model.resolve()),
                                    "-p", "0", "--threads", str(threads), "--activation",
                                    activation, "--repeats", "3", "--breakdown", "--json"],
                                   ROOT))["rows"]  # fmt: skip
            (decode,) = [row for row in found if row["op"] == "decode"]
            parts = {row["desc"]: round(row["rate"], 2) for row in found if row["op"] == "part"}
            rows.append({
                "activation": activation, "threads": threads, "tokens_a_second": decode["rate"],
                "share_of_read": decode["share_of_read"], **parts,
                "all_but_gemm": round(100 - parts["gemm"], 2),
            })  # fmt: skip
    return rows


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure the CPU kernels and a model.")
    parser.add_argument("--program", type=Path, default=ROOT / "build/bin/nibble")
    parser.add_argument("--model", type=Path, default=ROOT / "build/demo/smollm2-nvfp4")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results")
    parser.add_argument("--parts", action="store_true", help="only what a token's time goes to")
    args = parser.parse_args(argv)
    commit = os.environ.get("NIBBLE_COMMIT") or run(["git", "rev-parse", "HEAD"], ROOT).strip()
    tables = {}
    if not args.parts:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "rows.json"
            subprocess.run([args.program, "bench", "cpu", args.model, "--json", file], check=True)
            tables = split(json.loads(file.read_text(encoding="utf-8"))["rows"])
    tables["cpu_parts"] = part_rows(args.program, args.model)
    for name, part in tables.items():
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
