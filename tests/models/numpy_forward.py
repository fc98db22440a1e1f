"""An independent forward pass in numpy float32, to hold Nibble's models against.

Reads a Hugging Face folder itself: configs, safetensors, both NVFP4 conventions, every rope type.
Shares no code and no intermediate file with Nibble.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import deserialize

F32 = np.float32
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], F32)
RAW_DTYPES = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F16": np.float16,
    "F32": np.float32,
    "U8": np.uint8,
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of one safetensors file."""
    return {
        name: np.frombuffer(entry["data"], RAW_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in deserialize(path.read_bytes())
    }


def unpack(codes: np.ndarray) -> np.ndarray:
    """[n, k/2] bytes to [n, k] e2m1 values; the low nibble comes first."""
    both = np.stack([codes & 15, codes >> 4], axis=-1)
    return E2M1[both.reshape(codes.shape[0], -1)]


def dequantize(tensors: dict[str, np.ndarray], module: str) -> np.ndarray:
    """The weight of a module as float32, whatever convention it is stored in."""
    scale = tensors.get(f"{module}.weight_scale")
    if scale is None:
        return tensors[f"{module}.weight"].astype(F32)
    packed = tensors.get(f"{module}.weight_packed", tensors.get(f"{module}.weight"))
    values = unpack(packed)
    if scale.dtype == np.uint8:  # MXFP4
        per_element = np.repeat(np.ldexp(F32(1), scale.astype(np.int32) - 127), 32, axis=1)
        return (values * per_element).astype(F32)
    values = values * np.repeat(scale.astype(F32), 16, axis=1)
    if f"{module}.weight_scale_2" in tensors:  # ModelOpt multiplies
        return values * tensors[f"{module}.weight_scale_2"].reshape(()).astype(F32)
    divisor = tensors[f"{module}.weight_global_scale"].reshape(()).astype(F32)
    return values / divisor


def rope_frequencies(config: dict[str, Any], head_dim: int) -> tuple[np.ndarray, float]:
    """Radians per position for each pair of a head, and the factor of cos and sin."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = scaling.get("rope_theta", config.get("rope_theta", 10000.0))
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    freqs = 1.0 / theta**exponents
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return freqs.astype(F32), 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return (freqs / factor).astype(F32), 1.0
    original = scaling.get("original_max_position_embeddings", config["max_position_embeddings"])
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        out = []
        for freq in freqs:
            wavelength = 2 * math.pi / freq
            if wavelength < original / high:
                out.append(freq)
            elif wavelength > original / low:
                out.append(freq / factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                out.append((1 - smooth) * freq / factor + smooth * freq)
        return np.array(out, F32), 1.0
    assert kind == "yarn", kind

    def correction(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first = correction(scaling.get("beta_fast", 32))
    last = correction(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - first) / max(last - first, 1e-3), 0, 1)
    mixed = freqs / factor * ramp + freqs * (1 - ramp)
    attention = scaling.get("attention_factor") or 0.1 * math.log(factor) + 1.0
    return mixed.astype(F32), attention


class NumpyModel:
    """Llama or Qwen3 with a growing key/value cache."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tensors: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob("*.safetensors")):
            tensors.update(read_tensors(path))
        self.eps = F32(config["rms_norm_eps"])
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config.get("num_key_value_heads", self.heads)
        self.head_dim: int = config.get("head_dim") or config["hidden_size"] // self.heads
        self.freqs, self.attention_factor = rope_frequencies(config, self.head_dim)
        self.weights = {
            name.rsplit(".", 1)[0]: dequantize(tensors, name.rsplit(".", 1)[0])
            for name in tensors
            if name.endswith((".weight", ".weight_packed"))
        }
        self.biases = {
            name.rsplit(".", 1)[0]: value.astype(F32)
            for name, value in tensors.items()
            if name.endswith(".bias")
        }
        tied = config.get("tie_word_embeddings", False)
        self.head = self.weights["model.embed_tokens" if tied else "lm_head"]
        self.layers: int = config["num_hidden_layers"]
        self.qk_norm = config["architectures"][0] == "Qwen3ForCausalLM"
        self.reset()

    def reset(self) -> None:
        empty = np.zeros((self.kv_heads, 0, self.head_dim), F32)
        self.keys = [empty] * self.layers
        self.values = [empty] * self.layers

    def norm(self, x: np.ndarray, module: str) -> np.ndarray:
        mean = np.mean(x * x, axis=-1, keepdims=True, dtype=F32)
        return x / np.sqrt(mean + self.eps) * self.weights[module]

    def linear(self, x: np.ndarray, module: str) -> np.ndarray:
        y = x @ self.weights[module].T
        return y + self.biases[module] if module in self.biases else y

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """x: [heads, rows, head_dim]; the first half of a head pairs with the second."""
        angles = positions[:, None].astype(F32) * self.freqs
        cos = np.cos(angles) * F32(self.attention_factor)
        sin = np.sin(angles) * F32(self.attention_factor)
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, h: np.ndarray, layer: int, prefix: str) -> np.ndarray:
        rows = h.shape[0]

        def heads(module: str, count: int) -> np.ndarray:
            y = self.linear(h, f"{prefix}.{module}")
            return y.reshape(rows, count, self.head_dim).transpose(1, 0, 2)

        q, k = heads("q_proj", self.heads), heads("k_proj", self.kv_heads)
        if self.qk_norm:
            q, k = self.norm(q, f"{prefix}.q_norm"), self.norm(k, f"{prefix}.k_norm")
        past = self.keys[layer].shape[1]
        positions = np.arange(past, past + rows)
        q, k = self.rotate(q, positions), self.rotate(k, positions)
        self.keys[layer] = np.concatenate([self.keys[layer], k], axis=1)
        self.values[layer] = np.concatenate(
            [self.values[layer], heads("v_proj", self.kv_heads)], axis=1
        )
        group = self.heads // self.kv_heads
        keys = np.repeat(self.keys[layer], group, axis=0)
        values = np.repeat(self.values[layer], group, axis=0)
        scores = q @ keys.transpose(0, 2, 1) / F32(math.sqrt(self.head_dim))
        visible = np.arange(past + rows)[None, :] <= positions[:, None]
        scores = np.where(visible, scores, F32(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ values).transpose(1, 0, 2).reshape(rows, -1)
        return self.linear(mixed, f"{prefix}.o_proj")

    def forward(self, ids: list[int]) -> np.ndarray:
        """Appends ids to the sequence; logits [len(ids), vocab] after each."""
        x = self.weights["model.embed_tokens"][np.array(ids)]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            h = self.norm(x, f"{prefix}.input_layernorm")
            x = x + self.attention(h, layer, f"{prefix}.self_attn")
            h = self.norm(x, f"{prefix}.post_attention_layernorm")
            gate = self.linear(h, f"{prefix}.mlp.gate_proj")
            up = self.linear(h, f"{prefix}.mlp.up_proj")
            gated = gate / (1 + np.exp(-gate)) * up
            x = x + self.linear(gated, f"{prefix}.mlp.down_proj")
        return self.norm(x, "model.norm") @ self.head.T

    def generate(self, prompt: list[int], count: int) -> list[int]:
        """Greedy tokens after the prompt."""
        self.reset()
        tokens = [int(self.forward(prompt)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self.forward(tokens[-1:])[-1].argmax()))
        return tokens

    def mean_nll(self, ids: list[int]) -> float:
        """Mean negative log-likelihood of ids[1:], each given those before it."""
        self.reset()
        logits = self.forward(ids[:-1]).astype(np.float64)
        top = logits.max(axis=-1)
        normalizer = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
        return float(np.mean(normalizer - logits[np.arange(len(ids) - 1), ids[1:]]))
