"""Test sections that are no cohort folder yet: a config of `cohort build`, or a folder of legacy sections."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from stamp_deploy.errors import DataError

from ..cohort import Cohort, load_cohort
from ..cohort.build import build_cohort

SPOTS_SUFFIX = "_selection.tsv"
COUNTS_SUFFIXES = (".tsv.gz", ".tsv")
IMAGE_SUFFIXES = ("_HE.jpg", "_HE.jpeg", "_HE.png", "_HE.tif", "_HE.tiff", "_HE.svs", ".jpg", ".png", ".tif", ".svs")
SPOT_PITCH_UM = 200.0
"""Centre to centre on the arrays of Spatial Transcriptomics; another pitch needs a config."""


def cohort_at(path: Path, *, tile_px: int, mpp: float) -> Cohort:
    """The cohort at a path, built in a temporary folder where it is not a cohort folder.

    Parameters
    ----------
    path : Path
        A cohort folder; or a TOML config of `cohort build`; or a folder of sections of Spatial Transcriptomics
        arrays, each of them ID.tsv[.gz] (counts), ID_selection.tsv (spots) and ID_HE.jpg (or .png, .tif, .svs).
        Such a folder states no patients: every section counts as a patient of its own.
    tile_px, mpp : int, float
        The tiles' size and microns per pixel, for a folder of sections.

    Raises
    ------
    DataError
        None of these, or as `cohort build`.
    """
    if path.is_file() and path.suffix == ".toml":
        return _built(path)
    if path.is_dir() and not (path / "cohort.json").exists():
        text = legacy_config(path, tile_px, mpp)
        if text:
            config = _scratch() / "cohort.toml"
            config.write_text(text, encoding="utf-8")
            return _built(config)
    return load_cohort(path)


def legacy_config(folder: Path, tile_px: int, mpp: float) -> str:
    """The config of `cohort build` for a folder of legacy sections; empty where there are none.

    Raises
    ------
    DataError
        A section has a spot file, but no counts or no image.
    """
    tables = [f"tile_px = {tile_px}\nmpp = {mpp!r}\n"]
    for spots in sorted(folder.glob(f"*{SPOTS_SUFFIX}")):
        name = spots.name.removesuffix(SPOTS_SUFFIX)
        facts: dict[str, str | float] = {
            "id": re.sub(r"[^A-Za-z0-9._-]", "-", name),
            "patient_id": f"unstated-{name}",
            "format": "legacy-st",
            "counts": _beside(folder, name, COUNTS_SUFFIXES, "counts"),
            "spots": str(spots.resolve()),
            "image": _beside(folder, name, IMAGE_SUFFIXES, "image"),
            "spot_pitch_um": SPOT_PITCH_UM,
        }
        tables.append("[[samples]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in facts.items()))
    return "\n".join(tables) if len(tables) > 1 else ""


def _beside(folder: Path, name: str, suffixes: tuple[str, ...], what: str) -> str:
    for suffix in suffixes:
        if (folder / f"{name}{suffix}").is_file():
            return str((folder / f"{name}{suffix}").resolve())
    raise DataError(
        f"the section {name} has a spot file, but no {what} ({', '.join(name + s for s in suffixes[:2])}, ...)",
        path=folder,
        remedy="put the files side by side, or write a config for `stamp-deploy cohort build`",
    )


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Until the process ends: tiles of the cohort are opened by memory map when they are needed."""


def _scratch() -> Path:
    _KEPT.append(tempfile.TemporaryDirectory(prefix="stamp-evaluate-"))
    return Path(_KEPT[-1].name)


def _built(config: Path) -> Cohort:
    return build_cohort(config, _scratch() / "cohort", log=lambda line: None)
