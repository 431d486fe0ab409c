"""Shards beside arrays, on real tiles: bytes, time to write, tiles per second that one core prepares."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from result_files import written_by

from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.cohort.shard_writer import write_shards
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.data import Loader
from stamp_deploy.training.sections import make_sections

SECTIONS = ("C2", "C3", "C4")
TILE, MPP = 224, 0.7
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
FORMS = ("arrays", "webp", "jpeg")


def measured(work: Path, data: Path, epochs: int = 5) -> dict[str, Any]:
    """Bytes and speeds of each form; epochs of the forms take turns, so that other work on the machine meets all.

    A second is one of the process's own (CPU time). The first epoch, which maps files and takes memory, is not counted.
    """
    folders = {form: cohort(work, data, form) for form in FORMS}
    sections = {}
    for form, (folder, _) in folders.items():
        samples = load_cohort(folder).samples
        sections[form] = make_sections(TrainConfig(targets="genes", n_genes=1), samples, None, ["ACTB"])
    loaders = {
        "augmented": {f: loader(s, hed_jitter=0.03, flips=True) for f, s in sections.items()},
        "plain": {f: loader(s, hed_jitter=0.0, flips=False) for f, s in sections.items()},
    }
    found: dict[str, dict[str, list[float]]] = {kind: {f: [] for f in FORMS} for kind in loaders}
    for epoch in range(epochs + 1):
        for kind, own in loaders.items():
            for form in FORMS:
                clock = time.process_time()
                count = sum(len(own[form].make(rows, epoch, i).tiles) for i, rows in enumerate(own[form].mine(epoch)))
                if epoch:
                    found[kind][form].append(count / (time.process_time() - clock))
    tiles = sum(len(s.target) for s in sections["arrays"])
    rows = {}
    for form, (folder, seconds) in folders.items():
        names = ("tiles.npy",) if form == "arrays" else ("*.tar", "tiles.json")
        size = sum(p.stat().st_size for name in names for p in folder.glob(f"samples/*/{name}"))
        rows[form] = {
            "bytes_per_tile": round(size / tiles),
            "written_tiles_s_core": round(tiles / seconds) if seconds else None,
            **{f"{kind}_tiles_s_core": round(statistics.median(found[kind][form])) for kind in found},
            **{f"{kind}_spread": [round(min(v)), round(max(v))] for kind in found for v in (found[kind][form],)},
        }
    return {"tiles": tiles, "tile_px": TILE, "forms": rows, "written_by": written_by()}


def cohort(work: Path, data: Path, form: str) -> tuple[Path, float]:
    """A cohort of the her2st sections in one form, made anew; and the CPU seconds that writing its shards took."""
    arrays = work / "shards" / "arrays"
    if form == "arrays":
        lines = [f"tile_px = {TILE}", f"mpp = {MPP}", 'store = "arrays"', "[defaults]", 'format = "legacy-st"']
        lines += ['patient_id = "C"', "spot_pitch_um = 200.0"]
        for name in SECTIONS:
            files = {"counts": f"{name}.tsv.gz", "spots": f"{name}_selection.tsv", "image": f"{name}_HE.jpg"}
            lines += ["[[samples]]", f'id = "{name}"']
            lines += [f"{k} = {json.dumps(str((data / 'st' / 'her2st' / f).resolve()))}" for k, f in files.items()]
        arrays.parent.mkdir(parents=True, exist_ok=True)
        config = arrays.parent / "cohort.toml"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        build_cohort(config, arrays, overwrite=True, pictures=False, log=lambda line: None)
        return arrays, 0.0
    out = work / "shards" / form
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(arrays, out, ignore=shutil.ignore_patterns("tiles.npy"))
    seconds = 0.0
    for sample in load_cohort(arrays):
        tiles = np.asarray(sample.tiles())
        clock = time.process_time()
        write_shards(out / "samples" / sample.id, tiles, "jpeg" if form == "jpeg" else "webp")
        seconds += time.process_time() - clock
    return out, seconds


def loader(sections: list[Any], **settings: Any) -> Loader:
    """Batches of 3 x 48 tiles."""
    return Loader(sections, TrainConfig(batch_slides=3, **settings), TILE, MEAN, STD, MPP)


def shard_lines(d: dict[str, Any], pairs: int) -> list[str]:
    """The section of benchmarks/results/scale.md.

    Parameters
    ----------
    pairs : int
        Tiles of the atlas, for what it takes in each form.
    """
    labels = {"arrays": "arrays", "webp": "shards, lossless WebP (the default)", "jpeg": "shards, JPEG quality 95"}
    facts = d["written_by"]
    lines = [
        "## Arrays and shards",
        "",
        f"{d['tiles']} real tiles of {d['tile_px']} px (her2st C2 to C4), in turns; tiles per second of a core's time,",
        "median and range of five epochs. Augmented: flips, turns, stain jitter, normalised; plain: normalised only.",
        "All of it lies in the page cache: what shards save is the disk's time, which is not measured here.",
        "",
        "| stored as | kB per tile | the atlas, GB | written, tiles/s | augmented, tiles/s | plain, tiles/s |",
        "|---|---|---|---|---|---|",
    ]
    for form, row in d["forms"].items():
        written = row["written_tiles_s_core"]
        speeds = [
            f"{row[f'{kind}_tiles_s_core']:,} ({row[f'{kind}_spread'][0]:,} to {row[f'{kind}_spread'][1]:,})"
            for kind in ("augmented", "plain")
        ]
        size = row["bytes_per_tile"]
        lines.append(
            f"| {labels[form]} | {size / 1e3:.1f} | {size * pairs / 1e9:.0f} | {f'{written:,}' if written else ''} | "
            + " | ".join(speeds)
            + " |"
        )
    return [
        *lines,
        "",
        f"Revision {facts['revision']}, {facts['date']}, {facts['processor']}, {facts['cores']} cores.",
        "",
    ]
