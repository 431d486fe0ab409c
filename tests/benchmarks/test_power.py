"""The power simulation: chance falls with spots, ties between errors take it away, and the rule has its known rates."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def power() -> ModuleType:
    """benchmarks/power.py; it imports result_files from its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SOURCE))
        spec = importlib.util.spec_from_file_location("power", SOURCE / "power.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def test_chance_falls_with_spots_and_with_errors_that_go_together(power: ModuleType) -> None:
    few, many = (power.chance_sd(n, 0.5, 40) for n in (90, 900))
    assert many < 0.6 * few
    assert power.chance_sd(90, 0.99, 40) < 0.5 * few


def test_neighbours_share_what_blocks_share(power: ModuleType) -> None:
    values = power.spots_of(np.random.default_rng(0), 400, 18, 1)[:, :, 0]
    r = np.corrcoef(values.T)
    assert np.abs(np.diag(r) - 1).max() < 1e-9
    assert r[0, 8] == pytest.approx(power.BLOCK_SHARE, abs=0.12) and abs(r[0, 9]) < 0.15


def test_the_rule_has_the_power_of_the_normal_interval_where_patients_are_many(power: ModuleType) -> None:
    """128 patients whose gains differ by .08: the mean's error is .0071, so power is P(z > 1.96 - 2.83) = .81."""
    assert power.shown(0.02, 128, 1, 0.08, 0.0, 0.0, 400) == pytest.approx(0.81, abs=0.08)
    assert power.shown(0.0, 128, 1, 0.08, 0.0, 0.0, 400) < 0.07
    assert power.shown(0.0, 4, 1, 0.08, 0.0, 0.0, 400) > 0.05  # too narrow with few patients
