#!/usr/bin/env python3
"""Fits the constants of the sm_90 GEMMs' cost models (src/kernels/sm90/gemm_decode.cc,
gemm_wgmma_cost.cc).

    fit_sm90.py [--left-out] FILE...    the JSON of bench_sm90_gemm, timed with --top

Of a cell that stands in several files the first one counts. Least squares on relative errors by
random steps, because the models take maxima; candidates count less the slower they were timed, and
what a cell's choice among all of them loses counts besides: by errors alone the models chose 0.7 %
slower kernels in the mean, 13 % at worst. Prints the constants, and what choosing by them loses: by
the fit to all layers, and with --left-out for each layer by a fit to the others."""

import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

SMS, RESIDENT = 132, [132, 66, 38, 30, 22]  # clusters of 1 .. 5 blocks, as in gemm_wgmma_cost.cc
LARGE_CLUSTERS = 120 / 132  # kLargeClusterShare of gemm_decode.cc
BANDWIDTH = 4814.0  # bytes a nanosecond
BEST_EFFICIENCY = 0.875  # kDramEfficiency of blocks.h
MIN_WARPS = {8: 9, 16: 7}  # by tokens, as in gemm_decode.cc
ONE_TILE = 64  # kOneTile of gemm_wgmma.cc
GROUP_ROWS, BLOCK_BYTES, BLOCK_ROWS, BLOCK_K = 64, 1152, 16, 128
TOKEN_GROUP = 8  # kTokenGroup of gemm_wgmma_work.h
# Tokens of a tile, and blocks that share them, of the wgmma GEMM's kernels for up to two groups of
# rows (kWgmmaKernels), which have no lower tiles (is_lowered).
TWO_GROUPS = {(64, 1), (72, 1), (80, 1), (88, 1), (96, 1), (104, 1), (112, 1), (120, 1), (128, 1),
              (64, 2), (192, 2), (256, 1), (256, 2)}

DECODE = {"kFixedUs": 2.94, "kClusterUs": 0.144, "kExtraWaveUs": 2.03, "kDramShare": 0.427,
          "kActivationShare": 0.976, "kSumBytesPerNs": 37.1, "kStepNs": 5.69,
          "kStepTokensNs": 2.77}  # gemm_decode.cc's, to begin with
WGMMA = {"kFixedUs": 2.22, "kFirst": 1.02, "kClusterUs": 0.323, "kNextTileUs": 0.862,
         "kMorePartsUs": 0.0526, "kReduceNs": 13.1, "kStreamUs": 1.06, "kStreamNs": 12.5,
         "kMacsPerNs": 3770.0, "kPowerMacsPerNs": 3850.0, "kWidenNs": 112.0,
         "kPowerWidenNs": 57.2, "kPairPower": 0.961, "kStepNs": 180.0, "kPairStepNs": 218.0,
         "kInTurn": 1.15, "kWide": 0.0873, "kL2Bytes": 44.7e6}  # gemm_wgmma_cost.cc's
LEAST_PAIR_POWER = 0.96  # pairs of tiles took 0.5 to 1 % less than the same tiles alone
START = {"decode": DECODE, "wgmma": WGMMA}
SEEDS, STEPS = 8, 16000  # fits end apart: of several the best counts
# Of fits without a layer; shaken, so that what it told today's constants is forgotten.
STEPS_LEFT_OUT, SHAKEN = 6000, 0.3
CHOICE_WEIGHT = 8.0  # of what choices lose, beside the errors
# What others publish timings of (docs/sm90.md): their choices count four times.
PUBLISHED = {(7168, 2048), (4096, 7168), (8192, 8192), (28672, 4096), (18432, 7168), (7168, 18432)}
PUBLISHED_WEIGHT = 4.0

Cell = tuple[int, int, int]  # n, k, m
Config = dict[str, int]


def short(name: str) -> str:
    """Of a kernel and its configuration."""
    return name.removeprefix("sm90_fp4_").replace("_gemm", "")


def up(a: int, b: int) -> int:
    return -(-a // b)


class Decode:
    """Candidates of the decode GEMM: what each constant is multiplied by, in microseconds."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def add(self, cell: Cell, c: Config) -> bool:
        n, k, m = cell
        row_tiles = 2 if c["stages"] > 5 else 1
        warps_k, cluster, tokens = c["tile_k"] // BLOCK_K, c["cluster"], c["tile_m"]
        warps = c["tile_n"] // (row_tiles * BLOCK_ROWS) * warps_k
        if warps < MIN_WARPS[tokens]:  # no candidate any more
            return False
        tiles = up(n, c["tile_n"])
        waves = up(tiles * cluster, SMS if cluster <= 2 else int(SMS * LARGE_CLUSTERS))
        k_slice = up(up(k, BLOCK_K), cluster)
        used = min(m, tokens)
        sums = 0 if cluster * warps_k == 1 else warps_k * c["tile_n"] * ((used + 1) // 2) * 8
        steps = up(k_slice, warps_k) * up(warps * waves, 4) * row_tiles * 8
        total = up(n, BLOCK_ROWS) * up(k, BLOCK_K) * BLOCK_BYTES
        copied = tiles * cluster * used * k_slice * BLOCK_K * 2
        at_best = 1e-3 / (BANDWIDTH * BEST_EFFICIENCY)
        row = [1.0, float(cluster > 1), waves - 1.0, total * at_best, copied * at_best,
               1e-3 * waves * sums, 1e-3 * steps, 1e-3 * steps * tokens / 8]
        self.rows.append([x * up(m, tokens) for x in row])
        return True

    def freeze(self) -> None:
        self.features = np.array(self.rows)

    def estimate(self, c: dict[str, float]) -> np.ndarray:
        factors = {**c, "kSumBytesPerNs": 1 / c["kSumBytesPerNs"]}
        return self.features @ np.array([factors[name] for name in DECODE])


def tiles_of(n: int, m: int, tokens: int, groups: int, pair: int, workers: int, stream: bool,
             may_lower: bool) -> list[float]:
    """WgmmaTiles: tokens, of a tile, groups of rows, waves, tiles, groups of lower tiles or 0."""
    if workers == 0:
        return [0.0] * 6
    token_tiles, all_groups = up(m, tokens), up(n, GROUP_ROWS)
    row_tiles, low = up(all_groups, groups * pair), 0
    waves = row_tiles * token_tiles // workers
    if may_lower and waves > 0 and token_tiles <= TOKEN_GROUP:
        whole = waves * workers // token_tiles
        rest, room = all_groups - whole * groups * pair, (waves + 1) * workers - whole * token_tiles
        fitting = (g for g in range(1, groups) if up(rest, g * pair) * token_tiles <= room)
        low = next(fitting, 0) if rest > 0 else 0
        if low > 0:
            row_tiles = whole + up(rest, low * pair)
    tiles = row_tiles * token_tiles
    return [m, tokens, groups, tiles / workers if stream else up(tiles, workers), tiles, low]


def mix_of(n: int, m: int, own: tuple[int, int], rest: tuple[int, int]) -> tuple[int, int, int]:
    """WgmmaMix: tokens of the first kind, and blocks of either."""
    all_groups = up(n, GROUP_ROWS)
    found, least = (m, min(up(m, own[0]) * up(all_groups, own[1]), SMS), 0), math.inf
    cost, rest_cost = own[1] * (own[0] + 32), rest[1] * (rest[0] + 32)
    for columns in range(TOKEN_GROUP, 0, -1):
        first = columns * own[0]
        if first >= m:
            continue
        tiles = columns * up(all_groups, own[1])
        others = up(m - first, rest[0]) * up(all_groups, rest[1])
        waves = up(tiles, SMS - 1)
        while waves * cost < least:
            workers = up(tiles, waves)
            theirs = up(others, SMS - workers) * rest_cost
            if max(waves * cost, theirs) < least:
                least = max(waves * cost, theirs)
                found = (first, workers, min(others, SMS - workers))
            if theirs <= waves * cost:
                break
            waves += 1
    return found


class Wgmma:
    """Candidates of the wgmma GEMM."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.kinds: list[list[list[float]]] = []  # of tiles: two of each candidate

    def add(self, cell: Cell, c: Config) -> bool:
        n, k, m = cell
        cluster, split, k_groups = c.get("cluster", 1), c.get("split_k", 0), c["tile_k"] // BLOCK_K
        tokens, groups = c["tile_m"], c["tile_n"] // GROUP_ROWS
        stream, pair = split == 0, cluster // max(1, split)
        small = tokens < min(m, ONE_TILE) or (tokens > 128 and pair * groups == 1)
        if small or (stream and (pair if tokens > 128 else groups * pair) == 1):  # no candidate
            return False
        if "rest_m" in c:
            rest = (c["rest_m"], c["rest_n"] // GROUP_ROWS)
            first, workers, others = mix_of(n, m, (tokens, groups), rest)
            kinds = [tiles_of(n, first, tokens, groups, 1, workers, False, True),
                     tiles_of(n, m - first, *rest, 1, others, False, True)]
        else:
            alone = not stream and split * k_groups == 1
            lowered = alone and (groups > 2 or (tokens, pair) not in TWO_GROUPS)
            workers = RESIDENT[cluster - 1]
            kinds = [tiles_of(n, m, tokens, groups, pair, workers, stream, lowered), [0.0] * 6]
        self.kinds.append(kinds)
        self.rows.append([n, k, m, max(1, split), cluster, k_groups, stream])
        return True

    def freeze(self) -> None:
        (self.n, self.k, self.m, self.split, self.cluster, self.k_groups,
         stream) = np.array(self.rows, float).T
        self.stream = stream > 0
        # A column for each kind.
        (self.kind_m, self.tokens, self.groups, self.waves, self.tiles,
         self.low) = np.array(self.kinds, float).transpose(2, 0, 1)
        self.token_tiles = np.ceil(self.kind_m / np.maximum(1, self.tokens))
        self.workers = np.array(RESIDENT)[self.cluster.astype(int) - 1]

    def estimate(self, c: dict[str, float]) -> np.ndarray:
        """estimate_us, in microseconds."""
        def of_kinds(x: np.ndarray) -> np.ndarray:
            return x[:, None]

        pair, k_blocks = self.cluster / self.split, np.ceil(self.k / BLOCK_K)
        steps = of_kinds(np.ceil(np.ceil(k_blocks / self.split) / self.k_groups))
        slower = 1 + c["kWide"] * np.sqrt(np.maximum(0, self.tokens - 128) / 128)
        step = of_kinds(np.where(pair == 2, c["kPairStepNs"], c["kStepNs"]))
        k_groups = of_kinds(np.where(self.k_groups > 1, c["kInTurn"], 1))

        def tile(groups: np.ndarray) -> np.ndarray:
            multiply = groups * GROUP_ROWS * self.tokens * BLOCK_K / c["kMacsPerNs"] * k_groups
            return steps * slower * np.sqrt(multiply**2 + (groups * c["kWidenNs"])**2 + step**2)

        whole = tile(self.groups * of_kinds(self.k_groups))
        lowered = (self.waves - 1) * whole + tile(self.low)
        multiplying = np.where(self.low > 0, lowered, self.waves * whole).max(axis=1)
        power = self.token_tiles / SMS * (
            self.tokens * of_kinds(self.n * self.k) / c["kPowerMacsPerNs"]
            + of_kinds(np.ceil(self.n / GROUP_ROWS) * k_blocks) * c["kPowerWidenNs"])
        power = power.sum(axis=1) * np.where(pair == 2, c["kPairPower"], 1)
        multiplying = np.maximum(multiplying, power)

        weights = np.ceil(self.n / BLOCK_ROWS) * k_blocks * BLOCK_BYTES
        activations = 2 * self.m * self.k
        row_tiles = np.ceil(self.n / (GROUP_ROWS * self.groups[:, 0] * pair))
        copied = row_tiles * activations + self.token_tiles[:, 0] * weights
        missed = self.stream * np.maximum(0, 1 - c["kL2Bytes"] / (weights + activations))
        missed = missed * copied / (BANDWIDTH * BEST_EFFICIENCY)
        read = weights + activations + 2 * self.m * self.n
        memory = read / (BANDWIDTH * BEST_EFFICIENCY)
        us = c["kFixedUs"] + 1e-3 * (multiplying**4 + missed**4 + memory**4) ** 0.25
        # The first weights of all blocks, before which nothing is multiplied.
        blocks = np.minimum(SMS, self.tiles.sum(axis=1) * self.cluster)
        groups = blocks * self.groups[:, 0] * self.k_groups
        first = groups * (GROUP_ROWS // BLOCK_ROWS) * BLOCK_BYTES
        us += 1e-3 * c["kFirst"] * first / (BANDWIDTH * BEST_EFFICIENCY)
        us += c["kNextTileUs"] * np.maximum(0, self.waves.max(axis=1) - 1)
        unit = np.where(self.tokens[:, 0] <= 32, 8, 16)
        used = np.ceil(self.m / self.token_tiles.sum(axis=1))
        outputs = self.groups[:, 0] * np.minimum(self.tokens[:, 0], np.ceil(used / unit) * unit)
        pieces = np.maximum(1, self.workers / self.tiles[:, 0])
        us += self.stream * (pieces * c["kStreamUs"] + 1e-3 * c["kStreamNs"] * outputs)
        parts = self.split * self.k_groups
        us += np.where(self.cluster > 1, c["kClusterUs"], 0)
        reduce = c["kMorePartsUs"] * (parts - 2)
        reduce += 1e-3 * c["kReduceNs"] * outputs * (parts - 1) / parts
        return us + np.where(parts > 1, reduce, 0)


class Timings:
    """Every candidate that was timed: first the decode GEMM's, then the wgmma GEMM's."""

    def __init__(self, paths: list[str]) -> None:
        first_in: dict[Cell, str] = {}
        self.models = {"decode": Decode(), "wgmma": Wgmma()}
        found: dict[str, list] = {"decode": [], "wgmma": []}
        for path in paths:
            for cell in json.load(open(path))["cells"]:
                key = (cell["n"], cell["k"], cell["m"])
                if first_in.setdefault(key, path) != path:
                    continue
                for name, us, _, right in cell["timed"]:
                    kernel = "wgmma" if "wgmma" in name else "decode"
                    config = {a: int(b) for a, b in (x.split("=") for x in name.split()[1:])}
                    if right and self.models[kernel].add(key, config):
                        found[kernel].append((key, name, us))
        for model in self.models.values():
            model.freeze()
        rows = found["decode"] + found["wgmma"]
        self.keys = sorted({key for key, _, _ in rows})
        number = {key: i for i, key in enumerate(self.keys)}
        self.names = [short(name) for _, name, _ in rows]
        self.us = np.array([us for _, _, us in rows])
        self.cell = np.array([number[key] for key, _, _ in rows])
        self.best = np.full(len(self.keys), math.inf)
        np.minimum.at(self.best, self.cell, self.us)
        self.counts = np.array([PUBLISHED_WEIGHT if key[:2] in PUBLISHED else 1
                                for key in self.keys])
        self.weights = np.maximum(0.05, (self.best[self.cell] / self.us) ** 6)

    def estimate(self, constants: dict[str, dict[str, float]]) -> np.ndarray:
        return np.concatenate([model.estimate(constants[name])
                               for name, model in self.models.items()])

    def off(self, estimate: np.ndarray, used: np.ndarray) -> float:
        """Mean squared relative error."""
        error = np.log(estimate[used] / self.us[used])
        return float((self.weights[used] * error**2).sum() / self.weights[used].sum())

    def chosen(self, estimate: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Of each cell the row with the least estimate."""
        rows = np.flatnonzero(used)
        order = rows[np.lexsort((estimate[rows], self.cell[rows]))]
        _, first = np.unique(self.cell[order], return_index=True)
        return order[first]

    def objective(self, constants: dict[str, dict[str, float]], used: np.ndarray) -> float:
        estimate = self.estimate(constants)
        chosen = self.chosen(estimate, used)
        lost = np.log(self.us[chosen] / self.best[self.cell[chosen]]) ** 2
        lost = np.average(lost, weights=self.counts[self.cell[chosen]])
        return self.off(estimate, used) + CHOICE_WEIGHT * float(lost)

    def fit(self, steps: int, used: np.ndarray, seed: int,
            shaken: float) -> dict[str, dict[str, float]]:
        """From the constants of today, each off by some `shaken` of itself."""
        random = np.random.default_rng(seed)
        best = {model: {name: value * math.exp(random.normal() * shaken)
                        for name, value in start.items()} for model, start in START.items()}
        names = [(model, name) for model in best for name in best[model]]
        size = 0.15
        least = self.objective(best, used)
        for _ in range(steps):
            tried = {model: dict(constants) for model, constants in best.items()}
            for i in random.choice(len(names), random.integers(1, 4), replace=False):
                model, name = names[i]
                tried[model][name] *= math.exp(random.normal() * size)
            tried["wgmma"]["kPairPower"] = max(LEAST_PAIR_POWER, tried["wgmma"]["kPairPower"])
            found = self.objective(tried, used)
            if found < least:
                best, least, size = tried, found, min(0.3, size * 1.1)
            else:
                size = max(0.01, size * 0.995)
        return best

    def losses(self, constants: dict[str, dict[str, float]], used: np.ndarray) -> list[tuple]:
        """Of each cell what its choice loses, the cell, the choice and the fastest."""
        pairs = zip(self.chosen(self.estimate(constants), used), self.chosen(self.us, used))
        return [(float(self.us[chosen] / self.us[fastest]), self.keys[self.cell[chosen]],
                 self.names[chosen], self.names[fastest]) for chosen, fastest in pairs]


def report(what: str, found: list[tuple]) -> None:
    mean = math.exp(sum(math.log(x[0]) for x in found) / len(found))
    print(f"{what}: {len(found)} cells, {100 * (mean - 1):.2f} % slower than the best (geometric "
          f"mean), {100 * (max(found)[0] - 1):.1f} % at worst")
    for loss, key, chosen, best in sorted(found, reverse=True)[:8]:
        print(f"  {loss:.3f} {key}: {chosen} | {best}")


def fit_all(paths: list[str], seed: int) -> dict[str, dict[str, float]]:
    timings = Timings(paths)
    return timings.fit(STEPS, np.ones(len(timings.us), bool), seed, 0.0)


def fit_others(paths: list[str], layer: tuple[int, int]) -> list[tuple]:
    timings = Timings(paths)
    others = np.array([timings.keys[i][:2] != layer for i in timings.cell])
    seed = layer[0] * layer[1]
    return timings.losses(timings.fit(STEPS_LEFT_OUT, others, seed, SHAKEN), ~others)


def main() -> None:
    paths = [a for a in sys.argv[1:] if a != "--left-out"]
    timings = Timings(paths)
    everything = np.ones(len(timings.us), bool)
    with ProcessPoolExecutor() as pool:
        fits = list(pool.map(fit_all, [paths] * SEEDS, range(SEEDS)))
        constants = min(fits, key=lambda fit: timings.objective(fit, everything))
        for model, values in constants.items():
            print(model, ", ".join(f"{name} = {value:.3g}" for name, value in values.items()))
        off = 100 * math.sqrt(timings.off(timings.estimate(constants), everything))
        print(f"{len(timings.us)} configurations, off by {off:.1f} % in the mean")
        report("fitted to all", timings.losses(constants, everything))
        if "--left-out" in sys.argv:
            layers = sorted({key[:2] for key in timings.keys})
            found = pool.map(fit_others, [paths] * len(layers), layers)
            report("a layer left out", [x for layer in found for x in layer])


if __name__ == "__main__":
    main()
