"""How many patients, sections and spots show that alignment helps by +.02 on new patients? A simulated cohort answers.

Two steps. First, sections with spatially correlated spots are drawn, a frozen and an aligned prediction whose errors go
together, and the difference of their mean r over pathways is taken: what of it is chance, by the number of spots. How
much the errors go together is set so that this chance is what the block bootstrap measured on her2st. Second, cohorts:
each patient has a gain of their own, each section of a patient another, and chance is added. The verdict is that of
`evaluate`: the 95 % percentile interval over patients drawn with replacement lies above 0. Its share is the power; with
a true gain of 0 it is the rate of false alarms.

Nothing here is about other patients' data: how much gains differ between patients is not known and is varied.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from result_files import RESULTS, keep

from stamp_deploy.training.metrics import pearson

Floats = NDArray[np.float64]
GAIN = 0.02
R_FROZEN = 0.46
PATHWAYS, RANK = 50, 6
BLOCK_SPOTS = 9
"""Spots of 200 um in a block of 600 um."""
BLOCK_SHARE = 0.5
"""Of the variance of truth and errors, what a block shares."""
SPOTS = (180, 500, 1800, 5000)
PATIENTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SECTIONS = (1, 2, 4)
BETWEEN_PATIENTS = (0.01, 0.02, 0.04)
HER2ST_SPOTS = 180
COHORTS, DRAWS = 1000, 500
POWER = 0.8


def main() -> None:
    """Parse, simulate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few draws, nothing written")
    args = parser.parse_args()
    cohorts, sections = (60, 20) if args.quick else (COHORTS, 200)
    measured = her2st(RESULTS / "training.json")
    together = tie(measured["chance_sd"], sections)
    chance = {n: chance_sd(n, together, sections) for n in SPOTS}
    rows = []
    for spread in BETWEEN_PATIENTS:
        for each in SECTIONS:
            for spots in SPOTS:
                shares = {
                    k: [
                        shown(gain, k, each, spread, measured["between_sections"], chance[spots], cohorts)
                        for gain in (GAIN, 0.0)
                    ]
                    for k in PATIENTS
                }
                enough = [k for k in PATIENTS if all(shares[later][0] >= POWER for later in PATIENTS if later >= k)]
                rows.append({
                    "between_patients_sd": spread, "sections_per_patient": each, "spots_per_section": spots,
                    "patients_for_80_percent": min(enough, default=None),
                    "power": {str(k): round(s[0], 3) for k, s in shares.items()},
                    "false_alarms": {str(k): round(s[1], 3) for k, s in shares.items()},
                })  # fmt: skip
    document = {
        "gain": GAIN, "r_frozen": R_FROZEN, "measured": measured, "correlation_of_errors": round(together, 4),
        "chance_sd": {str(n): round(v, 5) for n, v in chance.items()}, "rows": rows,
    }  # fmt: skip
    text = markdown(document)
    print(text)
    if not args.quick:
        keep("power", document, text, args.results)


def her2st(path: Path) -> dict[str, float]:
    """What the ladder on her2st measured: the chance of one section's difference, and how sections differ beyond it."""
    found = json.loads(path.read_text(encoding="utf-8"))
    folds = found["folds"]
    width = found["aligned_minus_frozen_high"] - found["aligned_minus_frozen_low"]
    chance = width / 3.92 * np.sqrt(len(folds))
    gains = [found["sections"]["last_stage"][f] - found["sections"]["frozen_ridge"][f] for f in folds]
    return {
        "sections": float(len(folds)),
        "chance_sd": round(float(chance), 5),
        "between_sections": round(float(np.sqrt(max(np.var(gains, ddof=1) - chance**2, 0.0))), 5),
    }


def spots_of(rng: np.random.Generator, sections: int, spots: int, columns: int) -> Floats:
    """Standard normal values [S, N, C] of which blocks of neighbours share a part."""
    blocks = -(-spots // BLOCK_SPOTS)
    shared = np.repeat(rng.standard_normal((sections, blocks, columns)), BLOCK_SPOTS, axis=1)[:, :spots]
    own = rng.standard_normal((sections, spots, columns))
    return np.asarray(np.sqrt(BLOCK_SHARE) * shared + np.sqrt(1 - BLOCK_SHARE) * own)


def chance_sd(spots: int, together: float, sections: int, seed: int = 0) -> float:
    """Deviation over sections of the difference in mean r of an aligned and a frozen prediction of the same truth."""
    rng = np.random.default_rng([seed, spots])
    mix = rng.standard_normal((RANK, PATHWAYS)) / np.sqrt(RANK)
    gains = np.empty(sections)
    for i in range(sections):
        truth = spots_of(rng, 1, spots, RANK)[0] @ mix + 0.5 * spots_of(rng, 1, spots, PATHWAYS)[0]
        errors = spots_of(rng, 1, spots, 3 * RANK)[0]
        common, frozen, aligned = (errors[:, k * RANK : (k + 1) * RANK] @ mix for k in range(3))
        r = []
        for wanted, own in ((R_FROZEN, frozen), (R_FROZEN + GAIN, aligned)):
            error = np.sqrt(together) * common + np.sqrt(1 - together) * own
            size = truth.std(axis=0) / error.std(axis=0) * np.sqrt(1 / wanted**2 - 1)
            r.append(pearson(truth, truth + size * error).mean())
        gains[i] = r[1] - r[0]
    return float(gains.std(ddof=1))


def tie(target: float, sections: int) -> float:
    """How much the errors must go together for a section of her2st's size to have the chance that was measured."""
    low, high = 0.0, 0.9999
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if chance_sd(HER2ST_SPOTS, middle, sections) > target else (low, middle)
    return (low + high) / 2


def shown(
    gain: float, patients: int, each: int, between: float, sections_sd: float, chance: float, cohorts: int
) -> float:
    """Share of simulated cohorts whose interval over patients lies above 0."""
    rng = np.random.default_rng([patients, each, round(1e4 * between), round(1e6 * chance)])
    own = gain + between * rng.standard_normal((cohorts, patients))
    noise = np.sqrt((sections_sd**2 + chance**2) / each)
    found = own + noise * rng.standard_normal((cohorts, patients))
    counts = rng.multinomial(patients, np.full(patients, 1 / patients), DRAWS) / patients
    low = np.percentile(found @ counts.T, 2.5, axis=1)
    return float((low > 0).mean())


def markdown(d: dict[str, Any]) -> str:
    """benchmarks/results/power.md."""
    m = d["measured"]
    lines = [
        "# Patients, sections and spots to show +.02 on new patients",
        "",
        "Written by benchmarks/power.py: a simulation. The rule is that of `evaluate`: the 95 % interval over patients",
        f"lies above 0. Frozen mean r {d['r_frozen']}, a true gain of {d['gain']} on average over patients.",
        "",
        f"From the ladder on her2st ({m['sections']:.0f} sections of one patient): chance of one section's difference,",
        f"sd {m['chance_sd']:.4f} (block bootstrap); sections of a patient differ beyond it by sd",
        f"{m['between_sections']:.4f}. How much gains differ between patients is not known from one patient; three",
        "values are shown.",
        "",
        "Chance of one section's difference by its spots: "
        + ", ".join(f"{n} spots {v:.4f}" for n, v in d["chance_sd"].items())
        + ".",
        "",
        "## Patients for a power of 80 %",
        "",
        "| sd between patients | sections each | " + " | ".join(f"{n} spots" for n in SPOTS) + " |",
        "|---|---|" + "---|" * len(SPOTS),
    ]
    for spread in BETWEEN_PATIENTS:
        for each in SECTIONS:
            cells = [r["patients_for_80_percent"] for r in _of(d["rows"], spread, each)]
            lines.append(
                f"| {spread} | {each} | " + " | ".join("above 128" if c is None else str(c) for c in cells) + " |"
            )
    lines += [
        "",
        "## Power and false alarms by the number of patients (1 section of 1,800 spots each)",
        "",
        "A false alarm is the verdict at a true gain of 0; 2.5 % would be right for an exact interval.",
        "",
        "| sd between patients | | " + " | ".join(str(k) for k in PATIENTS) + " |",
        "|---|---|" + "---|" * len(PATIENTS),
    ]
    for spread in BETWEEN_PATIENTS:
        row = next(r for r in _of(d["rows"], spread, 1) if r["spots_per_section"] == 1800)
        for what in ("power", "false_alarms"):
            values = " | ".join(f"{row[what][str(k)]:.2f}" for k in PATIENTS)
            lines.append(f"| {spread} | {what.replace('_', ' ')} | {values} |")
    few = {k: max(r["false_alarms"][str(k)] for r in d["rows"]) for k in PATIENTS}
    safe = next((k for k in PATIENTS if all(few[later] <= 0.05 for later in PATIENTS if later >= k)), None)
    lines += [
        "",
        "What it says: new patients decide, not more spots. From a few hundred spots on, what limits is how much the",
        "gain differs between patients. With few patients the percentile interval is too narrow: false alarms reach",
        f"{few[4]:.0%} at 4 patients" + (f", and stay at 5 % or below from {safe} patients on." if safe else "."),
    ]
    return "\n".join([*lines, ""])


def _of(rows: Sequence[dict[str, Any]], spread: float, each: int) -> list[dict[str, Any]]:
    return [r for r in rows if r["between_patients_sd"] == spread and r["sections_per_patient"] == each]


if __name__ == "__main__":
    main()
