"""`fit` from end to end on a cohort whose colours carry the programs: it learns, resumes after a kill bit for bit,
stops early, keeps controls honest, and refuses what it cannot use."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")

from click.testing import CliRunner
from safetensors.torch import load_file
from support.cohort_factory import PROGRAMS, make_cohort, program_gmt

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.ablations import ablation_configs, train_ablations
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.config import TrainConfig, load_config
from stamp_deploy.training.loop import fit
from stamp_deploy.training.metrics import pearson
from stamp_deploy.training.model import load_run
from stamp_deploy.training.model.checkpoint import Checkpoint
from stamp_deploy.training.model.embed import embed_tiles
from stamp_deploy.training.run_setup import prepare
from stamp_deploy.training.validation import validation_r

TINY = json.dumps({"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "c": "p3", "d": "p4"})
    program_gmt(folder / "programs.gmt")
    return folder


def config(place: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "cohort": str(place / "cohort"), "gmt": str(place / "programs.gmt"), "held_out": ["d"], "validation": ["c"],
            "pfm": "demo-vit", "timm_kwargs": TINY, "tile_px": 32, "mpp": 1.0, "epochs": 3, "lr": 2e-3,
            "lr_heads": 2e-3, "batch_spots": 24, "threads": 1, "w_contrastive": 0.1, "projection_dim": 16, **changes,
        }
    )  # fmt: skip


def held_out_r(place: Path, run: Path, sample: str = "d") -> np.ndarray:
    """Pearson r of each program on the held-out section, by the run's own head."""
    model, info = load_run(run)
    settings = config(place, validation=[sample], held_out=[])
    section = prepare(settings).validation[0]
    with torch.inference_mode():
        predicted = model.pathway(torch.from_numpy(embed_tiles(model, info, section.tiles))).numpy()
    return pearson(section.scores, predicted)


def check_events(run: Path) -> None:
    """The event files hold every number of metrics.csv, epoch by epoch, and no name of anything."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(run / "tensorboard")).Reload()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {"loss", "validation_r"} <= set(seen.Tags()["scalars"]) <= set(rows[0])
    for name in ("loss", "validation_r"):
        events = seen.Scalars(name)
        assert [event.step for event in events] == [int(row["epoch"]) for row in rows]
        assert [event.value for event in events] == pytest.approx([float(row[name]) for row in rows], rel=1e-4)


def test_a_run_learns_the_programs_and_not_the_one_without_a_trace(place: Path, tmp_path: Path) -> None:
    info = fit(config(place, epochs=12, adapt="full", lr=3e-3), tmp_path / "run")
    r = held_out_r(place, tmp_path / "run")
    assert r[:3].min() > 0.65  # the scores themselves are noisy
    assert abs(r[3]) < 0.35  # NOTHING leaves no trace in the tiles
    assert info.metrics["validation_samples"] == ["c"] and info.metrics["validation_r"] > 0.6
    assert info.cohort["note"] == "" and info.pathway_names == PROGRAMS
    files = {p.name for p in (tmp_path / "run").iterdir()}
    if find_spec("tensorboard"):
        check_events(tmp_path / "run")
    assert files - {"tensorboard"} == {
        "run.json",
        "config.toml",
        "metrics.csv",
        "backbone.safetensors",
        "frozen.safetensors",  # what its weights were: evaluation compares with them
        "heads.safetensors",
    }
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [int(r["epoch"]) for r in rows] == list(range(1, len(rows) + 1))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert load_config(tmp_path / "run" / "config.toml") == config(place, epochs=12, adapt="full", lr=3e-3)


def test_shuffled_targets_teach_nothing(place: Path, tmp_path: Path) -> None:
    """Pearson r of a meaningless prediction has any sign and size where three colours are all there is; the variance
    that it explains does not."""
    explained = {}
    for control in ("", "shuffled"):
        settings = config(place, epochs=12, adapt="full", lr=3e-3, control=control, validation=[], val_fraction=0.0)
        fit(settings, tmp_path / f"run{control}")
        model, info = load_run(tmp_path / f"run{control}")
        section = prepare(config(place, validation=["d"], held_out=[])).validation[0]
        with torch.inference_mode():
            predicted = model.pathway(torch.from_numpy(embed_tiles(model, info, section.tiles))).numpy()[:, :3]
        truth = section.target[:, :3]
        explained[control] = 1 - ((truth - predicted) ** 2).mean() / truth.var()
    assert explained[""] > 0.4 and explained["shuffled"] < 0.05


def test_lora_keeps_the_backbone_and_starts_from_it(place: Path, tmp_path: Path) -> None:
    first = fit(config(place, adapt="frozen", epochs=0, warm_up="vicreg", warm_up_steps=30), tmp_path / "a")
    assert first.metrics["warm_up"]["step"] == 30 and first.metrics["pathway_head"] == "ridge"
    weights = tmp_path / "a" / "backbone.safetensors"
    # without validation the last epoch is kept, and not the start where that scores better
    info = fit(config(place, weights=str(weights), epochs=2, validation=[], val_fraction=0.0), tmp_path / "b")
    assert load_file(weights).keys() == load_file(tmp_path / "b" / "backbone.safetensors").keys()
    for name, tensor in load_file(weights).items():
        assert torch.equal(tensor, load_file(tmp_path / "b" / "backbone.safetensors")[name])
    assert 0.8 < info.metrics["cosine_to_frozen"] <= 1.0
    assert info.software["weights_sha256"]
    model, loaded = load_run(tmp_path / "b")
    assert loaded.lora is not None and loaded.lora.r == 8
    assert any(bool(p.detach().any()) for n, p in model.named_parameters() if ".lora_B" in n)
    named = fit(config(place, weights=str(weights), epochs=1, copy_backbone=False), tmp_path / "c")
    assert not (tmp_path / "c" / "backbone.safetensors").exists() and named.adapt == "lora"
    load_run(tmp_path / "c")


def test_the_same_seed_gives_the_same_bits(place: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(config(place, epochs=1, seed=seed), tmp_path / name)
    a, b, c = (load_file(tmp_path / n / "adapter.safetensors") for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


RUN = """
import sys
from pathlib import Path
from stamp_deploy.training.model import checkpoint
from stamp_deploy.training.config import load_config
from stamp_deploy.training.loop import fit
pace = float(sys.argv[3])
save = checkpoint.Checkpoint.save
def slow(self, stage, *rest):
    import time
    save(self, stage, *rest)
    print(stage, flush=True)
    time.sleep(pace)
checkpoint.Checkpoint.save = slow
fit(load_config(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    """SIGKILL once in the warm-up and once in the training; the end equals that of a run that was left alone."""
    settings = config(
        place, epochs=3, warm_up="vicreg", warm_up_steps=12, warm_up_batch=16, checkpoint_minutes=0.0, batch_spots=16,
        accumulation=2, lora_dropout=0.2, validation=["c"],
    )  # fmt: skip
    path = tmp_path / "config.toml"
    path.write_text(settings.to_toml(), encoding="utf-8")
    fit(settings, tmp_path / "whole")
    for stage, saves in (("warm-up", 5), ("training", 2)):
        _kill_after(path, tmp_path / "killed", stage, saves)
        assert not (tmp_path / "killed" / "run.json").exists()
    fit(settings, tmp_path / "killed")
    for name in ("backbone", "adapter", "heads"):
        a, b = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "killed"))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    whole, killed = (list(csv.DictReader((tmp_path / r / "metrics.csv").open())) for r in ("whole", "killed"))
    for x, y in zip(whole, killed, strict=True):
        assert {k: v for k, v in x.items() if k != "tiles_per_s"} == {k: v for k, v in y.items() if k != "tiles_per_s"}
    assert not (tmp_path / "killed" / "checkpoint").exists()


def _kill_after(config_path: Path, out: Path, stage: str, saves: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(config_path), str(out), "0.05"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seen, deadline = 0, time.monotonic() + 120
    assert process.stdout is not None
    for line in process.stdout:
        seen += line.strip() == stage
        if seen >= saves or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert seen >= saves


def test_a_checkpoint_of_other_settings_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(place, epochs=2, checkpoint_minutes=0.0)
    save = Checkpoint.save

    def stop(self: Checkpoint, stage: str, *rest: Any) -> None:
        save(self, stage, *rest)
        if stage == "training":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", stop)
        fit(settings, tmp_path / "run")
    with pytest.raises(UsageError, match="unfinished run of other settings"):
        fit(settings.with_(lr=1e-5), tmp_path / "run")
    fit(settings.with_(lr=1e-5), tmp_path / "run", overwrite=True)
    with pytest.raises(UsageError, match="finished run"):
        fit(settings, tmp_path / "run")


def test_training_stops_where_validation_stops_gaining(place: Path, tmp_path: Path) -> None:
    info = fit(config(place, epochs=40, lr=0.0, lr_heads=0.0, patience=2), tmp_path / "run")
    assert info.metrics["epochs"] == 2 and info.metrics["best_epoch"] == 0  # nothing moves, so the start is the best
    start = prepare(config(place))
    model, loaded = load_run(tmp_path / "run")
    assert validation_r(model, loaded, start.validation) == pytest.approx(info.metrics["validation_r"], abs=1e-6)


def test_gene_targets_zmean_and_the_optional_losses(place: Path, tmp_path: Path) -> None:
    settings = config(place, epochs=1, targets="genes", n_genes=12, w_genes=0.1, w_batch=0.1, micro_batch=16)
    info = fit(settings, tmp_path / "genes")
    assert len(info.pathway_names) == 12 and info.score_method == "log1p-cp10k"
    row = next(csv.DictReader((tmp_path / "genes" / "metrics.csv").open()))
    assert float(row["genes"]) > 0 and float(row["batch"]) > 0
    assert fit(config(place, epochs=1, score="zmean"), tmp_path / "zmean").score_method == "zmean"


def test_the_ablation_table_is_one_command(place: Path, tmp_path: Path) -> None:
    rows = ("regression_only", "contrast_only", "random_sets", "last_block")
    settings = config(place, epochs=1, warm_up="vicreg", warm_up_steps=2, validation=[], val_fraction=0.0)
    found = dict(train_ablations(settings, tmp_path, rows))
    assert set(found) == {"frozen_head", *rows}
    assert all((tmp_path / row / "run.json").exists() for row in found)
    assert all(name.startswith("RANDOM_") for name in found["random_sets"].pathway_names)
    again = dict(train_ablations(settings, tmp_path, rows))
    assert again["last_block"] == load_run(tmp_path / "last_block")[1]
    base = load_file(tmp_path / "frozen_head" / "backbone.safetensors")
    tuned = load_file(tmp_path / "last_block" / "backbone.safetensors")
    moved = {k for k in base if not torch.equal(base[k], tuned[k])}
    assert moved and all(k.startswith(("blocks.1.", "norm.")) for k in moved)
    assert ablation_configs(config(place))["shuffled"].control == "shuffled"
    with pytest.raises(UsageError, match="there is no row"):
        list(train_ablations(config(place), tmp_path, ("nonsense",)))


def test_the_verb(place: Path, tmp_path: Path) -> None:
    from stamp_deploy.training.verbs_train import train

    path = tmp_path / "config.toml"
    path.write_text(config(place).to_toml(), encoding="utf-8")
    shown = CliRunner().invoke(train, [str(path), "-o", str(tmp_path / "run"), "--set", "epochs=1", "--show"])
    assert "\nepochs = 1 " in shown.output and "# 0: no adaptation" in shown.output
    assert TrainConfig.from_dict(tomllib.loads(shown.output)) == config(place, epochs=1)
    done = CliRunner().invoke(train, [str(path), "-o", str(tmp_path / "run"), "--set", "epochs=1"])
    assert done.exit_code == 0, done.output
    assert "1 epochs" in done.output and "validation r" in done.output and (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cohort": ""}, UsageError, "names no cohort"),
        ({"gmt": ""}, UsageError, "names no gene sets"),
        ({"held_out": ["nobody"]}, DataError, "no sample nobody"),
        ({"held_out": ["c"], "validation": ["c"]}, UsageError, "in held_out and in validation"),
        ({"held_out": ["a", "b", "d"], "validation": ["c"]}, DataError, "no sample is left"),
        ({"tile_px": 64, "timm_kwargs": ""}, UsageError, "the model wants 64 px"),
        ({"mpp": 0.5}, UsageError, "32 px at 1 um, the model wants"),
        ({"pfm": "no-model"}, UsageError, "no foundation model"),
        ({"weights": "gone.safetensors"}, UsageError, "no such weights"),
        ({"lora_target": "nowhere"}, UsageError, "LoRA cannot be added"),
        ({"targets": "genes", "n_genes": 10_000}, DataError, "fewer than n_genes"),
    ],
)
def test_what_cannot_be_used_is_refused(
    place: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(config(place, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_several_processes_learn_as_one(place: Path, tmp_path: Path) -> None:
    """Two processes on the CPU through accelerate's environment: one run folder, the same model in both."""
    settings = config(place, epochs=2, validation=["c"], batch_spots=16)
    path = tmp_path / "config.toml"
    path.write_text(settings.to_toml(), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from stamp_deploy.training.config import load_config;"
        "from stamp_deploy.training.loop import fit; fit(load_config(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    port = str(20000 + os.getpid() % 20000)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(tmp_path / "run")],
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [p.wait(timeout=240) for p in processes] == [0, 0]
    info = load_run(tmp_path / "run")[1]
    assert info.metrics["epochs"] == 2
    alone = fit(settings, tmp_path / "alone")
    assert info.metrics["steps"] == max(1, alone.metrics["steps"] // 2)  # each process takes half of the batches


def test_cohort_facts_reach_run_json_without_patients(place: Path, tmp_path: Path) -> None:
    fit(config(place, epochs=0, adapt="frozen", validation=["c"]), tmp_path / "run")
    text = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    facts = json.loads(text)["cohort"]
    assert [s["id"] for s in facts["samples"]] == ["a", "b", "c"] and facts["validation"] == ["c"]
    assert '"p1"' not in text and "patient_id" not in text
    assert len(load_cohort(place / "cohort").samples) == 4
