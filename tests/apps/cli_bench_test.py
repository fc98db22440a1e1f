"""`nibble bench` as a user meets it: its rows, its options, its errors.

cli_bench_test.py PROGRAM DEMO_FOLDER      (program.py)
"""

from __future__ import annotations

import json
import re
import tempfile
import unittest
from pathlib import Path

from program import NVFP4, Case, run


class Bench(Case):
    def test_bench_model(self) -> None:
        result = json.loads(run("bench", "model", NVFP4, "-p", 16, "-n", 4, "--repeats", 1,
                                "--json")[0])
        self.assertEqual([r["op"] for r in result["rows"]], ["load", "prompt", "decode"])

    def test_bench_model_breakdown(self) -> None:
        rows = json.loads(run("bench", "model", NVFP4, "-p", 0, "-n", 4, "--repeats", 1,
                              "--breakdown", "--json")[0])["rows"]
        self.assertEqual([r["op"] for r in rows[:3]], ["read", "load", "decode"])
        self.assertAlmostEqual(rows[2]["share_of_read"],
                               rows[2]["bytes"] / rows[2]["seconds"] / 1e9 / rows[0]["rate"])
        parts = {r["desc"]: r["rate"] for r in rows[3:] if r["op"] == "part"}
        self.assertEqual(len(parts), len(rows) - 3)
        self.assertLessEqual({"gemm", "attention", "sampling", "rest"}, set(parts))
        self.assertAlmostEqual(sum(parts.values()), 100)
        self.assertTrue(all(rate > 0 for rate in parts.values()))

    def test_bench_cpu(self) -> None:
        file = self.dir / "rows.json"
        out, err = run("bench", "cpu", NVFP4, "-p", 64, "-n", 4, "--repeats", 1, "--threads", 2,
                       "--json", file)
        self.assertEqual(err, "")  # no terminal, no progress
        rows = json.loads(file.read_text())["rows"]
        self.assertEqual(len(out.splitlines()), len(rows))
        for threads in (1, 2):
            mine = [r for r in rows if r["threads"] == threads]
            ops = [r["op"] for r in mine]
            self.assertEqual(sorted(set(ops)), ["decode", "load", "memory", "null", "prompt",
                                                "quantize", "read", "start"])
            self.assertEqual(ops.count("decode"), 4)  # three formats and the model
            self.assertEqual(ops.count("prompt"), 5)  # and the model's two
            self.assertTrue(all(r["rate"] > 0 for r in mine))
            memory = next(r["rate"] for r in mine if r["op"] == "memory")
            self.assertLess(memory, 200)  # of the run alone, not of this bench
        _, err = run("bench", "cpu", self.dir / "no_model", code=1)
        self.assertIn("no_model", err)

    def test_bench_predict(self) -> None:
        result = json.loads(run("bench", "--predict", "--json")[0])
        self.assertEqual(result["rows"], [])  # nothing was timed
        predicted = result["predicted"]
        self.assertEqual({r["chip"] for r in predicted} >= {"B200", "B300"}, True)
        known = [r for r in predicted if "ratio" in r]
        self.assertTrue(all(abs(r["ratio"] - r["predicted_tflops"] / r["published_tflops"]) < 1e-9
                            for r in known))
        self.assertEqual("note" in result, all(r["source"] == "fit" for r in predicted))
        table, _ = run("bench", "--predict")
        self.assertIn("*predicted*, not measured", table)
        run("bench", code=2)

    def test_bench_all_is_one_report(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "all.json"
            run("bench", "all", "--filter", "no such kernel", "--json", file)
            result = json.loads(file.read_text())
        self.assertEqual([r["op"] for r in result["rows"]], ["read", "read"])  # of gemm, quantize
        self.assertTrue(result["predicted"])
        _, error = run("bench", "all", "--device", "cuda:99", code=1)
        self.assertIn("device", error)

    def test_bench_of_given_shapes(self) -> None:
        rows = json.loads(run("bench", "gemm", "--shape", "48x256,16x64", "--m", "1,3",
                              "--json")[0])["rows"]  # fmt: skip
        seen = {re.match(r"m=\d+ n=\d+ k=\d+", r["desc"])[0] for r in rows if r["op"] == "gemm"}
        self.assertEqual(seen, {f"m={m} n={n} k={k}" for n, k in ((48, 256), (16, 64)) for m in (1, 3)})
        for shape, expected in (("48", "expected NxK, such as"), ("48x", "expected NxK, such as"),
                                ("48x256y", "expected NxK, such as"),
                                ("48x250", "multiple of 16 for nvfp4, found 250"),
                                ("0x64", "at least 1, found m=1 n=0")):  # fmt: skip
            _, error = run("bench", "gemm", "--shape", shape, code=1)
            self.assertIn(expected, error)
        run("bench", "quantize", "--shape", "48x256", code=2)

    def test_bench_compares_with_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            args = ("bench", "quantize", "--filter", "no such kernel", "--json")  # one row: reads
            run(*args, file)
            rows = json.loads(file.read_text())["rows"]
            self.assertEqual([r["op"] for r in rows], ["read"])
            result = json.loads(run(*args, "--against", file)[0])
            self.assertEqual(result["against"]["rows"], 1)
            self.assertAlmostEqual(result["rows"][0]["against"], result["against"]["geomean"])
            file.write_text("{}")
            _, error = run(*args, "--against", file, code=1)
            self.assertIn("expected a file that `nibble bench", error)
            _, error = run(*args, "--plot", Path(folder) / "plot.svg", code=1)
            self.assertIn("no GEMM row to draw", error)


if __name__ == "__main__":
    unittest.main(verbosity=2)
