"""Runs tools/measure_h200.py on stand-ins for the programs and the driver: what a step leaves, what
fails, and which figure lands in which table."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import measure_h200  # noqa: E402

ABOUT = {"commit": "abc", "date": "2026-01-02"}
MACHINE = ABOUT | {"device": "NVIDIA H200", "driver": "1.2", "cpu": "A, 2 cores"}


def host_run(first: float, plan_run: float) -> dict:
    us = {"first plan.run until its result, m=1": first, "plan.run, m=1": plan_run}
    for m in (1, 16, 64):
        us.setdefault(f"first plan.run until its result, m={m}", 12)
        us[f"hundredth plan.run until its result, m={m}"] = 10
    rows = [{"op": "host", "impl": what, "desc": "n=1", "seconds": v * 1e-6} for what, v in us.items()]
    return {"rows": [{"op": "read", "impl": "copy", "desc": "", "seconds": 1.0}, *rows]}


class MeasureH200(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_run_leaves_what_each_step_wrote(self) -> None:
        packed = self.folder / "pack"
        self.script(packed / "good", 'echo "$@" $NIBBLE_COMMIT >$2')
        self.script(packed / "bad", "echo oh; exit 3")
        (packed / "about.json").write_text(json.dumps(ABOUT))
        subprocess.run(["tar", "-C", self.folder, "-cJf", self.folder / "pack.txz", "pack"],
                       check=True)  # fmt: skip
        self.script(self.folder / "bin/nvidia-smi", "echo NVIDIA H200, 1.2")
        steps = {"one": (9, "good --json {} {commit} {date}"), "two": (9, "bad"), "slow": (0.1, "sleep 9"),
                 "peers": (9, "bad")}  # fmt: skip
        out = self.folder / "out"
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        with mock.patch.object(measure_h200, "STEPS", steps), mock.patch.dict(os.environ, PATH=path):
            work = self.folder / "work"
            self.assertEqual(measure_h200.run(self.folder, out, ["one"], work), 0)
            self.assertEqual(measure_h200.run(self.folder, out, [], work), 1)
        subprocess.run(["tar", "-C", out, "-xzf", out / "runs.tgz"], check=True)
        runs = out / "runs"
        self.assertEqual((runs / "one.json").read_text().split()[2:], ["abc", "2026-01-02", "abc"])
        self.assertEqual((runs / "two.txt").read_text(), "oh\n")
        self.assertFalse((runs / "peers.txt").exists())
        about = json.loads((runs / "about.json").read_text())
        self.assertEqual((about["device"], about["driver"]), ("NVIDIA H200", "1.2"))

    def test_results_by_table(self) -> None:
        runs = self.folder / "runs"
        runs.mkdir()
        (runs / "about.json").write_text(json.dumps(MACHINE))
        for i, (first, plan_run) in enumerate([(11, 2.5), (15, 3.5)]):
            for layer in ("2x3", "4x5"):
                (runs / f"host{i}_{layer}.json").write_text(json.dumps(host_run(first, plan_run)))
        us = {"bf16": 10.0, "fp16": 12.0, "bias": 10.0, "C": 11.0, "SiLU-mul": 10.0,
              "cublas": 20.0, "cublas fp16": 24.0}  # fmt: skip
        kinds = {"device": "NVIDIA H200", "cells": [{"n": 1, "k": 1, "m": 8, "us": us}]}
        (runs / "kinds.json").write_text(json.dumps(kinds))
        (runs / "quantize.json").write_text(json.dumps({"driver": "CUDA 1", "rows": [1]}))
        with (mock.patch.object(measure_h200, "RESULTS", self.folder),
              mock.patch.object(measure_h200, "HOST_LAYERS", ("2x3", "4x5"))):  # fmt: skip
            measure_h200.results(runs)
        quantize = json.loads((self.folder / "h200_quantize.json").read_text())
        self.assertEqual(quantize, {"driver": "1.2", "cpu": "A, 2 cores", "rows": [1]})
        host = json.loads((self.folder / "h200_host.json").read_text())
        self.assertEqual(host["rows"], [{"what": "plan.run, m=1", "layer": "2x3", "us": 2.5}])
        self.assertIn("took 2.50, 3.50 us", host["note"])
        calls = json.loads((self.folder / "h200_first_calls.json").read_text())
        self.assertEqual(calls["rows"][0],
                         {"layer": "2x3", "m": 1, "first, us": 13, "hundredth, us": 10,
                          "first / hundredth": 1.3, "least": 1.1, "most": 1.5})  # fmt: skip
        self.assertEqual([row["m"] for row in calls["rows"]], [1, 16, 64] * 2)
        self.assertIn("ratios is 1.23", calls["note"])
        table = json.loads((self.folder / "h200_kinds.json").read_text())
        self.assertEqual((table["commit"], table["driver"]), ("abc", "1.2"))
        self.assertEqual((table["rows"][0]["fp16"], table["rows"][0]["cuBLAS / fp16"]), (1.2, 2.0))
        self.assertFalse((self.folder / "h200_gemm.json").exists())


if __name__ == "__main__":
    unittest.main()
