"""What ptxas made of the loop over k of the wgmma GEMM: as few instructions as it is written for.
They are what limits a GEMM of 16 to 64 tokens, and with many a change of the kernel ptxas copies
descriptors or works them out in each lane, 10 to 40 instructions more, and says nothing.

    sm90_sass_test.py CUOBJDUMP "OBJECT;OBJECT;..."
"""

import re
import sys
import unittest
from pathlib import Path

from sass import cuobjdump, functions

CUOBJDUMP, OBJECTS = sys.argv[1], sys.argv[2].split(";")

KERNEL = re.compile(r"wgmma_gemmILi(\d+)ELi(\d+)ELb(\d)ELNS0_4WideE(\d)")
LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", re.MULTILINE)
BRANCH = re.compile(r"\bBRA(?:\.\w+)* .*?(0x[0-9a-f]+)")
PRODUCTS = 8  # of 16 k in a step
# By Wide, bf16 and fp16, whose codes take twice the instructions to widen. 154 to 172 where this was
# written, 180 to 204 before.
MOST = {"0": 176, "1": 244}
KERNELS = 22


def loop(code: str) -> list[str]:
    """The instructions of the shortest loop that has all products."""
    lines = [(int(at, 16), text) for at, text in LINE.findall(code)]
    index = {at: i for i, (at, _) in enumerate(lines)}
    loops = []
    for end, (at, text) in enumerate(lines):
        branch = BRANCH.search(text)
        if branch is None or int(branch[1], 16) >= at:
            continue
        body = [t for _, t in lines[index[int(branch[1], 16)] : end + 1]]
        if sum("HGMMA" in t for t in body) >= PRODUCTS:
            loops.append(body)
    return min(loops, key=len)


class Sm90Sass(unittest.TestCase):
    def test_a_step_takes_few_instructions(self) -> None:
        (unit,) = (f for f in OBJECTS if Path(f).name == "gemm_wgmma.cu.o")
        kernels = 0
        for name, code in functions(cuobjdump(CUOBJDUMP, "-sass", unit)).items():
            kernel = KERNEL.search(name)
            if kernel is None:
                continue
            kernels += 1
            body = loop(code)
            self.assertEqual(sum("HGMMA" in t for t in body), PRODUCTS, name)
            self.assertLessEqual(len(body), MOST[kernel[4]], name)
            self.assertNotRegex(code, r"\b(LDL|STL)\b", name)
        self.assertEqual(kernels, KERNELS)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
