"""The C ABI of nibble/nibble.h for Python, as far as the tools and tests need it."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p

F32, F16, BF16 = 0, 1, 2
NVFP4, MXFP4 = 3, 4
ACTIVATION_16BIT = 1


class NibbleError(RuntimeError):
    """What nibble_last_error() says."""


class WeightDesc(ctypes.Structure):
    _fields_ = [("format", c_int), ("n", c_int64), ("k", c_int64), ("codes", c_void_p),
                ("scales", c_void_p), ("num_segments", c_int64), ("segment_begin", c_void_p),
                ("decode_scales", POINTER(c_float)), ("gate_up", c_int)]


class GemmOptions(ctypes.Structure):
    _fields_ = [("max_m", c_int64), ("a_type", c_int), ("d_type", c_int), ("activation", c_int),
                ("add", c_int), ("bias", c_void_p), ("a_layout", c_void_p),
                ("d_layout", c_void_p), ("d_reader", c_void_p)]


class Library:
    def __init__(self, path: str) -> None:
        self.lib = ctypes.CDLL(path)
        for name, result, arguments in (
                ("last_error", c_char_p, []),
                ("weight_bytes", c_size_t, [c_void_p]),
                ("weight_free", None, [c_void_p]),
                ("gemm_free", None, [c_void_p]),
                ("gemm_run", c_int, [c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_int64]),
                ("device_use_stream", c_int, [c_void_p, c_void_p]),
                ("device_use_pdl", c_int, [c_void_p, c_int]),
                ("gemm_kernel", c_char_p, [c_void_p, c_int64])):
            function = getattr(self.lib, "nibble_" + name)
            function.restype, function.argtypes = result, arguments

    def call(self, name: str, *args: object) -> None:
        """nibble_<name>(*args); raises NibbleError unless it returns NIBBLE_OK."""
        if getattr(self.lib, "nibble_" + name)(*args) != 0:
            raise NibbleError(self.lib.nibble_last_error().decode())

    def create(self, name: str, *args: object) -> c_void_p:
        """The handle that nibble_<name>(*args, &handle) makes."""
        handle = c_void_p()
        self.call(name, *args, ctypes.byref(handle))
        return handle

    def weight(self, device: c_void_p, n: int, k: int, codes: int, scales: int,
               decode_scale: float) -> c_void_p:
        """NVFP4 with one global scale, from the addresses of its host memory."""
        scale = c_float(decode_scale)
        desc = WeightDesc(NVFP4, n, k, codes, scales, 0, None, ctypes.pointer(scale), 0)
        return self.create("weight_create", ctypes.byref(desc), device, ACTIVATION_16BIT)

    def gemm(self, device: c_void_p, weight: c_void_p, max_m: int, dtype: int) -> c_void_p:
        options = GemmOptions(max_m, dtype, dtype, ACTIVATION_16BIT)
        return self.create("gemm_create", weight, device, ctypes.byref(options))
