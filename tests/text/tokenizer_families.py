"""tokenizer.json files of the families that Nibble reads, trained small with PyPI's `tokenizers`."""

from __future__ import annotations

import copy
import json
from typing import Any

from text_cases import texts
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Json = dict[str, Any]

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]
VOCAB_SIZE = 2500

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = BYTE_LEVEL | {"use_regex": False}


def _corpus() -> list[str]:
    return [t.decode("utf-8", "replace") for t in texts(8000, [], seed=7)]


def _train(pre_tokenizer: Any, special: list[str], alphabet: list[str], unk: str | None) -> Json:
    tokenizer = Tokenizer(models.BPE(unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, initial_alphabet=alphabet,
        limit_alphabet=len(alphabet) or 300, show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(), trainer)
    return json.loads(tokenizer.to_str())


def _split(pattern: str, behavior: str = "Isolated", invert: bool = False, kind: str = "Regex") -> Json:
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def _sequence(*stages: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(stages)}


def _added(content: str, token_id: int, **flags: bool) -> Json:
    defaults = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {"id": token_id, "content": content} | defaults | flags


def _bos_template(name: str, token_id: int) -> Json:
    bos, text = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing", "single": [bos, text],
        "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}},
    }  # fmt: skip


def byte_level_families() -> dict[str, Json]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    base = _train(pre_tokenizers.ByteLevel(add_prefix_space=False), CHAT, alphabet, None)
    base["decoder"] = BYTE_LEVEL
    families: dict[str, Json] = {}

    def family(name: str, **changes: Any) -> Json:
        families[name] = copy.deepcopy(base) | changes
        return families[name]

    digits = {"type": "Digits", "individual_digits": True}
    family("smollm2", pre_tokenizer=_sequence(digits, BYTE_LEVEL))
    llama3 = family(
        "llama3", pre_tokenizer=_sequence(_split(LLAMA3_PATTERN), BYTES_ONLY),
        post_processor={"type": "Sequence", "processors": [BYTE_LEVEL, _bos_template(CHAT[0], 0)]},
    )  # fmt: skip
    llama3["model"]["ignore_merges"] = True
    # Words that no merge can reach, which ignore_merges takes whole.
    for word in ("Ġnaturally", "ðŁĺĢ"):
        llama3["model"]["vocab"].setdefault(word, len(llama3["model"]["vocab"]))
    family("qwen2", normalizer={"type": "NFC"}, pre_tokenizer=_sequence(_split(QWEN_PATTERN), BYTES_ONLY))
    qwen3 = family("qwen3", normalizer={"type": "NFC"}, pre_tokenizer=_sequence(_split(QWEN_PATTERN), BYTES_ONLY))
    qwen3["added_tokens"] += [_added("<think>", len(qwen3["model"]["vocab"]), special=False)]
    qwen3["model"]["merges"] = [" ".join(m) for m in qwen3["model"]["merges"]]  # the older spelling
    family("o200k", pre_tokenizer=_sequence(_split(O200K_PATTERN), BYTES_ONLY))

    forms = family("lower", pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True})
    forms["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
    size = len(forms["model"]["vocab"])
    forms["added_tokens"] += [
        _added("<Left>", size, lstrip=True), _added("<RIGHT>", size + 1, rstrip=True),
        _added("Thése", size + 2, single_word=True, special=False),
        _added("Café", size + 3, normalized=True, special=False, lstrip=True, rstrip=True),
        _added("Withal", size + 4, normalized=True, single_word=True, special=False),
        _added("   ", size + 5, special=False),
    ]  # fmt: skip
    for form in ("NFD", "NFKD"):
        family(form.lower(), normalizer={"type": form}, pre_tokenizer=_sequence(digits, BYTE_LEVEL))
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            split = _split(r"\s|\p{P}|\d*", behavior, invert)
            name = f"{behavior}{'Inverted' if invert else ''}"
            family(name, pre_tokenizer=_sequence(split, _split("e", behavior, invert, "String"), BYTES_ONLY))
    family("words", pre_tokenizer=_sequence(_split(r"\w+|\W"), {"type": "Digits", "individual_digits": False}, BYTES_ONLY))
    family("whitespace", pre_tokenizer=_sequence({"type": "Whitespace"}, BYTES_ONLY))
    family("whitespace_split", pre_tokenizer=_sequence({"type": "WhitespaceSplit"}, BYTES_ONLY))
    return families


def sentencepiece_families() -> dict[str, Json]:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    base = _train(pre_tokenizers.Metaspace(), special, [], "<unk>")
    base["added_tokens"] = base["added_tokens"][:3]
    base["model"] |= {"byte_fallback": True, "fuse_unk": True}
    base["post_processor"] = _bos_template("<s>", 1)
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    base["decoder"] = {
        "type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
    }  # fmt: skip
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}
    families = {"llama2": base | {"normalizer": prepend, "pre_tokenizer": None}}
    for scheme, split in (("first", False), ("always", True), ("never", True)):
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        families[f"metaspace_{scheme}"] = base | {"pre_tokenizer": metaspace, "decoder": metaspace}

    unknown = copy.deepcopy(families["metaspace_always"])
    unknown["model"] |= {"byte_fallback": False, "fuse_unk": False}
    families["unk"] = unknown | {"decoder": None}
    fused = copy.deepcopy(unknown)
    fused["model"]["fuse_unk"] = True
    families["unk_fused"] = fused
    families["unicode_spaces"] = base | {
        "normalizer": {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": "▁"},
        "pre_tokenizer": None, "decoder": None,
    }  # fmt: skip
    return families

