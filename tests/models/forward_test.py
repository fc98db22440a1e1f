"""Holds Nibble's models against an independent numpy float32 forward pass.

Usage: forward_test.py FORWARD_DRIVER DEMO_MODEL [TEST...]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from make_tiny_checkpoint import CASES, VOCAB, make_checkpoint
from numpy_forward import NumpyModel

DRIVER = ""
DEMO = Path()
TOLERANCE = 1e-4
DEMO_PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a small village by the sea,",
    "1, 2, 4, 8, 16,",
    "Water boils at one hundred degrees, and ice",
]
DEMO_TEXT = Path(__file__).resolve().parents[2] / "LICENSE"


def driver(*args: object) -> str:
    result = subprocess.run(
        [DRIVER, *map(str, args)], capture_output=True, text=True, timeout=240, check=False
    )
    if result.returncode != 0:
        raise AssertionError(f"forward_driver {args[2]}: {result.stderr.strip()}")
    return result.stdout


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    with tempfile.NamedTemporaryFile() as out:
        driver(folder, 1, "logits", out.name, *ids)
        return np.fromfile(out.name, np.float32).reshape(len(ids), -1)


class TinyModels(unittest.TestCase):
    def check(self, folder: Path) -> None:
        model = NumpyModel(folder)
        rng = np.random.default_rng(7)
        # More than one chunk of the prompt, and positions behind every rope's original context.
        ids = rng.integers(0, VOCAB, 600).tolist()
        want = model.forward(ids)
        got = logits(folder, ids)
        self.assertEqual(got.shape, want.shape)
        worst = np.abs(got - want).max() / np.abs(want).max()
        self.assertLess(worst, TOLERANCE)
        # A model whose logits hardly vary would agree with anything.
        self.assertGreater(want.std(), 0.1)
        prompt = ids[:9]
        self.assertEqual(
            [int(t) for t in driver(folder, 1, "generate", 30, *prompt).split()],
            model.generate(prompt, 30),
        )

    def test_every_case(self) -> None:
        for case in CASES:
            with self.subTest(case.name), tempfile.TemporaryDirectory() as parent:
                folder = Path(parent) / case.name
                make_checkpoint(folder, case)
                self.check(folder)


class DemoModel(unittest.TestCase):
    """The model of `make demo` with its bf16 weights."""

    model: NumpyModel
    prompts: list[list[int]]
    text: list[int]

    @classmethod
    def setUpClass(cls) -> None:
        if not (DEMO / "model.safetensors").exists():
            raise AssertionError(f"{DEMO} is missing: `make demo` makes it")
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
        cls.prompts = [tokenizer.encode(p).ids for p in DEMO_PROMPTS]
        cls.text = tokenizer.encode(DEMO_TEXT.read_text()).ids[:500]
        cls.model = NumpyModel(DEMO)

    def test_greedy_tokens(self) -> None:
        for text, prompt in zip(DEMO_PROMPTS, self.prompts, strict=True):
            with self.subTest(text):
                got = [int(t) for t in driver(DEMO, 0, "generate", 24, *prompt).split()]
                self.assertEqual(got, self.model.generate(prompt, 24))

    def test_mean_nll(self) -> None:
        self.assertEqual(len(self.text), 500)
        want = self.model.mean_nll(self.text)
        got = float(driver(DEMO, 0, "nll", *self.text))
        self.assertLess(abs(got - want) / want, TOLERANCE)
        self.assertLess(want, 5.0)  # the model does know English


if __name__ == "__main__":
    DRIVER, DEMO = sys.argv[1], Path(sys.argv[2])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
