#!/usr/bin/env python3
"""Tests and figures of a machine with an H200 that has no repository's build, only its files.

    measure_h200.py pack FOLDER [--peers h200_peers.tar.xz]   here: builds, and packs the programs
    measure_h200.py run FOLDER OUT [--only STEP,...]          there: leaves OUT/runs.tgz
    measure_h200.py results RUNS                              here: bench/results/h200_*.json

FOLDER lies in the repository and goes to the other machine with it (.carry/ is ignored by git). The
steps are STEPS; all of them take some ten minutes. RUNS is the folder that runs.tgz held. --peers:
the harness of Marlin and humming, which takes plugins (tools/peers_plugin.py)."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import measure_demo
from measure_demo import ROOT, cpu_name

RESULTS = ROOT / "bench/results"
TESTS = ("gpu_conformance_test", "sm90_gemm_test", "cuda_quantize_test", "cuda_quantize_rows_test",
         "sm120_gemm_gpu_test")  # fmt: skip
BENCHES = ("bench_sm90_gemm", "bench_sm90_kinds", "bench_cuda_quantize")
LIBRARIES = ("libspdlog", "libutf8proc", "libpcre2-8", "libfmt")  # of nibble, from Debian
HOST = "nibble bench gemm --device cuda --filter no_such --shape {}"
HOST_LAYERS = ("7168x2048", "4096x7168", "8192x8192", "28672x4096", "18432x7168", "7168x18432")
HOST_PROCESSES = 4
TOKENS = "1,8,16,32,64,128,256,512,1024,2048,4096"
UNSEEN_TOKENS = "3,12,24,40,72,100,160,200,300,700,1500"
UNSEEN_LAYERS = "16384x3072,12288x2048,37888x3584,3584x3584,1536x8960,5120x13824"
# Of each step its longest time in seconds and its command. {}: what it writes; {commit}, {date}: the
# pack's.
STEPS = (
    {test: (120, test) for test in TESTS}
    | {"check": (60, "bench_sm90_gemm --check")}
    | {f"host{i}_{layer}": (60, HOST.format(layer) + " --json {}")
       for i in range(HOST_PROCESSES) for layer in HOST_LAYERS}
    | {
        "gemm_other": (150, f"bench_sm90_gemm --json {{}} --m {UNSEEN_TOKENS} "
                            f"--shape {UNSEEN_LAYERS} --top 8"),
        "quantize": (240, "bench_cuda_quantize --commit {commit} --date {date} --summary "
                          "quantize_summary.json --out {}"),
        "kinds": (120, "bench_sm90_kinds --json {}"),
        "gemm": (240, f"bench_sm90_gemm --json {{}} --sustained --m {TOKENS} --top 8"),
        "peers": (330, f"bash run_all.sh --csv peers.csv --ms {TOKENS} --deadline 300"),
    }
)  # fmt: skip


def pack(folder: Path, peers: Path | None) -> None:
    if measure_demo.run(["git", "status", "--porcelain"], ROOT):
        sys.exit("measure_h200: commit first: figures name what they are of")
    build = ROOT / "build/h200"
    script = ("source tools/env.sh; cmake --preset cuda -B build/h200 -DNIBBLE_CUDA_PORTABLE=90 "
              '--log-level=WARNING; ninja -C build/h200 "$@"')  # fmt: skip
    subprocess.run(["bash", "-ec", script, "pack", "nibble", "libnibble.so", *TESTS, *BENCHES],
                   cwd=ROOT, check=True)  # fmt: skip
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "pack/lib").mkdir(parents=True)
    for program in ("nibble", *TESTS, *BENCHES):
        shutil.copy(build / "bin" / program, folder / "pack")
    shutil.copy(build / "lib/libnibble.so", folder / "pack/lib")
    subprocess.run(["strip", *(f for f in folder.rglob("*") if f.is_file())], check=True)
    for line in measure_demo.run(["ldd", str(build / "bin/nibble")], ROOT).splitlines():
        if line.strip().startswith(LIBRARIES):
            name, _, path, *_ = line.split()
            shutil.copy(path, folder / "pack/lib" / name)
    (folder / "pack/about.json").write_text(
        json.dumps({"commit": measure_demo.run(["git", "rev-parse", "HEAD"], ROOT)[:10],
                    "date": datetime.date.today().isoformat()}))  # fmt: skip
    subprocess.run(["tar", "-C", folder, "-cJf", folder / "pack.txz", "pack"], check=True)
    shutil.rmtree(folder / "pack")
    if peers:
        shutil.copy(peers, folder / "peers.txz")


def run(folder: Path, out: Path, only: list[str], work: Path = Path("/tmp/nibble_h200")) -> int:
    runs = work / "runs"
    shutil.rmtree(work, ignore_errors=True)
    runs.mkdir(parents=True)
    for archive in folder.glob("*.txz"):
        subprocess.run(["tar", "-C", work, "-xf", archive], check=True)
    programs, harness = work / "pack", work / "h200_peers"
    about = json.loads((programs / "about.json").read_text())
    gpu = measure_demo.run(["nvidia-smi", "--query-gpu=name,driver_version",
                            "--format=csv,noheader"], ROOT).split(",")  # fmt: skip
    about |= {"device": gpu[0].strip(), "driver": gpu[1].strip(), "cpu": cpu_name()}
    (runs / "about.json").write_text(json.dumps(about))
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(programs / "lib"),
        "NIBBLE_CACHE_DIR": str(work / "no_cache"), "PYTHONPATH": str(ROOT / "tools"),
        "NIBBLE_LIBRARY": str(programs / "lib/libnibble.so"), "NIBBLE_COMMIT": about["commit"],
        "OUT": str(runs),
        "DENSE": f"--plugin {ROOT}/tools/peers_plugin.py --plugin plugin_example.py",
    }  # fmt: skip
    failed = 0
    out.mkdir(parents=True, exist_ok=True)
    for name, (limit, command) in STEPS.items():
        if (only and name not in only) or (name == "peers" and not harness.exists()):
            continue
        command = command.format(runs / f"{name}.json", **about)
        begin = time.monotonic()
        with open(runs / f"{name}.txt", "w") as log:
            try:
                code = subprocess.run(command.split(), cwd=harness if name == "peers" else runs,
                                      env=environment, timeout=limit, stdout=log,
                                      stderr=subprocess.STDOUT).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = 124
        failed += code != 0
        print(f"{name}: {code}, {time.monotonic() - begin:.0f} s", flush=True)
        if code or name in TESTS or name == "check":
            print("".join((runs / f"{name}.txt").read_text().splitlines(keepends=True)[-12:]))
        # Each time, or a run that is cut short leaves nothing.
        subprocess.run(["tar", "-C", work, "-czf", out / "runs.tgz", "runs"], check=True)
    return min(failed, 1)


def host_results(runs: dict[str, list[dict]], about: dict) -> tuple[dict, dict]:
    """What plans and calls cost the host with the first of the layers, and first calls of all."""

    def us(run: dict) -> dict[str, float]:
        return {row["impl"]: row["seconds"] * 1e6 for row in run["rows"] if row["op"] == "host"}

    def first_calls(layer: str, m: int) -> dict:
        what = f"plan.run until its result, m={m}"
        first, hundredth = ([us(r)[f"{when} {what}"] for r in runs[layer]]
                            for when in ("first", "hundredth"))  # fmt: skip
        ratios = [f / h for f, h in zip(first, hundredth)]
        return {"layer": layer, "m": m, "first, us": round(statistics.median(first), 1),
                "hundredth, us": round(statistics.median(hundredth), 1),
                "first / hundredth": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2), "most": round(max(ratios), 2)}  # fmt: skip

    layer = next(iter(runs))
    host = about | {
        "command": HOST.format(layer),
        "note": f"medians; the first of {len(runs[layer])} processes, in which plan.run took "
                + ", ".join(f"{us(r)['plan.run, m=1']:.2f}" for r in runs[layer]) + " us",
        "rows": [{"what": what, "layer": layer, "us": round(value, 2)}
                 for what, value in us(runs[layer][0]).items()
                 if not what.startswith(("first", "hundredth"))],
    }  # fmt: skip
    rows = [first_calls(layer, m) for layer in runs for m in (1, 16, 64)]
    mean = statistics.geometric_mean(row["first / hundredth"] for row in rows)
    calls = about | {
        "command": HOST.format("LAYER"),
        "note": f"until the result; medians of {len(runs[layer])} processes each, whose first calls "
                f"are single; the geometric mean of their ratios is {mean:.2f}",
        "rows": rows,
    }  # fmt: skip
    return host, calls


def results(runs: Path) -> None:
    about = json.loads((runs / "about.json").read_text())
    about_args = [arg for key in ("driver", "cpu", "commit", "date")
                  for arg in (f"--{key}", about[key])]  # fmt: skip

    def write(name: str, result: dict) -> None:
        text = json.dumps(result, indent=1) + "\n"
        (RESULTS / f"h200_{name}.json").write_text(text)

    def table(script: str, source: Path, name: str, *args: str) -> None:
        if not source.exists():
            return
        text = subprocess.run([sys.executable, ROOT / "tools" / script, source, *about_args, *args],
                              cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout  # fmt: skip
        (RESULTS / f"h200_{name}.json").write_bytes(text)

    for name in ("gemm", "gemm_other", "kinds"):
        command = STEPS[name][1].format("FILE")
        table("gemm_table.py", runs / f"{name}.json", name, "--command", command)
    if (runs / "peers.csv").exists():
        data = ROOT / "bench/data/h200_peers.csv"
        shutil.copy(runs / "peers.csv", data)
        table("peers_table.py", data.relative_to(ROOT), "peers")
    for name in ("quantize", "quantize_summary"):
        if (runs / f"{name}.json").exists():
            result = json.loads((runs / f"{name}.json").read_text())
            # It knows CUDA's version alone.
            write(name, result | {key: about[key] for key in ("driver", "cpu")})
    host = {layer: [json.loads(f.read_text()) for f in sorted(runs.glob(f"host*_{layer}.json"))]
            for layer in HOST_LAYERS}  # fmt: skip
    if all(host.values()):
        for name, result in zip(("host", "first_calls"), host_results(host, about)):
            write(name, result)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing, running, summing = (verbs.add_parser(v) for v in ("pack", "run", "results"))
    packing.add_argument("folder", type=Path)
    packing.add_argument("--peers", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("out", type=Path)
    running.add_argument("--only", type=lambda names: names.split(","), default=[])
    summing.add_argument("runs", type=Path)
    args = parser.parse_args(argv)
    if args.verb == "pack":
        pack(args.folder, args.peers)
    elif args.verb == "run":
        unknown = set(args.only) - set(STEPS)
        if unknown:
            parser.error(f"--only: {', '.join(sorted(unknown))}: expected of {', '.join(STEPS)}")
        return run(args.folder, args.out, args.only)
    else:
        results(args.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
