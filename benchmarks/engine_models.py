"""What bench_engine.py measures: a model, a pathway head that means something on real tissue, and the tiles."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from real_slides import DATA, SMALL_REGION
from torch import nn

from stamp_deploy.bundle import Bundle, write_bundle_json
from stamp_deploy.engine.parity import Outputs, StageReport
from stamp_deploy.export.export import Source, export_model, export_run
from stamp_deploy.export.graph.attention import plain_attention
from stamp_deploy.export.graph.to_onnx import Encoder
from stamp_deploy.export.parity_tiles import load_tiles
from stamp_deploy.export.precision import Chain, calibrates, lower_and_add
from stamp_deploy.export.run_models import run_onnx
from stamp_deploy.spread import spread
from stamp_deploy.training.model import StampModel, measured_dim
from stamp_deploy.training.model.registry import PFM, build_backbone, get_pfm

FEATURES = (
    "red", "green", "blue", "red_sd", "green_sd", "blue_sd", "dark_share", "pale_share", "saturation", "purple",
    "edges_x", "edges_y", "edges_coarse", "haematoxylin", "eosin", "contrast",
)  # fmt: skip

SECTION_SQUARES = 4096
"""More squares than a section has: most of a picture is glass, so tissue is looked for among all of them."""


def tissue_tiles(count: int, tile_px: int = 224, *, quick: bool = False) -> tuple[NDArray[np.uint8], str]:
    """Tiles uint8 [count, T, T, 3] of real tissue and where they are from; drawn noise where there is no data."""
    slide, folder = DATA / SMALL_REGION, DATA / "st" / "her2st"
    found: list[NDArray[np.uint8]] = []
    if slide.is_file():
        found.append(load_tiles(slide, tile_px, 0.5, count))
    for path in () if quick else sorted(folder.glob("*_HE.jpg")):  # every square of a section, then those with tissue
        tiles = _with_tissue(load_tiles(path, tile_px, 0.5, SECTION_SQUARES))
        found.append(tiles[spread(len(tiles), count // 2)])
    if not found:
        rng = np.random.default_rng(0)
        shade = rng.normal([200, 130, 180], 40, size=(count, 1, 1, 3))
        noise = rng.normal(0, 30, size=(count, tile_px // 8, tile_px // 8, 3)).repeat(8, 1).repeat(8, 2)
        return np.clip(shade + noise, 0, 255).astype(np.uint8), "drawn noise: no real slides were found"
    tiles = np.concatenate(found)
    tiles = tiles[np.random.default_rng(0).permutation(len(tiles))]
    where = "one slide" if len(found) == 1 else f"one slide and {len(found) - 1} sections"
    return np.ascontiguousarray(tiles[spread(len(tiles), count)]), f"real H&E tissue of {where}"


def _with_tissue(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Drop tiles that are mostly glass."""
    pixels = tiles[:, ::4, ::4]
    saturation = pixels.max(-1).astype(int) - pixels.min(-1)
    return np.asarray(tiles[(saturation > 20).mean((1, 2)) > 0.5], np.uint8)


def features(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sixteen colour and texture numbers per tile [N, 16], each standardised: what the stand-in pathway head learns."""
    rows = []
    for tile in tiles:
        x = tile.astype(np.float64) / 255
        grey, density = x.mean(-1), -np.log(np.clip(x, 1 / 255, 1))
        coarse = grey[: len(grey) // 8 * 8, : len(grey) // 8 * 8].reshape(len(grey) // 8, 8, len(grey) // 8, 8)
        rows.append(
            [
                *x.mean((0, 1)), *x.std((0, 1)), (grey < 0.4).mean(), (grey > 0.8).mean(),
                (x.max(-1) - x.min(-1)).mean(), (x[..., 2] - x[..., 1]).mean(), np.abs(np.diff(grey, axis=1)).mean(),
                np.abs(np.diff(grey, axis=0)).mean(), coarse.mean((1, 3)).std(), density[..., 0].mean(),
                density[..., 1].mean(), grey.std(),
            ]
        )  # fmt: skip
    values = np.asarray(rows)
    return np.asarray((values - values.mean(0)) / (values.std(0) + 1e-9), np.float64)


def random_model(pfm_id: str, pathways: int = len(FEATURES)) -> tuple[StampModel, PFM]:
    """A registry architecture with random weights and a random pathway head."""
    pfm = get_pfm(pfm_id)
    torch.manual_seed(0)
    backbone = build_backbone(pfm.timm_name, pfm.kwargs)
    model = StampModel(backbone, pfm.embed, pathways, dim=measured_dim(backbone, pfm.embed))
    return model.eval(), pfm


@torch.no_grad()
def fit_head(model: StampModel, pfm: PFM, tiles: NDArray[np.uint8]) -> float:
    """Set both pathway heads to the ridge solution from the embeddings of `tiles` to their `features`.

    Returns the mean correlation on the tiles of the fit, to say how much the head has to work with.
    """
    encoder = Encoder(model, pfm.mean, pfm.std).eval()
    parts = [encoder(torch.from_numpy(tiles[i : i + 16]))[0] for i in range(0, len(tiles), 16)]
    x = torch.cat(parts).double()
    y = torch.from_numpy(features(tiles))
    mean, scale = x.mean(0), x.std(0) + 1e-9
    z = (x - mean) / scale
    weights = torch.linalg.solve(z.T @ z + len(z) * torch.eye(z.shape[1], dtype=z.dtype), z.T @ y)  # [D, P]
    model.pathway.weight.copy_((weights / scale[:, None]).T.float())
    model.pathway.bias.copy_((-(mean / scale) @ weights).float())
    model.pathway_global.load_state_dict(model.pathway.state_dict())  # export judges it, too
    fitted = (z @ weights).numpy()
    return float(np.mean([np.corrcoef(fitted[:, i], y[:, i].numpy())[0, 1] for i in range(y.shape[1])]))


def flops_per_tile(encoder: torch.nn.Module, tile_px: int) -> float:
    """Floating-point operations of one tile, counted by torch (a multiply-add is two).

    Attention is counted in its plain form: the counter does not know the fused one of every device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with plain_attention(encoder), FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.zeros(1, tile_px, tile_px, 3, dtype=torch.uint8))
    return float(counter.get_total_flops())


def make_bundle(
    model: nn.Module, pfm: PFM, tiles: NDArray[np.uint8], folder: Path, also: tuple[str, ...] = ()
) -> Bundle:
    """Export a model that is in memory, in fp32 and in what `also` names beside it."""
    document = {
        "name": f"bench-{pfm.id}", "pfm": {"id": pfm.id, "licence": "random weights"}, "tile_px": pfm.tile_px,
        "mpp": pfm.mpp, "mean": list(pfm.mean), "std": list(pfm.std), "pathways": list(FEATURES),
        "gene_set_sha256": "0" * 64, "tissue": {"method": "saturation-otsu", "min_fraction": 0.25}, "input_range": {},
        "adapter": {}, "training_data": {},
    }  # fmt: skip
    return export_model(Source(model, model, document), folder, tiles=tiles, also=also)


def lower_bundle(
    bundle: Bundle, precision: str, tiles: NDArray[np.uint8], expected: Outputs, folder: Path
) -> tuple[Bundle, list[StageReport]]:
    """The bundle in a lower precision, or with int8 twins beside its encoder, by export's own ways and gates.

    Raises
    ------
    ParityError
        The precision costs more than its tolerance.
    """
    shutil.copytree(bundle.path, folder)
    keep = ~calibrates(len(tiles)) if precision == "int8" else np.ones(len(tiles), bool)
    wanted = Outputs(expected.embedding[keep], expected.pathways[keep])
    judged = tiles[keep]
    chain = Chain(tiles, judged, wanted, lambda path, engine: _two(run_onnx(path, judged, engine)), bundle.pathways)
    encoder = folder / "encoder.onnx"
    beside = precision == "int8"
    first, also = ("fp32", ("int8",)) if beside else (precision, ())
    facts, twins = lower_and_add(first, also, encoder, chain, by_default=False)
    document = json.loads((folder / "bundle.json").read_text())
    document = {key: value for key, value in document.items() if key not in ("files", "schema_version")}
    document |= {"precision": first, "twins": twins, "parity": {"passed": True, **facts}}
    return write_bundle_json(folder, document), chain.stages


def _two(found: Outputs) -> Outputs:
    """Without the read-out that is comparable across slides: random weights have none that means anything."""
    return Outputs(found.embedding, found.pathways)


def run_bundle(run: Path, folder: Path, precision: str) -> Bundle:
    """Export a trained run, with the tiles of its own cohort."""
    return export_run(run, folder, precision=precision)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for bundles and for an engine cache of this run alone."""
    folder = tempfile.TemporaryDirectory(prefix="bench-engine-")
    os.environ["STAMP_CACHE_DIR"] = str(Path(folder.name, "cache"))
    return folder
