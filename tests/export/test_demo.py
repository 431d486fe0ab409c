"""The demo's table: frozen beside aligned, pathway by pathway, by the same read-out on the same sections."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the demo trains")

from stamp_deploy.export.demo import demo
from stamp_deploy.export.demo.alignment import ALIGNED, FROZEN, gains, table
from stamp_deploy.export.demo.synthetic import PROGRAMS
from stamp_deploy.training.metrics import SectionResult


def evaluation(noise: dict[str, float]) -> Any:
    """Four sections of four patients; predictions are the truth with noise of its own size for each row."""
    rng = np.random.default_rng(0)
    sections: dict[str, list[SectionResult]] = {}
    truth = [rng.normal(size=(200, len(PROGRAMS))) for _ in range(4)]
    for row, sd in noise.items():
        sections[row] = [
            SectionResult(f"s{i}", f"p{i}", t, t + rng.normal(0, sd, t.shape), np.ones(len(PROGRAMS), bool))
            for i, t in enumerate(truth)
        ]
        for section in sections[row]:
            section.predicted[:, -1] = sections[next(iter(noise))][0].predicted[:, 0]  # UNSEEN: nothing to do with it
    return SimpleNamespace(names=PROGRAMS, sections=sections)


def test_the_gain_is_that_of_the_one_pathway_with_its_interval() -> None:
    found = gains(evaluation({FROZEN: 1.0, ALIGNED: 0.5}))
    assert [gain.program for gain in found] == list(PROGRAMS)
    for gain in found[:-1]:
        assert gain.visible and gain.frozen == pytest.approx(0.71, abs=0.05)
        assert gain.aligned == pytest.approx(0.89, abs=0.03)
        assert gain.difference.value == pytest.approx(gain.aligned - gain.frozen)
        low, high = gain.difference.interval.low, gain.difference.interval.high
        assert low is not None and high is not None and 0 < low < gain.difference.value < high
    unseen = found[-1]
    assert not unseen.visible and abs(unseen.frozen) < 0.15 and unseen.difference.value == 0


def test_worse_is_shown_as_worse() -> None:
    lines = table(gains(evaluation({FROZEN: 0.5, ALIGNED: 1.0})))
    assert lines[0].split() == ["pathway", "frozen", "aligned", "gain", "95", "%", "interval"]
    for line in lines[1:-1]:
        name, frozen, aligned, gain, low, to, high = line.split()
        assert name in PROGRAMS and float(frozen) > float(aligned) and to == "to"
        assert float(gain) < 0 and float(low) <= float(gain) <= float(high)
    assert "leaves no trace" in lines[-1]


def test_claims_are_made_on_sections_that_no_choice_saw() -> None:
    groups = [set(demo.TRAINING_SEEDS), {demo.VALIDATION_SEED}, set(demo.HELD_OUT_SEEDS), {demo.SLIDE_SEED}]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert demo.START.keys() & demo.MODEL.keys() == demo.ALIGNMENT.keys() & demo.MODEL.keys() == set()
