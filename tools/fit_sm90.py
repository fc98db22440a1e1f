#!/usr/bin/env python3
"""Fits the constants of the sm_90 decode GEMM's cost model (src/kernels/sm90/gemm_decode.cc).

    fit_sm90.py FILE...    the JSON of bench_sm90_gemm, timed with --top

Least squares on relative errors, constants at least 0; candidates count less the slower they were
timed. Prints the constants, and what choosing by them loses: by the fit to all layers, and for each
layer by a fit to the others."""

import json
import math
import sys

import numpy as np

SMS, BANDWIDTH = 132, 4800 * 0.875  # bytes a nanosecond
LARGE_CLUSTERS = 120 / 132
BLOCK_BYTES, BLOCK_ROWS, BLOCK_K = 1152, 16, 128
MIN_WARPS = {8: 9, 16: 7}  # by tokens, as in gemm_decode.cc
NAMES = ["kFixedUs", "kExtraWaveUs", "kDramShare", "kActivationShare", "1/kSumBytesPerNs",
         "kStepNs", "kStepTokensNs", "kClusterUs"]


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def row_tiles_of(c: dict[str, int]) -> int:
    return 2 if c["stages"] > 5 else 1


def warps(c: dict[str, int]) -> int:
    return c["tile_n"] // (row_tiles_of(c) * BLOCK_ROWS) * (c["tile_k"] // BLOCK_K)


def features(n: int, k: int, m: int, c: dict[str, int]) -> list[float]:
    """What each constant is multiplied by in estimate_us, in microseconds."""
    cluster, tokens = c["cluster"], c["tile_m"]
    warps_k = c["tile_k"] // BLOCK_K
    row_tiles = row_tiles_of(c)
    tiles = ceil(n, c["tile_n"])
    resident = SMS if cluster <= 2 else int(SMS * LARGE_CLUSTERS)
    waves = ceil(tiles * cluster, resident)
    k_slice = ceil(ceil(k, BLOCK_K), cluster)
    used = min(m, tokens)
    activations = used * k_slice * BLOCK_K * 2
    alone = cluster * warps_k == 1
    sums = 0 if alone else warps_k * c["tile_n"] * ((used + 1) // 2) * 8
    steps = ceil(k_slice, warps_k) * ceil(warps(c) * waves, 4) * row_tiles * 8
    total = ceil(n, BLOCK_ROWS) * ceil(k, BLOCK_K) * BLOCK_BYTES
    one = [1.0, waves - 1.0, 1e-3 * total / BANDWIDTH,
           1e-3 * tiles * cluster * activations / BANDWIDTH,
           1e-3 * waves * sums, 1e-3 * steps, 1e-3 * steps * tokens / 8,
           1.0 if cluster > 1 else 0.0]
    return [x * ceil(m, tokens) for x in one]


def load(paths: list[str]) -> list[tuple[tuple[int, int, int], str, list[float], float]]:
    rows = []
    for path in paths:
        for cell in json.load(open(path))["cells"]:
            key = (cell["n"], cell["k"], cell["m"])
            for name, us, _, right in cell["timed"]:
                if "decode" in name and right:
                    config = {a: int(b) for a, b in (x.split("=") for x in name.split()[1:])}
                    if warps(config) >= MIN_WARPS[config["tile_m"]]:
                        rows.append((key, name, features(*key, config), us))
    return rows


def fit(rows: list) -> np.ndarray:
    best: dict = {}
    for key, _, _, us in rows:
        best[key] = min(best.get(key, math.inf), us)
    x = np.array([r[2] for r in rows]) / np.array([[r[3]] for r in rows])
    w = np.array([max(0.1, (best[r[0]] / r[3]) ** 6) for r in rows])
    used = list(range(len(NAMES)))
    while True:  # what comes out negative is 0
        found, *_ = np.linalg.lstsq(x[:, used] * w[:, None], w, rcond=None)
        if found.min() >= 0:
            break
        used.pop(int(found.argmin()))
    constants = np.zeros(len(NAMES))
    constants[used] = found
    return constants


def losses(rows: list, constants: np.ndarray) -> list[tuple[float, tuple, str, str]]:
    cells: dict = {}
    for row in rows:
        cells.setdefault(row[0], []).append(row)
    out = []
    for key, candidates in cells.items():
        best = min(candidates, key=lambda r: r[3])
        chosen = min(candidates, key=lambda r: float(np.dot(r[2], constants)))
        out.append((chosen[3] / best[3], key, chosen[1], best[1]))
    return out


def report(what: str, found: list) -> None:
    mean = math.exp(sum(math.log(x[0]) for x in found) / len(found))
    print(f"{what}: {100 * (mean - 1):.1f} % slower than the best (geometric mean), "
          f"{100 * (max(found)[0] - 1):.1f} % at worst")


def main() -> None:
    rows = load(sys.argv[1:])
    constants = fit(rows)
    for name, value in zip(NAMES, constants):
        inverse = name.startswith("1/")
        print(f"{name[2:] if inverse else name} = "
              f"{(1 / value if value else math.inf) if inverse else value:.3g}")
    off = [math.log(float(np.dot(r[2], constants)) / r[3]) for r in rows]
    print(f"off by {100 * math.sqrt(sum(x * x for x in off) / len(off)):.1f} % in the mean")
    report("fitted to all", losses(rows, constants))
    left_out = []
    for layer in sorted({r[0][:2] for r in rows}):
        others = fit([r for r in rows if r[0][:2] != layer])
        left_out += losses([r for r in rows if r[0][:2] == layer], others)
    report("a layer left out", left_out)
    for loss, key, chosen, best in sorted(left_out, reverse=True)[:8]:
        print(f"  {loss:.3f} {key}: {chosen.split(' ', 1)[1]} | {best.split(' ', 1)[1]}")


if __name__ == "__main__":
    main()
