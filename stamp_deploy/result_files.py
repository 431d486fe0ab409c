"""A result read back from its folder: result.json and tiles.h5 together hold all of it but the slide's place."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import gallery
from .atomic import is_done
from .engine.interface import EngineInfo
from .errors import DataError, UsageError
from .grid import Grid
from .heads import HeadCall
from .result import READABLE_VERSIONS, SCHEMA, SCHEMA_VERSION, BundleFacts, Result, SlideFacts, TileCounts
from .summaries import RegionSummary
from .trust import SlideTrust
from .validation import Validation

RECORD, TILES = "result.json", "tiles.h5"
MAX_RECORD_BYTES = 64 << 20
MAX_THUMBNAIL_PX = 1 << 26
SMALL_THUMBNAIL, SMALL_THUMBNAIL_PX = "thumbnail_small", 220
"""The slide's picture for lists of slides, and its longer side: read without unpacking the large one."""
MASK = "tissue_mask"
FEATURES = "features"
ARRAYS = ("coords", FEATURES, "pathways", "pathway_names", "tissue_fraction", "thumbnail")
OPTIONAL_ARRAYS = (MASK, "pathways_global", "trust/distance", "trust/flags", "trust/percentile")
_AGAIN = "score the slide again"
Record = TypeVar("Record")


def attention_name(head: str) -> str:
    """The dataset of tiles.h5 that holds a head's attention: "/" would make a group."""
    return f"attention/{head.replace('/', '_')}"


def read_result(folder: Path, *, embeddings: bool = True) -> Result:
    """The `Result` that was written to a folder.

    Parameters
    ----------
    folder : Path
        A finished result that holds the formats json and hdf5.
    embeddings : bool
        Without them, `Result.embedding` has no columns: they are most of a result's bytes.

    Returns
    -------
    Result
        As it was written, with timings rounded to 0.1 ms and without `source_path`.

    Raises
    ------
    UsageError
        The folder is no finished result, or lacks one of the two files.
    DataError
        A file is damaged, of an unknown version, or the two are of different slides.
    """
    if not is_done(folder):
        raise UsageError("this is no finished result", path=folder, remedy="name a folder that holds the file DONE")
    for name in (RECORD, TILES):
        if not (folder / name).is_file():
            raise UsageError(
                f"the result holds no {name}, which is needed to read it back",
                path=folder,
                remedy="score the slide with --write json,hdf5 and what else you want",
            )
    record = read_record(folder / RECORD)
    try:
        return _result(record, _arrays(folder / TILES, record, embeddings))
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, UsageError) as error:
        raise DataError(f"the result cannot be read back: {error}", path=folder, remedy=_AGAIN) from error


def read_record(path: Path) -> dict[str, Any]:
    """The content of a result.json.

    Raises
    ------
    DataError
        It is damaged, or of an unknown version.
    """
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"more than {MAX_RECORD_BYTES >> 20} MiB")
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["schema"], record["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the record is damaged: {error}", path=path, remedy=_AGAIN) from error
    if known not in [(SCHEMA, version) for version in READABLE_VERSIONS]:
        raise DataError(
            f"the record is {known[0]} version {known[1]}, not {SCHEMA} version {SCHEMA_VERSION}",
            path=path,
            remedy="read it with the version of stamp-deploy that wrote it, or score the slide again",
        )
    return dict(record)


def _arrays(path: Path, record: dict[str, Any], embeddings: bool) -> dict[str, Any]:
    """The datasets of tiles.h5, and the attention of each head under its dataset's name."""
    import h5py

    with h5py.File(path, "r") as file:
        hashes = {name: record[name]["sha256"] for name in ("slide", "bundle")}
        for name, value in hashes.items():
            if file.attrs.get(f"{name}_sha256") != value:
                raise ValueError(f"{RECORD} and {TILES} are of different {name}s")
        missing = [name for name in ARRAYS if name not in file]
        if missing:
            raise ValueError(f"{TILES} lacks {', '.join(missing)}; it is of an older version or was changed")
        if int(np.prod(file["thumbnail"].shape, dtype=np.int64)) > 3 * MAX_THUMBNAIL_PX:
            raise ValueError("its thumbnail is larger than any that is written")
        wanted = [attention_name(head["name"]) for head in record["heads"]]
        if MASK in file and int(np.prod(file[MASK].shape, dtype=np.int64)) > MAX_THUMBNAIL_PX:
            raise ValueError("its tissue mask is larger than any that is written")
        if "gallery/jpeg" in file and file["gallery/jpeg"].size > gallery.MAX_STORED_BYTES:
            raise ValueError("its gallery is larger than any that is written")
        taken = (*ARRAYS, *OPTIONAL_ARRAYS, *gallery.ARRAYS, *wanted)
        arrays = {name: file[name][()] for name in taken if name in file and (embeddings or name != FEATURES)}
        if not embeddings:
            arrays[FEATURES] = np.empty((file[FEATURES].shape[0], 0), np.float32)
    names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in arrays["pathway_names"])
    if names != tuple(record["pathways"]["names"]):
        raise ValueError(f"{RECORD} and {TILES} name different pathways")
    return arrays


def small_thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture shrunk to `SMALL_THUMBNAIL_PX` on its longer side, uint8 [h, w, 3]; a smaller one as it is."""
    from PIL import Image

    small = Image.fromarray(pixels)
    small.thumbnail((SMALL_THUMBNAIL_PX, SMALL_THUMBNAIL_PX))
    return np.asarray(small)


def read_small_thumbnail(path: Path) -> NDArray[np.uint8] | None:
    """The small picture of the slide out of a tiles.h5, uint8 [h, w, 3]; None where there is none that can be read.

    A result of an earlier version holds the large picture alone: that one is shrunk.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            name, limit = SMALL_THUMBNAIL, SMALL_THUMBNAIL_PX**2
            if name not in file:
                name, limit = "thumbnail", MAX_THUMBNAIL_PX
            shape = file[name].shape
            if len(shape) != 3 or shape[2] != 3 or int(np.prod(shape, dtype=np.int64)) > 3 * limit:
                return None
            return small_thumbnail(np.asarray(file[name][()], np.uint8))
    except (OSError, KeyError, RuntimeError, ValueError):
        return None


def _result(record: dict[str, Any], arrays: dict[str, Any]) -> Result:
    slide = _take(SlideFacts, record["slide"], tuples=("mpp_evidence", "levels", "bounds"))
    grid = record["grid"]
    return Result(
        slide=slide,
        grid=Grid(
            slide.width,
            slide.height,
            slide.mpp_x,
            slide.mpp_y,
            grid["target_mpp"],
            grid["tile_px"],
            grid["overlap_px"],
        ),
        bundle=_take(BundleFacts, record["bundle"]),
        engine=_take(EngineInfo, record["engine"]),
        tiles=_take(TileCounts, record["tiles"]),
        coords=arrays["coords"].astype(np.int64),
        embedding=arrays[FEATURES].astype(np.float32),
        pathways=arrays["pathways"].astype(np.float32),
        tissue_fraction=arrays["tissue_fraction"].astype(np.float32),
        pathway_names=tuple(record["pathways"]["names"]),
        thumbnail=arrays["thumbnail"].astype(np.uint8),
        heads=tuple(_head(head, arrays.get(attention_name(head["name"]))) for head in record["heads"]),
        read_plan=record["read_plan"],
        timing=record["timing_seconds"],
        limiting=record["limiting_stage"],
        software=record["software"],
        config=record["config"],
        config_sha256=record["config_sha256"],
        tissue=record["tissue"],
        started_utc=record["started_utc"],
        warnings=tuple(record["warnings"]),
        research_use=record["research_use"],
        score_unit=record["pathways"]["unit"],
        tissue_mask=arrays[MASK].astype(bool) if MASK in arrays else None,
        validation=None if (said := record.get("validation")) is None else Validation.from_dict(said),
        trust=_trust(record.get("trust"), arrays),
        pathways_global=arrays["pathways_global"] if record["pathways"].get("global_scores") else None,
        summaries=tuple(map(RegionSummary.from_dict, record.get("summaries", ()))),
        gallery=gallery.Gallery.from_arrays(arrays),
    )


def _trust(value: dict[str, Any] | None, arrays: dict[str, Any]) -> SlideTrust | None:
    if value is None:
        return None
    distance, flags, percentile = (arrays[f"trust/{name}"] for name in ("distance", "flags", "percentile"))
    return SlideTrust.from_dict(
        value, distance.astype(np.float32), flags.astype(np.uint16), percentile.astype(np.float32)
    )


def _head(values: dict[str, Any], attention: Any) -> HeadCall:
    pairs = {key: tuple(values[key]) if values[key] is not None else None for key in ("interval", "abstain")}
    return _take(
        HeadCall, {**values, **pairs, "attention": attention}, tuples=("classes", "probabilities", "thresholds")
    )


def _take(kind: type[Record], values: dict[str, Any], tuples: tuple[str, ...] = ()) -> Record:
    """A record out of the values of its fields; those of no field, which are derived, are left."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: tuple(value) if key in tuples else value for key, value in values.items() if key in names})
