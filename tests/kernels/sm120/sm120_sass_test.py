"""What nvcc made of the sm_120 kernels: every product is the chip's block-scaled MMA, none spills.

    sm120_sass_test.py CUOBJDUMP "OBJECT;OBJECT;..."
"""

import re
import sys
import unittest
from pathlib import Path

from sass import cuobjdump, functions

CUOBJDUMP, OBJECTS = sys.argv[1], sys.argv[2].split(";")

# By the policy's WeightFormat, as it is mangled: NVFP4 and MXFP4.
INSTRUCTION = {"3": "OMMA.SF.16864.F32.E2M1.E2M1.UE4M3.4X", "4": "OMMA.SF.16864.F32.E2M1.E2M1.E8"}
KERNEL = re.compile(
    r"block_scaled_gemmINS0_11HardwareMmaILNS_12WeightFormatE(\d)EEELi(\d+)ELi\d+EE"
)
TOKEN_TILES = {1, 2, 4, 8, 16}


class Sm120Sass(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        (cls.object,) = (f for f in OBJECTS if "gemm_hardware" in Path(f).name)

    def test_every_kernel_multiplies_with_the_block_scaled_instruction(self) -> None:
        sass = cuobjdump(CUOBJDUMP, "-sass", self.object)
        self.assertEqual(set(re.findall(r"arch = (\S+)", sass)), {"sm_120f"})
        seen = set()
        for name, code in functions(sass).items():
            self.assertNotRegex(code, r"\b(LDL|STL)\b", name)
            kernel = KERNEL.search(name)
            if kernel is None:
                self.assertNotIn("MMA", code, name)
                continue
            weight_format, token_tiles = kernel.group(1), int(kernel.group(2))
            seen.add((weight_format, token_tiles))
            # Two steps of 64 in a block of 128, each once: the loop is not unrolled.
            found = re.findall(r"\b\w*MMA\.\S+", code)
            self.assertEqual(found, [INSTRUCTION[weight_format]] * 2 * token_tiles, name)
        self.assertEqual(seen, {(f, t) for f in INSTRUCTION for t in TOKEN_TILES})

    def test_nothing_lives_on_a_stack(self) -> None:
        usage = functions(cuobjdump(CUOBJDUMP, "-res-usage", self.object))
        self.assertGreaterEqual(len(usage), len(INSTRUCTION) * len(TOKEN_TILES))
        for name, line in usage.items():
            self.assertIn("STACK:0 ", line, name)
            self.assertIn("LOCAL:0 ", line, name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
