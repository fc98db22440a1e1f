"""Writes tiny random checkpoints: every architecture, rope type and quantization convention.

The quantizer here only has to make valid files; it uses ml_dtypes and nothing of Nibble.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.uint8): "U8",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
}
VOCAB, HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 160, 64, 96, 2, 6, 2


@dataclass
class Case:
    """What one checkpoint is like; `quantize` is "", "modelopt", "compressed-tensors" or "mxfp4"."""

    name: str
    architecture: str = "LlamaForCausalLM"
    dtype: Any = ml_dtypes.bfloat16
    config: dict[str, Any] = field(default_factory=dict)
    quantize: str = ""
    keep: tuple[str, ...] = ("lm_head",)  # endings of modules that stay unquantized


def module_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    q, kv = HEADS * config["head_dim"], KV_HEADS * config["head_dim"]
    shapes = {"lm_head": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj": (q, HIDDEN),
            f"{prefix}.self_attn.k_proj": (kv, HIDDEN),
            f"{prefix}.self_attn.v_proj": (kv, HIDDEN),
            f"{prefix}.self_attn.o_proj": (HIDDEN, q),
            f"{prefix}.mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj": (HIDDEN, INTERMEDIATE),
        }
    if config["tie_word_embeddings"]:
        del shapes["lm_head"]
    return shapes


def pack(values: np.ndarray) -> np.ndarray:
    """Rounds to e2m1 and packs two codes a byte, the even one low."""
    codes = np.clip(values, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 15
    return codes[:, 0::2] | codes[:, 1::2] << 4


def quantize_nvfp4(weight: np.ndarray, module: str, convention: str) -> dict[str, np.ndarray]:
    n, k = weight.shape
    divisor = np.float32(2688) / np.abs(weight).max()
    blocks = weight.reshape(n, k // 16, 16)
    scale = (np.abs(blocks).max(axis=2) / 6 * divisor).astype(ml_dtypes.float8_e4m3fn)
    wide = np.maximum(scale.astype(np.float32), 2.0**-9)
    packed = pack((blocks * divisor / wide[:, :, None]).reshape(n, k))
    if convention == "modelopt":
        return {
            f"{module}.weight": packed,
            f"{module}.weight_scale": scale,
            f"{module}.weight_scale_2": np.array(1 / divisor, np.float32),
        }
    return {
        f"{module}.weight_packed": packed,
        f"{module}.weight_scale": scale,
        f"{module}.weight_global_scale": np.array([divisor], np.float32),
    }


def quantize_mxfp4(weight: np.ndarray, module: str) -> dict[str, np.ndarray]:
    n, k = weight.shape
    blocks = weight.reshape(n, k // 32, 32)
    exponent = np.floor(np.log2(np.abs(blocks).max(axis=2))) - 2
    packed = pack((blocks / np.exp2(exponent)[:, :, None]).reshape(n, k))
    return {
        f"{module}.weight_packed": packed,
        f"{module}.weight_scale": (exponent + 127).astype(np.uint8),
    }


def quantization_config(case: Case, ignored: list[str]) -> dict[str, Any]:
    if case.quantize == "modelopt":
        return {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4", "ignore": ignored}
    group: dict[str, Any] = {"num_bits": 4, "type": "float", "symmetric": True, "dynamic": False}
    if case.quantize == "mxfp4":
        group |= {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
        layout = "mxfp4-pack-quantized"
    else:
        group |= {"strategy": "tensor_group", "group_size": 16}
        layout = "nvfp4-pack-quantized"
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {
            "group_0": {"weights": group, "input_activations": None, "targets": ["Linear"]}
        },
        "ignore": ignored,
        "quantization_status": "compressed",
    }


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file: the header's length in 8 bytes, the header, the data."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        begin = len(data)
        data += tensor.tobytes()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def make_checkpoint(folder: Path, case: Case) -> None:
    config: dict[str, Any] = {
        "architectures": [case.architecture],
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": 16,
        "vocab_size": VOCAB,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    } | case.config
    rng = np.random.default_rng(sum(map(ord, case.name)))

    def normal(*shape: int, std: float) -> np.ndarray:
        return (rng.standard_normal(shape) * std).astype(case.dtype)

    tensors = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN, std=1.0)}
    norms = {"model.norm": HIDDEN}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        norms[f"{prefix}.input_layernorm"] = norms[f"{prefix}.post_attention_layernorm"] = HIDDEN
        if case.architecture == "Qwen3ForCausalLM":
            norms[f"{prefix}.self_attn.q_norm"] = config["head_dim"]
            norms[f"{prefix}.self_attn.k_norm"] = config["head_dim"]
    for name, size in norms.items():
        tensors[f"{name}.weight"] = (1 + 0.2 * rng.standard_normal(size)).astype(case.dtype)

    ignored = []
    for module, (n, k) in module_shapes(config).items():
        # Projections of very different size, so that stacked ones differ in their global scales.
        weight = normal(n, k, std=rng.uniform(0.5, 3.0) / np.sqrt(k))
        kept = not case.quantize or module.endswith(case.keep)
        if kept:
            tensors[f"{module}.weight"] = weight
            ignored.append(module)
        elif case.quantize == "mxfp4":
            tensors |= quantize_mxfp4(weight.astype(np.float32), module)
        else:
            tensors |= quantize_nvfp4(weight.astype(np.float32), module, case.quantize)
        if config.get("attention_bias" if "self_attn" in module else "mlp_bias"):
            if module != "lm_head":
                tensors[f"{module}.bias"] = normal(n, std=0.3)
    if case.quantize:
        config["quantization_config"] = quantization_config(case, ignored)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_tensors(folder / "model.safetensors", tensors)


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": kind, **fields}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)  # fmt: skip
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=128)
QWEN3 = {"architecture": "Qwen3ForCausalLM"}

CASES = [
    Case("llama"),
    Case("llama_tied_fp32", dtype=np.float32, config={"tie_word_embeddings": True}),
    Case("llama_fp16_no_gqa_dim", dtype=np.float16, config={"head_dim": 32}),
    Case("llama_rope_linear", config={"rope_scaling": {"type": "linear", "factor": 2.0}}),
    Case("llama_rope_llama3", config=LLAMA3),
    Case("llama_rope_yarn", config=YARN),
    Case(
        "llama_rope_parameters",
        config={
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 50000.0,
                "factor": 3.0,
                "original_max_position_embeddings": 200,
                "attention_factor": 1.2,
                "beta_fast": 16,
                "beta_slow": 2,
                "truncate": False,
            }
        },
    ),
    Case("llama_biases", config={"attention_bias": True, "mlp_bias": True}),
    Case("qwen3", **QWEN3, config={"head_dim": 32}),
    Case("qwen3_tied_yarn", **QWEN3, config={"tie_word_embeddings": True, **YARN}),
    Case("llama_modelopt", config=LLAMA3, quantize="modelopt"),
    Case("llama_compressed", config=LLAMA3, quantize="compressed-tensors"),
    Case("llama_mxfp4", config={"head_dim": 32}, quantize="mxfp4"),
    Case("llama_modelopt_head", quantize="modelopt", keep=("down_proj",)),
    Case("llama_biases_compressed", config={"attention_bias": True, "mlp_bias": True},
         quantize="compressed-tensors"),  # fmt: skip
    # Stacked projections of which one stayed unquantized can't share a GEMM.
    Case("llama_mixed", quantize="compressed-tensors", keep=("lm_head", "k_proj", "0.mlp.up_proj")),
    Case("qwen3_modelopt", **QWEN3, config={"head_dim": 32}, quantize="modelopt"),
    Case("qwen3_compressed", **QWEN3, config={"head_dim": 32, "tie_word_embeddings": True},
         quantize="compressed-tensors", keep=()),  # fmt: skip
]
