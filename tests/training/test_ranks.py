"""Training by 2 and 4 processes on the CPU: work is dealt out, and all end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")
pytest.importorskip("accelerate", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt

from stamp_deploy.training.ranks import Ranks

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--num_processes",
)
WAIT_S = 540


def ranks(world: int, rank: int = 0) -> Ranks:
    """Ranks without processes, for what needs none."""
    accelerator = SimpleNamespace(
        process_index=rank, num_processes=world, device=torch.device("cpu"), wait_for_everyone=lambda: None
    )
    return Ranks(accelerator)  # type: ignore[arg-type]


def test_work_is_dealt_by_size_and_alike_in_every_process() -> None:
    sizes = [100, 900, 300, 300, 250, 40, 10]
    owner = ranks(3).owners(sizes)
    assert owner == ranks(3, 2).owners(sizes)
    load = [sum(s for s, o in zip(sizes, owner, strict=True) if o == rank) for rank in range(3)]
    assert sum(load) == sum(sizes) and max(load) == 900
    assert ranks(1).owners(sizes) == [0] * 7
    made = ranks(1).share([2, 3], 4, lambda i: np.full((2 + i, 4), i, np.float32))
    assert [m.shape for m in made] == [(2, 4), (3, 4)] and ranks(1).decide(0.5) == 0.5


def config(folder: Path, **more: str) -> Path:
    """A run over three sections that stops on a fourth, its checkpoint written at every step."""
    cohort = make_cohort(folder / "cohort", {"a": "p1", "b": "p2", "c": "p3", "v": "p4", "h": "p5"})
    lines = [
        f'cohort = "{cohort}"', f'gmt = "{program_gmt(folder / "p.gmt")}"', 'held_out = ["h"]', 'validation = ["v"]',
        'pfm = "timm/vit_tiny_patch16_224"', f"timm_kwargs = '{json.dumps(VIT)}'", "tile_px = 32", "mpp = 1.0",
        'precision = "fp32"', "threads = 1", "batch_spots = 8", "batch_slides = 1", "progress = false",
        "controls = false", "checkpoint_minutes = 0.0", *(f"{k} = {v}" for k, v in more.items()),
    ]  # fmt: skip
    (folder / "run.toml").write_text("\n".join(lines) + "\n")
    return folder / "run.toml"


def launch(launcher: Sequence[str], world: int, settings: Path, out: Path) -> subprocess.Popen[str]:
    """`train` by a launcher."""
    command = [
        sys.executable,
        "-m",
        *launcher,
        str(world),
        "-m",
        "stamp_deploy.cli",
        "train",
        str(settings),
        "-o",
        str(out),
    ]
    return subprocess.Popen(
        command, env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    """Its standard output; a failure shows its errors."""
    out, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors[-3000:]
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "world"), [(ACCELERATE, 2), (TORCHRUN, 4)])
def test_ranks_share_the_work_and_end_together(launcher: Sequence[str], world: int, tmp_path: Path) -> None:
    """More processes than sections, too: one of four has nothing to embed."""
    settings = config(tmp_path, epochs="2")
    out = finished(launch(launcher, world, settings, tmp_path / "run"))
    assert out.count("run      ") == 1
    metrics = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    assert metrics["epochs"] == 2 and metrics["validation_r"] is not None
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
def test_views_are_computed_by_all_and_the_stop_is_the_same_for_all(tmp_path: Path) -> None:
    """A learning rate of 0 gains nothing: every process stops after the patience, or the run would hang."""
    more = {"epochs": "9", "patience": "2", "lr": "0.0", "lr_heads": "0.0", "adapt": '"last-block"', "cache_views": "1"}
    settings = config(tmp_path, **more)
    finished(launch(TORCHRUN, 2, settings, tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    assert metrics["epochs"] == 2 and metrics["best_epoch"] == 0
