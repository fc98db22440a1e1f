"""What nvcc made of CUTLASS's kernels: each unit is for its chips, every kernel multiplies with its
format's block-scaled instruction, has griddepcontrol.wait, and keeps its sums in registers.
(Where CUTLASS finds its chip's instructions switched off it compiles all the same, and traps.)

    cutlass_sass_test.py CUOBJDUMP "OBJECT;OBJECT;..."
"""

import re
import sys
import unittest
from collections import Counter
from pathlib import Path

from sass import cuobjdump

CUOBJDUMP, OBJECTS = sys.argv[1], sys.argv[2].split(";")

OMMA = "OMMA.SF.16864.F32.E2M1.E2M1"
# By unit: its architecture, and how many kernels multiply with what.
UNITS = {
    "sm100_nvfp4": ("sm_100f", {"UTCOMMA.4X": 2, "UTCOMMA.2CTA.4X": 2}),
    "sm100_others": ("sm_100f", {"UTCOMMA.4X": 1, "UTCOMMA": 1, "UTCOMMA.2CTA": 1}),
    "sm103_nvfp4": ("sm_103a", {"UTCOMMA.2CTA.BLOCK16": 2}),
    "sm120_all": ("sm_120f", {f"{OMMA}.UE4M3.4X": 2, f"{OMMA}.E8": 1}),
}


class CutlassSass(unittest.TestCase):
    def test_every_unit_is_here(self) -> None:
        objects = {Path(f).name.removesuffix(".cu.o") for f in OBJECTS if f.endswith(".cu.o")}
        self.assertEqual(objects, set(UNITS))

    def test_kernels_multiply_with_the_block_scaled_instruction(self) -> None:
        for unit, (architecture, expected) in UNITS.items():
            (file,) = (f for f in OBJECTS if Path(f).name == f"{unit}.cu.o")
            sass = cuobjdump(CUOBJDUMP, "-sass", file)
            self.assertEqual(set(re.findall(r"arch = (\S+)", sass)), {architecture})
            found: Counter[str] = Counter()
            for kernel in re.split(r"^\s*Function : ", sass, flags=re.MULTILINE)[1:]:
                name, code = kernel.split("\n", 1)
                self.assertNotRegex(code, r"\b(LDL|STL)\b", name)
                self.assertRegex(code, r"\bACQBULK\b", name)
                (instruction,) = set(re.findall(r"\b(?:UTC)?\w*MMA[\w.]*", code))
                found[instruction] += 1
            self.assertEqual(found, expected, unit)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
