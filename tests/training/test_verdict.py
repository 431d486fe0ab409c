"""What is claimed of an alignment: intervals over space, paired differences, depth, and the rule of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cohort_factory import make_cohort, make_run, program_gmt

from stamp_deploy.training.depth import spot_depth
from stamp_deploy.training.evaluate.verdict import judge
from stamp_deploy.training.intervals import bootstrap, paired_difference
from stamp_deploy.training.metrics import SectionResult, pearson
from stamp_deploy.training.space_blocks import resampled_r, space_blocks
from stamp_deploy.training.summary import summary

P = 5


def places(side: int = 20, pitch: float = 200.0) -> NDArray[np.float64]:
    """A grid of spots, in microns."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(np.float64) * pitch


def world(seed: int = 0, patients: Sequence[str] = ("p",)) -> list[SectionResult]:
    """Sections whose prediction is the truth itself."""
    rng = np.random.default_rng(seed)
    xy = places()
    out = []
    for i, patient in enumerate(patients):
        truth = rng.normal(size=(len(xy), P))
        out.append(SectionResult(f"s{i}", patient, truth, truth, np.ones(P, bool), xy, rng.normal(5, 1, (len(xy), 2))))
    return out


def noisy(sections: Sequence[SectionResult], noise: float, seed: int = 1) -> list[SectionResult]:
    """The same sections, predicted with noise."""
    rng = np.random.default_rng(seed)
    return [
        SectionResult(
            s.id, s.patient, s.truth, s.truth + noise * rng.normal(size=s.truth.shape), s.mask, s.xy_um, s.depth
        )
        for s in sections
    ]


def test_blocks_are_squares_of_600_um() -> None:
    blocks = space_blocks(places(6))
    assert blocks.max() == 3  # 3 x 3 spots each
    assert np.bincount(blocks).tolist() == [9, 9, 9, 9]
    np.testing.assert_array_equal(space_blocks(places(6) + 12345.6), blocks)


def test_drawing_blocks_is_computing_r_on_the_drawn_spots() -> None:
    s = noisy(world(), 1.0)[0]
    blocks = space_blocks(np.asarray(s.xy_um))
    r = resampled_r(s.truth, s.predicted, blocks, draws=3, seed=4)
    assert r is not None and r.shape == (3, P)
    count = blocks.max() + 1
    for row, times in zip(r, np.random.default_rng(4).multinomial(count, np.full(count, 1 / count), 3), strict=True):
        spots = np.concatenate([np.tile(np.flatnonzero(blocks == b), t) for b, t in enumerate(times)])
        np.testing.assert_allclose(row, pearson(s.truth[spots], s.predicted[spots]))


def test_one_patient_gets_blocks_and_alike_neighbours_widen_the_interval() -> None:
    independent = noisy(world(), 1.0)
    interval = bootstrap(independent)
    assert interval.unit == "blocks" and "600 um" in interval.note and "other patients" in interval.note
    s = independent[0]
    blocks = space_blocks(np.asarray(s.xy_um))
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(blocks.max() + 1, P))[blocks]  # one value per block
    alike = SectionResult("s", "p", truth, truth + rng.normal(size=(blocks.max() + 1, P))[blocks], s.mask, s.xy_um)
    wide = bootstrap([alike])
    assert interval.low is not None and interval.high is not None and wide.low is not None and wide.high is not None
    assert wide.high - wide.low > 1.5 * (interval.high - interval.low)


def test_patients_are_drawn_where_there_are_several() -> None:
    sections = noisy(world(patients="pqrstu"), 1.0)
    assert bootstrap(sections).unit == "patients" and bootstrap(sections).note == ""
    assert "only 2 patients" in bootstrap(sections[:2]).note


def test_a_difference_is_paired() -> None:
    """Two rows share their noise: the difference is sure where the rows themselves are not."""
    base = world()
    a, b = noisy(base, 1.00), noisy(base, 1.10)  # the same noise, a tenth larger
    found = paired_difference(a, b)
    alone = bootstrap(a)
    low, high = found.interval.low, found.interval.high
    assert low is not None and high is not None and alone.low is not None and alone.high is not None
    assert 0 < low < found.value < high and found.word == "shown"
    assert high - low < 0.5 * (alone.high - alone.low)
    assert paired_difference(b, a).word == "harmful"
    assert paired_difference(a, noisy(base, 1.0, seed=9)).word == "not shown"
    assert paired_difference(a, a).interval.low == 0


def table(**noise: float) -> dict[str, list[SectionResult]]:
    """Rows by their noise; a double underscore stands for the slash."""
    return {key.replace("__", "/"): noisy(world(), n) for key, n in noise.items()}


BETTER = {"lora__head": 0.8, "lora__probe": 0.8, "frozen_head__head": 1.0, "frozen_ridge_cv__baseline": 1.0}


@pytest.mark.parametrize(
    ("changes", "word", "says"),
    [
        ({"shuffled__probe": 1.1}, "shown", "above frozen + same head"),
        ({}, "not shown", "shuffled targets was not run"),
        ({"shuffled__probe": 0.8}, "not shown", "not above LoRA, shuffled targets"),
        ({"shuffled__probe": 1.1, "frozen_head__head": 0.8}, "not shown", "not above frozen + same head"),
        ({"shuffled__probe": 1.1, "frozen_ridge_cv__baseline": 0.6}, "harmful", "below frozen + ridge, CV alpha"),
    ],
)
def test_the_verdict_follows_its_rule(changes: dict[str, float], word: str, says: str) -> None:
    found = judge(table(**{**BETTER, **changes}), "lora")
    assert found is not None and found.word == word
    assert found.sentence.startswith(f"alignment: {word}: ") and says in found.sentence
    assert "random gene sets was not tested" in found.sentence


def test_random_sets_are_said_beside_the_verdict() -> None:
    found = judge(table(**BETTER, shuffled__probe=1.1, random_sets__probe=0.8), "lora")
    assert found is not None and found.word == "shown"
    assert "more than random gene sets is not shown" in found.sentence


def test_a_denoised_head_is_not_compared_with_a_raw_read_out() -> None:
    """A better read-out is no better embedding: head is held against head, ridge against ridge."""
    rows = table(
        lora__head=0.5, lora__probe=1.0, frozen_head__head=0.5, frozen_ridge_cv__baseline=1.0, shuffled__probe=1
    )
    found = judge(rows, "lora")
    assert found is not None and found.word == "not shown"
    pairs = {(c.row, c.how) for c in found.comparisons}
    assert {("frozen_head", "head"), ("frozen_ridge_cv", "probe")} <= pairs and ("frozen_ridge_cv", "head") not in pairs


def test_controls_are_not_judged() -> None:
    assert judge(table(shuffled__head=1.0, shuffled__probe=1.0), "shuffled") is None


def test_neighbours_are_the_eight_around() -> None:
    from stamp_deploy.training.neighbours import neighbours_mean

    values = np.arange(16.0)[:, None]
    found = neighbours_mean(values, places(4))[:, 0]
    assert found[0] == pytest.approx(np.mean([1, 4, 5]))  # a corner has three
    assert found[5] == pytest.approx(np.mean([0, 1, 2, 4, 6, 8, 9, 10]))
    alone = neighbours_mean(np.array([[3.0], [5.0], [7.0]]), np.array([[0, 0], [200, 0], [9999, 9999]]))
    np.testing.assert_array_equal(alone[:, 0], [5, 3, 7])


# depth


def test_depth_is_counts_and_genes() -> None:
    depth = spot_depth(np.array([[0, 3, 1], [0, 0, 0]]))
    np.testing.assert_allclose(depth, [[np.log(5), np.log(3)], [0, 0]])


def test_a_prediction_of_depth_alone_has_r_and_no_partial_r() -> None:
    rng = np.random.default_rng(0)
    depth = rng.normal(size=(400, 2))
    own = rng.normal(size=(400, P))
    truth = depth[:, 1:] + own
    mask = np.ones(P, bool)
    by_depth = SectionResult(
        "a", "p", truth, np.repeat(depth[:, 1:], P, 1) + 0.01 * rng.normal(size=own.shape), mask, None, depth
    )
    by_own = SectionResult("a", "p", truth, own, mask, None, depth)
    names = list("ABCDE")
    first, second = summary([by_depth], names), summary([by_own], names)
    assert first["mean_of_medians"] > 0.6 and abs(first["partial_r"]) < 0.15 and first["predicted_depth_r"] > 0.99
    assert second["partial_r"] == pytest.approx(1, abs=0.01) and abs(second["predicted_depth_r"]) < 0.15
    assert first["depth_r"] == second["depth_r"] == pytest.approx(0.71, abs=0.08)
    assert first["per_pathway"]["A"]["depth_r"] > 0.6


# the command's rows that need no run of their own


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("peft", reason="needs the extra train")
    root = tmp_path_factory.mktemp("verdict")
    return make_cohort(root / "cohort", {"A": "p", "B": "p", "H": "p"}, spots=240), program_gmt(root / "p.gmt")


def test_frozen_head_and_controls_are_always_in_the_table(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    run = make_run(tmp_path / "run", *cohort, ("H",), epochs=2)
    for control in ("random-sets", "shuffled"):
        make_run(run / "controls" / control.replace("-", "_"), *cohort, ("H",), control=control, epochs=2)
    made = evaluate(EvaluateOptions(run, tier1=False))
    result = {(r.key, r.how): r.result for r in made.rows}
    value = {k: r["mean_of_medians"] for k, r in result.items() if r is not None}
    assert value["frozen_head", "head"] > 0.5 and ("depth_only", "baseline") in value
    assert ("random_sets", "probe") in value and ("shuffled", "head") in value
    assert value["features_29", "baseline"] > value["depth_only", "baseline"]
    found = result["lora", "head"]
    assert found is not None and found["interval"]["unit"] == "blocks" and found["interval"]["low"] is not None
    compared = {(c["against"], c["how"]) for c in made.document["verdict"]["comparisons"]}
    assert compared == {
        ("frozen_head", "head"), ("frozen_ridge_cv", "probe"), ("shuffled", "probe"), ("random_sets", "probe"),
        ("features_29", "probe"), ("depth_only", "probe"), ("frozen_ridge_cv", "neighbours"),
    }  # fmt: skip
    # this "shuffled" run has a head that was fitted on true targets: far from 0, and said
    assert any("shuffled targets has r" in w for w in made.document["warnings"])


def test_the_frozen_head_is_what_training_a_frozen_run_gives(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    """Ridge heads have no chance in them: the row is the head of a real frozen run."""
    from stamp_deploy.training.config import TrainConfig
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
    from stamp_deploy.training.loop import fit

    base = make_run(tmp_path / "base", *cohort, ("H",))
    weights = str(base / "backbone.safetensors")
    kwargs = '{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}'
    settings = {
        "cohort": str(cohort[0]), "gmt": str(cohort[1]), "held_out": ["H"], "pfm": "timm/vit_tiny_patch16_224",
        "timm_kwargs": kwargs, "weights": weights, "tile_px": 32, "mpp": 1.0, "val_fraction": 0.0, "epochs": 1,
        "head_final": "ridge", "precision": "fp32", "w_contrastive": 0.0, "progress": False, "batch_spots": 120,
        "smooth_um": 150.0, "target_rank": 2,
    }  # fmt: skip
    fit(TrainConfig.from_dict({**settings, "adapt": "last-block", "lr": 1e-2}), tmp_path / "run")
    fit(TrainConfig.from_dict({**settings, "adapt": "frozen"}), tmp_path / "frozen")
    own = evaluate(EvaluateOptions(tmp_path / "run", tier1=False))
    other = evaluate(EvaluateOptions(tmp_path / "frozen", tier1=False))
    a, b = (next(r.result for r in made.rows if r.key == "frozen_head" and r.result) for made in (own, other))
    assert a is not None and b is not None
    assert a["mean_of_medians"] == pytest.approx(b["mean_of_medians"], abs=1e-3)
    probes = {r.key: r.result for r in own.rows if r.how in ("baseline", "probe") and r.result}
    assert probes["last_block"]["mean_of_medians"] != probes["frozen_ridge_cv"]["mean_of_medians"]


def test_train_makes_the_controls_and_goes_on_with_them(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    from click.testing import CliRunner

    from stamp_deploy.training.verbs_train import train

    config = tmp_path / "run.toml"
    config.write_text(
        f'cohort = "{cohort[0]}"\ngmt = "{cohort[1]}"\nheld_out = ["H"]\npfm = "timm/vit_tiny_patch16_224"\n'
        'timm_kwargs = \'{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}\'\n'
        'tile_px = 32\nmpp = 1.0\nval_fraction = 0.0\nepochs = 1\nprecision = "fp32"\nprogress = false\n'
    )
    run = tmp_path / "run"
    first = CliRunner().invoke(train, [str(config), "-o", str(run)])
    assert first.exit_code == 0, first.output
    assert {p.parent.name for p in run.glob("controls/*/run.json")} == {"random_sets", "shuffled"}
    made = (run / "run.json").stat().st_mtime_ns
    shutil.rmtree(run / "controls" / "shuffled")  # as if the run had been killed before
    again = CliRunner().invoke(train, [str(config), "-o", str(run)])
    assert again.exit_code == 0, again.output
    assert (run / "controls" / "shuffled" / "run.json").is_file() and (run / "run.json").stat().st_mtime_ns == made
    assert "control  random_sets" not in again.output and "control  shuffled" in again.output
    finished = CliRunner().invoke(train, [str(config), "-o", str(run)])
    assert finished.exception is not None and "finished run" in str(finished.exception)
