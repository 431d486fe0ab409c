"""What evaluate says of each pathway, and what export makes of it: measured numbers, null for the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.cohort_factory import make_cohort, make_run, program_gmt

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from stamp_deploy.errors import UsageError
from stamp_deploy.export.export import export_run
from stamp_deploy.export.validation_facts import lacks, read_validation
from stamp_deploy.training.evaluate import EvaluateOptions, Evaluation, evaluate
from stamp_deploy.training.evaluate.pathway_facts import quantiles, scale
from stamp_deploy.training.evaluate.report import write_evaluation
from stamp_deploy.training.intervals import pathway_intervals
from stamp_deploy.training.metrics import SectionResult
from stamp_deploy.training.scoring import robust_z
from stamp_deploy.validation import QUANTILES

PATIENTS = {"a1": "A", "b1": "B", "c1": "C", "d1": "D", "d2": "D"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    base = tmp_path_factory.mktemp("facts")
    cohort = make_cohort(base / "cohort", PATIENTS)
    run = make_run(base / "run", cohort, program_gmt(base / "sets.gmt"), ("c1", "d1", "d2"))
    found = evaluate(EvaluateOptions(run, tier1=False))
    write_evaluation(found, run / "evaluation", pictures=False)
    return run, found


def test_the_facts_are_those_of_the_run_s_own_head(evaluated: tuple[Path, Evaluation]) -> None:
    _, found = evaluated
    block = found.document["validation"]
    key = f"{found.document['run']['row']}/head"
    sections = found.sections[key]
    rows = {f"{row.key}/{row.how}": row for row in found.rows if row.result is not None}
    assert block["unit"] == "z within section (ucell)" and block["interval_over"] == "patients"
    for i, entry in enumerate(block["pathways"]):
        measured = [s.r[i] for s in sections if np.isfinite(s.r[i])]
        assert entry["r"] == pytest.approx(np.mean(measured), abs=1e-5)
        assert entry["r_low"] <= entry["r"] <= entry["r_high"]
        assert (entry["sections"], entry["patients"]) == (3, 2)
        for control, row in (("frozen_r", "frozen_ridge_cv/baseline"), ("features_r", "features_29/baseline")):
            expected = rows[row].result["per_pathway"][entry["name"]]["mean_r"]
            assert entry[control] == pytest.approx(expected, abs=1e-5)
        assert entry["random_sets_r"] is None, "no such run was compared"
        predicted = np.concatenate([s.predicted[:, i] for s in sections])
        assert entry["predictions"]["p50"] == pytest.approx(np.median(predicted), abs=1e-4)
        assert entry["scale"]["centre"] == pytest.approx(predicted.mean(), abs=1e-4)
        assert entry["scale"]["spread"] == pytest.approx(predicted.std(ddof=1), abs=1e-4)
        truth = np.concatenate([robust_z(s.truth[:, [i]])[:, 0] for s in sections])
        assert entry["targets"]["max"] == pytest.approx(truth.max(), abs=1e-4)
        assert set(entry["global_predictions"]) == set(QUANTILES) and -1 <= entry["depth_r"] <= 1
        assert entry["scale_global"] != entry["scale"]


def test_the_bundle_says_it_and_gives_both_read_outs(evaluated: tuple[Path, Evaluation], tmp_path: Path) -> None:
    run, found = evaluated
    bundle = export_run(run, tmp_path / "bundle")
    assert bundle.outputs == ("embedding", "pathways", "pathways_global")
    entries = {p.name: p for p in bundle.validation.pathways}
    for entry in found.document["validation"]["pathways"]:
        assert entries[entry["name"]].r == entry["r"] and entries[entry["name"]].targets == entry["targets"]
    assert bundle.lacks == ("no control with random gene sets was run",)
    known = bundle.reference
    assert known is not None and (known.left_out_by, known.groups) == ("patient", 2), "a1 and b1, not what was held out"
    assert known.tiles <= 120 and known.embedding is not None and known.mpp == bundle.mpp
    card = (bundle.path / "card.md").read_text()
    assert "| RED | " in card and "Not known: no control with random gene sets was run." in card
    from stamp_deploy.engine import load_engine
    from stamp_deploy.training.cohort import load_cohort
    from stamp_deploy.training.model import load_run

    tiles = np.array(load_cohort(run.parent / "cohort").samples[0].tiles()[:5])
    answer = load_engine(bundle, "onnxruntime", batch=5).run(tiles)
    model, _ = load_run(run)
    with torch.no_grad():
        expected = model.pathway_global(torch.from_numpy(answer.embedding)).numpy()
    assert answer.pathways_global is not None
    np.testing.assert_allclose(answer.pathways_global, expected, atol=1e-5)
    assert np.abs(answer.pathways_global - answer.pathways).max() > 0.01


def test_a_run_that_was_not_evaluated_says_nothing_and_says_so(
    evaluated: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    run, _ = evaluated
    bare = tmp_path / "run"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("evaluation"))
    bundle = export_run(bare, tmp_path / "bundle")
    assert all(p.r is None and p.scale is None and not p.validated for p in bundle.validation.pathways)
    assert "how its scores were validated" in bundle.lacks[0]
    assert "how its scores were validated" in (bundle.path / "card.md").read_text()
    again = export_run(bare, tmp_path / "second", evaluation=run / "evaluation")
    assert again.validation.pathways[0].r is not None


def test_an_evaluation_of_another_run_is_refused(evaluated: tuple[Path, Evaluation], tmp_path: Path) -> None:
    run, _ = evaluated
    other = tmp_path / "run"
    shutil.copytree(run, other)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(facts | {"seed": 99}))
    names = tuple(facts["pathway_names"])
    with pytest.raises(UsageError, match="of another run") as caught:
        read_validation(other, names)
    assert "evaluate the run again" in (caught.value.remedy or "")
    with pytest.raises(UsageError, match="other pathways"):
        read_validation(run, names[::-1])
    with pytest.raises(UsageError, match="no evaluation"):
        read_validation(run, names, tmp_path)
    (other / "evaluation" / "evaluation.json").write_text("[1]")
    with pytest.raises(UsageError, match="cannot be read"):
        read_validation(other, names)


def section(patient: str, seed: int, noise: float = 0.5) -> SectionResult:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(60, 3))
    mask = np.array([True, True, False])
    return SectionResult(f"s{seed}", patient, truth, truth + noise * rng.normal(size=(60, 3)), mask)


def test_intervals_a_pathway_draw_patients_and_do_not_exist_for_one_section() -> None:
    many = [section("p", 1, 0.2), section("p", 2, 0.2), section("q", 3, 3.0)]
    found = pathway_intervals(many)
    r = np.array([s.r for s in many])
    assert found.unit == "patients"
    # two patients: every draw is one of p p, p q, q p, q q
    np.testing.assert_allclose(found.low[:2], r[2, :2])
    np.testing.assert_allclose(found.high[:2], r[:2, :2].mean(axis=0))
    assert np.isnan(found.low[2]) and np.isnan(found.high[2])
    assert pathway_intervals(many[:2]).unit == "sections"
    alone = pathway_intervals(many[:1])
    assert alone.unit is None and np.isnan(alone.low).all()


def test_what_was_not_measured_is_said() -> None:
    entry = {"name": "A", "r": 0.4, "patients": 0, "frozen_r": None, "random_sets_r": 0.1, "features_r": 0.2}
    said = lacks({"interval_over": "sections", "pathways": [entry, entry | {"r": None}]})
    assert said == [
        "1 of 2 pathways have no held-out correlation",
        "every correlation is on sections of patients that were trained on",
        "the intervals are over sections of one patient and say nothing about other patients",
        "no control with the frozen model was run",
    ]
    blocks = lacks({"interval_over": "blocks", "pathways": [entry]})
    assert (
        "the intervals are over blocks of 600 um in sections of one patient and say nothing about other patients"
        in blocks
    )
    assert "there are no intervals: the sections tested are too few or too small" in lacks(
        {"interval_over": None, "pathways": [entry]}
    )


def test_quantiles_and_scale_of_nothing_are_none() -> None:
    assert quantiles(np.empty(0)) is None and scale(np.zeros(9)) is None and scale(np.ones(1)) is None
    found = quantiles(np.arange(101.0))
    assert found is not None and found["p05"] == 5 and found["max"] == 100 and list(found) == list(QUANTILES)
