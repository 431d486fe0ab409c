"""How a benchmark keeps its results: what it ran on stands in them, and what got worse since the last ones is said.

`keep` writes NAME.json and NAME.md under benchmarks/results. Before it overwrites the committed figures, it compares
the ratios that `COMPARED` names with them, where both come from the same processor and number of cores. Absolute times
are not compared: on a shared machine only what was measured side by side in one run holds from day to day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stamp_deploy.checks.acceptance import machine

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Ratio:
    """A figure that may be compared with an earlier one.

    Attributes
    ----------
    key : str
        Dotted path in the record.
    higher_is_better : bool
    spread : str
        Dotted path of its spread; without one, `tolerance` of the value is taken.
    tolerance : float
    """

    key: str
    higher_is_better: bool = True
    spread: str = ""
    tolerance: float = 0.1


def _spread(key: str, higher_is_better: bool = True) -> Ratio:
    return Ratio(key, higher_is_better, f"{key}_spread")


COMPARED: dict[str, tuple[Ratio, ...]] = {
    "tiler": (
        _spread("vs_openslide_40x"),
        _spread("vs_openslide_20x"),
        _spread("of_decode_ceiling_40x"),
        _spread("of_decode_ceiling_20x"),
        _spread("two_thread_speedup"),
        _spread("resampled_fraction"),
        _spread("glass_fraction", higher_is_better=False),
    ),
    "formats": (
        _spread("dicom420_vs_openslide"),
        _spread("dicom420_vs_svs"),
        _spread("philips_vs_openslide"),
        _spread("scn_vs_openslide"),
        _spread("dicom_open_100k_s", higher_is_better=False),
    ),
    "batch": (
        _spread("e2e_over_slowest_stage", higher_is_better=False),
        Ratio("rss_growth_fraction", False, "", 1.0),
        Ratio("parts.heat_maps.ratio", tolerance=0.2),
    ),
    "engine": (
        Ratio("auto_vs_torch_fp32"),
        Ratio("ort_fp32_vs_torch_fp32"),
    ),
    "scoring": (Ratio("beside_pyucell.times_faster", True, "beside_pyucell.times_faster_spread"),),
    "training": (Ratio("frozen_ridge", tolerance=0.02), Ratio("aligned_ridge", tolerance=0.02)),
}
"""Benchmark -> the ratios that are compared with its committed results."""


def written_by() -> dict[str, Any]:
    """Date, revision and machine of this run."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), **machine()}


def value_at(record: dict[str, Any], key: str) -> float | None:
    """The number at a dotted path; None where there is none."""
    found: Any = record
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return float(found) if isinstance(found, int | float) else None


def worse(name: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What got worse by more than the spread of both runs, one line each; empty for runs of other machines."""
    kinds = [(record.get("written_by") or {}) for record in (before, now)]
    if not kinds[0] or any(kinds[0].get(key) != kinds[1].get(key) for key in ("processor", "cores")):
        return []
    lines = []
    for ratio in COMPARED.get(name, ()):
        old, new = value_at(before, ratio.key), value_at(now, ratio.key)
        if old is None or new is None:
            continue
        spreads = [value_at(record, ratio.spread) or 0.0 for record in (before, now)] if ratio.spread else [0.0]
        allowed = max(*spreads, abs(old) * ratio.tolerance) if not ratio.spread else max(spreads)
        loss = old - new if ratio.higher_is_better else new - old
        if loss > allowed:
            revision = str(kinds[0].get("revision", "unknown"))[:9]
            lines.append(f"worse: {ratio.key} was {old:.4g} at {revision} and is {new:.4g} ({allowed:.2g} allowed)")
    return lines


def keep(name: str, record: dict[str, Any], text: str, folder: Path = RESULTS) -> list[str]:
    """Write NAME.json (with `written_by`) and NAME.md; says and returns what got worse."""
    record = {**record, "written_by": record.get("written_by") or written_by()}
    target = folder / f"{name}.json"
    before = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    lines = worse(name, before, record)
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    facts = record["written_by"]
    footer = f"\nRevision {facts['revision']}, {facts['date']}, {facts['processor']}, {facts['cores']} cores.\n"
    (folder / f"{name}.md").write_text(text.rstrip("\n") + "\n" + footer, encoding="utf-8")
    for line in lines or [f"{name}: nothing that is compared got worse by more than the spread"]:
        print(line)
    return lines
