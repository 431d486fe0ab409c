"""`export_run`: a training run becomes a bundle, or nothing does.

    load -> merge -> ONNX -> parity at every link -> golden tiles, heads, card, hashes -> rename into place

The folder is staged beside its place; a parity failure removes it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy import __version__
from stamp_deploy.atomic import check_output, staged_directory, write_json_atomic
from stamp_deploy.bundle import ENCODER_FILE, GOLDEN_DIR, Bundle, load_bundle, write_bundle_json
from stamp_deploy.bundle.reference import TRUST_FILE
from stamp_deploy.engine.golden import write_golden
from stamp_deploy.engine.head_model import to_probabilities
from stamp_deploy.engine.parity import Outputs, StageReport, compare, to_table
from stamp_deploy.training.torch_threads import set_torch_threads

from .card import write_card
from .graph.to_onnx import Encoder, write_encoder, write_head
from .parity_tiles import load_tiles
from .precision import Chain, check_precision, judged_tiles, lower_and_add, wanted_tiles
from .run_models import run_onnx, run_onnx_head, run_torch, run_torch_head
from .source import Source, read_run, run_tiles
from .trust_reference import fit_reference


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    also: Collection[str] = (),
    also_by_default: bool = False,
    tiles: str | Path | NDArray[np.uint8] | None = None,
    heads: str | Path | None = None,
    evaluation: str | Path | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Export a training run.

    Parameters
    ----------
    run : path
        The folder that ``stamp-deploy train`` wrote.
    out : path
        The bundle folder to be made.
    precision : str
        ``fp32``; ``fp16`` or ``bf16`` (matrix products in it, the rest in fp32); ``int8`` (quantised after training).
    also : collection of str
        Further precisions that the bundle carries, in files of their own, for the engines that run them: ``int8``.
    also_by_default : bool
        Whether ``--engine auto`` may use those without being asked; otherwise ``--precision`` must say int8 or auto.
    tiles : path or uint8 [N, T, T, 3], optional
        Tissue tiles for parity: 500 or more are wanted. By default they are drawn from the run's cohort.
    heads : path, optional
        The folder that ``stamp-deploy train-head`` wrote; by default the run's own, which may hold none.
    evaluation : path, optional
        The folder that ``stamp-deploy evaluate`` wrote; by default the run's own, where it has one. What it does not
        say stays unsaid in the bundle.
    name : str, optional
        The bundle's name; by default the output folder's.
    overwrite : bool
        Replace a finished bundle.

    Returns
    -------
    Bundle
        Verified, at its final place.

    Raises
    ------
    ParityError
        Some link of the chain differs by more than its tolerance; nothing is left behind.
    UsageError
        The run or the tiles cannot be used.
    """
    folders = (None if folder is None else Path(folder) for folder in (heads, evaluation))
    source = read_run(Path(run), name or Path(out).name, *folders)
    if tiles is None:
        tiles = run_tiles(
            Path(run), source.document["tile_px"], source.document["mpp"], wanted_tiles((precision, *also))
        )
    elif isinstance(tiles, str):
        tiles = Path(tiles)
    return export_model(
        source,
        Path(out),
        tiles=tiles,
        precision=precision,
        also=also,
        also_by_default=also_by_default,
        overwrite=overwrite,
    )


def export_model(
    source: Source,
    out: Path,
    *,
    tiles: Path | NDArray[np.uint8],
    precision: str = "fp32",
    also: Collection[str] = (),
    also_by_default: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Export modules that are already in memory; see `export_run`."""
    check_precision(precision, also)
    check_output(out, overwrite=overwrite)
    set_torch_threads()
    document = source.document
    pixels = load_tiles(tiles, document["tile_px"], document["mpp"], wanted_tiles((precision, *also)))
    judged = judged_tiles(pixels, (precision, *also))
    mean, std = tuple(document["mean"]), tuple(document["std"])
    pathways = tuple(document["pathways"])
    stages: list[StageReport] = []

    def check(stage: str, names: tuple[str, str], reference: Outputs, candidate: Outputs) -> None:
        report = compare(reference, candidate, stage=stage, names=names, precision="fp32", pathways=pathways)
        stages.append(report)
        report.raise_if_failed()

    adapted = run_torch(Encoder(source.model, mean, std), judged)
    encoder = Encoder(source.merged, mean, std)
    merged = adapted if source.merged is source.model else run_torch(encoder, judged)
    check("torch -> merged", ("torch with the adapter apart", "the merged model"), adapted, merged)
    document = {
        **document,
        "precision": precision,
        "outputs": list(encoder.outputs),
        "encoder": ENCODER_FILE,
        "golden": GOLDEN_DIR,
        "embedding_dim": int(merged.embedding.shape[1]),
        "heads": [entry for _, entry in source.heads],
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": _software(),
    }
    heads = [(entry["name"], entry, head) for head, entry in source.heads]
    with staged_directory(out, overwrite=overwrite) as staging:
        full = staging / ENCODER_FILE
        write_encoder(encoder, full, document["tile_px"])
        for _, entry, head in heads:
            (staging / entry["file"]).parent.mkdir(exist_ok=True)
            write_head(head, staging / entry["file"], document["embedding_dim"])
        expected = _with_heads(merged, {name: run_torch_head(head, merged.embedding) for name, _, head in heads}, heads)

        def compiled(path: Path, engine: str = "onnxruntime") -> Outputs:
            """An encoder's answers in a CPU engine, and those of the ONNX heads on its embeddings."""
            found = run_onnx(path, judged, engine)
            logits = {name: run_onnx_head(staging / entry["file"], found.embedding) for name, entry, _ in heads}
            return _with_heads(found, logits, heads)

        check("merged -> ONNX", ("the merged model", "its ONNX file in ONNX Runtime"), expected, compiled(full))
        if source.reference is not None:
            known = fit_reference(
                source.reference, document["mpp"], lambda part: run_onnx(staging / ENCODER_FILE, part).embedding
            )
            (staging / TRUST_FILE).write_bytes(known.to_json())
            document["trust"] = TRUST_FILE
        chain = Chain(pixels, judged, expected, compiled, pathways, stages)
        facts, document["twins"] = lower_and_add(precision, also, full, chain, by_default=also_by_default)
        write_golden(staging / GOLDEN_DIR, judged, adapted)
        document["parity"] = {
            "passed": True,
            "tiles": len(judged),
            "stages": {report.stage: report.metrics for report in stages},
            **facts,
        }
        write_json_atomic(staging / "parity.json", {"passed": True, "stages": [s.to_dict() for s in stages]})
        (staging / "card.md").write_text(write_card(document, stages), encoding="utf-8")
        write_bundle_json(staging, document)
    return load_bundle(out)


def _with_heads(
    found: Outputs, logits: dict[str, NDArray[np.float32]], heads: list[tuple[str, dict[str, Any], nn.Module]]
) -> Outputs:
    """Logits as probabilities, at each head's temperature."""
    probabilities = {
        name: to_probabilities(entry["kind"], logits[name], entry["temperature"]).astype(np.float32)
        for name, entry, _ in heads
    }
    return replace(found, heads=probabilities)


def describe(bundle: Bundle) -> str:
    """What the command prints of a finished bundle: the parity table that lies in it."""
    record = json.loads((bundle.path / "parity.json").read_text(encoding="utf-8"))
    rows = [
        f"{stage['stage']}: cosine {stage['metrics']['cosine_min']:.7f}, max abs {stage['metrics']['max_abs']:.2g}, "
        f"Spearman {stage['metrics']['spearman_min']:.5f} over {stage['tiles']} tiles"
        for stage in record["stages"]
    ]
    return "\n".join(rows)


def _software() -> dict[str, str]:
    import onnx
    import onnxruntime

    from stamp_deploy.training.model.timm_library import import_timm

    return {
        "stamp_deploy": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": import_timm().__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


__all__ = ["Source", "describe", "export_model", "export_run", "to_table"]
