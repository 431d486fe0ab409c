"""What decoding at a reduced scale changes, on real tissue: pixels, embeddings, pathway scores.

The reference is `exact`: every storage tile decoded at full scale, converted to RGB, and averaged over areas. The
bounds are stated here and in docs/tiler.md; they hold for any slide of ordinary H&E, not only for this one, because the
two differ only in how the highest frequencies are cut off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from support.bundle_factory import make_bundle
from support.slide_factory import write_slide
from support.timm_or_skip import timm_or_skip

from stamp_deploy.grid import make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tissue import TissueRule, find_tissue

BOUNDS = {"as coded": (0.3, 4.0, 30), "422": (2.2, 14.0, 145), "420": (1.2, 8.0, 140)}
"""Mean, 99th percentile and maximum of the error, grey levels of 255. With 4:2:2 libjpeg-turbo halves the chroma, which
is half as wide already, along with the luma; with 4:2:0 it keeps the chroma whole."""
COSINE_BOUND, SPEARMAN_BOUND = 0.9995, 0.975


def read(path: Path, factor: float, *, exact: bool) -> NDArray[np.uint8]:
    with open_slide(path, mpp=0.5, route="jpeg-tiff") as slide:
        grid = make_grid(slide, target_mpp=0.5 * factor, tile_px=224, overlap_px=112)
        tiles = select_tiles(grid, find_tissue(slide, TissueRule()), 0.5)
        out = np.zeros((len(tiles), 224, 224, 3), np.uint8)
        with open_tiles(slide, tiles, batch=16, exact=exact) as source:
            assert (source.plan.dct_scale == 1) == (exact or factor < 2)
            for batch in source:
                assert (batch.status == TileStatus.OK).all()
                out[batch.index] = batch.pixels
    return out


@pytest.fixture(scope="module")
def tissue(cmu_slide: Path) -> NDArray[np.uint8]:
    with open_slide(cmu_slide) as slide:
        return slide.read_region(0, 0, 0, slide.width, slide.height)


@pytest.fixture(scope="module", params=["as coded", "422", "420"])
def pair(
    request: pytest.FixtureRequest, cmu_slide: Path, tissue: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The real slide's tissue at half its resolution: decoded at 1/2, and exactly."""
    path = cmu_slide
    if request.param != "as coded":
        path = write_slide(
            tmp_path_factory.mktemp("coded") / "a.svs", tissue, tile=240, coding=request.param, quality=75
        )
    return read(path, 2, exact=False), read(path, 2, exact=True)


def test_pixels_differ_little(
    request: pytest.FixtureRequest, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    coding = request.node.callspec.params["pair"]
    error = np.abs(pair[0].astype(int) - pair[1])
    found = f"{coding}: mean {error.mean():.3f}, p99 {np.percentile(error, 99):.1f}, maximum {error.max()}"
    print(found)
    mean, p99, most = BOUNDS[coding]
    assert error.mean() <= mean, found
    assert np.percentile(error, 99) <= p99, found
    assert error.max() <= most, found
    assert error.max() > 0, "nothing was compared"


def test_no_shift_and_no_tint(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """The error is noise: its mean over a channel is near nothing, and moving the image by a pixel makes it worse."""
    reduced, exact = (p.astype(float) for p in pair)
    assert np.abs((reduced - exact).mean((0, 1, 2))).max() < 0.3
    here = np.abs(reduced - exact).mean()
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert np.abs(np.roll(reduced, shift, (1, 2)) - exact).mean() > 1.5 * here


@pytest.mark.parametrize("coding", ["422", "420"])
def test_averaging_planes_is_averaging_pixels(tissue: NDArray[np.uint8], tmp_path: Path, coding: str) -> None:
    """At full scale the default differs from `exact` only in the order of averaging and colour conversion."""
    path = write_slide(tmp_path / "a.svs", tissue, tile=240, coding=coding, quality=75)
    error = np.abs(read(path, 1.9794, exact=False).astype(int) - read(path, 1.9794, exact=True))
    found = f"{coding}: mean {error.mean():.3f}, p99 {np.percentile(error, 99):.1f}, maximum {error.max()}"
    print(found)
    assert error.mean() <= 0.35, found
    assert np.percentile(error, 99) <= 5, found
    assert error.max() <= 32, found


def agreement(a: tuple[NDArray, NDArray], b: tuple[NDArray, NDArray]) -> tuple[float, float]:  # type: ignore[type-arg]
    """The least cosine of the tiles' embeddings, and the least Spearman correlation of the pathways' scores."""
    cosine = (a[0] * b[0]).sum(1) / np.linalg.norm(a[0], axis=1) / np.linalg.norm(b[0], axis=1)
    ranks = [spearmanr(x, y).statistic for x, y in zip(a[1].T, b[1].T, strict=True)]
    return float(cosine.min()), float(min(ranks))


def test_scores_of_a_bundle_agree(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path) -> None:
    from stamp_deploy.bundle import load_bundle
    from stamp_deploy.engine import load_engine

    bundle = load_bundle(make_bundle(tmp_path / "bundle", tile_px=224, mpp=1.0))
    engine = load_engine(bundle, "onnxruntime", batch=16, threads=1, precision=None)
    try:
        outputs = []
        for tiles in pair:
            batches = list(engine.stream(iter([tiles[i : i + 16] for i in range(0, len(tiles), 16)])))
            embedding = np.concatenate([b.embedding for b in batches])
            outputs.append((embedding, np.concatenate([b.pathways for b in batches])))
    finally:
        engine.close()
    cosine, rank = agreement(*outputs)
    print(f"bundle: cosine {cosine:.5f}, Spearman {rank:.4f}")
    assert cosine >= COSINE_BOUND, cosine
    assert rank >= SPEARMAN_BOUND, rank


def test_scores_of_a_vision_transformer_agree(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """A ViT of random weights, which no training has made insensitive to noise, and random pathways on it."""
    torch = pytest.importorskip("torch")
    timm = timm_or_skip()
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, depth=4).eval()
    head = torch.randn(model.num_features, 10)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    outputs = []
    with torch.inference_mode():
        for tiles in pair:
            pixels = (torch.from_numpy(tiles[::3].copy()).float() / 255 - mean) / std
            embedding = torch.cat([model(part.permute(0, 3, 1, 2)) for part in pixels.split(8)])
            outputs.append((embedding.numpy(), (embedding @ head).numpy()))
    cosine, rank = agreement(*outputs)
    print(f"cosine {cosine:.5f}, Spearman {rank:.4f}")
    assert cosine >= COSINE_BOUND, cosine
    assert rank >= SPEARMAN_BOUND, rank
