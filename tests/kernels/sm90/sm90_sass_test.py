"""What ptxas made of the loop over k of the wgmma GEMM. As few instructions as it is written for:
they are what limits a GEMM of 16 to 64 tokens, and with many a change of the kernel ptxas copies
descriptors or works them out in each lane, 10 to 40 instructions more, and says nothing; or, short
of registers, waits for each product by itself, which it says nowhere that stops a build. And no
register written that a product under way may still read: ptxas of CUDA 13.0 did that where batches
of four products were waited for one batch later than they are, and 22 of 300 results were wrong.
Nor a loop whose end waits for weights that it has just asked for: of six scoreboards ptxas may give
a load's to the address that it reads, which took 8 % of 40 tokens.

    sm90_sass_test.py CUOBJDUMP "OBJECT;OBJECT;..."
"""

import re
import sys
import unittest
from pathlib import Path

from sass import cuobjdump, functions

CUOBJDUMP, OBJECTS = sys.argv[1], sys.argv[2].split(";")

UNITS = ("gemm_wgmma_bf16.cu.o", "gemm_wgmma_f16.cu.o")
KERNEL = re.compile(r"wgmma_gemm(_mixed)?ILi\d+ELi\d+ELi\d+(?:ELb\d)?ELNS0_4WideE(\d)")
# An instruction's 16 bytes stand behind it, in two lines; from bit 105 on they hold the clocks it
# stalls (4 bits), the scoreboards it sets when it has written and when it has read (3 each, 7: none)
# and a mask of those it waits for.
LINE = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\* 0x\w{16} \*/\s*/\* (0x\w{16}) \*/", re.MULTILINE
)
BRANCH = re.compile(r"\bBRA(?:\.\w+)* .*?(0x[0-9a-f]+)")
PRODUCT = re.compile(r"HGMMA\S* R\d+, R(\d+),")
WAIT = re.compile(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x(\w)")
WRITES = re.compile(r"(?:@!?U?P\d )?(?!HGMMA|ST|RED|SYNCS)([A-Z]\S*) R(\d+)\b")
PRODUCTS = 8  # of 16 k in a step
# More instructions where each of them is two (208 and 224 tokens) or three (216), with operands of
# their own.
MORE = {PRODUCTS: 0, 2 * PRODUCTS: 16, 3 * PRODUCTS: 70}
# Clocks, about what a load from shared memory takes. 6 and 7 where it went wrong, else 40 and more.
SOON = 30
# By Wide, bf16 and fp16, whose codes take twice the instructions to widen. 155 to 165 and 221 to 231
# where this was written.
MOST = {"0": 168, "1": 234}
KERNELS = 2 * (51 + 11)  # kWgmmaKernels, kWgmmaMixes


def loops_of(code: str) -> list[list[tuple[str, int]]]:
    """The instructions and their scheduling, of the shortest loops that have all products of a
    step. A kernel with two kinds of tiles has two."""
    lines = [(int(at, 16), text, int(high, 16) >> 41) for at, text, high in LINE.findall(code)]
    index = {at: i for i, (at, _, _) in enumerate(lines)}
    loops = []
    for end, (at, text, _) in enumerate(lines):
        branch = BRANCH.search(text)
        if branch is None or int(branch[1], 16) >= at:
            continue
        begin = index[int(branch[1], 16)]
        if sum("HGMMA" in t for _, t, _ in lines[begin : end + 1]) >= PRODUCTS:
            loops.append((end - begin, begin, end))
    shortest: list[tuple[int, int, int]] = []
    for length, begin, end in sorted(loops):
        if all(end < b or begin > e for _, b, e in shortest):
            shortest.append((length, begin, end))
    return [[line[1:] for line in lines[begin : end + 1]] for _, begin, end in shortest]


def waited_too_soon(body: list[tuple[str, int]]) -> list[str]:
    """Loads from shared memory whose data the loop waits for before it ends, and too soon."""
    found = []
    for i, (load, scheduling) in enumerate(body):
        scoreboard, clocks = scheduling >> 5 & 7, scheduling & 15
        if "LDS" not in load or scoreboard == 7:
            continue
        for text, scheduling in body[i + 1 :]:
            if scheduling >> 11 >> scoreboard & 1:
                if clocks < SOON:
                    found.append(f"{text} {clocks} clocks behind {load}")
                break
            clocks += max(1, scheduling & 15)
    return found


def overwritten(body: list[str]) -> list[str]:
    """What writes a register of weights of a product that may be under way, in two turns of the
    loop. A batch of products ends with gsb0, and DEPBAR waits until at most so many are left."""
    found, batches, batch = [], [], []
    for text in body * 2:
        if product := PRODUCT.match(text):
            batch.append(int(product[1]))
            if "gsb0" in text:
                batches.append(batch)
                batch = []
        elif wait := WAIT.match(text):
            batches = batches[len(batches) - int(wait[1], 16) :] if int(wait[1], 16) else []
        elif writes := WRITES.match(text):
            first, count = int(writes[2]), 4 if ".128" in writes[1] else 2 if ".64" in writes[1] else 1
            for weights in sum(batches, batch):
                if first < weights + 4 and weights < first + count:
                    found.append(f"{text} while {weights} is read")
    return found


class Sm90Sass(unittest.TestCase):
    def test_finds_overwritten_weights(self) -> None:
        product = "HGMMA.64x16x16.F32.BF16 R24, R40, gdesc[UR20], R24, gsb0"
        wait = "WARPGROUP.DEPBAR.LE gsb0, 0x1"
        load = "@P1 LDS.128 R36, [R8]"
        self.assertEqual(overwritten([product, wait, "LDS.128 R44, [R8]"]), [])
        self.assertEqual(overwritten([product, "WARPGROUP.DEPBAR.LE gsb0, 0x0", "LDS R40, [R8]"]), [])
        self.assertTrue(overwritten([product, wait, "HMUL2.BF16_V2 R43, R2, R3"]))
        self.assertTrue(overwritten(["LDS.64 R39, [R8]", product, wait]))
        self.assertEqual(overwritten([product, product.replace("R40", "R48"), wait, load]), [])

    def test_finds_loads_waited_for(self) -> None:
        def scheduling(stall: int, written: int, waits: int) -> int:
            return stall | written << 5 | 7 << 8 | waits << 11

        load = ("LDS.128 R12, [R21]", scheduling(2, 1, 0))
        add = ("VIADD R20, R20, 0xffffffff", scheduling(15, 7, 0))
        use = ("IMAD R21, R76, 0x8, R7", scheduling(8, 7, 0b000010))
        self.assertTrue(waited_too_soon([load, add, use]))
        self.assertEqual(waited_too_soon([load, add, add, use]), [])
        self.assertEqual(waited_too_soon([use, load, add]), [])
        self.assertEqual(waited_too_soon([load, ("BRA 0x10", scheduling(5, 7, 0b000100))]), [])

    def test_a_step_takes_few_instructions(self) -> None:
        units = [f for f in OBJECTS if Path(f).name in UNITS]
        self.assertEqual(len(units), len(UNITS))
        code_of = {}
        for unit in units:
            code_of |= functions(cuobjdump(CUOBJDUMP, "-sass", unit))
        kernels = 0
        for name, code in code_of.items():
            kernel = KERNEL.search(name)
            if kernel is None:
                continue
            kernels += 1
            bodies = loops_of(code)
            self.assertEqual(len(bodies), 2 if kernel[1] else 1, name)
            for loop in bodies:
                body = [text for text, _ in loop]
                self.assertEqual(waited_too_soon(loop), [], name)
                products = sum("HGMMA" in t for t in body)
                self.assertIn(products, MORE, name)
                self.assertLessEqual(len(body), MOST[kernel[2]] + MORE[products], name)
                self.assertEqual(overwritten(body), [], name)
                self.assertNotIn("WARPGROUP.DEPBAR.LE gsb0, 0x0", body, name)
            self.assertNotRegex(code, r"\b(LDL|STL)\b", name)
        self.assertEqual(kernels, KERNELS)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
