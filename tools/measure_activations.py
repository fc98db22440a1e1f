#!/usr/bin/env python3
"""Measures what coarser activations cost and writes bench/results/activation_quality.json.

    measure_activations.py [--program FILE] [--model DIR] [--tokens N] [--output FILE]

The model runs on the repository's own pages with 8-bit, then with bf16 activations, each against
itself with activations as they are: the KL divergence is what the mode adds.
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

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/design.md")
MODES = ("int8", "bf16")


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {len(os.sched_getaffinity(0))} cores"
    return f"{len(os.sched_getaffinity(0))} cores"


def output_of(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="build/bin/nibble")
    parser.add_argument("--model", default="build/demo/smollm2-nvfp4")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--output", type=Path,
                        default=ROOT / "bench/results/activation_quality.json")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as text:
        for page in PAGES:
            text.write((ROOT / page).read_text(encoding="utf-8"))
        text.flush()
        for mode in MODES:
            found = json.loads(output_of([
                args.program, "eval", args.model, "--text", text.name, "--max-tokens",
                str(args.tokens), "--activation", mode, "--against", args.model,
                "--against-activation", "16bit", "--json"]))
            rows.append({"activation": mode, **{key: found[key] for key in ("kl", "top1")},
                         "tokens": found["tokens"]})
    result = {
        "device": "CPU",
        "cpu": cpu_name(),
        "commit": output_of(["git", "rev-parse", "HEAD"]).strip(),
        "command": "tools/measure_activations.py",
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
