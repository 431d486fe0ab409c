"""Training by 2 and 4 processes on the CPU: work is dealt out, a killed run goes on, and nobody is left waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
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
TESTS = Path(__file__).resolve().parents[1]


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


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs; a launcher's workers are in sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [*found, *(deeper for child in found for deeper in descendants(child))]


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


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "world"), [(TORCHRUN, 2), (ACCELERATE, 4)], ids=["torchrun-2", "accelerate-4"])
def test_a_killed_run_goes_on(launcher: Sequence[str], world: int, tmp_path: Path) -> None:
    """All processes are killed after the first checkpoint; the same command ends the run with all of its steps."""
    settings = config(tmp_path, epochs="15", patience="0")
    process = launch(launcher, world, settings, tmp_path / "run")
    saved = tmp_path / "run" / "checkpoint" / "training.safetensors"
    until = time.monotonic() + WAIT_S
    while not saved.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    for pid in (process.pid, *descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert not (tmp_path / "run" / "run.json").is_file()  # it had most of its epochs before it
    assert saved.is_file(), errors[-3000:]
    finished(launch(launcher, world, settings, tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]
    whole = config_steps(settings, world)
    assert metrics["epochs"] == 15 and metrics["steps"] == 15 * whole


def config_steps(settings: Path, world: int) -> int:
    """Steps of an epoch, as the plan of batches says."""
    from stamp_deploy.training.config import load_config
    from stamp_deploy.training.data import planned
    from stamp_deploy.training.run_setup import prepare

    loaded = load_config(settings)
    return len(planned(prepare(loaded).train, loaded, 0)) // world


def at_work(world: int, task: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """tests/support/ranks_at_work.py in several processes."""
    return subprocess.run(
        [sys.executable, "-m", *TORCHRUN, str(world), "-m", "support.ranks_at_work", task, str(folder)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True, text=True, timeout=WAIT_S, cwd=folder,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_nobody_waits_in_one_barrier_while_another_works(world: int, tmp_path: Path) -> None:
    """The first process's work ends only once the others have met it three times meanwhile: a barrier would never."""
    done = at_work(world, "beats", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.read_text() for p in tmp_path.glob("made-*")) == [str(rank) for rank in range(world)]


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all(tmp_path: Path) -> None:
    done = at_work(2, "failure", tmp_path)
    assert done.returncode != 0
    said = {p.name: p.read_text() for p in tmp_path.glob("said-*")}
    assert said == {"said-0": "another process of the training failed", "said-1": "tiles are gone"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["warm-up", "teacher"])
def test_warm_up_and_teacher_keep_the_others_company(task: str, tmp_path: Path) -> None:
    """Both are held up until the second process has met the first three times; every process then has the same."""
    more = {"warm-up": {"warm_up": '"vicreg"', "warm_up_steps": "2"}, "teacher": {"w_teacher": "1.0", "n_genes": "6"}}
    config(tmp_path, epochs="1", teacher_steps="2", **more[task])
    done = at_work(2, task, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "run.json").is_file()
    one, two = ((tmp_path / f"weights-{rank}").read_text() for rank in range(2))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_embeddings_in_bf16_are_shared_out_and_the_same_for_all(world: int, tmp_path: Path) -> None:
    """bf16 on the CPU, whatever it is worth there: near fp32, not equal to it, and one array for all processes."""
    config(tmp_path)
    done = at_work(world, "bf16", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [dict(np.load(tmp_path / f"embeddings-{rank}.npz")) for rank in range(world)]
    for other in found[1:]:
        assert all(np.array_equal(found[0][k], other[k]) for k in found[0])
    for key in (k for k in found[0] if k.startswith("bf16")):
        half, full = found[0][key], found[0][key.replace("bf16", "fp32")]
        assert not np.array_equal(half, full) and half.shape == full.shape == (60, 48)
        assert np.abs(half - full).max() < 0.05 * np.abs(full).max()
