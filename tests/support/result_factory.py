"""Results for tests, made without a slide or a model: tissue-like blobs with smooth score fields."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy.atomic import staged_directory
from stamp_deploy.engine.interface import EngineInfo
from stamp_deploy.gallery import MAX_PATHWAYS, Gallery, as_table, extremes
from stamp_deploy.grid import Grid
from stamp_deploy.heads import HeadCall
from stamp_deploy.provenance import RESEARCH_USE, software
from stamp_deploy.result import BundleFacts, Result, SlideFacts, TileCounts
from stamp_deploy.summarise import add_summaries
from stamp_deploy.trust import SlideTrust, TileFlag, Verdict
from stamp_deploy.validation import QUANTILES, PathwayValidation, Scale, Validation
from stamp_deploy.writers import write_all
from stamp_deploy.writers.picture import result_styles

HALLMARKS = (
    "HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION",
    "HALLMARK_INTERFERON_GAMMA_RESPONSE",
    "HALLMARK_OXIDATIVE_PHOSPHORYLATION",
    "HALLMARK_E2F_TARGETS",
    "HALLMARK_REACTIVE_OXYGEN_SPECIES_PATHWAY",
    "HALLMARK_HYPOXIA",
)


def smooth_field(rows: int, columns: int, seed: int, knots: int = 6) -> NDArray[np.float64]:
    """A smooth random field of mean about 0, sd 1: float64 [rows, columns]."""
    coarse = np.random.default_rng(seed).normal(size=(knots, knots)).astype(np.float32)
    field = np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC), np.float64)
    scaled: NDArray[np.float64] = (field - field.mean()) / max(field.std(), 1e-9)
    return scaled


def tissue_thumbnail(cover: NDArray[np.bool_], width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """An H&E-like picture: white glass, pink stroma and purple nuclei where `cover` is true."""
    soft = Image.fromarray((cover * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    alpha = np.clip((np.asarray(soft, np.float64) - 96) / 64, 0, 1)[..., None]
    noise = np.random.default_rng(seed).normal(size=(height, width, 1))
    texture = smooth_field(height, width, seed + 1, knots=24)[..., None]
    stroma, nuclei = np.array([226, 158, 190.0]), np.array([118, 74, 148.0])
    share = np.clip(0.3 + 0.25 * texture + 0.2 * noise, 0, 1)
    tissue = stroma * (1 - share) + nuclei * share
    return np.clip(245 * (1 - alpha) + tissue * alpha, 0, 255).astype(np.uint8)


def make_head(name: str = "MSI", n: int = 0, **changes: Any) -> HeadCall:
    """One binary head call; `changes` replace its fields."""
    weights = np.random.default_rng(7).random(n).astype(np.float32)
    fields: dict[str, Any] = {
        "name": name,
        "kind": "binary",
        "classes": ("MSS", "MSI-H"),
        "probabilities": (0.19, 0.81),
        "call": "MSI-H",
        "abstained": False,
        "interval": (0.74, 0.87),
        "attention": weights / weights.sum() if n else None,
        "thresholds": (0.5,),
        "abstain": (0.4, 0.6),
        "temperature": 1.3,
    }
    return HeadCall(**{**fields, **changes})


def make_validation(names: Sequence[str], not_validated: int = 0, unmeasured: int = 0) -> Validation:
    """Facts of each pathway: the first `not_validated` ones have an r near 0, the next `unmeasured` ones none."""
    facts = []
    for i, name in enumerate(names):
        if i < not_validated:
            facts.append(_facts(name, -0.06, -0.2, 0.08))
        elif i < not_validated + unmeasured:
            facts.append(PathwayValidation(name, scale=Scale(0.1, 0.8)))
        else:
            r = 0.3 + 0.5 * (i * 7 % 10) / 10
            facts.append(_facts(name, r, r - 0.12, r + 0.1))
    return Validation("z within section", tuple(facts))


def _facts(name: str, r: float, low: float, high: float) -> PathwayValidation:
    steps = dict(zip(QUANTILES, (-2.4, -1.6, -1.1, -0.4, 0.1, 0.6, 1.3, 1.8, 2.6), strict=True))
    return PathwayValidation(
        name, r, low, high, 24, 8, r - 0.04, r / 2, r / 3, 0.1, predictions=steps, targets=steps, scale=Scale(0.1, 0.8)
    )


def make_trust(n: int, verdict: Verdict = "inside", left_out: Sequence[int] = ()) -> SlideTrust:
    """What was found of a slide of `n` tiles; the tiles `left_out` are blurred."""
    flags = np.zeros(n, np.uint16)
    flags[list(left_out)] = TileFlag.BLURRED
    reasons = {
        "outside": ("the stain is weaker than on 99 % of the training tiles", "31 % of the tiles are blurred"),
        "doubtful": ("the picture is sharper than the training tiles",),
        "not judged": ("the bundle holds no reference",),
    }.get(verdict, ())
    ratio = {"inside": 0.8, "doubtful": 1.9, "outside": 4.2}.get(verdict)
    distance = np.full(n, np.nan if ratio is None else ratio, np.float32)
    return SlideTrust(
        verdict, reasons, ratio, distance, flags, 0 if ratio is None else n, "tiles with a flag but over-staining"
    )


def make_gallery(result: Result, file_bytes: int = 0) -> Gallery:
    """The gallery that a run would take, with small pictures; of about `file_bytes` each, where given."""
    none = np.empty(0, np.int64)
    high, low = [none] * len(result.pathway_names), [none] * len(result.pathway_names)
    for style in result_styles(result)[:MAX_PATHWAYS]:
        scores = result.pathways[:, style.index]
        high[style.index], low[style.index] = extremes(
            scores, result.tissue_fraction, result.tile_cells, result.counted
        )
    tiles = np.unique(np.concatenate([none, *high, *low]))
    files = []
    for tile in tiles:
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (200, int(tile) % 200, 180)).save(file, "JPEG")
        noise = np.random.default_rng(int(tile)).bytes(max(0, file_bytes - len(file.getvalue())))
        files.append(file.getvalue() + noise)
    return Gallery(as_table(high), as_table(low), tiles, tuple(files), 64, 1.75)


def make_result(
    n_tiles: int = 400,
    pathways: int | Sequence[str] = 3,
    heads: int | Sequence[HeadCall] = 1,
    *,
    seed: int = 0,
    embedding_dim: int = 16,
    tile_px: int = 224,
    mpp: float = 0.2526,
    target_mpp: float = 0.5,
    thumbnail_px: int = 1024,
    aspect: float = 1.3,
    **changes: Any,
) -> Result:
    """A Result of `n_tiles` readable tiles on a grid about 2.4 times as large, `aspect` times wider than high.

    `pathways` and `heads` are numbers or the things themselves; `changes` replace fields of the Result.
    """
    columns = int(np.ceil(np.sqrt(n_tiles * 2.4 * aspect))) or 1
    rows = int(np.ceil(n_tiles * 2.4 / columns)) or 1
    span = tile_px * target_mpp / mpp
    width, height = int(columns * span + span / 3), int(rows * span + span / 3)
    grid = Grid(width, height, mpp, mpp, target_mpp, tile_px, 0)
    columns, rows = grid.columns, grid.rows
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    closeness = smooth_field(rows, columns, seed + 100) - 2.5 * (x**2 + y**2)
    flat = np.sort(np.argsort(-closeness, axis=None, kind="stable")[:n_tiles])
    cover = np.zeros(rows * columns, bool)
    cover[flat] = True
    cell_rows, cell_columns = np.divmod(flat, columns)

    names = _names(pathways)
    fields = [smooth_field(rows, columns, seed + 200 + i)[cell_rows, cell_columns] for i in range(len(names))]
    random = np.random.default_rng(seed)
    scores = np.stack(fields, axis=1) if fields else np.empty((n_tiles, 0))
    scores = scores + 0.15 * random.normal(size=scores.shape)
    scale = thumbnail_px / max(width, height)
    picture = tissue_thumbnail(cover.reshape(rows, columns), round(width * scale), round(height * scale), seed)
    calls = tuple(make_head(f"head-{i + 1}", n_tiles) for i in range(heads)) if isinstance(heads, int) else tuple(heads)
    given: dict[str, Any] = {
        "slide": SlideFacts(
            name="synthetic.svs",
            sha256="5a" * 32,
            size_bytes=123_456_789,
            vendor="aperio",
            width=width,
            height=height,
            mpp_x=mpp,
            mpp_y=mpp,
            mpp_source="vendor",
            mpp_evidence=(f"aperio.MPP = {mpp} (accepted)", "openslide.objective-power = 40 (agrees)"),
            levels=({"width": width, "height": height, "downsample_x": 1.0, "downsample_y": 1.0},),
            route="jpeg-tiff",
            route_reason="tiled baseline JPEG in TIFF",
        ),
        "grid": grid,
        "bundle": BundleFacts(
            name="synthetic",
            sha256="b0" * 32,
            pfm_id="vit-small-synthetic",
            pfm_licence="Apache-2.0",
            tile_px=tile_px,
            mpp=target_mpp,
            embedding_dim=embedding_dim,
            gene_set_sha256="9e" * 32,
            files={"encoder.onnx": "e0" * 32},
        ),
        "engine": EngineInfo("onnxruntime", "1.32.0", "CPU", "fp32", "asked for"),
        "tiles": TileCounts(rows * columns, rows * columns - n_tiles - 2, n_tiles + 2, n_tiles, corrupt=2),
        "coords": grid.coords(cell_columns, cell_rows),
        "embedding": random.normal(size=(n_tiles, embedding_dim)).astype(np.float32),
        "pathways": scores.astype(np.float32),
        "tissue_fraction": random.uniform(0.25, 1, n_tiles).astype(np.float32),
        "pathway_names": names,
        "thumbnail": picture,
        "heads": calls,
        "read_plan": {"route": "jpeg-tiff", "level": 0, "dct_scale": 1, "residual": 1.98, "why": "synthetic"},
        "timing": {"open_and_tissue": 0.4, "wait_for_tiles": 1.2, "engine": 9.8},
        "limiting": "engine",
        "software": software(),
        "config": {"batch": 32},
        "config_sha256": "c0" * 32,
        "tissue": {"rule": {"method": "saturation-otsu", "min_fraction": 0.25}, "threshold": 0.08},
        "started_utc": "2026-11-24T02:00:00+00:00",
        "warnings": (f"2 of {n_tiles + 2} tissue tiles could not be read and have no score",),
        "research_use": RESEARCH_USE,
    }
    return Result(**{**given, **changes})


def full_result(n_tiles: int = 1200, pathways: int = 6, **changes: Any) -> Result:
    """A result with everything that the report can show: validation, trust, gallery, summaries."""
    names = make_result(20, pathways).pathway_names
    left_out = range(100, 130)
    given: dict[str, Any] = {
        "validation": make_validation(names, not_validated=2, unmeasured=1),
        "trust": make_trust(n_tiles, "doubtful", left_out),
        "thumbnail_px": 1200,
    }
    result = add_summaries(make_result(n_tiles, pathways, 2, **{**given, **changes}))
    return replace(result, gallery=make_gallery(result))


def stored(result: Result, folder: Path, formats: tuple[str, ...] = ("json", "hdf5")) -> Path:
    """A finished result folder, as a run leaves it."""
    with staged_directory(folder, hashes=True) as staging:
        write_all(result, staging, formats)
    return folder


def _names(pathways: int | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(pathways, int):
        return tuple(pathways)
    extra = tuple(f"PATHWAY_{i + 1:02d}" for i in range(len(HALLMARKS), pathways))
    return (*HALLMARKS[:pathways], *extra)
