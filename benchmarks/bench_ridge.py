"""The ridge read-out at the size of an atlas: 1,000 sections of 1,800 spots, embeddings of 1,024 values, 50 targets.

Sections are made as they are read, so that no table of all spots exists; making them is not counted. The fit is that of
the product: sums over sections, ten folds of whole sections, 17 penalties.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from result_files import RESULTS, keep

from stamp_deploy.training.gram_ridge import fit_over_sections
from stamp_deploy.training.ridge import ALPHAS

SPOTS, DIM, TARGETS = 1800, 1024, 50
LIMIT_S = 600.0
DISTINCT = 8
"""Different sections; they repeat, each with other noise on its targets."""


class Sections:
    """A sequence of tables that are made when they are read."""

    def __init__(self, count: int, tables: list[NDArray[np.float32]]) -> None:
        self.count, self.tables = count, tables

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        if number >= self.count:
            raise IndexError(number)
        return self.tables[number % len(self.tables)]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[i] for i in range(self.count))


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--sections", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a smoke test: 30 small sections, nothing written")
    args = parser.parse_args()
    sections, spots, dim = (30, 60, 64) if args.quick else (args.sections, SPOTS, DIM)
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((dim, TARGETS)) / np.sqrt(dim)
    x = [rng.standard_normal((spots, dim), np.float32) for _ in range(DISTINCT)]
    y = [(part @ mix + rng.standard_normal((spots, TARGETS))).astype(np.float32) for part in x]
    names = [f"section {i}" for i in range(sections)]
    clock, cpu = time.perf_counter(), time.process_time()
    tables: tuple[Any, Any] = (Sections(sections, x), Sections(sections, y))
    weights, _, alpha = fit_over_sections(*tables, names, ALPHAS, floor=0.9)
    wall, used = time.perf_counter() - clock, time.process_time() - cpu
    error = float(np.abs(weights - mix).max())
    document: dict[str, Any] = {
        "sections": sections, "spots": spots, "dim": dim, "targets": TARGETS, "penalties": len(ALPHAS),
        "ridge_wall_s": round(wall, 1), "ridge_cpu_s": round(used, 1),
        "ridge_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "largest_error_of_a_weight": round(error, 5), "penalty_median": float(np.median(alpha)),
        "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    text = markdown(document)
    print(text)
    if not args.quick:
        keep("ridge", document, text, args.results)


def markdown(d: dict[str, Any]) -> str:
    """benchmarks/results/ridge.md."""
    lines = [
        "# Ridge over an atlas",
        "",
        f"Written by benchmarks/bench_ridge.py: {d['sections']:,} sections of {d['spots']:,} spots, embeddings of",
        f"{d['dim']:,} values, {d['targets']} targets, {d['penalties']} penalties, ten folds of whole sections.",
        "",
        f"- {d['ridge_wall_s']:.0f} s of wall time on a machine with load {d['load_before']} before;",
        f"  {d['ridge_cpu_s']:.0f} s of CPU time of one core",
        f"- {d['ridge_peak_mb']:,} MB at the peak",
        f"- largest error of a weight: {d['largest_error_of_a_weight']}",
        f"- bar of {LIMIT_S:.0f} s on 2 cores, by wall time: {'met' if d['ridge_wall_s'] < LIMIT_S else 'NOT met'}",
        "",
        "The former way (one table of all spots, one decomposition for each section left out) would need 7.4 GB for",
        "the table alone and 1,000 times the products.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
