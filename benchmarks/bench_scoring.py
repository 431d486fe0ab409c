"""Pathway scoring at the size of a cohort, and beside pyucell on the same spots.

    python benchmarks/bench_scoring.py            100,000 spots x 18,000 genes x 50 sets
    python benchmarks/bench_scoring.py --quick    a tenth of the spots, extrapolated

Counts are drawn so that a spot has about 3,000 genes, as Visium has. Drawing them is not timed. pyucell and our UCell
take turns on the first spots, and must agree there. A full run writes results/scoring.json and results/scoring.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from result_files import keep
from scipy import sparse

from stamp_deploy.checks.acceptance import machine
from stamp_deploy.training.gene_sets import GeneSets
from stamp_deploy.training.scoring import score

SPOTS, GENES, SETS, SET_SIZE, DETECTED = 100_000, 18_000, 50, 150, 3_000
BESIDE = 5_000
"""Spots that pyucell is given too."""


def draw(rng: np.random.Generator, spots: int) -> sparse.csr_array:
    """Counts float32 [spots, GENES], DETECTED genes per spot, from 1 to some hundred."""
    indices = np.empty((spots, DETECTED), np.int32)
    step = GENES // DETECTED
    for row in range(spots):  # one gene of each run of neighbours: sorted and without repeats
        indices[row] = np.arange(DETECTED) * step + rng.integers(0, step, DETECTED)
    data = np.minimum(rng.geometric(0.25, (spots, DETECTED)), 500).astype(np.float32)
    indptr = np.arange(0, spots * DETECTED + 1, DETECTED, dtype=np.int64)
    return sparse.csr_array((data.reshape(-1), indices.reshape(-1), indptr), shape=(spots, GENES))


class PeakMemory:
    """The most resident memory above that at the start, MB, sampled every 5 ms while the block runs."""

    def __enter__(self) -> PeakMemory:
        self._over = threading.Event()
        self.start = self._most = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def above(self) -> int:
        return round((self._most - self.start) / 2**20)

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, self._now())

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, processor seconds)."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def summary(runs: list[tuple[float, float]], factor: float = 1.0) -> dict[str, float]:
    seconds = [run[0] * factor for run in runs]
    return {
        "seconds": round(statistics.median(seconds), 2),
        "seconds_spread": round(max(seconds) - min(seconds), 2),
        "processor_seconds": round(statistics.median(run[1] * factor for run in runs), 2),
    }


def beside_pyucell(counts: sparse.csr_array, genes: list[str], sets: GeneSets, repeats: int) -> dict[str, Any]:
    """Ours and pyucell in turn on the same spots; one processor each."""
    import anndata
    import pandas as pd
    import pyucell

    signatures = {name: list(members) for name, members in zip(sets.names, sets.genes, strict=True)}
    data = anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=genes))
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds_of(lambda: score(counts, genes, sets)))
        theirs.append(
            seconds_of(lambda: pyucell.compute_ucell_scores(data, signatures=signatures, max_rank=1500, n_jobs=1))
        )
    values = np.stack([data.obs[f"{name}_UCell"].to_numpy() for name in sets.names], axis=1)
    ratios = [their[0] / our[0] for our, their in zip(ours, theirs, strict=True)]
    return {
        "spots": counts.shape[0],
        "ours": summary(ours),
        "pyucell": summary(theirs),
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_spread": round(max(ratios) - min(ratios), 2),
        "largest_difference": float(np.abs(values - score(counts, genes, sets).values).max()),
    }


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    beside = found["beside_pyucell"]
    size = f"{found['spots']:,} spots x {found['genes']:,} genes x {found['sets']} sets"
    rows = "\n".join(
        f"| {name} | {found[key]['seconds']} ({found[key]['seconds_spread']}) | {found[key]['processor_seconds']} |"
        for name, key in (("UCell", "ucell"), ("weighted z-mean", "zmean"))
    )
    return f"""# Pathway scoring

Written by benchmarks/bench_scoring.py on {found["machine"]}. {size},
{found["genes_per_spot"]:,} genes with counts per spot; medians of {found["repeats"]} runs, the spread in brackets.

| method | seconds | processor seconds |
|---|---|---|
{rows}

Memory above the counts ({found["counts_mb"]:,} MB): at most {found["peak_above_counts_mb"]:,} MB.

Beside pyucell, in turn, on {beside["spots"]:,} of the spots, one processor each: {beside["times_faster"]} times
as fast (spread {beside["times_faster_spread"]}; {beside["ours"]["seconds"]} s against
{beside["pyucell"]["seconds"]} s), largest difference of a score {beside["largest_difference"]:.1e}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the spots")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    spots = SPOTS // 10 if options.quick else SPOTS
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(GENES)]
    members = [tuple(genes[j] for j in rng.choice(GENES, SET_SIZE, replace=False)) for _ in range(SETS)]
    sets = GeneSets(tuple(f"S{i}" for i in range(SETS)), tuple(members))
    counts = draw(rng, spots)
    found: dict[str, Any] = {}
    with PeakMemory() as memory:
        for method in ("ucell", "zmean"):
            runs = [seconds_of(partial(score, counts, genes, sets, method)) for _ in range(options.repeats)]
            found[method] = summary(runs)
    found |= {
        "spots": spots, "genes": GENES, "sets": SETS, "genes_per_spot": DETECTED, "repeats": options.repeats,
        "machine": "{processor}, {cores} cores".format_map(machine()),
        "counts_mb": round((counts.data.nbytes + counts.indices.nbytes) / 2**20),
        "peak_above_counts_mb": memory.above,
        "beside_pyucell": beside_pyucell(counts[: min(BESIDE, spots // 5)], genes, sets, options.repeats),
    }  # fmt: skip
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if not options.quick:
        keep("scoring", found, markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
