"""Batch effects: the metric by hand-made embeddings, in `evaluate`, and what the options against them do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("peft", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort, make_tinted_cohort, program_gmt
from support.recipe_runs import recipe_settings

from stamp_deploy.errors import UsageError
from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
from stamp_deploy.training.evaluate.batch_effects import separation
from stamp_deploy.training.evaluate.report import footnotes
from stamp_deploy.training.loop import fit
from stamp_deploy.training.model import build_model
from stamp_deploy.training.objective import Alignment
from stamp_deploy.training.run_setup import batch_numbers, prepare


def made(shift: float, seed: int = 0) -> tuple[list[np.ndarray], dict[str, list[str]], list[np.ndarray]]:
    """Four sections of two platforms; the platform moves one dimension of the embedding."""
    rng = np.random.default_rng(seed)
    embeddings = [rng.normal(size=(90, 12)) for _ in range(4)]
    for i in (2, 3):
        embeddings[i][:, 0] += shift
    labels = {"platform": ["a", "a", "b", "b"], "sample": ["1", "2", "3", "4"], "patient": ["p"] * 4}
    return embeddings, labels, [np.arange(90) // 15 for _ in range(4)]


def test_the_probe_and_the_silhouette_tell_platforms_that_differ() -> None:
    apart, together = separation(*made(4.0)), separation(*made(0.0))
    assert apart["platform"]["probe"] > 0.9 and apart["platform"]["held_out"] == "sections"
    assert abs(together["platform"]["probe"] - 0.5) < 0.15 and together["platform"]["chance"] == 0.5
    assert apart["platform"]["silhouette"] > together["platform"]["silhouette"] + 0.05
    assert apart["sample"]["held_out"] == "blocks" and apart["sample"]["chance"] == 0.25
    assert "patient" not in apart, "one patient cannot be told from another"


def test_a_section_s_own_mark_is_no_platform() -> None:
    """Marks that differ by section tell the sample, and nothing of the platform of a section that was held out."""
    rng = np.random.default_rng(1)
    embeddings, labels, blocks = made(0.0)
    embeddings = [e + 6 * rng.normal(size=12) for e in embeddings]
    found = separation(embeddings, labels, blocks)
    assert found["sample"]["probe"] > 0.9 and found["platform"]["probe"] < 0.9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two platforms, one of them with a tint over its tiles."""
    folder = tmp_path_factory.mktemp("batch")
    make_tinted_cohort(folder / "cohort")
    program_gmt(folder / "programs.gmt")
    return folder


def settings(place: Path, **changes: Any) -> Any:
    values = {"w_anchor": 0.0, "epochs": 20, "held_out": ["h1", "h2"], "head_final": "ridge", **changes}
    base = {"fields_um": [], "field_steps": "joined", "cache_views": 0, "shift_um": 0.0, "smooth_um": 0.0}
    return recipe_settings(place, "stamp", **{**base, "target_rank": 0, **values})


def test_an_evaluation_tells_batch_effects_before_and_after(place: Path, tmp_path: Path) -> None:
    fit(settings(place, epochs=1), tmp_path / "run")
    made = evaluate(EvaluateOptions(tmp_path / "run", tier1=False))
    found = made.document["batch_effects"]
    assert set(found) == {"adapted", "frozen"}
    for entry in found.values():
        assert entry["platform"]["probe"] > 0.65 and entry["platform"]["silhouette"] > 0.05
        assert entry["sample"]["classes"] == 6
    assert any(line.startswith("batch effects: platform") for line in footnotes(made))


def test_the_adversarial_head_guesses_the_label_that_is_named(place: Path) -> None:
    """Four sections of two platforms and four patients: as many classes, and each spot under its section's."""
    for label, numbers in (("platform", [0, 0, 1, 1]), ("patient", [0, 1, 2, 3]), ("id", [0, 1, 2, 3])):
        config = settings(place, w_batch=1.0, batch_label=label)
        start = prepare(config)
        assert batch_numbers(config, start.train) == numbers
        step = Alignment(build_model(start.info), config, batches=numbers)
        assert step.extra.batch is not None
        slide = torch.tensor([0, 1, 2, 3, 2])
        embedding = torch.randn(5, step.model.dim)
        guess = step.extra.batch(torch.nn.functional.normalize(embedding, dim=1))
        assert guess.shape == (5, len(set(numbers)))
        wanted = torch.nn.functional.cross_entropy(guess, torch.tensor(numbers)[slide])
        torch.testing.assert_close(step.extra.batch_loss(embedding, step.batch_of[slide]), wanted)


def test_one_platform_has_no_adversary(place: Path, tmp_path: Path) -> None:
    make_cohort(tmp_path / "cohort", {"a": "p1", "h1": "p2", "h2": "p3", "b": "p4"})
    program_gmt(tmp_path / "programs.gmt")
    with pytest.raises(UsageError, match="one platform"):
        prepare(settings(tmp_path, w_batch=1.0, batch_label="platform"))


def test_levels_by_platform_have_no_platform_in_them(place: Path) -> None:
    """The global head's targets: standardised over the cohort they differ by platform, by platform they do not."""
    gap = {}
    for by in ("cohort", "platform"):
        sections = prepare(settings(place, level_by=by)).train
        means = {p: np.mean([s.level.mean(0) for s in sections if s.sample.platform == p], axis=0) for p in "xy"}
        gap[by] = float(np.abs(means["x"] - means["y"]).max())
    assert gap["cohort"] > 0.2 and gap["platform"] < 0.01, gap
