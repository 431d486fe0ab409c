"""Which planted faults do the tests notice? Mutation testing of one module, with cosmic-ray's mutants.

    make mutants MODULE=tissue                        a sample of 60 mutants, drawn with seed 0
    python benchmarks/mutants.py tissue --seed 1      a fresh sample, after tests were added for the last one
    python benchmarks/mutants.py tissue --sample 0    all of them
    python benchmarks/mutants.py tissue --survivors   only those that survived last time, after tests were added
    python benchmarks/mutants.py tissue --tests tests/tissue/test_tissue.py    with these tests alone, which are quick
    python benchmarks/mutants.py tissue --survivors --drawn    its survivors with all tests, before any is added
    python benchmarks/mutants.py table                only write mutation.md again

Works on a copy of the checkout (mutant_trials.py tries them). Mutants inside type annotations are left out: they
change nothing that runs. Results are kept in benchmarks/results/mutation/MODULE.json; mutation.md is written from all
of them: the share of mutants that a test failed on, with Wilson's 95 % interval where only a sample was tried, and
every survivor. The share that counts is that of the day the sample was drawn: tests written for its survivors make
the share of the same sample better than that of the module; `--drawn` says that none were. A survivor's "reason", and
"equivalent" where no test can notice it, are filled in there by hand and kept by later runs; equivalent mutants do not
count.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checkout import copy_checkout, environment
from mutant_trials import TESTS_S
from real_slides import ROOT

RESULTS = ROOT / "benchmarks" / "results"
SAMPLE, SEED = 60, 0
BAR = 0.85

MODULES: dict[str, tuple[str, str]] = {
    "slide": ("stamp_deploy/slide/*.py", "tests/slide tests/tiles/test_left_out.py tests/test_absence.py"),
    "backends": ("stamp_deploy/slide/backends/*.py", "tests/slide tests/tiles/test_routes.py"),
    "tiles": ("stamp_deploy/tiles/*.py", "tests/tiles"),
    "grid": ("stamp_deploy/grid.py stamp_deploy/maps.py", "tests/test_grid.py tests/test_maps.py"),
    "tissue": ("stamp_deploy/tissue/*.py stamp_deploy/absence.py", "tests/tissue tests/test_absence.py"),
    "heads": ("stamp_deploy/heads.py", "tests/test_heads.py"),
    "result": (
        "stamp_deploy/result.py stamp_deploy/result_parts.py stamp_deploy/assemble.py stamp_deploy/result_files.py",
        "tests/test_result.py tests/test_result_numbers.py",
    ),
    "score": ("stamp_deploy/score.py", "tests/end_to_end"),
    "writers": (
        "stamp_deploy/writers/dicom_*.py stamp_deploy/writers/hdf5*.py stamp_deploy/writers/[agns]*.py "
        "stamp_deploy/writers/ome_tiff.py stamp_deploy/writers/parquet.py",
        "tests/writers/test_writers_numbers.py tests/writers/test_dicom_numbers.py tests/writers/test_summary_table.py "
        "tests/writers/test_writers_formats.py tests/writers/test_writers_dicom.py tests/writers/test_dicom_headers.py "
        "tests/writers/test_dicom_content.py",
    ),
    "pictures": (
        "stamp_deploy/writers/c*.py stamp_deploy/writers/heatmaps.py stamp_deploy/writers/overview.py "
        "stamp_deploy/writers/report_html.py",
        "tests/writers/test_writers_core.py tests/writers/test_canvas.py tests/writers/test_report.py",
    ),
    "bundle": ("stamp_deploy/bundle/*.py", "tests/bundle"),
    "engine": (
        "stamp_deploy/engine/[hlmor]*.py stamp_deploy/engine/[bc]a*.py "  # not the GPUs'
        "stamp_deploy/engine/auto.py stamp_deploy/engine/golden.py stamp_deploy/engine/interface.py",
        "tests/engine/test_engines.py tests/engine/test_lanes.py tests/engine/test_verdict.py "
        "tests/engine/test_choice.py tests/engine/test_graph_forms.py tests/engine/test_swap.py "
        "tests/engine/test_bound_lanes.py tests/engine/test_engine_settings.py tests/bundle/test_golden_files.py "
        "tests/engine/test_opening.py tests/engine/test_keys.py tests/engine/test_graph_rewriting.py "
        "tests/engine/test_openvino_streams.py tests/test_heads.py",
    ),
    "parity": (
        "stamp_deploy/engine/parity.py stamp_deploy/engine/agreement.py stamp_deploy/engine/tolerances.py "
        "stamp_deploy/engine/verdict.py",
        "tests/engine/test_parity.py tests/engine/test_verdict.py",
    ),
    "atomic": ("stamp_deploy/atomic.py", "tests/test_atomic.py"),
    "records": (
        "stamp_deploy/batch/records/*.py",
        "tests/batch/test_audit.py tests/batch/test_claims.py tests/batch/test_ledger.py tests/batch/test_metrics.py "
        "tests/batch/test_batch_state.py tests/batch/test_nth_failure.py tests/batch/test_changes.py "
        "tests/batch/test_report.py tests/batch/test_signals_and_locks.py tests/batch/test_records.py",
    ),
    "losses": ("training/losses.py", "tests/training/test_losses.py"),
    "split": ("training/split.py", "tests/training/test_split.py"),
    "metrics": ("training/metrics.py training/intervals.py training/summary.py", "tests/training/test_metrics.py"),
    "head-metrics": ("training/heads/metrics.py", "tests/training/test_head_metrics.py"),
    "calibration": (
        "training/heads/calibration.py",
        "tests/training/test_head_metrics.py tests/training/test_head_calibration.py",
    ),
}
"""Short name -> the files that are mutated (patterns), and the tests that must notice their mutants."""


def revision() -> str:
    """The commit that is checked out, with "+" where files differ from it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, check=True).stdout
    return head.strip()[:9] + ("+" if changed else "")


def annotated_lines(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(start, end) of every type annotation, as (line, column) pairs."""
    for node in ast.walk(ast.parse(source)):
        found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in found:
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def mutations(modules: list[Path]) -> list[Any]:
    """cosmic-ray's mutations of these files outside type annotations, in the order of the source."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import use_db

    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "session.sqlite") as work:
        init(modules, work, {})
        found = [item.mutations[0] for item in work.work_items]
    annotations = {module: list(annotated_lines(module.read_text())) for module in modules}
    real = [
        mutation
        for mutation in found
        if not any(start <= tuple(mutation.start_pos) < end for start, end in annotations[Path(mutation.module_path)])
    ]
    return sorted(real, key=lambda one: (str(one.module_path), *one.start_pos, one.operator_name, one.occurrence))


def mutant(mutation: Any) -> dict[str, Any] | None:
    """What mutant_trials.py needs of one mutation; None where nothing that runs has changed, or nothing runs."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    path = Path(mutation.module_path)
    source = path.read_text()
    code = mutate_code(source, plugins.get_operator(mutation.operator_name)(), mutation.occurrence)
    try:
        if code is None or ast.dump(ast.parse(source)) == ast.dump(ast.parse(code)):
            return None
    except SyntaxError:
        return None
    changed = list(difflib.ndiff(source.splitlines(), code.splitlines()))
    return {
        "module": str(path.relative_to(ROOT)),
        "line": mutation.start_pos[0],
        "was": " ".join(text[2:].strip() for text in changed if text.startswith("- ")),
        "became": " ".join(text[2:].strip() for text in changed if text.startswith("+ ")),
        "code": code,
    }


def try_all(modules: list[str], tests: str, mutants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Try mutants in a copy of the checkout; each comes back with its outcome."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkout"
        place.mkdir()
        copy_checkout(place)
        for extension in (ROOT / "stamp_deploy").glob("_tiler*.so"):
            shutil.copy2(extension, place / "stamp_deploy")
        job = place / "job.json"
        job.write_text(json.dumps({"modules": modules, "tests": tests.split(), "mutants": mutants}))
        command = [sys.executable, "benchmarks/mutant_trials.py", str(job)]
        subprocess.run(command, cwd=place, env={**environment(), "PYTHONPATH": str(place)}, check=True)
        return list(json.loads(job.read_text())["mutants"])


def key(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["module"], one["was"], one["became"]


def run(name: str, sample: int, seed: int, tests: str, last: dict[str, Any] | None) -> dict[str, Any]:
    """Mutate the files of one short name; returns its results."""
    patterns, all_tests = MODULES[name]
    modules = modules_of(name)
    of_code, at = digest(modules), revision()
    found = mutations(modules)
    mutants = [one for one in map(mutant, sampled(found, sample, seed)) if one]
    done = try_all([str(path.relative_to(ROOT)) for path in modules], tests or all_tests, mutants)
    known = {key(one): one for one in (last or {"survivors": []})["survivors"]}
    survivors = [as_kept(one, known.get(key(one))) for one in done if one["outcome"] == "survived"]
    return {
        "files": patterns,
        "tests": all_tests,
        "mutants": len(found),
        "tried": len(mutants),
        "noticed_when_drawn": len(mutants) - len(survivors),
        "noticed": len(mutants) - len(survivors),
        "out_of_time": sum(one["outcome"] == "out of time" for one in done),
        "survivors": survivors,
        "seed": seed,
        "sample": sample,
        "revision": at,
        "source_sha256": of_code,
        "date": datetime.now(UTC).date().isoformat(),
    }


def run_survivors(name: str, last: dict[str, Any], tests: str, drawn_with: bool) -> dict[str, Any]:
    """Try the survivors of the last run again; those that are known to be equivalent stay as they are.

    `drawn_with`: no tests were added since the sample was drawn.
    """
    modules = modules_of(name)
    if last["source_sha256"] != digest(modules):
        raise SystemExit(f"{name}: the last run was of other code; run it whole")
    real = {key(one) for one in last["survivors"] if not one.get("equivalent")}
    drawn = sampled(mutations(modules), last["sample"], last["seed"])
    again = [one for one in map(mutant, drawn) if one and key(one) in real]
    done = try_all([str(path.relative_to(ROOT)) for path in modules], tests or last["tests"], again)
    noticed = {key(one) for one in done if one["outcome"] != "survived"}
    survivors = [one for one in last["survivors"] if key(one) not in noticed]
    noticed_now = last["tried"] - len(survivors)
    return last | {
        "noticed": noticed_now,
        "noticed_when_drawn": noticed_now if drawn_with else last["noticed_when_drawn"],
        "out_of_time": last["out_of_time"] + sum(one["outcome"] == "out of time" for one in done),
        "survivors": survivors,
    }


def modules_of(name: str) -> list[Path]:
    return sorted({path for pattern in MODULES[name][0].split() for path in ROOT.glob(pattern)})


def digest(modules: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in modules)).hexdigest()


def as_kept(one: dict[str, Any], known: dict[str, Any] | None) -> dict[str, Any]:
    """What a results file keeps of a survivor, with what was filled in by hand about it."""
    by_hand = {field: known[field] for field in ("reason", "equivalent") if known and field in known}
    return {field: one[field] for field in ("module", "line", "was", "became")} | by_hand


def sampled(found: list[Any], sample: int, seed: int) -> list[Any]:
    """A sample with a fixed seed, in the order of the source; all of them where `sample` is 0."""
    if not sample or len(found) <= sample:
        return found
    return [found[at] for at in sorted(random.Random(seed).sample(range(len(found)), sample))]


def wilson(hits: int, tried: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / tried
    middle = (share + z * z / (2 * tried)) / (1 + z * z / tried)
    half = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried)) / (1 + z * z / tried)
    return max(0.0, middle - half), min(1.0, middle + half)


def write_table() -> None:
    """mutation.md out of mutation/*.json."""
    rows = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / "mutation").glob("*.json"))}
    text = [
        "# Mutation testing\n",
        "Faults planted by cosmic-ray, one at a time (`make mutants MODULE=...`), and the share that a test failed on. "
        f"The bar is {BAR:.0%}. Mutants inside type annotations are left out; equivalent mutants (nothing that a test "
        "could see has changed) do not count. A mutant is tried with the tests that ran its line, the quickest "
        f"first, up to {TESTS_S:g} s of processor time; one without end is stopped by that and counts as "
        "noticed. Those that do not parse are left out.\n",
        "The share *when drawn*, with its interval, speaks for the module. The share *now* is that of the same sample "
        "after tests were added for its survivors, so it is better than the module's; where the first was not kept, "
        "it may be biased in that way.\n",
        "| module | files | mutants | tried | equivalent | when drawn | 95 % interval | now | without end | seed "
        "| revision |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        counted = row["tried"] - sum(bool(one.get("equivalent")) for one in row["survivors"])
        drawn = row.get("noticed_when_drawn")
        low, high = wilson(row["noticed"] if drawn is None else drawn, counted)
        interval = f"{low:.0%} to {high:.0%}" if row["tried"] < row["mutants"] else "all were tried"
        text.append(
            f"| {name} | {row['files']} | {row['mutants']} | {row['tried']} | {row['tried'] - counted} "
            f"| {'not kept' if drawn is None else f'{drawn / counted:.0%}'} | {interval} "
            f"| {row['noticed'] / counted:.0%} | {row['out_of_time']} | {row['seed']} | {row['revision']} |"
        )
    for name, row in rows.items():
        if row["survivors"]:
            text.append(f"\n## Survivors in {name}\n")
        for one in row["survivors"]:
            note = ("equivalent: " if one.get("equivalent") else "") + one.get("reason", "not explained")
            text.append(f"- {one['module']}:{one['line']}: `{one['was']}` became `{one['became']}`: {note}")
    (RESULTS / "mutation.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="+", choices=[*MODULES, "all", "table"])
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants per module; 0 tries all")
    parser.add_argument("--seed", type=int, default=SEED, help="which sample is drawn")
    parser.add_argument("--survivors", action="store_true", help="only those that survived the last run")
    parser.add_argument("--tests", default="", help="these tests instead of the module's")
    parser.add_argument("--drawn", action="store_true", help="with --survivors: no tests were added since")
    arguments = parser.parse_args()
    (RESULTS / "mutation").mkdir(parents=True, exist_ok=True)
    for name in MODULES if "all" in arguments.modules else arguments.modules:
        if name != "table":
            path = RESULTS / "mutation" / f"{name}.json"
            last = json.loads(path.read_text()) if path.exists() else None
            if arguments.survivors and (last is None or "sample" not in last):
                raise SystemExit(f"{name}: no last run that kept its sample; run it whole")
            if arguments.survivors and last:
                row = run_survivors(name, last, arguments.tests, arguments.drawn)
            else:
                row = run(name, arguments.sample, arguments.seed, arguments.tests, last)
            path.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{name}: {row['noticed']} of {row['tried']} mutants were noticed", flush=True)
        write_table()


if __name__ == "__main__":
    main()
