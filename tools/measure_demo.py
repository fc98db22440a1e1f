#!/usr/bin/env python3
"""Measures what the demo promises and writes bench/results/demo.json.

    measure_demo.py [--skip-test | --warm-cache] [--output FILE]

The commands of a user are timed in a fresh clone of HEAD with the compiler cache off, so `make demo`
compiles, downloads and converts everything; only Debian's packages are there already. Opening,
quantizing and decoding are the median of RUNS.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
PROMPT = "What is the capital of France, and why is it famous?"


def run(command: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if command[0] == "make" else subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"measure_demo: {' '.join(command)} failed:\n{result.stdout[-4000:]}"
                         f"{result.stderr or ''}")
    return result.stdout


def seconds(action: Callable[[], Any]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {len(os.sched_getaffinity(0))} cores"
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def measure_model(clone: Path) -> list[dict[str, Any]]:
    program = str(clone / "build/bin/nibble")
    bf16, nvfp4 = clone / "build/demo/smollm2-bf16", clone / "build/demo/smollm2-nvfp4"
    generate = ["run", str(nvfp4), "-p", PROMPT, "-n", "128", "--temp", "0", "--json"]
    runs = [json.loads(run([program, *generate], clone)) for _ in range(RUNS)]
    opens = [json.loads(run([program, "run", str(bf16), *generate[2:4], "-n", "1", "--json"], clone))
             for _ in range(RUNS)]
    input_gb = (bf16 / "model.safetensors").stat().st_size / 1e9
    with tempfile.TemporaryDirectory(dir=clone / "build") as scratch:
        quantize = []
        for _ in range(RUNS):
            # Removed just before: a virtual machine's host takes free memory back after seconds,
            # and a run would measure how it gives pages again.
            shutil.rmtree(f"{scratch}/model", ignore_errors=True)
            quantize.append(input_gb / seconds(lambda: run(
                [program, "quantize", str(bf16), f"{scratch}/model", "--format", "nvfp4"], clone)))

    def median(results: list[dict[str, Any]], key: str) -> float:
        return statistics.median(result[key] for result in results)

    return [
        {"what": "open the bf16 checkpoint (269 MB)", "value": median(opens, "load_seconds"),
         "unit": "s", "target": "< 0.3"},
        {"what": "quantize it to NVFP4 (bf16 read, the whole program)",
         "value": statistics.median(quantize), "unit": "GB/s", "target": ">= 0.5"},
        {"what": "read a prompt, NVFP4", "value": median(runs, "prompt_tokens_per_second"),
         "unit": "tokens/s", "target": None},
        {"what": "decode, NVFP4", "value": median(runs, "decode_tokens_per_second"),
         "unit": "tokens/s", "target": "> 60"},
        {"what": "peak memory of that", "value": median(runs, "peak_memory_mib"), "unit": "MiB",
         "target": None},
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure the demo.")
    parser.add_argument("--skip-test", action="store_true", help="leave `make test` out")
    parser.add_argument("--warm-cache", action="store_true",
                        help="this commit's tests were compiled here before: no run to fill the cache")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/demo.json")
    args = parser.parse_args(argv)
    commit = run(["git", "rev-parse", "HEAD"], ROOT).strip()
    rows: list[dict[str, Any]] = []

    def add(what: str, value: float, target: str) -> None:
        rows.append({"what": what, "value": round(value, 1), "unit": "s", "target": target})
        print(f"{what}: {value:.1f} s", file=sys.stderr)

    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="measure-", dir=ROOT / "build") as scratch:
        clone = Path(scratch) / "nibble"
        run(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        add("`make demo` from nothing",
            seconds(lambda: run(["make", "demo"], clone, CCACHE_DISABLE="1")), "< 300")
        add("`make demo` again", seconds(lambda: run(["make", "demo"], clone)), "< 5")
        rows += measure_model(clone)
        if not args.skip_test:
            if not args.warm_cache:
                run(["make", "test"], clone)  # fills the compiler cache
            add("`make test`, compiler cache warm", seconds(lambda: run(["make", "test"], clone)),
                "< 600")
    result = {
        "device": "CPU",
        "cpu": cpu_name(),
        "commit": commit,
        "command": " ".join(["tools/measure_demo.py", *argv]),
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
