"""Block quantizers and casts against numpy and ml_dtypes, bit for bit.

The expected values are computed from the definition of the formats: each step a numpy float32
operation, the narrow types' rounding done by ml_dtypes' casts, the searches by trying every scale in
double precision. Usage: quantize_oracle_test.py FORMATS_DRIVER
"""

import subprocess
import sys
import unittest

import ml_dtypes
import numpy as np

F32 = np.float32
DTYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
GLOBAL_DECODE_SCALE = F32(0.3)  # what the driver dequantizes with
DRIVER = ""

np.seterr(all="ignore")


def run(args: list[str], data: bytes) -> bytes:
    return subprocess.run([DRIVER, *args], input=data, stdout=subprocess.PIPE, check=True).stdout


def cast_e2m1(y: np.ndarray) -> np.ndarray:
    """Codes of float32 values: NaN has no e2m1 code and becomes +6."""
    codes = np.clip(y, F32(-6), F32(6)).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF
    return np.where(np.isnan(y), np.uint8(7), codes)


def cast_e4m3(v: np.ndarray) -> np.ndarray:
    codes = np.clip(v, F32(-448), F32(448)).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return np.where(np.isnan(v), np.uint8(0x7F), codes)


def amax_of(x: np.ndarray) -> np.ndarray:
    return np.fmax.reduce(np.abs(x), axis=1, initial=F32(0)).astype(F32)


def nvfp4_codes(x: np.ndarray, gs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    value = scales.view(ml_dtypes.float8_e4m3fn).astype(F32)
    factor = np.minimum(gs / value, np.finfo(F32).max)
    factor = np.where(scales == 0, F32(0), factor).astype(F32)
    return cast_e2m1(x * factor[:, None])


def mxfp4_codes(x: np.ndarray, scales: np.ndarray) -> np.ndarray:
    # In double, so that the division by a subnormal scale is exact whatever the size of x.
    with_scale = x.astype(np.float64) / np.exp2(scales.astype(np.float64) - 127)[:, None]
    return cast_e2m1(with_scale.astype(F32))


def mxfp4_scales(amax: np.ndarray, rule: str) -> np.ndarray:
    a = amax.astype(np.float64)
    if rule == "ceil":
        exponent = np.ceil(np.log2(a / 6))
    elif rule == "floor":
        exponent = np.floor(np.log2(a)) - 2
    else:
        mantissa, e = np.frexp(a)  # in [0.5, 1)
        # Rounded half up to one bit after the leading one, 0.875 and more become 1.
        exponent = np.where(mantissa >= 0.875, e, e - 1) - 2
    b = np.where(a == 0, 0, np.clip(np.nan_to_num(exponent) + 127, 0, 254))
    return np.where(np.isinf(a), 254, b).astype(np.uint8)


def unpack(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed & 0xF, packed >> 4], axis=2).reshape(len(packed), -1)


def mixed_blocks(rng: np.random.Generator, count: int, size: int, spread: float) -> np.ndarray:
    """Blocks of random kinds, magnitudes 2^-spread to 2^spread, one in four with odd elements."""
    x = rng.standard_normal((count, size))
    kind = rng.integers(0, 4, count)[:, None]
    grid = rng.choice(E2M1, (count, size)) + rng.choice([0, 0.25, 0.5, 1], (count, size))
    x = np.choose(kind, [x, x**3, grid, np.round(x * 4) / 4])
    unit = np.exp2(rng.uniform(-spread, spread, (count, 1)))
    x = x * np.where(kind >= 2, np.exp2(np.round(np.log2(unit))), unit)
    odd = np.array([0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 1.1754944e-38, 6e-8, 65504, -65504,
                    3.4028235e38, -3.4028235e38, np.inf, -np.inf, np.nan, -np.nan])
    where = rng.random((count, size)) < np.where(rng.random((count, 1)) < 0.25, 0.1, 0)
    x = np.where(where, rng.choice(odd, (count, size)), x)
    x[: min(count, 64)] = 0
    x[16:32] *= -1
    x[32:64, 3] = odd[np.arange(32) % len(odd)]
    return x.astype(F32)


class Oracle(unittest.TestCase):
    def setUp(self) -> None:
        self.rng = np.random.default_rng(20251121)

    def same(self, got: np.ndarray, expected: np.ndarray, what: str) -> None:
        self.assertEqual(got.shape, expected.shape)
        bad = np.argwhere(got != expected)
        if len(bad):
            at = tuple(bad[0])
            self.fail(f"{what}: {len(bad)} of {got.size} differ, first at {at}: "
                      f"got {got[at]}, expected {expected[at]}")

    def same_floats(self, got: np.ndarray, expected: np.ndarray, what: str) -> None:
        nan = np.isnan(expected)
        self.same(np.isnan(got), nan, what)
        self.same(got[~nan].view(np.uint32), expected[~nan].astype(F32).view(np.uint32), what)

    def blocks(self, count: int, size: int, dtype: str, spread: float) -> np.ndarray:
        x = mixed_blocks(self.rng, count, size, spread).astype(DTYPES[dtype])
        self.assertGreater(np.isnan(x.astype(F32)).sum(), 0)
        return x

    def nvfp4(self, method: str, dtype: str, x: np.ndarray, gs: np.ndarray):
        size = 16 * x.dtype.itemsize
        records = np.empty((len(x), 4 + size), np.uint8)
        records[:, :4] = gs[:, None].view(np.uint8)
        records[:, 4:] = x.view(np.uint8)
        out = np.frombuffer(run(["nvfp4", method, dtype], records.tobytes()), np.uint8)
        out = out.reshape(len(x), 1 + 8 + 64)
        scales, codes = out[:, 0].copy(), unpack(out[:, 1:9])
        value = scales.view(ml_dtypes.float8_e4m3fn).astype(F32)[:, None]
        exact = E2M1[codes].astype(F32) * value
        self.same_floats(out[:, 9:].copy().view(F32), exact * GLOBAL_DECODE_SCALE, "dequantized")
        return scales, codes

    def mxfp4(self, method: str, dtype: str, x: np.ndarray):
        out = np.frombuffer(run(["mxfp4", method, dtype], x.tobytes()), np.uint8)
        out = out.reshape(len(x), 1 + 16 + 128)
        scales, codes = out[:, 0].copy(), unpack(out[:, 1:17])
        exact = E2M1[codes] * np.exp2(scales.astype(np.float64) - 127)[:, None]
        self.same_floats(out[:, 17:].copy().view(F32), exact.astype(F32), "dequantized")
        return scales, codes

    def global_scales(self, x: np.ndarray) -> np.ndarray:
        """A third from the blocks' own amax, a third of any size, a third close to 1."""
        amax = amax_of(x.astype(F32))
        own = np.where((amax > 1e-30) & np.isfinite(amax), F32(2688) / amax, F32(1))
        wild = np.exp2(self.rng.uniform(-126, 127, len(x))).astype(F32)
        near = np.exp2(self.rng.uniform(-3, 3, len(x))).astype(F32)
        return np.choose(self.rng.integers(0, 3, len(x)), [own, wild, near]).astype(F32)

    def test_casts(self) -> None:
        bits = self.rng.integers(0, 2**32, 1 << 20, dtype=np.uint64).astype(np.uint32)
        near = (self.rng.standard_normal(1 << 19) * 8).astype(F32)
        values = np.concatenate([bits.view(F32), near, np.round(near * 64) / F32(64),
                                 near * F32(2**-12), near * F32(2**-20), near * F32(2**12)])
        data = values.tobytes()
        nan = np.isnan(values)
        expected = {
            "e2m1": cast_e2m1(values).astype(np.uint16),
            "e4m3": cast_e4m3(values).astype(np.uint16),
            "bf16": values.astype(ml_dtypes.bfloat16).view(np.uint16),
            "fp16": values.astype(np.float16).view(np.uint16),
        }
        for kind, codes in expected.items():
            got = np.frombuffer(run(["cast", kind], data), np.uint16)
            # Libraries differ in the payload they leave in a 16-bit NaN; C++ tests pin ours.
            care = ~nan if kind in ("bf16", "fp16") else np.ones_like(nan)
            self.same(got[care], codes[care], kind)

    def test_global_scales(self) -> None:
        amax = np.exp2(self.rng.uniform(-100, 128, 200000)).astype(F32)
        amax = np.concatenate([amax, F32([0, np.inf, np.nan, 3.4028235e38])])
        usable = np.isfinite(amax) & (amax > 0)
        for scale_max in (448, 256):
            got = np.frombuffer(run(["global", str(scale_max)], amax.tobytes()), F32)
            limit = F32(6 * scale_max)
            self.same(got[0::2], np.where(usable, limit / amax, F32(1)), "encode")
            self.same(got[1::2], np.where(usable, amax / limit, F32(1)), "decode")

    def test_nvfp4_rtn(self) -> None:
        for dtype, spread in (("f32", 120), ("f32", 6), ("bf16", 120), ("bf16", 6), ("f16", 12)):
            x = self.blocks(40000, 16, dtype, spread)
            gs = self.global_scales(x)
            scales, codes = self.nvfp4("rtn", dtype, x, gs)
            wide = x.astype(F32)
            ideal = gs * (amax_of(wide) * F32(1 / 6))
            expected = cast_e4m3(ideal)
            self.same(scales, expected, f"{dtype} scales")
            self.same(codes, nvfp4_codes(wide, gs, expected), f"{dtype} codes")

    def test_nvfp4_order_of_operations(self) -> None:
        """Scales within two ulps of an e4m3 midpoint, where another order rounds differently."""
        count = 200000
        values = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        middle = self.rng.choice((values[1:] + values[:-1]) / 2, count)
        gs = np.exp2(self.rng.uniform(-20, 20, count)).astype(F32)
        amax = (middle * 6 / gs).astype(F32)
        amax = (amax.view(np.int32) + self.rng.integers(-2, 3, count).astype(np.int32)).view(F32)
        x = np.zeros((count, 16), F32)
        x[:, 5] = -amax
        expected = cast_e4m3(gs * (amax * F32(1 / 6)))
        for other in ((gs * amax) * F32(1 / 6), gs * (amax / F32(6)), (gs * F32(1 / 6)) * amax):
            self.assertGreater((cast_e4m3(other) != expected).sum(), 100)
        scales, codes = self.nvfp4("rtn", "f32", x, gs)
        self.same(scales, expected, "scales")
        self.same(codes, nvfp4_codes(x, gs, expected), "codes")

    def test_nvfp4_shapes(self) -> None:
        """Whole matrices with one global scale each, rows of odd lengths in blocks."""
        for rows, cols in ((1, 16), (3, 48), (7, 176), (128, 256), (33, 1040)):
            for dtype, kind in DTYPES.items():
                w = (self.rng.standard_normal((rows, cols)) * 0.02).astype(kind)
                wide = w.astype(F32)
                gs = np.full(rows * cols // 16, F32(2688) / np.abs(wide).max(), F32)
                blocks = wide.reshape(-1, 16)
                scales, codes = self.nvfp4("rtn", dtype, w.reshape(-1, 16), gs)
                expected = cast_e4m3(gs * (amax_of(blocks) * F32(1 / 6)))
                self.assertEqual(scales.max(), 0x7E)
                self.same(scales, expected, f"{dtype} {rows}x{cols} scales")
                self.same(codes, nvfp4_codes(blocks, gs, expected), f"{dtype} {rows}x{cols} codes")

    def nvfp4_errors(self, x: np.ndarray, gs: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Squared error of each block in double, for scales candidates[block, candidate]."""
        errors = []
        for scales in candidates.T:
            scales = np.ascontiguousarray(scales)
            value = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float64)[:, None]
            decoded = E2M1[nvfp4_codes(x, gs, scales)] * value
            target = x.astype(np.float64) * gs.astype(np.float64)[:, None]
            errors.append(((target - decoded) ** 2).sum(axis=1))
        return np.array(errors).T

    def check_search(self, method: str, candidates) -> None:
        for dtype in DTYPES:
            x = self.blocks(8000, 16, dtype, 10)
            wide = x.astype(F32)
            amax = amax_of(wide)
            gs = np.exp2(self.rng.uniform(-6, 6, len(x))).astype(F32)
            scales, codes = self.nvfp4(method, dtype, x, gs)
            self.same(codes, nvfp4_codes(wide, gs, scales), f"{dtype} codes")
            plain = cast_e4m3(gs * (amax * F32(1 / 6)))
            # Fp32 errors of huge blocks are all rounding: there the plain scale is kept.
            usable = np.isfinite(wide).all(axis=1) & (amax > 0) & (amax * gs < 2**14)
            self.same(scales[~usable], plain[~usable], f"{dtype} scales of odd blocks")
            self.assertGreater(usable.sum(), 4000)
            wide, gs, scales = wide[usable], gs[usable], scales[usable]
            tried = candidates(wide, gs)
            self.assertTrue((scales[:, None] == tried).any(axis=1).all())
            best = self.nvfp4_errors(wide, gs, tried).min(axis=1)
            chosen = self.nvfp4_errors(wide, gs, scales[:, None])[:, 0]
            worst = np.max((chosen - best) / np.maximum(best, (amax[usable] * gs) ** 2 * 1e-7))
            self.assertLess(worst, 1e-5, f"{dtype}: a better scale exists")
            self.assertGreater((scales != plain[usable]).mean(), 0.05)

    def test_nvfp4_mse(self) -> None:
        every = np.arange(1, 127, dtype=np.uint8)
        self.check_search("mse", lambda x, gs: np.broadcast_to(every, (len(x), 126)))

    def test_nvfp4_four_over_six(self) -> None:
        def two(x: np.ndarray, gs: np.ndarray) -> np.ndarray:
            ideal = gs * (amax_of(x) * F32(1 / 6))
            return np.stack([cast_e4m3(ideal), cast_e4m3(F32(1.5) * ideal)], axis=1)

        self.check_search("four-over-six", two)

    def test_mxfp4_rules(self) -> None:
        for rule in ("ceil", "floor", "even"):
            for dtype, spread in (("f32", 127), ("bf16", 127), ("f16", 12)):
                x = self.blocks(12000, 32, dtype, spread)
                wide = x.astype(F32)
                # Around each rule's thresholds: 4, 6, 7 and 8 times a power of two.
                edge = self.rng.choice(F32([4, 6, 7, 8]), 4000) * np.exp2(
                    self.rng.integers(-60, 60, 4000)).astype(F32)
                if dtype == "f32":
                    edge = np.nextafter(edge, self.rng.choice(F32([0, np.inf]), 4000), dtype=F32)
                    x[8000:], wide[8000:] = 0, 0
                    x[8000:, 5], wide[8000:, 5] = edge, edge
                scales, codes = self.mxfp4(rule, dtype, x)
                expected = mxfp4_scales(amax_of(wide), rule)
                self.same(scales, expected, f"{rule} {dtype} scales")
                self.same(codes, mxfp4_codes(wide, expected), f"{rule} {dtype} codes")

    def test_mxfp4_mse(self) -> None:
        x = self.blocks(3000, 32, "f32", 20)
        scales, codes = self.mxfp4("mse", "f32", x)
        self.same(codes, mxfp4_codes(x, scales), "codes")
        usable = np.isfinite(x).all(axis=1)
        self.same(scales[~usable], mxfp4_scales(amax_of(x), "ceil")[~usable], "odd blocks")
        x, scales = x[usable], scales[usable].astype(int)
        wide = x.astype(np.float64)

        def error(b: np.ndarray) -> np.ndarray:
            decoded = E2M1[mxfp4_codes(x, b)] * np.exp2(b.astype(np.float64) - 127)[:, None]
            return ((wide - decoded) ** 2).sum(axis=1)

        chosen = error(scales)
        for step in range(-6, 7):
            other = error(np.clip(scales + step, 0, 254))
            self.assertTrue((chosen <= other * (1 + 1e-6)).all(), f"b + {step} is better")


if __name__ == "__main__":
    DRIVER = sys.argv.pop(1)
    unittest.main()
