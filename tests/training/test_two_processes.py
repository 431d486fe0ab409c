"""Training by two processes on the CPU: both end cleanly, one speaks, and the run is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")
pytest.importorskip("accelerate", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, program_gmt

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}


def test_two_ranks_end_cleanly_with_one_run_and_its_controls(tmp_path: Path) -> None:
    cohort, gmt = make_cohort(tmp_path / "cohort", {"a": "p1", "b": "p2", "h": "p3"}), program_gmt(tmp_path / "p.gmt")
    config = tmp_path / "run.toml"
    config.write_text(
        f'cohort = "{cohort}"\ngmt = "{gmt}"\nheld_out = ["h"]\npfm = "timm/vit_tiny_patch16_224"\n'
        f"timm_kwargs = '{json.dumps(VIT)}'\ntile_px = 32\nmpp = 1.0\nval_fraction = 0.0\nepochs = 1\n"
        'precision = "fp32"\nthreads = 1\nbatch_spots = 20\nprogress = false\n'
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, "-m", "stamp_deploy.cli", "train", str(config), "-o", str(tmp_path / "run")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "KeyError" not in done.stderr
    assert done.stdout.count("run      ") == 1 and done.stdout.count("control  ") == 2
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["metrics"]["epochs"] == 1 and info["metrics"]["steps"] > 0
    assert {p.parent.name for p in (tmp_path / "run").glob("controls/*/run.json")} == {"random_sets", "shuffled"}
