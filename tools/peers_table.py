#!/usr/bin/env python3
"""Sums up a run of the Hopper GEMMs beside their peers in one PyTorch process.

    peers_table.py RUN.csv --driver VERSION --cpu NAME --commit COMMIT --date YYYY-MM-DD \
        > bench/results/h200_peers.json

RUN.csv has columns peer, N, K, M, us, relerr: vLLM's Marlin, humming, cuBLAS bf16, Nibble
(tools/peers_plugin.py) and a second cuBLAS as the null test, timed in turns on one card."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys

OURS, NULL = "nibble", "null_bf16_mm"
PEERS = {"marlin": "Marlin", "humming": "humming", "cublas_bf16": "cuBLAS bf16"}


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv")
    for name in ("driver", "cpu", "commit", "date"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    cells: dict[tuple[int, int, int], dict[str, float]] = {}
    errors: dict[str, float] = {}
    for row in csv.DictReader(open(args.csv, encoding="utf-8")):
        key = (int(row["M"]), int(row["N"]), int(row["K"]))
        cells.setdefault(key, {})[row["peer"]] = float(row["us"])
        errors[row["peer"]] = max(errors.get(row["peer"], 0.0), float(row["relerr"]))
    rows = []
    for m in sorted({key[0] for key in cells}):
        here = [times for key, times in cells.items() if key[0] == m]
        row: dict[str, float] = {"m": m}
        for peer, name in PEERS.items():
            row[f"{name} / time"] = round(geomean([c[peer] / c[OURS] for c in here]), 3)
        best = [min(c[peer] for peer in PEERS) / c[OURS] for c in here]
        row |= {"best of them / time": round(geomean(best), 3),
                "least of six": round(min(best), 3),
                "null": round(geomean([c[NULL] / c["cublas_bf16"] for c in here]), 3)}
        rows.append(row)
    result = {"device": "NVIDIA H200", "cpu": args.cpu, "driver": args.driver,
              "commit": args.commit,
              "command": f"tools/peers_table.py {args.csv}", "date": args.date,
              "peers": "vLLM 0.33.0 Marlin and humming 0.1.19 with torch 2.11.0+cu130",
              "largest relative error": errors, "rows": rows,
              "cells": [{"m": m, "n": n, "k": k} | us for (m, n, k), us in cells.items()]}
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
