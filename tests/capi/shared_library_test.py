"""libnibble.so as another language finds it: shared_library_test.py LIBRARY."""

from __future__ import annotations

import subprocess
import sys
import unittest

import numpy as np
from nibble_capi import F32, Library, NibbleError

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
N, K, M = 48, 64, 5


class SharedLibraryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.nibble = Library(LIBRARY)
        self.device = self.nibble.create("device_create_cpu", 1)

    def test_exports_the_header_and_nothing_else(self) -> None:
        out = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True,
                             text=True, check=True).stdout
        names = [line.split()[-1] for line in out.splitlines()]
        self.assertIn("nibble_gemm_run", names)
        self.assertEqual([n for n in names if not n.startswith("nibble_")], [])

    def test_multiplies(self) -> None:
        random = np.random.default_rng(1)
        codes = random.integers(0, 256, (N, K // 2), np.uint8)
        scales = random.integers(0x30, 0x40, (N, K // 16), np.uint8)  # e4m3: 0.5 to 1.875
        decoded = np.stack([E2M1[codes & 15], E2M1[codes >> 4]], -1).reshape(N, K)
        values = (1 + (scales & 7) / 8) * 2.0 ** ((scales >> 3).astype(int) - 7)
        weights = decoded * np.repeat(values, 16, 1) * 0.25
        a = random.standard_normal((M, K)).astype(np.float32)
        d = np.full((M, N), np.nan, np.float32)
        weight = self.nibble.weight(self.device, N, K, codes.ctypes.data, scales.ctypes.data, 0.25)
        gemm = self.nibble.gemm(self.device, weight, M, F32)
        self.nibble.lib.nibble_weight_free(weight)
        self.nibble.call("gemm_run", gemm, a.ctypes.data, 0, d.ctypes.data, 0, M)
        np.testing.assert_allclose(d, a @ weights.T, rtol=1e-4, atol=1e-4)
        with self.assertRaisesRegex(NibbleError, "a is null"):
            self.nibble.call("gemm_run", gemm, None, 0, d.ctypes.data, 0, M)
        self.nibble.lib.nibble_gemm_free(gemm)

    def test_a_stream_is_refused_on_a_cpu(self) -> None:
        with self.assertRaisesRegex(NibbleError, "not a CUDA device"):
            self.nibble.call("device_use_stream", self.device, 1)

    def test_pdl_is_refused_on_a_cpu(self) -> None:
        with self.assertRaisesRegex(NibbleError, "use_pdl: .* is not a CUDA device"):
            self.nibble.call("device_use_pdl", self.device, 1)


if __name__ == "__main__":
    LIBRARY = sys.argv.pop(1)
    unittest.main(verbosity=2)
