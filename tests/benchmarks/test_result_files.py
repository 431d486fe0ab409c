"""Results of benchmarks say what they ran on, and what got worse since the committed ones."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "result_files.py"


@pytest.fixture(scope="module")
def files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("result_files", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["result_files"] = module
    spec.loader.exec_module(module)
    return module


def tiler(speed: float, spread: float = 0.5, processor: str = "A", cores: int = 2) -> dict[str, object]:
    return {
        "vs_openslide_40x": speed,
        "vs_openslide_40x_spread": spread,
        "written_by": {"processor": processor, "cores": cores, "revision": "a" * 40, "date": "2026-01-01"},
    }


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (tiler(10), tiler(9.4), True),
        (tiler(10), tiler(9.6), False),
        (tiler(10), tiler(11), False),
        (tiler(10, spread=0.5), tiler(9.0, spread=1.5), False),
        (tiler(10), tiler(5, processor="B"), False),
        (tiler(10), tiler(5, cores=4), False),
        ({"vs_openslide_40x": 10}, tiler(5), False),
    ],
)
def test_only_a_loss_beyond_the_spread_on_the_same_machine_is_told(
    files: ModuleType, before: dict[str, object], now: dict[str, object], told: bool
) -> None:
    lines = files.worse("tiler", before, now)
    assert bool(lines) == told
    if told:
        assert "vs_openslide_40x" in lines[0] and "aaaaaaaaa" in lines[0]


def test_a_ratio_that_should_be_low_is_worse_when_it_grows(files: ModuleType) -> None:
    facts = {"processor": "A", "cores": 2, "revision": "b" * 40}
    before = {"e2e_over_slowest_stage": 1.05, "e2e_over_slowest_stage_spread": 0.02, "written_by": facts}
    assert files.worse("batch", before, {**before, "e2e_over_slowest_stage": 1.2})
    assert not files.worse("batch", before, {**before, "e2e_over_slowest_stage": 0.9})


def test_results_carry_revision_date_and_machine(
    files: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.keep("tiler", {"vs_openslide_40x": 10.0, "vs_openslide_40x_spread": 0.1}, "# Tiler\n", tmp_path)
    kept = json.loads((tmp_path / "tiler.json").read_text())
    assert {"date", "revision", "processor", "cores"} <= set(kept["written_by"])
    text = (tmp_path / "tiler.md").read_text()
    assert text.startswith("# Tiler\n") and kept["written_by"]["revision"] in text
    slower = {"vs_openslide_40x": 8.0, "vs_openslide_40x_spread": 0.1}
    assert files.keep("tiler", slower, "# Tiler\n", tmp_path) != []
    assert "worse: vs_openslide_40x" in capsys.readouterr().out


def test_every_key_that_is_compared_stands_in_the_committed_results(files: ModuleType) -> None:
    for name, ratios in files.COMPARED.items():
        committed = json.loads((files.RESULTS / f"{name}.json").read_text())
        for ratio in ratios:
            assert files.value_at(committed, ratio.key) is not None, f"{name}.json has no {ratio.key}"
            assert not ratio.spread or files.value_at(committed, ratio.spread) is not None
