"""tools/gguf_to_hf.py on tiny files made here: the numbers, the names, and the refusals."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import gguf_to_hf  # noqa: E402

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 96, 4, 2, 16, 2
TOKENS = ["<|end|>", "<|begin|>", "a", "b", "1", "2", "Ġ", "ab", "Ġab"]
MERGES = ["a b", "Ġ ab"]


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        for name, shape in (
            ("attn_norm", (HIDDEN,)),
            ("attn_q", (HEADS * HEAD_DIM, HIDDEN)),
            ("attn_k", (KV_HEADS * HEAD_DIM, HIDDEN)),
            ("attn_v", (KV_HEADS * HEAD_DIM, HIDDEN)),
            ("attn_output", (HIDDEN, HEADS * HEAD_DIM)),
            ("ffn_norm", (HIDDEN,)),
            ("ffn_gate", (INNER, HIDDEN)),
            ("ffn_up", (INNER, HIDDEN)),
            ("ffn_down", (HIDDEN, INNER)),
        ):
            shapes[f"blk.{i}.{name}.weight"] = shape
    return shapes


def rotate_halves(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rope as Llama checkpoints expect it: element i pairs with i + d/2."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rotate_neighbours(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rope as GGUF files expect it: element 2i pairs with 2i + 1."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)


class GgufToHfTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        self.rng = np.random.default_rng(1)
        self.tensors = {
            name: self.rng.standard_normal(shape, dtype=np.float32)
            for name, shape in tensor_shapes().items()
        }

    def write(self, architecture: str = "llama", pre: str = "smollm", **extra: Any) -> Path:
        path = self.root / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_block_count(LAYERS)
        writer.add_context_length(128)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_freq_base(1e5)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(0)
        writer.add_chat_template("{{ messages[0]['content'] }}")
        for key, value in extra.items():
            writer.add_float32(key.replace("__", "."), value)
        for name, values in self.tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def run_tool(self, model: Path, *options: str) -> tuple[int, str]:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = gguf_to_hf.main([str(model), str(self.root / "hf"), *options])
        return code, errors.getvalue()

    def assert_refused(self, model: Path, message: str) -> None:
        code, errors = self.run_tool(model)
        self.assertEqual(code, 1)
        self.assertIn(message, errors)
        left = sorted(path.name for path in self.root.iterdir())
        self.assertEqual(left, [model.name], "a refusal leaves nothing behind")

    def convert(self) -> dict[str, np.ndarray]:
        self.assertEqual(self.run_tool(self.write()), (0, ""))
        return safetensors.numpy.load_file(self.root / "hf/model.safetensors")

    def test_tensors_have_their_names_and_round_to_nearest_even(self) -> None:
        tensors = self.convert()
        self.assertEqual(len(tensors), len(self.tensors))
        for ours, theirs in (
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
            ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
            ("blk.1.attn_v", "model.layers.1.self_attn.v_proj"),
            ("blk.1.attn_output", "model.layers.1.self_attn.o_proj"),
            ("blk.1.ffn_norm", "model.layers.1.post_attention_layernorm"),
            ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"),
            ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
            ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
        ):
            expected = self.tensors[f"{ours}.weight"].astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(
                tensors[f"{theirs}.weight"].view(np.uint16), expected.view(np.uint16), theirs
            )

    def test_bf16_ties_go_to_even(self) -> None:
        bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF, 0x00008000], np.uint32)
        self.assertEqual(
            [hex(b) for b in gguf_to_hf.to_bf16(bits.view(np.float32))],
            ["0x3f80", "0x3f82", "0x3f81", "0xbf80", "0x0"],
        )

    def test_rope_means_the_same_after_the_permutation(self) -> None:
        tensors = self.convert()
        x = self.rng.standard_normal(HIDDEN)
        angles = self.rng.uniform(0, 6, HEAD_DIM // 2)

        def scores(q: np.ndarray, k: np.ndarray, rotate: Any) -> np.ndarray:
            q_heads = rotate((q @ x).reshape(HEADS, HEAD_DIM), angles)
            k_heads = rotate((k @ x).reshape(KV_HEADS, HEAD_DIM), 2 * angles)
            return q_heads @ k_heads.T

        def rounded(name: str) -> np.ndarray:
            return self.tensors[name].astype(ml_dtypes.bfloat16).astype(np.float64)

        prefix = "model.layers.1.self_attn."
        ours = scores(
            tensors[prefix + "q_proj.weight"].astype(np.float64),
            tensors[prefix + "k_proj.weight"].astype(np.float64),
            rotate_halves,
        )
        theirs = scores(
            rounded("blk.1.attn_q.weight"), rounded("blk.1.attn_k.weight"), rotate_neighbours
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)

    def test_config(self) -> None:
        self.convert()
        config = json.loads((self.root / "hf/config.json").read_text())
        expected = {
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 0,
            "head_dim": HEAD_DIM,
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "max_position_embeddings": 128,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": KV_HEADS,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e5,
            "tie_word_embeddings": True,
            "vocab_size": len(TOKENS),
        }
        self.assertEqual({key: config.get(key) for key in expected}, expected)
        tokenizer_config = json.loads((self.root / "hf/tokenizer_config.json").read_text())
        self.assertEqual(tokenizer_config["chat_template"], "{{ messages[0]['content'] }}")
        self.assertEqual(tokenizer_config["eos_token"], "<|end|>")

    def test_tokenizer(self) -> None:
        self.convert()
        tokenizer = Tokenizer.from_file(str(self.root / "hf/tokenizer.json"))
        encoded = tokenizer.encode("<|begin|>ab ab12<|end|>")
        self.assertEqual(encoded.tokens, ["<|begin|>", "ab", "Ġab", "1", "2", "<|end|>"])
        self.assertEqual(tokenizer.decode(encoded.ids), "ab ab12")

    def test_quantized_tensors_and_an_untied_head(self) -> None:
        head = self.rng.standard_normal((len(TOKENS), HIDDEN), dtype=np.float32)
        packed = gguf.quants.quantize(head, gguf.GGMLQuantizationType.Q8_0)
        path = self.root / "q.gguf"
        original = gguf.GGUFWriter.write_header_to_file

        def add_head(writer: gguf.GGUFWriter, *args: Any) -> None:
            writer.add_tensor("output.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            original(writer, *args)

        gguf.GGUFWriter.write_header_to_file = add_head
        try:
            self.write().rename(path)
        finally:
            gguf.GGUFWriter.write_header_to_file = original
        self.assertEqual(self.run_tool(path), (0, ""))
        tensors = safetensors.numpy.load_file(self.root / "hf/model.safetensors")
        expected = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(
            tensors["lm_head.weight"].astype(np.float32),
            expected.astype(ml_dtypes.bfloat16).astype(np.float32),
        )
        config = json.loads((self.root / "hf/config.json").read_text())
        self.assertFalse(config["tie_word_embeddings"])

    def test_reads_the_file_inside_a_wheel(self) -> None:
        model = self.write()
        wheel = self.root / "some.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(model, "package/model.gguf")
        self.assertEqual(self.run_tool(wheel), (0, ""))
        self.assertTrue((self.root / "hf/model.safetensors").is_file())

    def test_an_existing_folder_is_replaced_only_by_force(self) -> None:
        self.convert()
        (self.root / "hf/old").touch()
        code, errors = self.run_tool(self.root / "model.gguf")
        self.assertEqual((code, "exists" in errors), (1, True))
        self.assertTrue((self.root / "hf/old").exists())
        self.assertEqual(self.run_tool(self.root / "model.gguf", "--force"), (0, ""))
        self.assertFalse((self.root / "hf/old").exists())

    def test_refusals_name_the_reason(self) -> None:
        self.assert_refused(self.write(architecture="phi3"), "general.architecture is 'phi3'")
        self.assert_refused(self.write(pre="viking"), "tokenizer.ggml.pre is 'viking'")
        self.assert_refused(
            self.write(llama__rope__scaling__factor=8.0), "llama.rope.scaling.factor"
        )

    def test_bad_tensors_are_named(self) -> None:
        name = "blk.1.ffn_up.weight"
        good = self.tensors[name]
        self.tensors[name] = good[:-1]
        self.assert_refused(self.write(), f"tensor {name} has shape [95, 64], expected [96, 64]")
        self.tensors[name] = np.where(good == good[3, 5], np.nan, good).astype(np.float32)
        self.assert_refused(self.write(), f"tensor {name} holds NaN or Inf")
        del self.tensors[name]
        self.assert_refused(self.write(), f"tensor {name} is missing")
        self.tensors[name] = good
        self.tensors["blk.0.attn_q.bias"] = good[0]
        self.assert_refused(self.write(), "tensor blk.0.attn_q.bias has no place")

    def test_not_a_gguf_file(self) -> None:
        model = self.root / "model.gguf"
        model.write_bytes(b"GGUF but short")
        self.assert_refused(model, "not a readable GGUF file")
        good = self.write().read_bytes()
        model.write_bytes(good[: len(good) // 2])
        self.assert_refused(model, "not a readable GGUF file")


if __name__ == "__main__":
    unittest.main()
