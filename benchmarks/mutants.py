"""Which planted faults do the tests notice? Mutation testing of one module, by cosmic-ray.

    make mutants MODULE=grid                       a sample of 60 mutants, drawn with a fixed seed
    python benchmarks/mutants.py grid --sample 0   all of them

Works on a copy of the checkout. Mutants inside type annotations are left out: they change nothing that runs. Results
are kept in benchmarks/results/mutation.json, from which mutation.md is written: the share of mutants that a test failed
on, with Wilson's 95 % interval where only a sample was tried, and every survivor.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stamp_deploy.provenance import revision

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SAMPLE, SEED, TIME_LIMIT_S = 60, 0, 120.0
BAR = 0.85

MODULES: dict[str, tuple[str, str]] = {
    "grid": ("stamp_deploy/grid.py", "tests/tiles/test_tiles.py tests/end_to_end"),
    "tissue": ("stamp_deploy/tissue/tissue.py", "tests/tissue/test_tissue.py"),
    "maps": ("stamp_deploy/maps.py", "tests/test_maps.py tests/end_to_end"),
    "heads": ("stamp_deploy/heads.py", "tests/test_heads.py tests/end_to_end"),
    "result": ("stamp_deploy/result.py", "tests/test_result.py tests/end_to_end"),
    "score": ("stamp_deploy/score.py", "tests/end_to_end"),
    "assemble": ("stamp_deploy/assemble.py", "tests/end_to_end tests/test_result.py"),
    "mpp": ("stamp_deploy/slide/mpp.py", "tests/slide/test_mpp.py"),
    "read-plan": ("stamp_deploy/tiles/read_plan.py", "tests/tiles"),
    "schedule": ("stamp_deploy/tiles/schedule.py", "tests/tiles"),
    "schema": ("stamp_deploy/bundle/schema.py", "tests/bundle"),
    "onnx-scan": ("stamp_deploy/bundle/onnx_scan.py", "tests/bundle"),
    "parity": ("stamp_deploy/engine/parity.py", "tests/engine/test_parity.py"),
    "agreement": ("stamp_deploy/engine/agreement.py", "tests/engine/test_parity.py"),
    "tolerances": ("stamp_deploy/engine/tolerances.py", "tests/engine/test_parity.py"),
    "atomic": ("stamp_deploy/atomic.py", "tests/test_atomic.py"),
    "claims": ("stamp_deploy/batch/records/claims.py", "tests/batch"),
    "claim-file": ("stamp_deploy/batch/records/claim_file.py", "tests/batch"),
    "ledger": ("stamp_deploy/batch/records/ledger.py", "tests/batch/test_ledger.py"),
    "losses": ("training/losses.py", "tests/training/test_train_parts.py"),
    "split": ("training/split.py", "tests/training"),
    "metrics": ("training/metrics.py", "tests/training/test_evaluate.py"),
    "head-metrics": ("training/heads/metrics.py", "tests/training/test_slide_heads.py"),
    "calibration": ("training/heads/calibration.py", "tests/training/test_slide_heads.py"),
    "geojson": ("stamp_deploy/writers/geojson.py", "tests/writers/test_writers_core.py tests/end_to_end"),
    "hdf5": ("stamp_deploy/writers/hdf5.py", "tests/writers/test_writers_core.py tests/end_to_end"),
    "ome-tiff": ("stamp_deploy/writers/ome_tiff.py", "tests/writers/test_writers_formats.py tests/end_to_end"),
}
"""Short name -> the module, and the tests that must notice its mutants."""


def copy_checkout(place: Path) -> None:
    """What git tracks, and the compiled core; training and export lie where the package imports them from."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    for extension in (ROOT / "stamp_deploy").glob("_tiler*.so"):
        shutil.copy2(extension, place / "stamp_deploy")
    for folder in ("training", "export"):
        (place / "stamp_deploy" / folder).symlink_to(place / folder)


def annotated_lines(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(start, end) of every type annotation, as (line, column) pairs."""
    for node in ast.walk(ast.parse(source)):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in found:
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def run(name: str, sample: int) -> dict[str, Any]:
    """Mutate one module; returns its row of the results."""
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    module, tests = MODULES[name]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkout"
        place.mkdir()
        copy_checkout(place)
        existing = [test for test in tests.split() if (place / test).exists()]
        python = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -p no:randomly"
        (place / "mutants.toml").write_text(
            f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {TIME_LIMIT_S}\nexcluded-modules = []\n'
            f'test-command = "{python} {" ".join(existing)}"\n[cosmic-ray.distributor]\nname = "local"\n'
        )
        data = os.environ.get("STAMP_TEST_DATA", str(ROOT.parent / "shared" / "data"))
        environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "STAMP_TEST_DATA": data}

        def cosmic_ray(*words: str) -> None:
            command = [sys.executable, "-m", "cosmic_ray.cli", *words]
            subprocess.run(command, cwd=place, env=environment, check=True)

        cosmic_ray("init", "mutants.toml", "session.sqlite")
        cosmic_ray("baseline", "mutants.toml")
        source = (place / module).read_text()
        annotations = list(annotated_lines(source))
        lines = source.splitlines()
        with use_db(place / "session.sqlite") as work:
            real = {
                item.job_id: item.mutations[0]
                for item in work.work_items
                if not any(start <= tuple(item.mutations[0].start_pos) < end for start, end in annotations)
            }
            # job ids are drawn anew in each run; the order of the source is the same in all
            chosen = sorted(real, key=lambda job: (*real[job].start_pos, real[job].operator_name, real[job].occurrence))
            if sample and len(chosen) > sample:
                chosen = random.Random(SEED).sample(chosen, sample)
            skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
            for item in list(work.work_items):
                if item.job_id not in chosen:
                    work.set_result(item.job_id, skipped)
        cosmic_ray("exec", "mutants.toml", "session.sqlite")
        survivors = []
        with use_db(place / "session.sqlite") as work:
            for job, result in work.results:
                if job in chosen and result.test_outcome == TestOutcome.SURVIVED:
                    line = real[job].start_pos[0]
                    changed = [text for text in (result.diff or "").splitlines() if text.startswith("+ ")]
                    survivors.append(
                        {"line": line, "was": lines[line - 1].strip(), "became": "".join(changed)[1:].strip()}
                    )
    return {
        "module": module,
        "mutants": len(real),
        "tried": len(chosen),
        "killed": len(chosen) - len(survivors),
        "survivors": sorted(survivors, key=lambda row: row["line"]),
        "revision": revision(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def wilson(hits: int, tried: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / tried
    middle = (share + z * z / (2 * tried)) / (1 + z * z / tried)
    half = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried)) / (1 + z * z / tried)
    return middle - half, middle + half


def write_table(rows: dict[str, dict[str, Any]]) -> None:
    """mutation.md out of mutation.json."""
    text = [
        "# Mutation testing\n",
        "Faults planted by cosmic-ray, one at a time (`make mutants MODULE=...`), and the share that a test failed on. "
        f"The bar is {BAR:.0%}. Mutants inside type annotations are left out.\n",
        "| module | mutants | tried | noticed | share | 95 % interval | revision |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        share = row["killed"] / row["tried"]
        low, high = wilson(row["killed"], row["tried"])
        interval = f"{low:.0%} to {high:.0%}" if row["tried"] < row["mutants"] else "all were tried"
        text.append(
            f"| {row['module']} | {row['mutants']} | {row['tried']} | {row['killed']} | {share:.0%} | {interval} "
            f"| {row['revision'][:9]} |"
        )
    for row in rows.values():
        if row["survivors"]:
            text.append(f"\n## Survivors in {row['module']}\n")
            text += [f"- line {one['line']}: `{one['was']}` became `{one['became']}`" for one in row["survivors"]]
    (RESULTS / "mutation.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="+", choices=[*MODULES, "all"])
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants per module; 0 tries all")
    arguments = parser.parse_args()
    path = RESULTS / "mutation.json"
    for name in MODULES if "all" in arguments.modules else arguments.modules:
        row = run(name, arguments.sample)
        rows = json.loads(path.read_text()) if path.exists() else {}
        rows[name] = row
        path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n", encoding="utf-8")
        write_table(dict(sorted(rows.items())))
        print(f"{row['module']}: {row['killed']} of {row['tried']} mutants were noticed", flush=True)


if __name__ == "__main__":
    main()
