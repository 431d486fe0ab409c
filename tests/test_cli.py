"""The command as a user meets it: help, exit codes, one line of cause and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundle_factory import make_bundle


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stamp_deploy.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from stamp_deploy.cli import cli\n"
        "try: cli.main(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'rich', 'torch', 'matplotlib', 'onnxruntime',"
        " 'openslide', 'pyvips', 'h5py', 'pyarrow'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    for verb in ("infer", "inspect", "doctor", "batch", "export", "verify"):
        assert f"  {verb} " in out


def test_version_and_usage_errors() -> None:
    assert run("--version").stdout.startswith("stamp-deploy, version ")
    assert run("infer").returncode == 2
    assert run("no-such-verb").returncode == 2


def test_infer_on_a_real_slide(cmu_slide: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tile_px=224, mpp=0.5)
    out = tmp_path / "out"
    done = run("infer", cmu_slide, "--bundle", bundle, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((out / "result.json").read_text())
    assert record["tiles"]["ok"] > 40
    assert record["tiles"]["ok"] + record["tiles"]["background"] == record["tiles"]["grid"]
    assert {"result.json", "tiles.h5", "tiles.parquet", "DONE"} <= {p.name for p in out.iterdir()}
    again = run("infer", cmu_slide, "--bundle", bundle, "-o", out)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_missing_mpp_names_the_flag(data_dir: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    bundle = make_bundle(tmp_path / "bundle", tile_px=224, mpp=0.5)
    refused = run("infer", slide, "--bundle", bundle, "-o", tmp_path / "out")
    assert refused.returncode == 4
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "--mpp" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = run("infer", slide, "--bundle", bundle, "-o", tmp_path / "out", "--mpp", "0.25")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["histolab_broken.svs", "osp_unopenable.tiff", "osp_unreadable.svs", "no-such-slide.svs"]
)
def test_a_broken_slide_gives_one_line_and_no_output(data_dir: Path, tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", tile_px=64, mpp=0.5)
    done = run("infer", data_dir / "slides" / name, "--bundle", bundle, "-o", tmp_path / "out", "--mpp", "0.5")
    assert done.returncode == 4, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert name in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_bad_bundle_exits_with_five(cmu_slide: Path, tmp_path: Path) -> None:
    done = run("infer", cmu_slide, "--bundle", tmp_path / "none", "-o", tmp_path / "out")
    assert done.returncode == 5
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_answers_at_once() -> None:
    """Best of five, against a bare interpreter start, so that a busy machine does not decide."""

    def best(*command: str) -> float:
        times = []
        for _ in range(5):
            clock = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - clock)
        return min(times)

    assert best("-m", "stamp_deploy.cli", "--help") < 0.3 + 2 * best("-c", "pass")
