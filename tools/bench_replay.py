#!/usr/bin/env python3
"""Replays the cost model's choices on the tables of bench/data and writes bench/results/replay.json.

    bench_replay.py PROGRAM

One row a question: what it was fitted to, what it was judged on, and what the choices lost; below,
what choosing one backend everywhere loses on the same cells.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLES = {name: f"bench/data/nvfp4_gemm_{name.lower()}.csv" for name in ("SM100", "B200")}
COMMON = ("--backends", "cutlass,trtllm")
# (fitted to, judged on, further options, what is asked)
QUESTIONS: list[tuple[list[str], str, list[str], str]] = [
    (["SM100", "B200"], "SM100", ["--leave-out-shapes"], "a shape left out"),
    (["SM100"], "SM100", ["--leave-out-shapes"], "a shape left out"),
    (["B200", "SM100"], "B200", ["--leave-out-shapes"], "a shape left out"),
    (["SM100"], "B200", [*COMMON], "another table, common backends"),
    (["B200"], "SM100", [*COMMON], "another table, common backends"),
]


def replay(program: str, fit: list[str], on: str, options: list[str]) -> dict[str, Any]:
    command = [program, "bench", "replay", "--fit", *(TABLES[name] for name in fit)]
    command += ["--on", TABLES[on], *options, "--json"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


def row(fit: str, on: str, asked: str, regret: dict[str, Any], cells: int) -> dict[str, Any]:
    return {
        "fitted_to": fit,
        "judged_on": on,
        "question": asked,
        "loss_percent": round(100 * regret["geomean"], 2),
        "worst_percent": round(100 * regret["worst"], 1),
        "over_5pct": regret["over_5pct"],
        "picked_best": f"{regret['picked_best']} of {cells}",
    }


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    program = str(Path(argv[0]).resolve())
    rows: list[dict[str, Any]] = []
    always: dict[str, dict[str, Any]] = {}
    for fit, on, options, asked in QUESTIONS:
        report = replay(program, fit, on, options)
        rows.append(row(" + ".join(fit), on, asked, report, report["cells"]))
        if not always and on == "SM100":
            always = {name: row("-", on, f"always {name}", regret, report["cells"])
                      for name, regret in report["always"].items()}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE,
                            text=True, check=True).stdout.strip()
    result = {
        "device": "any CPU",
        "cpu": "any CPU",
        "commit": commit,
        "command": "tools/bench_replay.py build/bin/nibble",
        "date": datetime.date.today().isoformat(),
        "rows": rows + list(always.values()),
    }
    path = ROOT / "bench/results/replay.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
