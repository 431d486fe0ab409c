"""Baselines and the table of `evaluate`, on small cohorts whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.cohort_factory import make_cohort, make_run, program_gmt

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.metrics import section_median_r, section_z
from stamp_deploy.training.ridge import fit_ridge, fit_ridge_cv
from stamp_deploy.training.stain_features import FEATURE_NAMES, features29, hed

# baselines


def test_there_are_29_features_and_they_see_stain_and_texture() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((2, 64, 64, 3), (180, 120, 170), np.uint8)
    rough = np.clip(flat + rng.normal(0, 40, flat.shape), 0, 255).astype(np.uint8)
    f, g = features29(flat, 1.0), features29(rough, 1.0)
    assert f.shape == (2, 29) and len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 29 and f.dtype == np.float32
    at = FEATURE_NAMES.index
    assert f[0, at("red_mean")] == pytest.approx(180 / 255, abs=1e-4)
    assert f[0, at("grey_gradient")] == pytest.approx(0) and g[0, at("grey_gradient")] > 0.02
    assert np.isfinite(f).all()


def test_features_look_at_112_um_only() -> None:
    tiles = np.random.default_rng(1).integers(0, 255, (1, 200, 200, 3), dtype=np.uint8)
    other = tiles.copy()
    other[:, :40] = 0
    np.testing.assert_array_equal(features29(tiles, 1.0), features29(other, 1.0))
    assert (features29(tiles, 0.5) != features29(other, 0.5)).any()


def test_stains_are_told_apart() -> None:
    blue, pink = np.array([[[70, 60, 150]]], np.uint8), np.array([[[240, 150, 200]]], np.uint8)
    assert hed(blue)[0, 0, 0] > hed(blue)[0, 0, 1]
    assert hed(pink)[0, 0, 1] > hed(pink)[0, 0, 0]


@pytest.mark.parametrize(("n", "d"), [(60, 10), (20, 50)])
def test_ridge_is_sklearn_s(n: int, d: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is in the extra train")
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (n, d)), rng.normal(size=(n, 3))
    z = (x - x.mean(0)) / x.std(0)
    for alpha in (0.1, 30.0):
        theirs = linear_model.Ridge(alpha=alpha).fit(z, y).predict(z)
        np.testing.assert_allclose(fit_ridge(x, y, alpha).predict(x), theirs, atol=1e-8)


def test_the_penalty_is_chosen_for_each_target_on_left_out_groups() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 20))
    y = np.c_[x @ rng.normal(size=20), rng.normal(size=120)]
    model = fit_ridge_cv(x, y, ["a"] * 40 + ["b"] * 40 + ["c"] * 40)
    assert model.alpha[0] < 1 and model.alpha[1] > 100
    alone = fit_ridge_cv(x, y, ["a"] * 120)
    assert np.isfinite(alone.weights).all()


def test_a_feature_that_does_not_vary_does_no_harm() -> None:
    x = np.c_[np.ones(10), np.arange(10.0)]
    model = fit_ridge(x, np.arange(10.0)[:, None], 1e-6)
    np.testing.assert_allclose(model.predict(x)[:, 0], np.arange(10), atol=1e-3)


def test_the_floor_holds_on_real_sections(data_dir: Path) -> None:
    """29 features, C4 from C2 and C3: far above chance, or tiles and counts do not belong together."""
    from stamp_deploy.slide import open_slide
    from stamp_deploy.training.cohort.readers import Settings, legacy_st
    from stamp_deploy.training.cohort.spot_tiles import cut_tiles
    from stamp_deploy.training.gene_sets import read_gmt
    from stamp_deploy.training.scoring import score

    sets = read_gmt(data_dir / "gmt" / "h.all.v2025.1.Hs.symbols.gmt")
    folder = data_dir / "st" / "her2st"
    x, y = {}, {}
    for name in ("C2", "C3", "C4"):
        values = {"counts": f"{name}.tsv.gz", "spots": f"{name}_selection.tsv", "image": f"{name}_HE.jpg"}
        raw = legacy_st.read(Settings({**values, "spot_pitch_um": 200}, folder, name))
        y[name] = section_z(score(raw.counts, raw.names, sets).values)
        tiles = np.empty((len(raw.barcodes), 80, 80, 3), np.uint8)
        with open_slide(raw.image, mpp=raw.mpp) as slide:
            cut_tiles(slide, raw.centres, tiles, target_mpp=1.4)
        x[name] = section_z(features29(tiles, 1.4))
    train = ("C2", "C3")
    groups = [n for n in train for _ in x[n]]
    model = fit_ridge_cv(np.concatenate([x[n] for n in train]), np.concatenate([y[n] for n in train]), groups)
    assert section_median_r(y["C4"], model.predict(x["C4"])) > 0.3


# the table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training cohort of three patients and a held-out section, another cohort, a run and two ablations."""
    pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("peft", reason="needs the extra train")
    root = tmp_path_factory.mktemp("evaluate")
    gmt = program_gmt(root / "programs.gmt")
    cohort = make_cohort(root / "cohort", {"A": "p1", "B": "p2", "C": "p3", "H": "p4"})
    other = make_cohort(root / "other", {"X": "q1", "Y": "q2"}, seed=50)
    run = make_run(root / "run", cohort, gmt, ("H",))
    make_run(root / "ablations" / "frozen", cohort, gmt, ("H",), adapt="frozen")
    make_run(root / "ablations" / "genes", cohort, gmt, ("H",), targets="genes")
    return {"gmt": gmt, "cohort": cohort, "other": other, "run": run, "ablations": root / "ablations"}


def test_the_table_has_every_row(world: dict[str, Path]) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    made = evaluate(EvaluateOptions(run=world["run"], ablations=world["ablations"]))
    rows = {(r.key, r.how): r for r in made.rows}
    keys = list(dict.fromkeys(r.key for r in made.rows))
    assert keys == [
        "slide_mean", "features_29", "depth_only", "frozen_ridge_fixed", "frozen_ridge_cv", "frozen_head",
        "lora_genes", "lora", "random_sets", "shuffled", "last_block", "full", "regression_only", "contrast_only",
    ]  # fmt: skip
    assert made.document["verdict"]["word"] == "not shown"  # a fresh adapter changes nothing
    value = {k: r.result["mean_of_medians"] for k, r in rows.items() if r.result}
    assert value["slide_mean", "baseline"] == 0
    assert value["features_29", "baseline"] > 0.5  # three of four programs are colours
    assert value["lora", "head"] > 0.4 and value["frozen_head", "head"] > 0.4
    assert ("lora_genes", "head") not in rows and ("lora_genes", "probe") in value
    missing = rows["shuffled", "head"]
    assert missing.result is None and "--ablations --rows shuffled" in missing.missing
    nothing = rows["features_29", "baseline"].result["per_pathway"]["NOTHING"]["mean_r"]
    assert abs(nothing) < 0.45  # 60 spots of one section
    document = made.document
    json.dumps(document, allow_nan=False)
    assert document["tested_on"] == [{"id": "H", "spots": 60, "patient_seen_in_training": False}]
    assert document["guard"]["mean_cosine"] == pytest.approx(1, abs=1e-4)  # a fresh adapter changes nothing
    assert document["tier1"]["mean_r"]["features_29"] > 0.1
    interval = rows["lora", "head"].result["interval"]  # one section of one patient
    assert (interval["unit"], interval["low"]) == ("blocks", None)  # 0.8 x 0.8 mm: too small for blocks


def test_another_cohort_is_tested_whole(world: dict[str, Path]) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    made = evaluate(EvaluateOptions(run=world["run"], cohort=world["other"], tier1=False))
    assert [t["id"] for t in made.document["tested_on"]] == ["X", "Y"]
    lora = next(r for r in made.rows if r.key == "lora" and r.how == "head")
    assert lora.result is not None and lora.result["interval"]["unit"] == "patients"
    assert lora.result["mean_of_medians"] > 0.4


def test_shuffled_truth_gives_nothing(world: dict[str, Path], tmp_path: Path) -> None:
    """The control of the evaluation itself: spots that do not belong to their tiles cannot be predicted."""
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    mixed = make_cohort(tmp_path / "mixed", {"M": "m1", "N": "m2", "O": "m3"}, seed=80)
    for name in ("M", "N", "O"):
        path = mixed / "samples" / name / "tiles.npy"
        tiles = np.load(path)
        np.save(path, tiles[np.random.default_rng(1).permutation(len(tiles))])
    made = evaluate(EvaluateOptions(run=world["run"], cohort=mixed, tier1=False))
    for row in made.rows:
        if row.result is not None and row.key != "depth_only":  # that one looks at counts, not at tiles
            assert abs(row.result["mean_of_medians"]) < 0.2


def test_without_the_training_cohort_the_head_is_still_scored(world: dict[str, Path], tmp_path: Path) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    gone = tmp_path / "run"
    gone.mkdir()
    for file in world["run"].iterdir():
        text = file.read_bytes()
        if file.name == "config.toml":
            text = text.replace(str(world["cohort"]).encode(), b"gone")
        (gone / file.name).write_bytes(text)
    made = evaluate(EvaluateOptions(run=gone, cohort=world["other"], tier1=False))
    rows = {(r.key, r.how): r for r in made.rows}
    assert rows["lora", "head"].result is not None
    assert "--train-cohort" in rows["features_29", "baseline"].missing
    with pytest.raises(DataError, match="not where it was"):
        evaluate(EvaluateOptions(run=gone))


@pytest.mark.parametrize(
    ("change", "error", "cause"),
    [
        (lambda w: {"run": w["cohort"]}, UsageError, "run.json"),
        (lambda w: {"samples": ("A",)}, DataError, "was trained on"),
        (lambda w: {"samples": ("Z",)}, DataError, "no sample Z"),
        (lambda w: {"gmt": w["cohort"] / "none.gmt"}, UsageError, "--gmt"),
        (lambda w: {"ablations": w["cohort"]}, UsageError, "no finished runs"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(world: dict[str, Path], change: Any, error: Any, cause: str) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    with pytest.raises(error, match=cause):
        evaluate(EvaluateOptions(**{"run": world["run"], **change(world)}))


def test_a_cohort_that_was_trained_on_is_no_test(world: dict[str, Path], tmp_path: Path) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    renamed = make_cohort(tmp_path / "c", {"A": "someone"})  # the same image under the same hash
    with pytest.raises(DataError, match="was trained on"):
        evaluate(EvaluateOptions(run=world["run"], cohort=renamed))


def test_tiles_of_another_resolution_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate

    other = make_cohort(tmp_path / "c", {"X": "q"}, seed=9)
    path = other / "cohort.json"
    path.write_text(path.read_text().replace('"mpp": 1.0,\n  "samples"', '"mpp": 0.5,\n  "samples"'))
    with pytest.raises(DataError, match=r"build the cohort again with tile_px = 32 .*mpp = 1"):
        evaluate(EvaluateOptions(run=world["run"], cohort=other))


def test_the_command_prints_the_table_and_writes_pictures(world: dict[str, Path], tmp_path: Path) -> None:
    from stamp_deploy.training.verbs_evaluate import evaluate as verb

    out = tmp_path / "evaluation"
    done = CliRunner().invoke(verb, [str(world["run"]), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "29 features + ridge" in done.output and "not run" in done.output and "guard" in done.output
    assert {p.name for p in out.iterdir()} == {"DONE", "evaluation.json", "maps-H.png", "scatter-H.png"}
    document = json.loads((out / "evaluation.json").read_text())
    assert document["schema"] == "stamp-deploy/evaluation/1" and "p4" not in json.dumps(document)
    again = CliRunner().invoke(verb, [str(world["run"]), "-o", str(out)])
    assert isinstance(again.exception, UsageError)
