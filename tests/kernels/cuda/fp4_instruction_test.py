"""The quantizers of the Blackwell builds use the chip's own conversion to e2m1, the others do not.

    fp4_instruction_test.py NVCC SOURCE_DIR

Looks at the PTX of the smallest of the kernels: it is what ptxas makes machine code of, and the
instruction has no expansion there. (Disassembling the objects would need cuobjdump, which a CUDA
compiler comes without.)
"""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

NVCC, SOURCE_DIR = sys.argv[1], Path(sys.argv[2])
INSTRUCTION = "cvt.rn.satfinite.e2m1x2.f32"


def ptx(architecture: str) -> str:
    return subprocess.run(
        [NVCC, "-std=c++20", "-O3", "--fmad=false", f"-arch=compute_{architecture}", "-ptx",
         f"-I{SOURCE_DIR}/src", f"-I{SOURCE_DIR}/include",
         SOURCE_DIR / "src/kernels/cuda/quantize_small.cu", "-o", "-"],
        check=True, capture_output=True, text=True).stdout


class Fp4Instruction(unittest.TestCase):
    def test_blackwell_families_have_it(self) -> None:
        for architecture in ("100f", "120f"):
            # Every kernel: 4 for each 8 elements; lanes of 8 and of 16, bf16 and fp16.
            self.assertEqual(ptx(architecture).count(INSTRUCTION), 2 * (4 + 8), architecture)

    def test_hopper_rounds_in_software(self) -> None:
        self.assertNotIn("e2m1x2", ptx("90"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
