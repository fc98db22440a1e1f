#!/usr/bin/env python3
"""Sums up a run of bench_sm90_gemm or of bench_sm90_kinds.

    gemm_table.py RUN.json --command COMMAND --driver VERSION --cpu NAME --commit COMMIT \
        --date YYYY-MM-DD > bench/results/h200_gemm.json

RUN.json is what --json wrote: for each layer and m the streaming read of the same bytes, cuBLAS, the
chosen configuration without and with programmatic dependent launch, and all that were timed; or the
time of each kind of operands."""

from __future__ import annotations

import argparse
import json
import sys

from peers_table import geomean

NOTE = ("us: the chosen configuration, timed in turns with cuBLAS and the others, a rest of the card "
        "before each; pdl_us: the same with programmatic dependent launch, the floor without; "
        "sustained_us, with --sustained: alone, in a row for a quarter of a second. timed: every "
        "candidate that was timed.")


def row(m: int, cells: list[dict]) -> dict:
    floors = [c["us"] / c["floor_us"] for c in cells]
    cublas = [c["cublas_bf16_us"] / c["us"] for c in cells]
    best = [c["us"] / c["best_us"] for c in cells]
    figures = {"time / floor": geomean(floors), "worst of six": max(floors),
               "with PDL": geomean([c["pdl_us"] / c["floor_us"] for c in cells]),
               "cuBLAS bf16 / time": geomean(cublas), "least of six": min(cublas),
               "chosen / best": geomean(best), "worst choice": max(best)}
    if "sustained_us" in cells[0]:
        sustained = [c["sustained_cublas_us"] / c["sustained_us"] for c in cells]
        figures |= {"sustained / floor": geomean([c["sustained_us"] / c["floor_us"] for c in cells]),
                    "cuBLAS / time, sustained": geomean(sustained), "least": min(sustained)}
    return {"m": m} | {name: float(f"{value:.3g}") for name, value in figures.items()}


KINDS_NOTE = ("Each kind's time over bf16's in the same turns, geometric means over six layers; in "
              "the cells us. cuBLAS / fp16: cuBLAS fp16's time over ours.")


def kinds_row(m: int, cells: list[dict]) -> dict:
    kinds = [kind for kind in cells[0]["us"] if kind != "bf16" and "cublas" not in kind]
    figures = {kind: geomean([c["us"][kind] / c["us"]["bf16"] for c in cells]) for kind in kinds}
    staged = ("bias", "C", "SiLU-mul")
    figures["worst of bias, C, SiLU-mul"] = max(
        c["us"][kind] / c["us"]["bf16"] for c in cells for kind in staged)
    figures["cuBLAS / fp16"] = geomean([c["us"]["cublas fp16"] / c["us"]["fp16"] for c in cells])
    return {"m": m} | {name: float(f"{value:.3g}") for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    for name in ("command", "driver", "cpu", "commit", "date"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    with open(args.run) as f:
        run = json.load(f)
    cells = run["cells"]
    kinds = isinstance(cells[0]["us"], dict)
    for cell in [] if kinds else cells:
        wrong = [name for name, _, _, right in cell["timed"] if not right]
        if wrong:
            sys.exit(f"{args.run}: wrong results of {wrong[0]}")
        cell["timed"] = {name: round(us, 3) for name, us, _, _ in cell["timed"]}
    summed = kinds_row if kinds else row
    rows = [summed(m, [c for c in cells if c["m"] == m]) for m in sorted({c["m"] for c in cells})]
    json.dump({"device": run["device"], "cpu": args.cpu, "driver": args.driver,
               "commit": args.commit, "command": args.command, "date": args.date,
               "note": KINDS_NOTE if kinds else NOTE, "null_us": run.get("null_us"), "rows": rows,
               "cells": cells}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
