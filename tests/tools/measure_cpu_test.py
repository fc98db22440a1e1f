"""Runs tools/measure_cpu.py on a stand-in for the program: which row lands in which table."""

import json
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import measure_cpu  # noqa: E402

NIBBLE = """#!{python}
import json, sys
def row(op, desc, threads, share=0):
    return {{"op": op, "impl": "x", "desc": desc, "threads": threads, "rate": 5.0, "unit": "GB/s",
            "share_of_read": share, "share_of_huge_read": share / 2}}
if sys.argv[1:3] == ["bench", "model"]:
    parts = [row("part", "gemm", 1) | {{"rate": 80.0}}, row("part", "rest", 1) | {{"rate": 20.0}}]
    print(json.dumps({{"rows": [row("load", "", 1), row("decode", "128 tokens", 1, 0.7), *parts]}}))
    sys.exit()
assert sys.argv[1:3] == ["bench", "cpu"], sys.argv
json.dump({{"rows": [row("decode", "nvfp4 m=1", 2, 0.8), row("decode", "128 tokens", 2),
                    row("read", "plain pages", 2, 1), row("start", "process", 1),
                    row("prompt", "nvfp4 m=512", 1)]}}, open(sys.argv[-1], "w"))
"""


class MeasureCpu(unittest.TestCase):
    def test_rows_by_table(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "nibble"
            program.write_text(NIBBLE.format(python=sys.executable))
            program.chmod(0o755)
            with mock.patch.dict(os.environ, NIBBLE_COMMIT="abc"):
                measure_cpu.main(["--program", str(program), "--model", "m", "--output", folder])
            kernels = json.loads((Path(folder) / "cpu_kernels.json").read_text())
            model = json.loads((Path(folder) / "cpu_model.json").read_text())
            parts = json.loads((Path(folder) / "cpu_parts.json").read_text())
        self.assertEqual(kernels["commit"], "abc")
        self.assertEqual([(r["what"], r["of"]) for r in kernels["rows"]],
                         [("prompt", "nvfp4 m=512"), ("read", "plain pages"),
                          ("decode", "nvfp4 m=1")])
        self.assertIsNone(kernels["rows"][0]["share_of_read"])
        self.assertEqual(kernels["rows"][2]["share_of_huge_read"], 0.4)
        self.assertEqual([r["what"] for r in model["rows"]], ["start", "decode"])
        self.assertEqual([r["activation"] for r in parts["rows"][:2]], ["int8", "bf16"])
        self.assertEqual(
            {k: parts["rows"][0][k] for k in ("share_of_read", "gemm", "all_but_gemm")},
            {"share_of_read": 0.7, "gemm": 80.0, "all_but_gemm": 20.0})  # fmt: skip

    def test_parts_alone(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "nibble"
            program.write_text(NIBBLE.format(python=sys.executable))
            program.chmod(0o755)
            measure_cpu.main(["--program", str(program), "--parts", "--output", folder])
            self.assertEqual([f.name for f in Path(folder).glob("*.json")], ["cpu_parts.json"])


if __name__ == "__main__":
    unittest.main()
