"""Runs tools/bench_cpu_peers.py on stand-ins for both programs: interleaving, medians, ratios, files."""

import contextlib
import io
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import bench_cpu_peers  # noqa: E402
import cpu_peers  # noqa: E402

# Every call is one line of the log. Ours is three times as fast; its first round is an outlier.
NIBBLE = """
import json, sys
args = sys.argv[1:]
log = open({log!r}, "a+")
if args[0] == "run":
    print(json.dumps({{"prompt_tokens": 42}}))
elif args[1] == "gemm":
    print(json.dumps({{"rows": [{{"op": "read", "rate": 40.0}}]}}))
else:
    log.seek(0)
    first = "nibble " + args[2].rsplit("/", 1)[1] not in log.read()
    rows = [{{"op": "load", "rate": 0.1}}]
    if args[args.index("-p") + 1] != "0":
        rows.append({{"op": "prompt", "rate": 600.0 * int(args[args.index("-p") + 1]) / 128}})
    else:
        rows.append({{"op": "decode", "rate": 9000.0 if first else 300.0}})
        log.write("nibble " + args[2].rsplit("/", 1)[1] + "\\n")
    print(json.dumps({{"rows": rows}}))
"""
BENCH = """
import json, sys
args = sys.argv[1:]
name = args[args.index("-m") + 1].rsplit("/", 1)[1]
open({log!r}, "a").write("peer " + name + "\\n")
size = {{"bf16-bf16.gguf": 4000, "q4_0-q4_0.gguf": 900}}.get(name, 1010)
slow = 0.25 if name.startswith("nvfp4") else 1.0
prompts = map(int, args[args.index("-p") + 1].split(","))
for prompt, generate, rate in (*((p, 0, 200.0 * p / 128) for p in prompts),
                               (0, int(args[args.index("-n") + 1]), 100.0)):
    print(json.dumps({{"n_prompt": prompt, "n_gen": generate, "avg_ts": rate * slow,
                       "model_size": size}}))
"""
COMPLETION = """
import sys
print("prompt eval time = 1.00 ms / 42 tokens", file=sys.stderr)
"""


class BenchCpuPeers(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.models = self.dir / "models"
        self.log = self.dir / "log"
        self.log.touch()
        for name, text in (("nibble", NIBBLE), ("llama-bench", BENCH),
                           ("llama-completion", COMPLETION)):  # fmt: skip
            path = self.dir / name
            path.write_text(f"#!{sys.executable}\n" + text.format(log=str(self.log)))
            path.chmod(0o755)
        tensors = {"model.embed_tokens.weight": [0, 5000], "lm_head.weight": [5000, 6000]}
        header = json.dumps({"__metadata__": {}, **{
            name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
            for name, (begin, end) in tensors.items()}}).encode()  # fmt: skip
        for contender in cpu_peers.OURS:
            path = contender.path(self.models)
            path.mkdir(parents=True)
            (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

    def run_tool(self, *options: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = bench_cpu_peers.main(
                ["--no-build", "--peer-bin", str(self.dir), "--nibble", str(self.dir / "nibble"),
                 "--models", str(self.models), "--output", str(self.dir), *options]
            )  # fmt: skip
        return code, out.getvalue(), err.getvalue()

    def test_three_rounds(self) -> None:
        code, out, err = self.run_tool("--rounds", "3", "--threads", "2")
        self.assertEqual(code, 0, err)
        result = json.loads((self.dir / "cpu_peers.json").read_text())
        self.assertEqual(len(result["rows"]), len(cpu_peers.OURS + cpu_peers.PEERS))
        self.assertEqual(result["read_GB_s"], {"2": 40.0})
        self.assertEqual(result["peer"], "llama-cpp-python==0.3.36")
        self.assertIsInstance(result["cpu_flags"], list)
        ours = result["rows"][0]
        self.assertEqual((ours["engine"], ours["weights"], ours["output"]), ("nibble", "nvfp4", "fp8"))
        self.assertEqual(ours["decode_128"], 300.0, "the median has no outlier")
        self.assertEqual((ours["prompt_512"], ours["prompt_128"]), (2400.0, 600.0))
        self.assertEqual(ours["prompt_tokens"], 42)
        self.assertGreater(ours["start_ms"], 0)
        self.assertGreater(ours["peak_MiB"], 1)

        ratios = json.loads((self.dir / "cpu_peers_ratios.json").read_text())["rows"]
        best = {(r["ours"], r["what"]): r for r in ratios}
        row = best["nvfp4/fp8", "decode, best peer of as many bytes"]
        self.assertEqual(row["ratio"], 3.0)
        # 1000 bytes a token without the embedding: not the peer's 900.
        self.assertNotEqual(row["peer"], "q4_0/q4_0")
        self.assertEqual(best["nvfp4/fp8", "decode, its NVFP4"]["ratio"], 12.0)
        self.assertEqual(best["nvfp4/fp8", "prompt 512, best peer"]["ratio"], 3.0)
        self.assertIn("llama.cpp", out)

        # No side runs twice in a row while the other still has a turn; rounds alternate direction.
        turns = self.log.read_text().split("\n")[:-1]
        count = len(turns) // 3
        self.assertEqual(turns[count : 2 * count], turns[:count][::-1])
        self.assertEqual([t.split()[0] for t in turns[:6]], ["peer", "nibble"] * 3)

    def test_other_lengths(self) -> None:
        code, _, err = self.run_tool("--rounds", "1", "--prompts", "64", "--decode", "32")
        self.assertEqual(code, 0, err)
        ours = json.loads((self.dir / "cpu_peers.json").read_text())["rows"][0]
        self.assertEqual(ours["prompt_64"], 300.0)
        self.assertIn("decode_32", ours)
        self.assertFalse({"prompt_512", "prompt_128", "decode_128"} & set(ours))

    def test_quick_writes_nothing(self) -> None:
        code, out, _ = self.run_tool("--quick")
        self.assertEqual(code, 0)
        self.assertIn("nvfp4", out)
        self.assertEqual(list(self.dir.glob("*.json")), [])

    def test_a_failing_program_is_named(self) -> None:
        (self.dir / "llama-bench").write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
        code, _, err = self.run_tool("--quick")
        self.assertEqual(code, 1)
        self.assertIn("llama-bench", err)
        self.assertIn("no such model", err)


if __name__ == "__main__":
    unittest.main()
