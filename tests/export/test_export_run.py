"""From a run folder to a bundle: adapter, heads and cohort tiles found by themselves."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.cohort_factory import make_cohort, make_run, program_gmt

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from click.testing import CliRunner

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine import load_engine
from stamp_deploy.errors import ParityError, UsageError
from stamp_deploy.export import source
from stamp_deploy.export.verbs import export
from stamp_deploy.heads import call_heads
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.heads.abmil import GatedABMIL
from stamp_deploy.training.model import load_run, save_run
from stamp_deploy.training.model.checkpoint import write_tensors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose adapter is far from zero, with one head beside it."""
    base = tmp_path_factory.mktemp("run")
    cohort = make_cohort(base / "cohort", {"a1": "A", "b1": "B", "c1": "C"})
    folder = make_run(base / "run", cohort, program_gmt(base / "sets.gmt"), ("c1",))
    model, info = load_run(folder)
    torch.manual_seed(1)
    for name, parameter in model.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_run(folder, model, info)
    head = GatedABMIL(info.embedding_dim, 2, hidden=16, attention=8).eval()
    (folder / "heads").mkdir()
    write_tensors(folder / "heads" / "msi.safetensors", dict(head.state_dict()))
    entry = {
        "name": "msi", "kind": "binary", "classes": ["MSS", "MSI"], "thresholds": [0.4], "temperature": 1.3,
        "abstain": [0.35, 0.45], "details": {"task": "a test"},
        "model": {"dim": info.embedding_dim, "outputs": 2, "hidden": 16, "attention": 8, "survival": False},
    }  # fmt: skip
    (folder / "heads.json").write_text(json.dumps({"schema": "stamp-deploy/heads/1", "heads": [entry]}))
    return folder


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    done = CliRunner().invoke(export, [str(run), "-o", str(out), "--triton", str(out.parent / "repo")])
    assert done.exit_code == 0, done.output
    assert "torch -> merged" in done.output and "Spearman" in done.output
    assert sorted(p.name for p in (out.parent / "repo").iterdir()) == ["bundle", "bundle-msi"]
    return load_bundle(out)


def test_the_bundle_speaks_for_the_run(run, bundle):
    model, info = load_run(run)
    tiles = np.array(load_cohort(run.parent / "cohort").samples[0].tiles()[:6])
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (info.mean, info.std))
    pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        embedding, pathways = model(pixels)
        with model.without_adapter():
            frozen, _ = model(pixels)
    assert (embedding - frozen).abs().max() > 0.01, "the adapter does nothing, so the merge is not tested"
    found = load_engine(bundle, "onnxruntime", batch=8).run(tiles)
    assert np.abs(found.embedding - embedding.numpy()).max() < 1e-5
    assert np.abs(found.pathways - pathways.numpy()).max() < 1e-5
    assert bundle.pathways == info.pathway_names and bundle.gene_set_sha256 == info.gene_set_sha256
    assert bundle.adapter["kind"] == "lora" and len(bundle.adapter["adapter.safetensors_sha256"]) == 64


def test_the_head_calls(bundle):
    (call,) = call_heads(bundle, np.load(bundle.golden / "embedding.npy"))
    assert call.name == "msi" and call.temperature == 1.3 and abs(sum(call.probabilities) - 1) < 1e-6
    assert bundle.parity["stages"]["merged -> ONNX"]["head_max_abs"] < 1e-4


def test_parity_tiles_come_from_the_cohort(run, bundle):
    cohort = load_cohort(run.parent / "cohort")
    assert bundle.parity["tiles"] == sum(s.n_spots for s in cohort.samples) == 180
    tiles = source.run_tiles(run, cohort.tile_px, cohort.mpp, 9)
    every = np.concatenate([s.tiles() for s in cohort.samples])
    assert all(any(np.array_equal(tile, row) for row in every) for tile in tiles) and len(tiles) == 9


def copy_of(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_a_run_without_its_cohort_wants_tiles(run, tmp_path):
    folder = copy_of(run, tmp_path)
    (folder / "config.toml").write_text('cohort = "nowhere"\n')
    with pytest.raises(UsageError, match="--tiles"):
        source.run_tiles(folder, 32, 1.0, 10)


def test_a_head_of_another_encoder_is_refused(run, tmp_path):
    folder = copy_of(run, tmp_path)
    with pytest.raises(UsageError, match="embeddings of 96 values"):
        source.read_heads(folder, 384)


def test_an_adapter_of_another_run_is_refused(run, tmp_path):
    """Its tensors have no place in the model: nothing may be dropped in silence."""
    from safetensors.torch import load_file, save_file

    folder = copy_of(run, tmp_path)
    tensors = load_file(folder / "adapter.safetensors")
    save_file(
        {key.replace("blocks.1", "blocks.7"): value for key, value in tensors.items()}, folder / "adapter.safetensors"
    )
    with pytest.raises((UsageError, ParityError)):
        source.read_run(folder, "x")
