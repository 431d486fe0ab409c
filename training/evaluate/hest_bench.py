"""HEST-Bench as published (Jaume et al. 2024): its splits, its gene lists, its regression, on its folders.

A task is a folder with splits/train_I.csv and splits/test_I.csv (columns sample_id, patches_path, expr_path),
var_50genes.json, patches (HDF5: img, barcode; 224 px at .5 um) and raw counts (h5ad). Targets are log1p of the raw
counts of the listed genes. Embeddings are standardised and reduced to 256 principal components on the training split;
ridge has alpha = 100 / (components x genes). A task's figure is the mean over its splits of the mean Pearson r over
genes, the benchmark's the mean over tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.tables import read_table

from .single_genes import protocol_r

SCHEMA = "stamp-deploy/hest-bench/1"
GENE_LIST = "var_50genes.json"
PATCH_UM, PATCH_PX = 112.0, 224
SEED = 1
"""That of the published code; PCA takes it."""
IMAGES, BARCODES = ("img", "imgs", "images"), ("barcode", "barcodes")


@dataclass(frozen=True)
class BenchSample:
    """A sample of a split: its id, and where its patches and counts lie."""

    id: str
    patches: Path
    counts: Path


@dataclass(frozen=True)
class Task:
    """A task: its name, its genes, and its splits, each the samples to learn from and to test on."""

    name: str
    genes: tuple[str, ...]
    splits: tuple[tuple[tuple[BenchSample, ...], tuple[BenchSample, ...]], ...]

    @property
    def samples(self) -> list[BenchSample]:
        """Every sample once."""
        return list(dict.fromkeys(s for train, test in self.splits for s in (*train, *test)))


def find_tasks(root: Path, names: Sequence[str] = ()) -> list[Task]:
    """The tasks of a folder, or those named.

    Raises
    ------
    UsageError
        There are none, or not those that were named.
    DataError
        A task lacks a file, or a split tests on a sample that it learned from.
    """
    found = sorted(p.parent.name for p in root.glob("*/splits")) if root.is_dir() else []
    if not found:
        raise UsageError(
            "holds no task of HEST-Bench (TASK/splits)", path=root, remedy="name the folder that holds IDC, PRAD, ..."
        )
    unknown = [name for name in names if name not in found]
    if unknown:
        raise UsageError(f"there is no task {unknown[0]}", path=root, remedy=f"tasks: {', '.join(found)}")
    return [_task(root / name) for name in (names or found)]


def _task(folder: Path) -> Task:
    source = folder / GENE_LIST
    try:
        genes = tuple(str(g) for g in json.loads(source.read_text(encoding="utf-8"))["genes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot be read as a list of genes: {error}", path=source, remedy="download it again"
        ) from error
    splits = []
    for number in range(len(list((folder / "splits").glob("train_*.csv")))):
        train, test = (_samples(folder, folder / "splits" / f"{side}_{number}.csv") for side in ("train", "test"))
        both = {s.id for s in train} & {s.id for s in test}
        if both:
            raise DataError(f"split {number} tests on {min(both)}, which it learned from", path=folder / "splits")
        splits.append((train, test))
    if not splits:
        raise DataError("holds no train_0.csv", path=folder / "splits", remedy="download it again")
    return Task(folder.name, genes, tuple(splits))


def _samples(folder: Path, path: Path) -> tuple[BenchSample, ...]:
    table = read_table(path, error=DataError)
    columns = [table.column(name) for name in ("sample_id", "patches_path", "expr_path")]
    return tuple(BenchSample(r[i], folder / r[p], folder / r[e]) for r in table.rows for i, p, e in [columns])


Source = Callable[[str, BenchSample], tuple[NDArray[np.float32], list[str]]]
"""A task's name and a sample -> embeddings float32 [N, D] and the barcode of each."""


def hest_bench(
    tasks: Sequence[Task], sources: Mapping[str, Source], say: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """What hest-bench.json holds: each encoder's r of every task, and its mean over tasks."""
    results = {}
    for task in tasks:
        results[task.name] = {name: evaluate_task(task, source) for name, source in sources.items()}
        means = {name: found["mean_r"] for name, found in results[task.name].items()}
        say(
            f"{task.name:<10} "
            + ", ".join(f"{n} {'none' if r is None else format(r, '.4f')}" for n, r in means.items())
        )
    average = {}
    for name in sources:
        known = [found[name]["mean_r"] for found in results.values() if found[name]["mean_r"] is not None]
        average[name] = float(np.mean(known)) if known else None
    return {"schema": SCHEMA, "average": average, "tasks": results}


def evaluate_task(task: Task, source: Source) -> dict[str, Any]:
    """r of every split and gene, as JSON values."""
    data = {}
    for sample in task.samples:
        x, barcodes = source(task.name, sample)
        data[sample] = (x, log_counts(sample, task.genes, barcodes))
    splits: list[dict[str, Any]] = []
    per_gene = np.zeros((len(task.splits), len(task.genes)))
    for number, (train, test) in enumerate(task.splits):
        learn, judge = ([np.concatenate([data[s][k] for s in side]) for k in (0, 1)] for side in (train, test))
        r = protocol_r(*learn, *judge, seed=SEED)
        per_gene[number] = r
        constant = [g for g, value in zip(task.genes, r, strict=True) if not np.isfinite(value)]
        splits.append({
            "train": [s.id for s in train], "test": [s.id for s in test], "spots": [len(learn[0]), len(judge[0])],
            "mean_r": float(np.nanmean(r)) if len(constant) < len(r) else None, "constant_genes": constant,
        })  # fmt: skip
    known = [s["mean_r"] for s in splits if s["mean_r"] is not None]
    return {
        "mean_r": float(np.mean(known)) if known else None,
        "sd_over_splits": float(np.std(known)) if known else None,
        "splits": splits,
        "genes": {
            g: [None if not np.isfinite(v) else float(v) for v in per_gene[:, i]] for i, g in enumerate(task.genes)
        },
    }


def log_counts(sample: BenchSample, genes: Sequence[str], barcodes: Sequence[str]) -> NDArray[np.float32]:
    """log1p of raw counts float32 [N, G] of the patches' spots, in their order.

    Raises
    ------
    DataError
        The file cannot be read, or lacks a gene or a spot.
    """
    import anndata
    from scipy import sparse

    try:
        data = anndata.read_h5ad(sample.counts)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", path=sample.counts, remedy="download it again") from error
    absent = [g for g in genes if g not in data.var_names] or [b for b in barcodes if b not in data.obs_names]
    if absent:
        raise DataError(f"lacks {absent[0]!r}", path=sample.counts, remedy="download the task again")
    chosen = data[list(barcodes), list(genes)].X
    dense = chosen.toarray() if sparse.issparse(chosen) else np.asarray(chosen)
    return np.log1p(dense.astype(np.float32))


def read_patches(sample: BenchSample) -> tuple[NDArray[np.uint8], list[str]]:
    """Patches uint8 [N, 224, 224, 3] and their barcodes.

    Raises
    ------
    DataError
        The file cannot be read, or holds patches of another size.
    """
    import h5py

    try:
        with h5py.File(sample.patches) as file:
            images = np.asarray(file[_first(file, IMAGES)])
            barcodes = [_text(b) for b in np.asarray(file[_first(file, BARCODES)]).ravel()]
    except (OSError, KeyError) as error:
        raise DataError(f"holds no patches: {error}", path=sample.patches, remedy="download it again") from error
    if images.shape[1:] != (PATCH_PX, PATCH_PX, 3) or images.dtype != np.uint8 or len(images) != len(barcodes):
        raise DataError(
            f"patches {images.dtype} {images.shape} with {len(barcodes)} barcodes are not uint8 [N, 224, 224, 3]",
            path=sample.patches,
        )
    return images, barcodes


def stored_embeddings(folder: Path) -> Source:
    """Embeddings from FOLDER/TASK/SAMPLE.h5: `embeddings` [N, D] and `barcodes` [N], as the published code has them."""
    return lambda task, sample: _read_embeddings(folder / task / f"{sample.id}.h5")


def run_embeddings(run: Path, device: str = "cpu") -> dict[str, Source]:
    """Embeddings by a run: adapted, and frozen where its frozen model is known.

    Raises
    ------
    UsageError
        The run's tiles are not those of the benchmark.
    """
    from ..model import load_run
    from ..model.embed import embed_tiles

    model, info = load_run(run)
    if abs(info.mpp - PATCH_UM / PATCH_PX) > 0.03 or info.tile_px > PATCH_PX or info.fields_px:
        raise UsageError(
            f"the run sees {info.tile_px} px at {info.mpp:g} um; the benchmark's patches are 224 px at 0.5 um",
            path=run,
            remedy="name a run of one field of 224 px or less at mpp = 0.5, or --embeddings",
        )  # fmt: skip
    model.to(device)

    def source(frozen: bool) -> Source:
        def embed(task: str, sample: BenchSample) -> tuple[NDArray[np.float32], list[str]]:
            patches, barcodes = read_patches(sample)
            return embed_tiles(model, info, patches, frozen=frozen), barcodes

        return embed

    return {"adapted": source(False)} | ({"frozen": source(True)} if model.has_frozen else {})


def _read_embeddings(path: Path) -> tuple[NDArray[np.float32], list[str]]:
    import h5py

    try:
        with h5py.File(path) as file:
            return np.asarray(file["embeddings"], np.float32), [_text(b) for b in np.asarray(file["barcodes"]).ravel()]
    except (OSError, KeyError) as error:
        raise DataError(
            f"holds no embeddings with barcodes: {error}", path=path, remedy="name a folder of TASK/SAMPLE.h5"
        ) from error


def _first(file: Any, names: Sequence[str]) -> str:
    """The name of the first that is there; the last one where none is, for the error."""
    return next((n for n in names if n in file), names[-1])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
