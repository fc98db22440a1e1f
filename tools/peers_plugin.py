"""Nibble's GEMM for benchmarks in PyTorch that take plugins: NAME, VERSION, prepare, clone, nbytes,
run. NIBBLE_LIBRARY names libnibble.so (built with CUDA), PYTHONPATH this folder.

    prepare(codes[N, K/2] u8, low nibble = even k; scales[N, K/16] e4m3; g[1] f32) -> handle
    run(handle, x[M, K] bf16, out[M, N] bf16): on PyTorch's current stream
"""

from __future__ import annotations

import os

import torch
from nibble_capi import BF16, Library

NAME, VERSION, MAX_M = "nibble", os.environ.get("NIBBLE_COMMIT", ""), 8192
CUDA_STREAM_LEGACY = 1

_nibble = Library(os.environ.get("NIBBLE_LIBRARY", "libnibble.so"))
_device = _nibble.create("device_create_cuda", torch.cuda.current_device())
_stream = None


class Handle:
    """A prepared weight with its plan; freed with the process."""

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, g: float) -> None:
        self.codes, self.scales, self.g = codes, scales, g
        n, k = codes.shape[0], codes.shape[1] * 2
        self.weight = _nibble.weight(_device, n, k, codes.data_ptr(), scales.data_ptr(), g)
        self.gemm = _nibble.gemm(_device, self.weight, MAX_M, BF16)


def prepare(codes: torch.Tensor, scales: torch.Tensor, g: torch.Tensor) -> Handle:
    return Handle(codes.cpu().contiguous(), scales.view(torch.uint8).cpu().contiguous(), float(g))


def clone(handle: Handle) -> Handle:
    return Handle(handle.codes, handle.scales, handle.g)


def nbytes(handle: Handle) -> int:
    return _nibble.lib.nibble_weight_bytes(handle.weight)


def run(handle: Handle, x: torch.Tensor, out: torch.Tensor) -> None:
    global _stream
    stream = torch.cuda.current_stream().cuda_stream or CUDA_STREAM_LEGACY
    if stream != _stream:
        _nibble.call("device_use_stream", _device, stream)
        _stream = stream
    _nibble.call("gemm_run", handle.gemm, x.data_ptr(), x.stride(0), out.data_ptr(),
                 out.stride(0), x.shape[0])
