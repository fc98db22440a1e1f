"""Quantized folders written by numpy are read by Nibble, and those written by Nibble by safetensors.

Usage: roundtrip_test.py CHECKPOINT_DRIVER. The dequantizer here is independent: ml_dtypes' codes.
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
from safetensors.numpy import save, save_file

DRIVER = sys.argv.pop(1)
SHAPES = {"model.layers.0.self_attn.q_proj": (48, 64), "model.layers.0.mlp.experts.3.up_proj": (7, 96)}
PLAIN = "model.layers.0.mlp.gate"
E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
DTYPES = {"U8": np.uint8, "F32": np.float32, "F8_E4M3": ml_dtypes.float8_e4m3fn,
          "BF16": ml_dtypes.bfloat16}
NVFP4_ARGS = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16,
              "symmetric": True, "dynamic": False}
MXFP4_ARGS = NVFP4_ARGS | {"strategy": "group", "group_size": 32}


def write_folder(folder: Path, tensors: dict[str, np.ndarray], quantization: dict) -> None:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "llama", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, info in deserialize(path.read_bytes()):
            data = np.frombuffer(bytes(info["data"]), DTYPES[info["dtype"]])
            tensors[name] = data.reshape(info["shape"])
    return tensors


def dequantize(tensors: dict[str, np.ndarray], module: str) -> np.ndarray:
    """fp32 values, one rounding, in either convention."""
    compressed = f"{module}.weight_packed" in tensors
    packed = tensors[f"{module}.weight_packed" if compressed else f"{module}.weight"]
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
    scale = tensors[f"{module}.weight_scale"]
    if scale.dtype == np.uint8:
        factors = np.exp2(scale.astype(np.float64) - 127)
    else:
        factors = scale.astype(np.float64)
        if compressed:
            divisor = tensors[f"{module}.weight_global_scale"].astype(np.float32).reshape(())
            factors = factors * np.float64(np.float32(1) / divisor)
        else:
            factors = factors * np.float64(tensors[f"{module}.weight_scale_2"].reshape(()))
    blocks = np.repeat(factors, codes.shape[1] // scale.shape[1], axis=1)
    return (E2M1[codes].astype(np.float64) * blocks).astype(np.float32)


def dump(folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    out = folder.parent / "dump.bin"
    subprocess.run([DRIVER, "dump", folder, out], check=True)
    data = out.read_bytes()
    result = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, n, k, scale = line.decode().split()
        size = int(n) * int(k) * 4
        result[name] = (np.frombuffer(data[:size], np.float32).reshape(int(n), int(k)),
                        float.fromhex(scale))
        data = data[size:]
    return result


class RoundTrip(unittest.TestCase):
    def setUp(self) -> None:
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.root = Path(self.temp.name)
        self.random = np.random.default_rng(11)

    def tensors(self, fmt: str, convention: str, with_input: bool) -> dict[str, np.ndarray]:
        """As the convention's own exporter names and shapes them."""
        compressed = convention == "compressed-tensors"
        tensors = {f"{PLAIN}.weight": np.ones((4, 8), ml_dtypes.bfloat16)}
        for module, (n, k) in SHAPES.items():
            block = 16 if fmt == "nvfp4" else 32
            codes = self.random.integers(0, 256, (n, k // 2), dtype=np.uint8)
            if fmt == "nvfp4":
                scale = self.random.integers(0, 127, (n, k // block), dtype=np.uint8)
                scale = scale.view(ml_dtypes.float8_e4m3fn)
            else:
                # With exponents that stay normal numbers: no rounding to compare.
                scale = self.random.integers(8, 248, (n, k // block), dtype=np.uint8)
            tensors[f"{module}.weight_packed" if compressed else f"{module}.weight"] = codes
            tensors[f"{module}.weight_scale"] = scale
            for used, ours, theirs in ((fmt == "nvfp4", "weight_global_scale", "weight_scale_2"),
                                       (with_input, "input_global_scale", "input_scale")):
                divisor = np.float32(2688) / np.float32(self.random.uniform(0.01, 20))
                if used and compressed:
                    tensors[f"{module}.{ours}"] = np.array([divisor])
                elif used:
                    tensors[f"{module}.{theirs}"] = np.array(np.float32(1) / divisor)
        return tensors

    def check(self, fmt: str, convention: str, with_input: bool, quantization: dict) -> None:
        made = self.tensors(fmt, convention, with_input)
        source = self.root / "source"
        write_folder(source, made, quantization)
        want = {module: dequantize(made, module) for module in SHAPES}
        read = dump(source)
        self.assertEqual(set(read), set(SHAPES))
        for module, (values, scale) in read.items():
            self.assertEqual(values.tobytes(), want[module].tobytes(), module)
            self.assertEqual(scale != 0, with_input)
        for target in ("modelopt", "compressed-tensors"):
            folder = self.root / target
            subprocess.run([DRIVER, "convert", source, folder, target], check=True)
            written = read_folder(folder)
            key = "weight_packed" if target == "compressed-tensors" else "weight"
            self.assertEqual({n for n in written if n.endswith("." + key)},
                             {f"{module}.{key}" for module in SHAPES})
            index = json.loads((folder / "model.safetensors.index.json").read_text())
            self.assertEqual(set(index["weight_map"]), set(written))
            again = dump(folder)
            for module in SHAPES:
                got = dequantize(written, module)
                self.assertEqual(got.tobytes(), want[module].tobytes(), (target, module))
                self.assertEqual(again[module][0].tobytes(), want[module].tobytes())
                self.assertEqual(again[module][1], read[module][1])

    def test_modelopt_nvfp4(self) -> None:
        self.check("nvfp4", "modelopt", True, {
            "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": [PLAIN, "lm_head"]})

    def test_modelopt_weight_only(self) -> None:
        self.check("nvfp4", "modelopt", False, {
            "quant_method": "modelopt", "quant_algo": "W4A16_NVFP4", "ignore": ["*.mlp.gate"]})

    def test_modelopt_mxfp4(self) -> None:
        self.check("mxfp4", "modelopt", False, {
            "quant_method": "modelopt", "quant_algo": "MXFP4", "ignore": [PLAIN]})

    def test_compressed_nvfp4(self) -> None:
        self.check("nvfp4", "compressed-tensors", True, {
            "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
            "ignore": ["re:.*mlp.gate$"], "config_groups": {"group_0": {
                "weights": NVFP4_ARGS, "input_activations": NVFP4_ARGS | {"dynamic": "local"},
                "targets": ["Linear"]}}})

    def test_compressed_weight_only(self) -> None:
        self.check("nvfp4", "compressed-tensors", False, {
            "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
            "ignore": [PLAIN], "config_groups": {"group_0": {
                "weights": NVFP4_ARGS, "input_activations": None, "targets": ["Linear"]}}})

    def test_compressed_mxfp4(self) -> None:
        self.check("mxfp4", "compressed-tensors", False, {
            "quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
            "ignore": [PLAIN], "config_groups": {"group_0": {
                "weights": MXFP4_ARGS, "input_activations": None, "targets": ["Linear"]}}})

    def test_reads_what_the_library_writes(self) -> None:
        """Plain folders by safetensors' own numpy writer, metadata and order included."""
        folder = self.root / "plain"
        folder.mkdir()
        tensors = {"b.weight": np.ones((2, 2), np.float32), "a.bias": np.zeros(3, np.float16)}
        (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (folder / "config.json").write_text("{}")
        self.assertEqual(dump(folder), {})

    def test_broken_file_is_one_line(self) -> None:
        folder = self.root / "broken"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"{")
        (folder / "config.json").write_text("{}")
        run = subprocess.run([DRIVER, "dump", folder, self.root / "x"], capture_output=True,
                             text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("truncated: a header of 16 bytes, but 1 follow", run.stderr)


if __name__ == "__main__":
    unittest.main()
