"""Ids and texts equal to those of PyPI's `tokenizers`, for every family of tokenizer.json.

  tokenizer_oracle_test.py DRIVER [TOKENIZER_JSON ...]

The families of tokenizer_families.py are trained on the spot; files named on the command line (those
of real models, where they exist) are tested besides.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import text_cases
import tokenizer_families
from tokenizers import Tokenizer

DRIVER = ""
FILES: list[str] = []
TEXTS = 10_000  # for the families that models use; a tenth for the others
MODEL_FAMILIES = {"smollm2", "llama3", "qwen2", "qwen3", "llama2", "metaspace_first"}


class Driver:
    """Our tokenizer on one file: many requests, one process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _ask(self, requests: list[bytes]) -> bytes:
        run = subprocess.run([DRIVER, self.path], input=b"".join(requests), capture_output=True)
        if run.returncode != 0:
            raise AssertionError(f"{self.path}: {run.stderr.decode()}")
        return run.stdout

    def encode(self, texts: list[bytes], add_special: bool, parse_special: bool) -> list[list[int]]:
        flags = add_special | parse_special << 1
        out = self._ask([b"e" + struct.pack("<II", flags, len(t)) + t for t in texts])
        ids, pos = [], 0
        for _ in texts:
            (n,) = struct.unpack_from("<I", out, pos)
            ids.append(list(struct.unpack_from(f"<{n}i", out, pos + 4)))
            pos += 4 + 4 * n
        assert pos == len(out)
        return ids

    def decode(self, rows: list[list[int]], skip: bool) -> list[tuple[str, str]]:
        """Per row the text of decode() and that of a Detokenizer."""
        out = self._ask([b"d" + struct.pack(f"<II{len(r)}i", skip, len(r), *r) for r in rows])
        strings, pos = [], 0
        for _ in range(2 * len(rows)):
            (n,) = struct.unpack_from("<I", out, pos)
            strings.append(out[pos + 4 : pos + 4 + n].decode("utf-8"))
            pos += 4 + n
        assert pos == len(out)
        return list(zip(strings[::2], strings[1::2], strict=True))


class TokenizerOracleTest(unittest.TestCase):
    def check_encode(
        self, name: str, path: str, texts: list[bytes], modes: tuple[tuple[bool, bool], ...]
    ) -> list[list[int]]:
        theirs, ours = Tokenizer.from_file(path), Driver(path)
        as_str = [t.decode("utf-8", "replace") for t in texts]
        ids: list[list[int]] = []
        for add_special, parse_special in modes:
            theirs.encode_special_tokens = not parse_special
            expected = theirs.encode_batch(as_str, add_special_tokens=add_special)
            ids = ours.encode(texts, add_special, parse_special)
            wrong = [
                (t, e.ids, i) for t, e, i in zip(texts, expected, ids, strict=True) if e.ids != i
            ]
            for text, theirs_ids, our_ids in wrong[:3]:
                words = [theirs.id_to_token(i) for i in theirs_ids], [theirs.id_to_token(i) for i in our_ids]
                print(f"{name}: {text!r}\n  expected {words[0]}\n  found    {words[1]}")
            self.assertEqual(len(wrong), 0, f"{name}: {len(wrong)} of {len(texts)} texts differ")
        return ids

    def check_decode(self, name: str, path: str, rows: list[list[int]]) -> None:
        theirs, ours = Tokenizer.from_file(path), Driver(path)
        rng = random.Random(3)
        size = theirs.get_vocab_size()
        cuts = [r[a : rng.randrange(a, len(r) + 1)] for r in rows for a in [rng.randrange(len(r) + 1)]]
        noise = [[rng.randrange(size) for _ in range(rng.randint(1, 20))] for _ in range(len(rows) // 4)]
        all_rows = rows[: len(rows) // 4] + cuts + noise
        for skip in (True, False):
            expected = theirs.decode_batch(all_rows, skip_special_tokens=skip)
            found = ours.decode(all_rows, skip)
            for row, text, (whole, pieces) in zip(all_rows, expected, found, strict=True):
                self.assertEqual(whole, text, f"{name}: decode of {row}")
                self.assertEqual(pieces, text, f"{name}: Detokenizer over {row}")

    def check(self, name: str, path: str, count: int) -> None:
        theirs = Tokenizer.from_file(path)
        added = [t.content for t in theirs.get_added_tokens_decoder().values()]
        texts = text_cases.texts(count, added[:32])
        with self.subTest(name, what="encode"):
            rows = self.check_encode(name, path, texts, ((True, True), (False, False)))
            with self.subTest(name, what="decode"):
                self.check_decode(name, path, rows)

    def check_every_code_point(self, name: str, path: str, normalizes: bool) -> None:
        with self.subTest(name, what="every code point"):
            texts = text_cases.every_code_point(normalizes)
            self.check_encode(name, path, texts, ((True, True),))

    def check_families(self, families: dict[str, tokenizer_families.Json]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, family in families.items():
                path = Path(folder) / f"{name}.json"
                path.write_text(json.dumps(family, ensure_ascii=False), encoding="utf-8")
                self.check(name, str(path), TEXTS if name in MODEL_FAMILIES else TEXTS // 10)
                if name in {"smollm2", "qwen2", "lower", "nfd", "words", "whitespace", "llama2"}:
                    self.check_every_code_point(name, str(path), family["normalizer"] is not None)

    def test_byte_level(self) -> None:
        self.check_families(tokenizer_families.byte_level_families())

    def test_sentencepiece(self) -> None:
        self.check_families(tokenizer_families.sentencepiece_families())

    def test_files(self) -> None:
        for file in FILES:
            if Path(file).exists():
                self.check(file, file, TEXTS)
                normalizes = json.loads(Path(file).read_text())["normalizer"] is not None
                self.check_every_code_point(file, file, normalizes)


if __name__ == "__main__":
    DRIVER, *FILES = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
