#!/usr/bin/env python3
"""Holds the Hopper GEMMs' times against peers that were timed beside cuBLAS in another process.

    join_peers.py PEERS.csv --date YYYY-MM-DD > bench/results/h200_peers.json

PEERS.csv has columns peer, N, K, M, us, cublas_us (a benchmark of vLLM's Marlin and of humming in
PyTorch). Nibble's times are of bench/results/h200_gemm.json. Both runs timed cuBLAS bf16 in turns
with the rest, so each time is taken as a share of cuBLAS's of its own run."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path

GEMM = Path(__file__).resolve().parent.parent / "bench" / "results" / "h200_gemm.json"
PEERS = ("marlin", "humming")


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv")
    parser.add_argument("--date", required=True)
    args = parser.parse_args()
    shares: dict[tuple[int, int, int], dict[str, float]] = {}
    for row in csv.DictReader(open(args.csv, encoding="utf-8")):
        if row["peer"] in PEERS:
            cell = shares.setdefault((int(row["N"]), int(row["K"]), int(row["M"])), {})
            cell[row["peer"]] = float(row["us"]) / float(row["cublas_us"])
    ours = json.loads(GEMM.read_text(encoding="utf-8"))
    by_m: dict[int, list[dict[str, float]]] = {}
    for c in ours["cells"]:
        peers = shares.get((c["n"], c["k"], c["m"]))
        if peers:
            own = c["us"] / c["cublas_bf16_us"]
            by_m.setdefault(c["m"], []).append(
                {p: share / own for p, share in peers.items()} | {"cublas": 1 / own})
    rows = []
    for m, cells in sorted(by_m.items()):
        best = [min(c.values()) for c in cells]
        rows.append({"m": m, "Marlin / time": round(geomean([c["marlin"] for c in cells]), 3),
                     "humming / time": round(geomean([c["humming"] for c in cells]), 3),
                     "best of them and cuBLAS / time": round(geomean(best), 3),
                     "least of six": round(min(best), 3)})
    result = {key: ours[key] for key in ("device", "cpu", "driver", "commit")}
    result |= {"command": f"tools/join_peers.py {args.csv}", "date": args.date,
               "peers": "vLLM 0.33.0 Marlin and humming 0.1.19 with torch 2.11.0+cu130",
               "rows": rows}
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
