"""Quantizes tiny checkpoints with Nibble and again with numpy and ml_dtypes: the same bytes.

Reads Nibble's files with the safetensors package. Argument: quantize_driver.
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import deserialize
from safetensors.numpy import save_file

DRIVER = ""
BF16 = ml_dtypes.bfloat16


def source(dtype: np.dtype) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    tensors = {}

    def add(name: str, *shape: int, std: float = 0.05) -> None:
        tensors[name] = rng.normal(0.0, std, shape).astype(np.float32).astype(dtype)

    add("model.embed_tokens.weight", 40, 64)
    add("model.norm.weight", 64)
    for layer in range(2):
        p = f"model.layers.{layer}."
        for name, rows in (("q_proj", 64), ("k_proj", 32), ("v_proj", 32), ("o_proj", 64)):
            add(f"{p}self_attn.{name}.weight", rows, 64, std=0.01 * (rows + layer))
        add(f"{p}self_attn.q_proj.bias", 64)
        for name, n, k in (("gate_proj", 96, 64), ("up_proj", 96, 64), ("down_proj", 64, 96)):
            add(f"{p}mlp.{name}.weight", n, k)
        add(f"{p}input_layernorm.weight", 64)
    down = tensors["model.layers.1.mlp.down_proj.weight"]
    down[3, :32] = 0
    down[4, 5] = -0.0
    return tensors


def encode(y: np.ndarray) -> np.ndarray:
    """e2m1 codes by ml_dtypes, packed, even elements in the low half."""
    clipped = np.clip(y, np.float32(-6), np.float32(6))
    codes = clipped.astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def nvfp4(w: np.ndarray, decode: np.float32) -> tuple[np.ndarray, np.ndarray]:
    n, k = w.shape
    gs = np.float32(1) / decode
    blocks = w.astype(np.float32).reshape(n, k // 16, 16)
    amax = np.abs(blocks).max(axis=2)
    ideal = gs * (amax * (np.float32(1) / np.float32(6)))
    scales = np.minimum(ideal, np.float32(448)).astype(ml_dtypes.float8_e4m3fn)
    wide = scales.astype(np.float32)
    factor = np.divide(gs, wide, out=np.zeros_like(wide), where=wide != 0)
    return encode((blocks * factor[..., None]).reshape(n, k)), scales.view(np.uint8)


def mxfp4(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, k = w.shape
    blocks = w.astype(np.float32).reshape(n, k // 32, 32)
    amax = np.abs(blocks).max(axis=2).astype(np.float64)
    mantissa, exponent = np.frexp(np.where(amax > 0, amax, 1.0) / 6.0)
    ceil = exponent - (mantissa == 0.5)
    scales = np.where(amax > 0, np.maximum(ceil + 127, 0), 0).astype(np.uint8)
    y = blocks * np.exp2(127.0 - scales.astype(np.float64))[..., None]
    return encode(y.astype(np.float32).reshape(n, k)), scales


FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def group_amax(tensors: dict[str, np.ndarray], module: str) -> np.float32:
    prefix, last = module.rsplit(".", 1)
    names = next((group for group in FUSED if last in group), (last,))
    return max(
        np.abs(tensors[f"{prefix}.{name}.weight"].astype(np.float32)).max() for name in names
    )


class QuantizeTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def quantize(self, tensors: dict[str, np.ndarray], fmt: str, convention: str, method: str,
                 lm_head: str = "default", tied: bool = False):  # fmt: skip
        src, dst = self.dir / "src", self.dir / "dst"
        src.mkdir(exist_ok=True)
        save_file(tensors, src / "model.safetensors")
        config = {"model_type": "llama", "hidden_size": 64, "tie_word_embeddings": tied}
        (src / "config.json").write_text(json.dumps(config))
        (src / "tokenizer.json").write_text("{}")
        command = [DRIVER, str(src), str(dst), fmt, convention, method, lm_head,
                   "overwrite"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return load_raw(dst / "model.safetensors"), json.loads(done.stdout)

    def check(self, dtype: np.dtype, fmt: str, convention: str, method: str = "rtn") -> None:
        tensors = source(dtype)
        written, report = self.quantize(tensors, fmt, convention, method)
        compressed = convention == "compressed-tensors"
        self.assertEqual(report["tensors"], 14)
        for name, w in tensors.items():
            if "_proj.weight" not in name:
                self.assertEqual(written.pop(name).tobytes(), w.tobytes(), name)
                continue
            module = name.removesuffix(".weight")
            codes = written.pop(f"{module}.weight_packed" if compressed else name)
            scales = written.pop(f"{module}.weight_scale")
            if fmt == "mxfp4":
                want = mxfp4(w)
            else:
                key = "weight_global_scale" if compressed else "weight_scale_2"
                stored = written.pop(f"{module}.{key}")
                self.assertEqual(stored.shape, (1,) if compressed else ())
                stored = np.float32(stored.reshape(-1)[0])
                decode = np.float32(1) / stored if compressed else stored
                top = np.float32(6 * 256 if method == "four-over-six" else 2688)
                gs = top / group_amax(tensors, module)
                self.assertEqual(decode, np.float32(1) / gs, module)
                want = nvfp4(w, decode)
            if method == "rtn":
                np.testing.assert_array_equal(scales, want[1], module)
                np.testing.assert_array_equal(codes, want[0], module)
        self.assertEqual(list(written), [], "tensors that nobody asked for")
        config = json.loads((self.dir / "dst" / "config.json").read_text())
        self.assertIn("quantization_config", config)
        self.assertTrue((self.dir / "dst" / "tokenizer.json").exists())
        self.assertFalse((self.dir / "dst.replacement").exists())

    def test_every_combination(self) -> None:
        for dtype in (BF16, np.float16, np.float32):
            for fmt in ("nvfp4", "mxfp4"):
                for convention in ("modelopt", "compressed-tensors"):
                    with self.subTest(dtype=dtype, fmt=fmt, convention=convention):
                        self.check(dtype, fmt, convention)

    def test_global_scale_of_four_over_six(self) -> None:
        self.check(BF16, "nvfp4", "modelopt", "four-over-six")

    def check_lm_head(self, dtype: np.dtype, convention: str, lm_head: str, tied: bool) -> None:
        tensors = source(dtype)
        if tied:
            matrix = tensors["model.embed_tokens.weight"]
        else:
            rng = np.random.default_rng(5)
            matrix = rng.normal(0.0, 0.05, (40, 64)).astype(np.float32).astype(dtype)
            tensors["lm_head.weight"] = matrix
        matrix[7] = 0
        matrix[8, 1] = -0.0
        matrix[9] *= dtype.type(1e-3)
        written, report = self.quantize(tensors, "nvfp4", convention, "rtn", lm_head, tied)
        self.assertEqual(report["tensors"], 15)
        self.assertEqual(written["model.embed_tokens.weight"].tobytes(),
                         tensors["model.embed_tokens.weight"].tobytes())  # fmt: skip
        config = json.loads((self.dir / "dst" / "config.json").read_text())
        self.assertFalse(config["tie_word_embeddings"])
        quantization = config["quantization_config"]
        self.assertNotIn("lm_head", quantization["ignore"])
        compressed = convention == "compressed-tensors"
        if lm_head == "nvfp4":
            stored = written["lm_head." + ("weight_global_scale" if compressed else "weight_scale_2")]
            stored = np.float32(stored.reshape(-1)[0])
            codes, scales = nvfp4(matrix, np.float32(1) / stored if compressed else stored)
            codes_name = "lm_head.weight_packed" if compressed else "lm_head.weight"
            np.testing.assert_array_equal(written[codes_name], codes)
            np.testing.assert_array_equal(written["lm_head.weight_scale"], scales)
            return
        wide = matrix.astype(np.float32)
        scales = np.abs(wide).max(axis=1) / np.float32(448)
        scales[scales == 0] = 1
        codes = (wide / scales[:, None]).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
        np.testing.assert_array_equal(written["lm_head.weight"], codes)
        self.assertEqual(written["lm_head.weight_scale"].shape, (40, 1) if compressed else (40,))
        np.testing.assert_array_equal(written["lm_head.weight_scale"].reshape(-1), scales)
        if compressed:
            group = quantization["config_groups"]["group_1"]
            self.assertEqual(quantization["format"], "mixed-precision")
            self.assertEqual(group["targets"], ["lm_head"])
            self.assertEqual(group["weights"]["num_bits"], 8)
        else:
            layers = quantization["quantized_layers"]
            self.assertEqual(quantization["quant_algo"], "MIXED_PRECISION")
            self.assertEqual(len(layers), 15)
            self.assertEqual(layers["lm_head"]["quant_algo"], "FP8_PER_CHANNEL_PER_TOKEN")

    def test_lm_head(self) -> None:
        for dtype in (np.dtype(BF16), np.dtype(np.float16), np.dtype(np.float32)):
            for convention in ("modelopt", "compressed-tensors"):
                for lm_head in ("fp8", "nvfp4"):
                    for tied in (False, True):
                        with self.subTest(dtype=dtype, convention=convention, lm_head=lm_head,
                                          tied=tied):  # fmt: skip
                            self.check_lm_head(dtype, convention, lm_head, tied)

    def test_errors_end_with_one_line(self) -> None:
        done = subprocess.run(
            [DRIVER, str(self.dir / "none"), str(self.dir / "dst"), "nvfp4", "modelopt", "rtn",
             "default"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^io: .*none")
        self.assertEqual(list(self.dir.iterdir()), [])


DTYPES = {"U8": np.uint8, "F8_E4M3": np.uint8, "BF16": BF16, "F16": np.float16, "F32": np.float32}


def load_raw(path: Path) -> dict[str, np.ndarray]:
    """e4m3 tensors as bytes; everything else as it is. Numpy alone has no name for e4m3."""
    return {
        name: np.frombuffer(t["data"], DTYPES[t["dtype"]]).reshape(t["shape"])
        for name, t in deserialize(path.read_bytes())
    }


if __name__ == "__main__":
    DRIVER = sys.argv.pop()
    unittest.main()
