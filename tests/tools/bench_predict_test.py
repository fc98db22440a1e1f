"""Runs tools/bench_predict.py on a stand-in for the program: the files it writes, what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import bench_predict  # noqa: E402

OWN = {"chip": "GB10", "weight": "nvfp4", "n": 8192, "k": 8192, "m": 8, "source": "estimate",
       "impl": "a_gemm", "predicted_us": 2.0, "predicted_tflops": 3.0, "tiles": 5,
       "mma_per_tile": 6, "bytes_per_tile": 7,
       "desc": "m=8 u8->bf16 a=8x4 [tile_m=8 tile_n=16 tile_k=1024 stages=4 split_k=2]"}
FIT = {"chip": "B200", "weight": "nvfp4", "n": 8192, "k": 8192, "m": 8, "source": "fit",
       "impl": "other", "predicted_us": 1.0, "predicted_tflops": 2.0, "desc": "as SM100",
       "published": "best (SM100)", "published_tflops": 4.0, "ratio": 0.5}
OTHER_SIZE = {**OWN, "m": 9}


class BenchPredict(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        (self.root / "bench/results").mkdir(parents=True)
        for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit",
                                         "-q", "--allow-empty", "-m", "a"]):
            subprocess.run(["git", *command], cwd=self.root, check=True)
        self.addCleanup(setattr, bench_predict, "ROOT", bench_predict.ROOT)
        bench_predict.ROOT = self.root

    def run_on(self, report: dict) -> int:
        program = self.root / "nibble"
        program.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(report))})\n")
        program.chmod(0o755)
        return bench_predict.main([str(program)])

    def rows(self, name: str) -> list:
        return json.loads((self.root / f"bench/results/{name}.json").read_text())["rows"]

    def test_writes_all_and_the_sizes_shown(self) -> None:
        self.assertEqual(self.run_on({"predicted": [OWN, FIT, OTHER_SIZE]}), 0)
        self.assertEqual(self.rows("predicted"), [OWN, FIT, OTHER_SIZE])
        (own,) = self.rows("predicted_sm120")
        self.assertEqual((own["tile"], own["tiles"], own["mma_per_tile"]),
                         ("8 x 16 x 1024, split 2", 5, 6))
        (fit,) = self.rows("predicted_sm100")
        self.assertEqual((fit["backend"], fit["harness"], fit["ratio"]), ("other", "as SM100", 0.5))

    def test_refuses_a_build_without_kernels(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as error:
            self.assertEqual(self.run_on({"predicted": [FIT], "note": "no kernels"}), 1)
        self.assertIn("no kernels", error.getvalue())
        self.assertEqual(list((self.root / "bench/results").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
