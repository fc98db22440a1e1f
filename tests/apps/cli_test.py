"""The `nibble` program as a user meets it: what it prints, its exit codes, its errors.

cli_test.py PROGRAM DEMO_FOLDER      (program.py; `nibble bench`: cli_bench_test.py)
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from program import BF16, NVFP4, PROGRAM, Case, run

TEXT = (
    "The tide had gone out, and the harbour lay bare under a grey sky. Two boats leaned on their "
    "sides in the mud. A dog trotted along the wall, stopped, and looked back at the old woman who "
    "followed it with a basket. She said that the rain would come before noon, and it did."
)


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
    unittest.main(verbosity=2)
