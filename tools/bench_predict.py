#!/usr/bin/env python3
"""Writes what the cost models expect of Blackwell chips to bench/results. Nothing of it is measured.

    bench_predict.py PROGRAM

PROGRAM is a `nibble` with CUDA kernels (no GPU is needed). predicted.json has every row of `nibble
bench --predict`; the tables of the docs show the sizes of SHOWN, predicted_sm120.json for chips with
kernels of ours, predicted_sm100.json for those that others published timings of.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# n, k, rows
SHOWN = {(8192, 8192): (1, 8, 64, 512), (28672, 4096): (1, 16, 128, 2048),
         (7168, 2048): (1, 16, 256), (18432, 7168): (1, 128)}
TILE = ("tile_m", "tile_n", "tile_k", "split_k")


def tile_of(desc: str) -> str:
    """ "... [tile_m=8 tile_n=16 tile_k=1024 stages=4 split_k=2]" -> "8 x 16 x 1024, split 2"."""
    if "[" not in desc:
        return ""
    words = dict(word.split("=") for word in desc[desc.index("[") + 1:-1].split() if "=" in word)
    sizes = " x ".join(words[key] for key in TILE[:3] if key in words)
    return sizes + (f", split {words['split_k']}" if words.get("split_k", "1") != "1" else "")


def shown(row: dict[str, Any]) -> bool:
    return row["m"] in SHOWN.get((row["n"], row["k"]), ())


def sm120_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"chip": row["chip"], "weight": row["weight"], "n": row["n"], "k": row["k"],
            "m": row["m"], "tile": tile_of(row["desc"]), "tiles": row["tiles"],
            "mma_per_tile": row["mma_per_tile"], "bytes_per_tile": row["bytes_per_tile"],
            "predicted_us": row["predicted_us"], "predicted_tflops": row["predicted_tflops"]}


def sm100_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"chip": row["chip"], "n": row["n"], "k": row["k"], "m": row["m"],
            "source": row["source"], "harness": row["desc"] if row["source"] == "fit" else None,
            "backend": row["impl"], "predicted_us": row["predicted_us"],
            "predicted_tflops": row["predicted_tflops"], "published": row.get("published"),
            "published_tflops": row.get("published_tflops"), "ratio": row.get("ratio")}


def write(name: str, rows: list[dict[str, Any]], commit: str) -> None:
    head = {"device": "no GPU, predicted", "cpu": "any CPU", "commit": commit,
            "command": "tools/bench_predict.py build/cuda/bin/nibble",
            "date": datetime.date.today().isoformat()}
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    text = json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"
    (ROOT / f"bench/results/{name}.json").write_text(text, encoding="utf-8")


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    output = subprocess.run([argv[0], "bench", "--predict", "--json"], stdout=subprocess.PIPE,
                            text=True, check=True).stdout
    report = json.loads(output)
    if "note" in report:
        print(f"bench_predict: {report['note']}", file=sys.stderr)
        return 1
    rows = report["predicted"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE,
                            text=True, check=True).stdout.strip()
    write("predicted", rows, commit)
    write("predicted_sm120", [sm120_row(row) for row in rows
                              if shown(row) and "mma_per_tile" in row], commit)
    write("predicted_sm100", [sm100_row(row) for row in rows
                              if shown(row) and "mma_per_tile" not in row], commit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
