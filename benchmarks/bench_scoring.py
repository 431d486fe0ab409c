"""UCell over a synthetic cohort: seconds and memory for 100,000 spots x 18,000 genes x 50 sets.

    python benchmarks/bench_scoring.py            whole size
    python benchmarks/bench_scoring.py --quick    a tenth of the spots, extrapolated

Counts are drawn so that a spot has about 3,000 genes, as Visium has. Drawing them is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time

import numpy as np
from scipy import sparse

from stamp_deploy.training.gene_sets import GeneSets
from stamp_deploy.training.scoring import score

SPOTS, GENES, SETS, SET_SIZE, DETECTED = 100_000, 18_000, 50, 150, 3_000


def draw(rng: np.random.Generator, spots: int) -> sparse.csr_array:
    """Counts float32 [spots, GENES], DETECTED genes a spot, from 1 to some hundred."""
    indices = np.empty((spots, DETECTED), np.int32)
    step = GENES // DETECTED
    for row in range(spots):  # one gene of each run of neighbours: sorted and without repeats
        indices[row] = np.arange(DETECTED) * step + rng.integers(0, step, DETECTED)
    data = np.minimum(rng.geometric(0.25, (spots, DETECTED)), 500).astype(np.float32)
    indptr = np.arange(0, spots * DETECTED + 1, DETECTED, dtype=np.int64)
    return sparse.csr_array((data.reshape(-1), indices.reshape(-1), indptr), shape=(spots, GENES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    spots = SPOTS // 10 if options.quick else SPOTS
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(GENES)]
    members = [tuple(genes[j] for j in rng.choice(GENES, SET_SIZE, replace=False)) for _ in range(SETS)]
    sets = GeneSets(tuple(f"S{i}" for i in range(SETS)), tuple(members))
    counts = draw(rng, spots)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results = {}
    for method in ("ucell", "zmean"):
        seconds, processor = [], []
        for _ in range(options.repeats):
            start, used = time.perf_counter(), time.process_time()
            score(counts, genes, sets, method)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
        results[method] = {
            "seconds": [round(s, 2) for s in seconds],
            "median_s": round(statistics.median(seconds), 2),
            "median_cpu_s": round(statistics.median(processor), 2),
            "full_size_s": round(statistics.median(seconds) * SPOTS / spots, 1),
            "full_size_cpu_s": round(statistics.median(processor) * SPOTS / spots, 1),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "spots": spots,
                "genes": GENES,
                "sets": SETS,
                "genes_a_spot": DETECTED,
                "cores": len(os.sched_getaffinity(0)),
                "counts_mb": round((counts.data.nbytes + counts.indices.nbytes) / 2**20),
                "peak_above_counts_mb": round(peak - before),
                **results,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
