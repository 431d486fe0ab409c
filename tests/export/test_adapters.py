"""Several runs on one foundation model as one bundle: shared weights once, and what each adapter changes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.cli_runner import Runner, runner  # noqa: F401 - the fixture
from support.cohort_factory import make_cohort, make_run, program_gmt
from support.slide_factory import texture, write_slide

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from stamp_deploy.bundle import load_adapters, load_bundle
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.engine import load_engine, swap_adapter
from stamp_deploy.errors import UsageError
from stamp_deploy.export.adapters import BASE_FILE, export_adapters, low_rank
from stamp_deploy.export.export import export_run
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.model import load_run, save_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that share a backbone; their adapters and heads are far from each other."""
    base = tmp_path_factory.mktemp("runs")
    cohort = make_cohort(base / "cohort", {"a1": "A", "b1": "B", "c1": "C"})
    gmt = program_gmt(base / "sets.gmt")
    folders = []
    for seed, name in enumerate(("lung", "breast")):
        folder = make_run(base / name, cohort, gmt, ("c1",))
        model, info = load_run(folder)
        torch.manual_seed(seed)
        for parameter_name, parameter in model.backbone.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.2)
        save_run(folder, model, info)
        folders.append(folder)
    return tuple(folders)


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapters") / "bundle"
    return export_adapters(runs, out)


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """The first run as a bundle of its own."""
    return export_run(runs[0], tmp_path_factory.mktemp("alone") / "bundle")


@pytest.fixture(scope="module")
def tiles(runs):
    return np.array(load_cohort(runs[0].parent / "cohort").samples[0].tiles()[:6])


@pytest.fixture
def copied(made, tmp_path):
    """The bundle's folder, to be damaged."""
    shutil.copytree(made["lung"].path, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_each_adapter_says_what_its_run_says(runs, made, tiles):
    assert list(made) == ["lung", "breast"]
    outputs = {}
    for run in runs:
        model, info = load_run(run)
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (info.mean, info.std))
        with torch.no_grad():
            embedding, pathways = model((torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std)
        engine = load_engine(made[run.name], "onnxruntime", batch=8)
        found = engine.run(tiles)
        assert np.abs(found.embedding - embedding.numpy()).max() < 2e-5
        assert np.abs(found.pathways - pathways.numpy()).max() < 2e-5
        outputs[run.name] = found.embedding
        engine.close()
    assert np.abs(outputs["lung"] - outputs["breast"]).max() > 0.01, "the adapters are alike: nothing is tested"


def test_the_shared_weights_lie_there_once(made, alone):
    folder = made["lung"].path
    whole = alone.encoder.stat().st_size
    base = (folder / BASE_FILE).stat().st_size
    own = [(folder / name / "adapter.safetensors").stat().st_size for name in made]
    graphs = [(folder / f"{name}.onnx").stat().st_size for name in made]
    assert base < whole and max(own) < whole / 4  # rank 4 of a width of 48
    assert base + sum(own) + sum(graphs) < 1.8 * whole


def test_the_parts_of_a_low_rank_change_are_thin():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(96, 288)).astype(np.float32)
    change = (rng.normal(size=(96, 4)) @ rng.normal(size=(4, 288)) * 0.05).astype(np.float32)
    a, b = low_rank(base + change, base)
    assert a.shape == (96, 4) and b.shape == (4, 288)
    np.testing.assert_allclose(base + a @ b, base + change, rtol=0, atol=5e-6)
    assert low_rank(base + rng.normal(size=base.shape).astype(np.float32), base) is None
    assert low_rank(base[:, 0], base[:, 0]) is None


def test_one_is_picked_by_name(made):
    folder = made["lung"].path
    assert load_bundle(folder, adapter="breast").sha256 == made["breast"].sha256 != made["lung"].sha256
    assert load_bundle(folder, adapter="breast").name == "bundle-breast"
    with pytest.raises(UsageError, match=r"several adapters: breast, lung.*--adapter"):
        load_bundle(folder)
    with pytest.raises(UsageError, match="no adapter 'colon'"):
        load_bundle(folder, adapter="colon")


def test_an_adapter_of_a_bundle_with_one_model(alone):
    with pytest.raises(UsageError, match="holds one model"):
        load_bundle(alone.path, adapter="lung")


def test_the_identity_of_an_adapter_is_its_own(made, copied):
    """Another adapter's files are none of its business, the shared ones are."""
    path = copied / "bundle.json"
    document = json.loads(path.read_text())
    document["adapters"]["breast"]["input_range"] = {}
    path.write_text(json.dumps(document))
    found = load_adapters(copied)
    assert found["lung"].sha256 == made["lung"].sha256 and found["breast"].sha256 != made["breast"].sha256


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_are_swapped_in_a_loaded_engine(made, tiles, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    precision = "fp32"
    want = {}
    for name, bundle in made.items():
        loaded = load_engine(bundle, engine, batch=8, precision=precision)
        want[name] = loaded.run(tiles).embedding
        loaded.close()
    loaded = load_engine(made["lung"], engine, batch=8, precision=precision)
    for name in ("breast", "lung", "breast"):
        loaded = swap_adapter(loaded, made[name])
        assert loaded.info.name == engine
        np.testing.assert_allclose(loaded.run(tiles).embedding, want[name], rtol=0, atol=2e-5)
    loaded.close()


def test_the_commands_take_the_name(made, tmp_path, runner):  # noqa: F811
    folder = made["lung"].path
    slide = write_slide(tmp_path / "slide.svs", texture(600, 600))
    asked = ("infer", slide, "--bundle", folder, "--engine", "onnxruntime", "--write", "json", "--json")
    refused = runner(*asked, "-o", tmp_path / "none")
    assert refused.code == 2 and "--adapter" in refused.err and not (tmp_path / "none").exists()
    for name in made:
        done = runner(*asked, "-o", tmp_path / name, "--adapter", name)
        assert done.code == 0, done.err
        record = json.loads(done.out)
        assert record["bundle"]["sha256"] == made[name].sha256 and record["bundle"]["name"] == f"bundle-{name}"
    assert runner("parity", folder, "--adapter", "lung", "--engine", "onnxruntime").code == 0
    verified = runner("verify", folder)
    assert verified.code == 0 and "bundle-lung" in verified.out and "bundle-breast" in verified.out
    told = runner("inspect", folder)
    assert told.code == 0 and "adapter     lung" in told.out
    batch = ("batch", slide, "--bundle", folder, "-o", tmp_path / "batch", "--engine", "onnxruntime", "--write", "json")
    assert runner(*batch, "--adapter", "breast").code == 0


def test_a_triton_repository_holds_the_merged_weights(made, tiles, tmp_path):
    import onnxruntime

    write_repository(made["breast"], tmp_path / "repo", device="cpu")
    file = tmp_path / "repo" / "bundle-breast" / "1" / "breast.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    engine = load_engine(made["breast"], "onnxruntime", batch=8)
    want = engine.run(tiles).embedding
    np.testing.assert_allclose(session.run(["embedding"], {"tiles": tiles})[0], want, rtol=0, atol=2e-5)
    engine.close()


def test_runs_of_other_models_are_refused(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**facts, "mpp": facts["mpp"] / 2}))
    with pytest.raises(UsageError, match="do not share a foundation model: mpp differ"):
        export_adapters((runs[0], other), tmp_path / "out")
    with pytest.raises(UsageError, match="name of its own"):
        export_adapters(runs, tmp_path / "out", names=("one", "ONE"))
    assert not (tmp_path / "out").exists()


def test_the_command_exports_them(runs, tmp_path, runner):  # noqa: F811
    done = runner("export", *runs, "-o", tmp_path / "out", "--adapters", "thorax,mamma", "--name", "organs")
    assert done.code == 0, done.err
    assert "adapter thorax" in done.out and sorted(load_adapters(tmp_path / "out")) == ["mamma", "thorax"]
    assert load_bundle(tmp_path / "out", adapter="mamma").name == "organs-mamma"
    refused = runner("export", *runs, "-o", tmp_path / "int8", "--also", "int8")
    assert refused.code == 2 and "--adapters" in refused.err
