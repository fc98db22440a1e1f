#!/usr/bin/env python3
"""Measures Nibble beside llama.cpp on one CPU and writes bench/results/cpu_peers*.json.

    bench_cpu_peers.py [--quick] [--rounds N] [--threads 2,1] [--prompts 512,128] [--decode 128]
    bench_cpu_peers.py --prepare [--isa native|sapphirerapids]
    bench_cpu_peers.py --no-build --peer-bin DIR --nibble FILE --models DIR

The peer is the vendor/llama.cpp of PyPI's llama-cpp-python (tools/requirements/peer.txt), built in
build/peer with its own defaults for this CPU. Both sides run the same model: the GGUF of the demo's
wheel, dequantized to bf16, and the demo's bf16 folder made from the same file, each quantized by its
own program.

A machine of this kind drifts by tens of percent, so every round runs every contender once, and only
medians of interleaved rounds are compared. --prepare only builds and quantizes; what it made can be
carried to another machine and measured there with --no-build. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from cpu_peers import (
    ISA_OPTIONS,
    OURS,
    PEER,
    PEERS,
    REQUIREMENT,
    ROOT,
    Contender,
    PeerError,
    build_peer,
    call,
    make_our_models,
    make_peer_models,
    step,
)

QUESTION = "What is the capital of France, and why is it famous?"
# The demo model's chat template around it, because the peer's tools take the text as it is.
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
PROMPT = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
          "<|im_start|>assistant\n")


def decode_bytes(contender: Contender, models: Path) -> int | None:
    """What our decoding reads a token: every matrix and norm, of the embedding one row."""
    if contender.engine != "nibble":
        return None
    with (contender.path(models) / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return sum(entry["data_offsets"][1] - entry["data_offsets"][0]
               for name, entry in header.items()
               if name not in ("__metadata__", "model.embed_tokens.weight"))  # fmt: skip


class Usage(NamedTuple):
    seconds: float
    peak_mib: float
    output: str


def timed(command: list[str | Path]) -> Usage:
    """One process, from its start to its end, with its own peak memory."""
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output)  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise PeerError(f"{' '.join(map(str, command))} failed ({process.returncode}):\n"
                        f"{text[-2000:]}")
    return Usage(seconds, usage.ru_maxrss / 1024, text)


class Bench:
    def __init__(self, program: Path, tools: Path, models: Path, prompts: list[int],
                 decode: int) -> None:  # fmt: skip
        self.program, self.tools, self.models = program, tools, models
        self.prompts, self.decode = prompts, decode

    def speeds(self, contender: Contender, threads: int) -> dict[str, float]:
        model = contender.path(self.models)
        if contender.engine == "nibble":
            return self.our_speeds(model, threads)
        # One run of each after llama-bench's own warm-up.
        out = call([self.tools / "llama-bench", "-m", model, "-t", str(threads), "-r", "1", "-o",
                    "jsonl", "-p", ",".join(map(str, self.prompts)), "-n", str(self.decode)])  # fmt: skip
        result = {}
        for line in filter(None, out.splitlines()):
            row = json.loads(line)
            key = f"prompt_{row['n_prompt']}" if row["n_prompt"] else "decode"
            result[key] = row["avg_ts"]
            result["decode_bytes"] = row["model_size"]
        return result

    def our_speeds(self, model: Path, threads: int) -> dict[str, float]:
        def bench(*options: str) -> dict[str, float]:
            out = call([self.program, "bench", "model", model, "--json", "--threads", str(threads),
                        *options])  # fmt: skip
            return {row["op"]: row["rate"] for row in json.loads(out)["rows"]}

        # The median of three has two warm runs, as the peer's one after its warm-up.
        result = {f"prompt_{p}": bench("-p", str(p), "-n", "0", "--repeats", "3")["prompt"]
                  for p in self.prompts}  # fmt: skip
        result["decode"] = bench("-p", "0", "-n", str(self.decode), "--repeats", "1")["decode"]
        return result

    def start(self, contender: Contender, threads: int) -> dict[str, float]:
        """Process start to its end after one token of the demo's prompt."""
        model = contender.path(self.models)
        if contender.engine == "nibble":
            usage = timed([self.program, "run", model, "-p", QUESTION, "-n", "1", "--temp", "0",
                           "--threads", str(threads), "--json"])  # fmt: skip
            tokens = int(re.search(r'"prompt_tokens": *(\d+)', usage.output)[1])
        else:
            # Its context is as ours by default would be far larger: 512 favours the peer.
            usage = timed([self.tools / "llama-completion", "-m", model, "-p", PROMPT, "-n", "1",
                           "--temp", "0", "-t", str(threads), "-c", "512", "-no-cnv",
                           "--no-warmup"])  # fmt: skip
            found = re.search(r"prompt eval time.*?/ +(\d+) tokens", usage.output)
            tokens = int(found[1]) if found else 0
        return {"start_ms": 1000 * usage.seconds, "peak_MiB": usage.peak_mib,
                "prompt_tokens": tokens}  # fmt: skip

    def read_bandwidth(self, threads: int) -> float:
        # No implementation has this name: only the measurement of reading is left.
        out = call([self.program, "bench", "gemm", "--filter", "no implementation", "--json",
                    "--threads", str(threads)])  # fmt: skip
        return json.loads(out)["rows"][0]["rate"]


def measure(bench: Bench, rounds: int, thread_counts: list[int]) -> dict[Any, dict[str, Any]]:
    """Medians by (contender, threads); key ("read", threads) holds the bandwidth."""
    samples: dict[Any, dict[str, list[float]]] = {}

    def add(key: Any, values: dict[str, float]) -> None:
        for name, value in values.items():
            samples.setdefault(key, {}).setdefault(name, []).append(value)

    # Ours and the peer's take turns, so that neither side runs in one piece.
    order = [c for pair in zip(PEERS, OURS + OURS) for c in pair]
    order = list(dict.fromkeys(order))
    for index in range(rounds):
        for threads in thread_counts:
            step(f"Round {index + 1} of {rounds}, {threads} threads")
            add(("read", threads), {"rate": bench.read_bandwidth(threads)})
            for contender in order if index % 2 == 0 else reversed(order):
                add((contender, threads), bench.speeds(contender, threads))
                add((contender, threads), bench.start(contender, threads))
    return {key: {name: statistics.median(values) for name, values in s.items()}
            for key, s in samples.items()}  # fmt: skip


def make_rows(medians: dict[Any, dict[str, Any]], bench: Bench) -> list[dict[str, Any]]:
    rows = []
    for (contender, threads), m in medians.items():
        if contender == "read":
            continue
        size = decode_bytes(contender, bench.models) or m["decode_bytes"]
        bandwidth = size * m["decode"] / 1e9
        rows.append({
            "engine": contender.engine, "weights": contender.weights, "output": contender.head,
            "threads": threads, **{f"prompt_{p}": round(m[f"prompt_{p}"], 1) for p in bench.prompts},
            f"decode_{bench.decode}": round(m["decode"], 1),
            "MB_a_token": round(size / 1e6, 1), "decode_GB_s": round(bandwidth, 2),
            "share_of_read": round(bandwidth / medians["read", threads]["rate"], 3),
            "start_ms": round(m["start_ms"], 1), "peak_MiB": round(m["peak_MiB"], 1),
            "prompt_tokens": int(m["prompt_tokens"]),
        })  # fmt: skip
    return sorted(rows, key=lambda r: (-r["threads"], r["engine"] != "nibble"))


def make_ratios(medians: dict[Any, dict[str, Any]], thread_counts: list[int],
                bench: Bench) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for threads in thread_counts:
        of = {c: medians[c, threads] for c in OURS + PEERS}
        for ours in OURS:
            def add(what: str, key: str, peers: list[Contender], target: float) -> None:
                best = max(peers, key=lambda c: of[c][key])
                rows.append({"ours": f"{ours.weights}/{ours.head}", "threads": threads,
                             "what": what, "ratio": round(of[ours][key] / of[best][key], 2),
                             "target": target,
                             "peer": f"{best.weights}/{best.head}"})  # fmt: skip

            size = decode_bytes(ours, bench.models)
            not_smaller = [p for p in PEERS if of[p]["decode_bytes"] >= 0.99 * size]
            nvfp4 = [p for p in PEERS if p.weights == "nvfp4"]
            add("decode, best peer of as many bytes", "decode", not_smaller, 1.4)
            add("decode, its NVFP4", "decode", nvfp4, 2.5)
            for prompt in bench.prompts:
                add(f"prompt {prompt}, best peer", f"prompt_{prompt}", list(PEERS), 2.0)
                add(f"prompt {prompt}, its NVFP4", f"prompt_{prompt}", nvfp4, 8.0)
    return rows


def cpu_facts() -> tuple[str, list[str]]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    wanted = re.compile(r"avx|amx|fma$|f16c|vnni|bf16|fp16")
    cores = len(os.sched_getaffinity(0))
    return (f"{name[1] if name else platform.machine()}, {cores} cores",
            [flag for flag in (flags[1] if flags else "").split() if wanted.search(flag)])


def print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    cells = [columns, *[[str(row[c]) for c in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure Nibble beside llama.cpp on this CPU.")
    parser.add_argument("--quick", action="store_true", help="one round, nothing is written")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="2,1", help="thread counts, with commas")
    parser.add_argument("--prompts", default="512,128", help="their tokens, with commas")
    parser.add_argument("--decode", type=int, default=128, help="tokens to decode")
    parser.add_argument("--prepare", action="store_true", help="build and quantize only")
    parser.add_argument("--isa", choices=list(ISA_OPTIONS), default="native")
    parser.add_argument("--jobs", type=int, default=2, help="of the build")
    parser.add_argument("--no-build", action="store_true", help="everything is there already")
    parser.add_argument("--peer-bin", type=Path, help="folder of the peer's programs")
    parser.add_argument("--nibble", type=Path, default=ROOT / "build/bin/nibble")
    parser.add_argument("--models", type=Path, default=PEER / "models")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results",
                        help="folder of cpu_peers.json and cpu_peers_ratios.json")
    args = parser.parse_args(argv)
    try:
        args.models.mkdir(parents=True, exist_ok=True)
        tools = args.peer_bin or PEER / args.isa / "bin"
        if not args.no_build:
            if not args.peer_bin:
                tools = build_peer(args.isa, args.jobs)
            # A foreign ISA's programs need not run here; the native ones quantize the same.
            make_peer_models(tools if args.isa == "native" else PEER / "native/bin", args.models)
            make_our_models(args.nibble, args.models)
        if args.prepare:
            return 0
        threads = [int(count) for count in args.threads.split(",")]
        start = time.monotonic()
        bench = Bench(args.nibble, tools, args.models,
                      [int(count) for count in args.prompts.split(",")], args.decode)  # fmt: skip
        medians = measure(bench, 1 if args.quick else args.rounds, threads)
        rows = make_rows(medians, bench)
        ratios = make_ratios(medians, threads, bench)
        print_table(rows)
        print_table(ratios)
        step(f"{time.monotonic() - start:.0f} s")
        if args.quick:
            return 0
        cpu, flags = cpu_facts()
        commit = os.environ.get("NIBBLE_COMMIT") or call(["git", "-C", ROOT, "rev-parse", "HEAD"])
        facts = {
            "device": "CPU", "cpu": cpu, "cpu_flags": flags, "commit": commit.strip(),
            "command": " ".join(["tools/bench_cpu_peers.py", *argv]),
            "date": datetime.date.today().isoformat(),
            "peer": re.search(r"^llama\S+", REQUIREMENT.read_text(encoding="utf-8"), re.MULTILINE)[0],
            "rounds": args.rounds,
            "read_GB_s": {str(t): round(medians["read", t]["rate"], 2) for t in threads},
        }  # fmt: skip
        for name, table in (("cpu_peers", rows), ("cpu_peers_ratios", ratios)):
            path = args.output / f"{name}.json"
            path.write_text(json.dumps({**facts, "rows": table}, indent=2) + "\n",
                            encoding="utf-8")  # fmt: skip
    except (PeerError, OSError) as error:
        print(f"bench_cpu_peers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
