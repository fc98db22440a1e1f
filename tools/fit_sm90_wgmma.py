#!/usr/bin/env python3
"""Fits the constants of the sm_90 wgmma GEMM's cost model (src/kernels/sm90/gemm_wgmma.cc).

    fit_sm90_wgmma.py FILE...    the JSON of bench_sm90_gemm, timed with --impl wgmma --top 10 or
                               more: bench/data/h200_wgmma.json

Least squares on relative errors by random steps, because the model takes maxima; candidates count
less the slower they were timed, and what a cell's choice loses counts besides: by errors alone the
model chose 0.7 % slower kernels in the mean, 13 % at worst. Prints the constants, and what choosing
by them loses: by the fit to all layers, and for each layer by a fit to the others."""

import json
import math
import sys

import numpy as np

RESIDENT = np.array([132, 66, 38, 30, 22])  # clusters of 1 .. 5 blocks, as in gemm_wgmma.cc
BANDWIDTH = 4800.0  # bytes a nanosecond
MOST_EFFICIENT = 0.875  # of the bandwidth, kDramEfficiency of gemm_decode.cc
ONE_TILE = 64  # kOneTile of gemm_wgmma.cc
GROUP_ROWS, BLOCK_BYTES, BLOCK_ROWS, BLOCK_K = 64, 1152, 16, 128
# The most groups of what is built without k groups, for each number of tokens and cluster
# (kVariants).
KERNELS = {(16, 1): [5], (24, 1): [5], (32, 1): [5], (40, 1): [5], (48, 1): [5], (56, 1): [4],
           (64, 1): [2, 4, 5], (72, 1): [2, 4], (80, 1): [2, 4], (88, 1): [2, 4], (96, 1): [2, 3, 4],
           (104, 1): [2, 3, 4], (112, 1): [2, 3, 4], (120, 1): [2, 3, 4], (128, 1): [2, 3, 4],
           (64, 2): [2], (128, 2): [4], (192, 2): [2], (256, 2): [2]}
TOKEN_GROUP = 8  # kTokenGroup of gemm_wgmma_work.h
START = {"kFixedUs": 2.4, "kNextTileUs": 1.24, "kReduceUs": 0.325, "kMorePartsUs": 0.0926,
         "kReduceNs": 11.8, "kStreamUs": 0.777, "kStreamNs": 16.1, "kMacsPerNs": 3920.0,
         "kWidenNs": 138.0, "kStepNs": 171.0, "kPowerMacsPerNs": 3880.0, "kPowerWidenNs": 58.6,
         "kWideTile": 1.15, "kDramEfficiency": 0.75}  # gemm_wgmma.cc's
SEEDS = 8  # fits to all layers, of which the best counts: they end apart
STEPS_ALL, STEPS_LEFT_OUT = 20000, 4000
CHOICE_WEIGHT = 8.0  # of what choices lose, beside the errors


class Timings:
    """Every configuration that was timed, a column a field."""

    def __init__(self, paths: list[str]) -> None:
        cells: dict[tuple[int, int, int], int] = {}
        rows: list[list[float]] = []
        self.names: list[str] = []
        for path in paths:
            for cell in json.load(open(path))["cells"]:
                key = (cell["n"], cell["k"], cell["m"])
                for name, us, _, right in cell["timed"]:
                    if "wgmma" not in name or "rest_m" in name or not right:
                        continue
                    c = {a: int(b) for a, b in (x.split("=") for x in name.split()[1:])}
                    alone = c["tile_n"] * c.get("cluster", 1) == GROUP_ROWS and "split_k" not in c
                    k_groups = c["tile_k"] // BLOCK_K
                    if c["tile_m"] < min(key[2], ONE_TILE) or alone:  # no candidates any more
                        continue
                    rows.append([*key, c["tile_m"], c["tile_n"], c.get("split_k", 0),
                                 c.get("cluster", 1), k_groups, us,
                                 cells.setdefault(key, len(cells))])
                    self.names.append(name.split(" ", 1)[1])
        self.keys = list(cells)
        columns = np.array(rows).T
        self.n, self.k, self.m, self.tokens, self.rows, self.split, self.cluster = columns[:7]
        self.k_groups, self.us, self.cell = columns[7], columns[8], columns[9].astype(int)
        self.stream = self.split == 0
        self.split = np.maximum(1, self.split)
        self.best = np.array([self.us[self.cell == i].min() for i in range(len(self.keys))])
        self.weights = np.maximum(0.05, (self.best[self.cell] / self.us) ** 6)
        self.low = np.array([self.low_groups(i) for i in range(len(self.us))])

    def low_groups(self, i: int) -> int:
        """Of the row tiles that end the waves, 0 where none is lower (WgmmaTiles)."""
        pair = int(self.cluster[i] / self.split[i])
        groups, workers = int(self.rows[i]) // GROUP_ROWS, int(RESIDENT[int(self.cluster[i]) - 1])
        tokens = -(-int(self.m[i]) // int(self.tokens[i]))
        all_groups = -(-int(self.n[i]) // GROUP_ROWS)
        waves = -(-all_groups // (groups * pair)) * tokens // workers
        built = KERNELS[int(self.tokens[i]), pair]
        lowered = next(most for most in built if most >= groups) > 2
        shared = self.stream[i] or self.split[i] * self.k_groups[i] > 1
        if shared or waves == 0 or not lowered or tokens > TOKEN_GROUP:
            return 0
        whole = waves * workers // tokens
        rest, room = all_groups - whole * groups * pair, (waves + 1) * workers - whole * tokens
        fitting = (low for low in range(1, groups) if -(-rest // (low * pair)) * tokens <= room)
        return next(fitting, 0) if rest > 0 else 0

    def estimate(self, c: dict[str, float]) -> np.ndarray:
        """estimate_us, in microseconds."""
        groups, pair = self.rows / GROUP_ROWS, self.cluster / self.split
        clusters = RESIDENT[self.cluster.astype(int) - 1]
        token_tiles = np.ceil(self.m / self.tokens)
        tiles = token_tiles * np.ceil(self.n / (self.rows * pair))
        waves = np.where(self.stream, tiles / clusters, np.ceil(tiles / clusters))
        k_blocks = np.ceil(self.k / BLOCK_K)
        steps = np.ceil(np.ceil(k_blocks / self.split) / self.k_groups)
        steps = steps * np.where(self.tokens > 128, c["kWideTile"], 1)

        def tile(high: np.ndarray) -> np.ndarray:
            multiply = high * GROUP_ROWS * self.tokens * BLOCK_K / c["kMacsPerNs"]
            return steps * np.sqrt(multiply**2 + (high * c["kWidenNs"])**2 + c["kStepNs"]**2)

        whole = tile(groups * self.k_groups)
        multiplying = np.where(self.low > 0, (waves - 1) * whole + tile(self.low), waves * whole)
        power = token_tiles / RESIDENT[0] * (
            self.tokens * self.n * self.k / c["kPowerMacsPerNs"]
            + np.ceil(self.n / GROUP_ROWS) * k_blocks * c["kPowerWidenNs"])
        multiplying = np.maximum(multiplying, power)
        read = np.ceil(self.n / BLOCK_ROWS) * k_blocks * BLOCK_BYTES + 2 * self.m * (self.k + self.n)
        outputs = groups * self.tokens
        us = c["kFixedUs"] + 1e-3 * np.maximum(
            multiplying, read / (BANDWIDTH * c["kDramEfficiency"]))
        us += c["kNextTileUs"] * np.maximum(0, waves - 1)
        pieces = np.maximum(1, clusters / tiles)
        us += np.where(self.stream, pieces * c["kStreamUs"] + 1e-3 * c["kStreamNs"] * outputs, 0)
        parts = self.split * self.k_groups
        reduce = np.where(self.split > 1, c["kReduceUs"], 0)
        reduce += c["kMorePartsUs"] * (parts - 2)
        reduce += 1e-3 * c["kReduceNs"] * outputs * (parts - 1) / parts
        return us + np.where(parts > 1, reduce, 0)

    def off(self, estimate: np.ndarray, used: np.ndarray) -> float:
        """Mean squared relative error."""
        error = np.log(estimate[used] / self.us[used])
        return float((self.weights[used] * error**2).sum() / self.weights[used].sum())

    def chosen(self, estimate: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Of each cell the row with the least estimate."""
        order = np.flatnonzero(used)
        order = order[np.lexsort((estimate[order], self.cell[order]))]
        _, first = np.unique(self.cell[order], return_index=True)
        return order[first]

    def lost(self, estimate: np.ndarray, used: np.ndarray) -> float:
        """Mean squared relative loss of the cells' choices."""
        chosen = self.chosen(estimate, used)
        return float(np.mean(np.log(self.us[chosen] / self.best[self.cell[chosen]]) ** 2))

    def objective(self, constants: dict[str, float], used: np.ndarray) -> float:
        estimate = self.estimate(constants)
        return self.off(estimate, used) + CHOICE_WEIGHT * self.lost(estimate, used)

    def fit(self, start: dict[str, float], steps: int, used: np.ndarray,
            seed: int = 0) -> dict[str, float]:
        random = np.random.default_rng(seed)
        names, best = list(start), dict(start)
        least, size = self.objective(best, used), 0.15
        for _ in range(steps):
            tried = dict(best)
            for name in random.choice(names, random.integers(1, 4), replace=False):
                tried[name] *= math.exp(random.normal() * size)
            tried["kDramEfficiency"] = min(tried["kDramEfficiency"], MOST_EFFICIENT)
            found = self.objective(tried, used)
            if found < least:
                best, least, size = tried, found, min(0.3, size * 1.1)
            else:
                size = max(0.01, size * 0.995)
        return best

    def losses(self, constants: dict[str, float], used: np.ndarray) -> list[tuple]:
        """Of each cell what its choice loses, the cell, the choice and the fastest."""
        pairs = zip(self.chosen(self.estimate(constants), used), self.chosen(self.us, used))
        return [(self.us[chosen] / self.us[fastest], self.keys[self.cell[chosen]],
                 self.names[chosen], self.names[fastest]) for chosen, fastest in pairs]


def report(what: str, found: list[tuple]) -> None:
    mean = math.exp(sum(math.log(x[0]) for x in found) / len(found))
    print(f"{what}: {100 * (mean - 1):.1f} % slower than the best (geometric mean), "
          f"{100 * (max(found)[0] - 1):.1f} % at worst")


def main() -> None:
    timings = Timings(sys.argv[1:])
    everything = np.ones(len(timings.us), bool)
    fits = [timings.fit(START, STEPS_ALL, everything, seed) for seed in range(SEEDS)]
    constants = min(fits, key=lambda fit: timings.objective(fit, everything))
    for name, value in constants.items():
        print(f"{name} = {value:.3g}")
    print(f"{len(timings.us)} configurations, off by "
          f"{100 * math.sqrt(timings.off(timings.estimate(constants), everything)):.1f} % in the mean")
    report("fitted to all", timings.losses(constants, everything))
    left_out = []
    for layer in sorted({key[:2] for key in timings.keys}):
        others = np.array([timings.keys[i][:2] != layer for i in timings.cell])
        left_out += timings.losses(timings.fit(constants, STEPS_LEFT_OUT, others), ~others)
    report("a layer left out", left_out)
    for loss, key, chosen, best in sorted(left_out, reverse=True)[:8]:
        print(f"  {loss:.3f} {key}: {chosen} | {best}")


if __name__ == "__main__":
    main()
