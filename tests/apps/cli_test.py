"""The `nibble` program as a user meets it: what it prints, its exit codes, its errors.

cli_test.py PROGRAM DEMO_FOLDER      (DEMO_FOLDER holds the two checkpoints that `make demo` makes)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = ""
BF16 = Path()
NVFP4 = Path()
TEXT = (
    "The tide had gone out, and the harbour lay bare under a grey sky. Two boats leaned on their "
    "sides in the mud. A dog trotted along the wall, stopped, and looked back at the old woman who "
    "followed it with a basket. She said that the rain would come before noon, and it did."
)


def run(*args: str, env: dict[str, str] | None = None, stdin: str = "", code: int | None = 0):
    """Runs the program; `code` is the exit code that is expected."""
    result = subprocess.run(
        [PROGRAM, *map(str, args)],
        input=stdin.encode(),
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=120,
    )
    out, err = result.stdout.decode(), result.stderr.decode()
    if code is not None and result.returncode != code:
        raise AssertionError(f"{args}: exit code {result.returncode}\n{out}\n{err}")
    return out, err


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="cli_test."))
        self.addCleanup(shutil.rmtree, self.dir)

    def copy_model(self, source: Path) -> Path:
        """A folder of links that a test can break."""
        copy = self.dir / "model"
        copy.mkdir()
        for file in source.iterdir():
            (copy / file.name).symlink_to(file.resolve())
        return copy

    def replace(self, folder: Path, name: str, data: bytes) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)


class Run(Case):
    def test_text_on_stdout_figures_on_stderr(self) -> None:
        out, err = run("run", NVFP4, "-p", "What is the capital of France?", "-n", 24, "--temp", 0)
        self.assertIn("Paris", out)
        self.assertRegex(
            err.splitlines()[-1],
            r"load [\d.]+ s \| prompt \d+ tokens, [\d.]+ tokens/s \| "
            r"decode \d+ tokens, [\d.]+ tokens/s \| peak memory \d+ MiB",
        )

    def test_same_seed_same_text(self) -> None:
        args = ("run", NVFP4, "-p", "Once upon a time", "--raw", "-n", 16, "--temp", 1)
        first, _ = run(*args, "--seed", 7)
        again, _ = run(*args, "--seed", 7)
        other, _ = run(*args, "--seed", 8)
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_threads_do_not_change_the_text(self) -> None:
        args = ("run", NVFP4, "-p", "Once upon a time", "--raw", "-n", 24, "--temp", 0)
        self.assertEqual(run(*args, "--threads", 1)[0], run(*args, "--threads", 2)[0])

    def test_json(self) -> None:
        out, _ = run("run", NVFP4, "-p", "Hi", "-n", 5, "--temp", 0, "--json")
        result = json.loads(out)
        self.assertIn(result["finish"], ("length", "stop"))
        self.assertLessEqual(result["generated_tokens"], 5)
        for key in ("text", "prompt_tokens", "load_seconds", "decode_tokens_per_second"):
            self.assertIn(key, result)

    def test_stop_text_is_not_shown(self) -> None:
        args = ("run", NVFP4, "-p", "1, 2, 3, 4, 5,", "--raw", "-n", 24, "--temp", 0)
        whole, _ = run(*args)
        self.assertIn(" 9", whole)
        cut, _ = run(*args, "--stop", " 9")
        self.assertEqual(cut, whole[: whole.index(" 9")] + "\n")

    def test_raw_and_chat_differ(self) -> None:
        args = ("run", NVFP4, "-p", "What is the capital of France?", "-n", 8, "--temp", 0, "--json")
        raw = json.loads(run(*args, "--raw")[0])
        chat = json.loads(run(*args, "--chat")[0])
        self.assertLess(raw["prompt_tokens"], chat["prompt_tokens"])

    def test_chat_reads_turns_from_stdin_and_remembers(self) -> None:
        def turn(stdin: str) -> tuple[str, int]:
            out, err = run("run", NVFP4, "--temp", 0, "-n", 24, stdin=stdin)
            return out, int(re.search(r"prompt (\d+) tokens", err.splitlines()[-1])[1])

        first, first_tokens = turn("Say hello.\n")
        both, both_tokens = turn("Say hello.\nSay it again.\n")
        forgot, forgot_tokens = turn("Say hello.\n/clear\nSay hello.\n")
        self.assertTrue(both.startswith(first))
        self.assertGreater(len(both), len(first))
        self.assertEqual(forgot, first + first)
        # What the first turn left in the cache is not computed again.
        self.assertLess(both_tokens, 2 * first_tokens)
        self.assertGreater(both_tokens, first_tokens)

    def test_text_streams_and_ctrl_c_ends_cleanly(self) -> None:
        process = subprocess.Popen(
            [PROGRAM, "run", NVFP4, "-p", "Count from one to a thousand.", "-n", "0", "--temp", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        first = os.read(process.stdout.fileno(), 1)
        self.assertIsNone(process.poll(), "ended before its text was read")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130)
        self.assertTrue((first + out).endswith(b"\n"))
        (first + out).decode()  # whole characters
        self.assertIn(b"decode", err.splitlines()[-1])

    def test_prompt_longer_than_the_context(self) -> None:
        _, err = run("run", NVFP4, "-p", "word " * 100, "--raw", "--context", 50, code=1)
        self.assertIn("context 50", err)

    def test_a_word_about_json_without_prompt(self) -> None:
        _, err = run("run", NVFP4, "--json", code=2)
        self.assertIn("--json", err)


class Quantize(Case):
    def test_report_and_both_conventions(self) -> None:
        for convention in ("modelopt", "compressed-tensors"):
            target = self.dir / convention
            out, _ = run("quantize", BF16, target, "--convention", convention, "--json")
            report = json.loads(out)
            self.assertEqual(len(report["tensors"]), 211)  # the tied lm_head is one
            for tensor in report["tensors"]:
                self.assertGreater(tensor["snr_db"], 15)
                self.assertLess(tensor["relative_error"], 0.15)
        outs = {run("run", self.dir / c, "-p", "The sky is", "--raw", "-n", 12, "--temp", 0)[0]
                for c in ("modelopt", "compressed-tensors")}
        self.assertEqual(len(outs), 1, "the conventions mean different weights")

    def test_mxfp4_runs(self) -> None:
        run("quantize", BF16, self.dir / "mx", "--format", "mxfp4", "--method", "mse",
            "--convention", "compressed-tensors", "-q")
        out, _ = run("run", self.dir / "mx", "-p", "The capital of France is", "--raw", "-n", 4,
                     "--temp", 0)
        self.assertTrue(out.strip())

    def test_lm_head(self) -> None:
        for word, count in (("none", 210), ("fp8", 211), ("nvfp4", 211)):
            out, _ = run("quantize", BF16, self.dir / word, "--lm-head", word, "--json")
            report = json.loads(out)
            self.assertEqual(len(report["tensors"]), count)
            self.assertEqual(report["unquantized"], ["lm_head"] if word == "none" else [])
        # bench/results/lm_head_quality.json: 8 bits cost 0.04 KL on a longer text, 4 bits 0.14.
        text = self.dir / "text.txt"
        text.write_text(TEXT)
        kl = {
            word: json.loads(run("eval", self.dir / word, "--text", text, "--against",
                                 self.dir / "none", "--json")[0])["kl"]
            for word in ("fp8", "nvfp4")
        }
        self.assertLess(kl["fp8"], 0.1)
        self.assertLess(kl["fp8"], kl["nvfp4"])
        self.assertLess(kl["nvfp4"], 0.4)
        _, err = run("quantize", BF16, self.dir / "x", "--lm-head", "int8", code=2)
        self.assertIn("int8", err)

    def test_plain_lines_without_a_terminal(self) -> None:
        out, err = run("quantize", BF16, self.dir / "q")
        self.assertNotIn("\r", err)
        self.assertIn("model.layers.0.mlp.down_proj", out)
        self.assertRegex(out.splitlines()[-1], r"211 tensors to nvfp4, .* GB/s; peak memory \d+ MiB")

    def test_existing_target_and_unknown_words(self) -> None:
        (self.dir / "there").mkdir()
        (self.dir / "there" / "file").write_text("keep me")
        _, err = run("quantize", BF16, self.dir / "there", code=1)
        self.assertIn("there", err)
        self.assertEqual((self.dir / "there" / "file").read_text(), "keep me")
        run("quantize", BF16, self.dir / "x", "--format", "nvfp5", code=2)
        self.assertFalse((self.dir / "x").exists())


class Inspect(Case):
    def test_says_what_runs_where_and_why(self) -> None:
        report = json.loads(run("inspect", NVFP4, "--json")[0])
        self.assertEqual(report["architecture"], "LlamaForCausalLM")
        # 134,479,872 weights, and the tied embedding once more as the 8-bit lm_head.
        self.assertEqual(report["parameters"], 134_479_872 + 49152 * 576)
        layers = {l["modules"]: l for l in report["linears"]}
        down = layers["model.layers.*.mlp.down_proj"]
        self.assertEqual((down["count"], down["format"]), (30, "nvfp4"))
        self.assertTrue(down["decode"]["impl"] and down["decode"]["reason"])
        self.assertTrue(any("ref" not in r for r in down["decode"]["refusals"]))
        self.assertLess(report["open_seconds"], 0.3)
        out, _ = run("inspect", NVFP4, "--tensors")
        self.assertIn("model.layers.29.mlp.up_proj.weight_scale_2", out)

    def test_forced_implementation_shows(self) -> None:
        force = {"NIBBLE_FORCE_IMPL": "gemm=ref_gemm"}
        report = json.loads(run("inspect", NVFP4, "--json", env=force)[0])
        self.assertEqual({l["decode"]["impl"] for l in report["linears"]}, {"ref_gemm"})
        _, err = run("inspect", NVFP4, env={"NIBBLE_FORCE_IMPL": "gemm=nothing"}, code=1)
        self.assertIn("ref_gemm", err)

    def test_verbose_traces_choices(self) -> None:
        _, err = run("run", NVFP4, "-p", "Hi", "-n", 1, env={"NIBBLE_VERBOSE": "1"})
        self.assertRegex(err, r"gemm m=1 n=\d+ k=576 nvfp4")


class Eval(Case):
    def test_against_another_checkpoint(self) -> None:
        text = self.dir / "text.txt"
        text.write_text(TEXT)
        alone = json.loads(run("eval", BF16, "--text", text, "--json")[0])
        self.assertEqual(set(alone), {"mean_nll", "perplexity", "tokens"})
        both = json.loads(run("eval", NVFP4, "--text", text, "--against", BF16, "--json")[0])
        self.assertEqual(both["tokens"], alone["tokens"])
        self.assertTrue(0 < both["kl"] < 0.5, both)
        self.assertTrue(0.5 < both["top1"] < 1, both)
        self.assertAlmostEqual(both["mean_nll"], alone["mean_nll"], delta=0.5)

    def test_fast_kernels_against_the_reference(self) -> None:
        text = self.dir / "text.txt"
        text.write_text(TEXT)
        every_ref = ",".join(
            f"{op}=ref_{op}"
            for op in ("gemm", "rms_norm", "rope", "attention", "silu_mul", "embedding")
        )
        out, _ = run("eval", NVFP4, "--text", text, "--activation", "16bit", "--against", NVFP4,
                     "--against-activation", "16bit", "--against-impl", every_ref, "--max-tokens",
                     40, "--json")
        self.assertLess(json.loads(out)["kl"], 1e-3)


class BadInput(Case):
    def expect(self, *words: str, model: Path, command: str = "run") -> None:
        extra = ("-p", "Hi", "-n", 1) if command == "run" else ()
        _, err = run(command, model, *extra, code=1)
        self.assertTrue(err.startswith("nibble: "), err)
        for word in words:
            self.assertIn(word, err)

    def test_missing_folder(self) -> None:
        self.expect("/no/such/folder", model=Path("/no/such/folder"))

    def test_truncated_weights(self) -> None:
        model = self.copy_model(NVFP4)
        data = (NVFP4 / "model.safetensors").read_bytes()
        self.replace(model, "model.safetensors", data[: len(data) // 2])
        self.expect("checkpoint", "model.safetensors", model=model)
        self.replace(model, "model.safetensors", data[:4])
        self.expect("checkpoint", "model.safetensors", model=model)

    def test_broken_configs(self) -> None:
        model = self.copy_model(NVFP4)
        config = json.loads((NVFP4 / "config.json").read_text())
        self.replace(model, "config.json", b'{"hidden_size": ')
        self.expect("config.json", model=model)
        self.replace(model, "config.json",
                     json.dumps({**config, "architectures": ["MambaForCausalLM"]}).encode())
        self.expect("MambaForCausalLM", "LlamaForCausalLM", model=model)
        self.replace(model, "config.json", json.dumps({**config, "hidden_size": 640}).encode())
        self.expect("640", model=model)

    def test_broken_tokenizer_and_template(self) -> None:
        model = self.copy_model(NVFP4)
        self.replace(model, "tokenizer.json", b'{"model": {"type": "WordPiece"}}')
        self.expect("tokenizer.json", "WordPiece", model=model)
        model2 = self.dir / "second"
        model.rename(model2)
        model = self.copy_model(NVFP4)
        config = json.loads((NVFP4 / "tokenizer_config.json").read_text())
        config["chat_template"] = "{% for m in messages %}{{ m.content | frobnicate }}{% endfor %}"
        self.replace(model, "tokenizer_config.json", json.dumps(config).encode())
        self.expect("frobnicate", model=model)

    def test_missing_text_file(self) -> None:
        _, err = run("eval", NVFP4, "--text", "/no/such/text", code=1)
        self.assertIn("/no/such/text", err)


class Other(Case):
    def test_selftest(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "selftest.json"
            out, _ = run("selftest", "--json", file)
            self.assertIn("ref_gemm", out)
            result = json.loads(file.read_text())
        self.assertEqual(result["failures"], [])
        self.assertTrue(any(i["impl"] == "ref_gemm" and i["passed"] for i in
                            result["implementations"]))

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
        for shape, expected in (("48", "expected NxK like"), ("48x", "expected NxK like"),
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

    def test_tune_writes_a_table_and_resumes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.json"
            args = ("tune", "--shape", "64x32", "--max-m", 1, "--output", table, "--json")
            self.assertEqual(json.loads(run(*args)[0])["timed"], 1)
            self.assertEqual(len(json.loads(table.read_text())["choices"]), 1)
            self.assertEqual(json.loads(run(*args)[0])["resumed"], 1)
            _, error = run("tune", "--shape", "64", "--output", table, code=1)
            self.assertIn("expected NxK", error)
            run("tune", code=2)

    def test_help_and_version(self) -> None:
        out, _ = run("--help")
        for command in ("run", "quantize", "inspect", "eval", "bench", "selftest",
                        "tune"):
            self.assertIn(command, out)
        self.assertRegex(run("--version")[0], r"\d+\.\d+\.\d+")
        run(code=2)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    demo = Path(sys.argv.pop(1))
    BF16, NVFP4 = demo / "smollm2-bf16", demo / "smollm2-nvfp4"
    for model in (BF16, NVFP4):
        if not model.is_dir():
            sys.exit(f"{model} is missing; `make demo` makes it")
    unittest.main(verbosity=2)
