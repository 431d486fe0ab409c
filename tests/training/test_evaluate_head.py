"""A head on another cohort, and encoders in pairs: measures by hand and by other libraries, and the two verbs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.heads.bags import find_bags, read_labels
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.evaluation.delong import area, area_difference, delong
from stamp_deploy.training.heads.evaluation.evaluate import Options, evaluate_head, read_head
from stamp_deploy.training.heads.evaluation.operating import counts_at, decision_curve, locked_threshold, share
from stamp_deploy.training.heads.evaluation.reliability import reliability
from stamp_deploy.training.heads.evaluation.survival import Followed, cox, missing_libraries, over_time, risk_groups
from stamp_deploy.training.heads.train import train_head
from stamp_deploy.training.verbs_heads import compare_encoders as compare_verb
from stamp_deploy.training.verbs_heads import evaluate_head as evaluate_verb

DIM = 6
QUICK = HeadConfig(name="msi", folds=3, epochs=15, patience=15, hidden=12, attention=6, lr=6e-3, dropout=0.0, draws=50,
                   inner_folds=0)  # fmt: skip


def write_cohort(folder: Path, count: int, seed: int, *, gap: float = 3.0, slides_each: int = 1) -> tuple[Path, Path]:
    """Features and labels: half of the tiles of positive slides lie elsewhere, and their patients die sooner."""
    rng = np.random.default_rng(seed)
    rows = []
    (folder / "features").mkdir(parents=True)
    for i in range(count):
        positive = (i // slides_each) % 2
        x = rng.normal(size=(8, DIM))
        x[:4, 0] += gap * positive
        with h5py.File(folder / "features" / f"s{i}.h5", "w") as file:
            file["features"] = x.astype(np.float32)
        time, censored = rng.exponential(2.0 if positive else 8.0), rng.exponential(15.0)
        rows.append({
            "slide_id": f"s{i}", "patient_id": f"p{seed}-{i // slides_each}", "msi": ("MSS", "MSI")[positive],
            "months": min(time, censored), "died": int(time <= censored), "age": 50 + 10 * rng.normal(),
        })  # fmt: skip
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "features", folder / "labels.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained heads, of classes and of survival, and a cohort of other patients."""
    folder = tmp_path_factory.mktemp("evaluate-head")
    features, labels = write_cohort(folder / "train", 36, 1)
    table = read_labels(labels, find_bags(features), label="msi", classes=("MSS", "MSI"))
    train_head(table, folder / "run", QUICK)
    table = read_labels(labels, find_bags(features), time="months", event="died")
    train_head(table, folder / "run", QUICK.with_(name="survival", bins=3))
    write_cohort(folder / "new", 40, 2)
    return folder


# measures


def test_delong_has_the_variance_of_its_definition() -> None:
    """Structural components one by one, as DeLong et al. wrote them."""
    rng = np.random.default_rng(0)
    positive = rng.random(40) < 0.4
    scores = np.round(rng.normal(size=(2, 40)) + positive, 1)
    values, covariance = delong(positive, scores)
    cases, controls = [], []
    for s in scores:
        psi = np.array([[(a > b) + 0.5 * (a == b) for b in s[~positive]] for a in s[positive]])
        cases.append(psi.mean(1))
        controls.append(psi.mean(0))
    expected = np.cov(cases) / positive.sum() + np.cov(controls) / (~positive).sum()
    np.testing.assert_allclose(values, [c.mean() for c in cases])
    np.testing.assert_allclose(covariance, expected)
    one, other = area(positive, scores[0]), area(positive, scores[1])
    both = area_difference(positive, scores[0], scores[1])
    assert both.value == pytest.approx(one.value - other.value)
    assert both.high - both.low == pytest.approx(2 * 1.959964 * np.sqrt(expected @ [1, -1] @ [1, -1]))
    same = area_difference(positive, scores[0], scores[0])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert area(positive, positive.astype(float)).value == 1


def test_calibration_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=4000)
    positive = rng.random(4000) < 1 / (1 + np.exp(-(0.5 + 0.6 * logit)))
    found = reliability(1 / (1 + np.exp(-logit)), positive)
    assert found["slope"] == pytest.approx(0.6, abs=0.1) and found["intercept"] == pytest.approx(0.5, abs=0.1)
    import statsmodels.api as sm

    fit = sm.Logit(positive.astype(float), sm.add_constant(logit)).fit(disp=0)
    assert [found["intercept"], found["slope"]] == pytest.approx(fit.params, abs=1e-6)
    assert found["intercept_at_slope_1"] > 0.3  # risks are understated
    p = np.array([0.25, 0.25, 0.75, 0.75])
    truth = np.array([False, True, True, True])
    by_hand = reliability(p, truth)
    assert by_hand["brier"] == pytest.approx((0.0625 * 3 + 0.5625) / 4)
    assert by_hand["ece"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.25)
    assert [b["slides"] for b in by_hand["bins"]] == [2, 2]
    apart = reliability(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert apart["slope"] is None and apart["brier"] < 0.05


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
def test_a_locked_threshold_reaches_its_sensitivity_and_no_larger_one_does(wanted: float) -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(90) < 0.4
    p = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    cut = locked_threshold(p, positive, wanted)
    assert (p[positive] >= cut).mean() >= wanted
    larger = np.unique(p[positive])
    larger = larger[larger > cut]
    assert not len(larger) or (p[positive] >= larger[0]).mean() < wanted


def test_counts_shares_and_net_benefit_by_hand() -> None:
    p, truth = np.array([0.1, 0.3, 0.4, 0.6, 0.9]), np.array([False, True, False, False, True])
    found = counts_at(p, truth, 0.4)
    assert [found[k] for k in ("true_positive", "false_positive", "false_negative", "true_negative")] == [1, 2, 1, 1]
    assert found["sensitivity"]["value"] == 0.5 and found["npv"]["value"] == 0.5
    assert found["ruled_out"]["value"] == pytest.approx(0.4)
    assert counts_at(p, truth, 0.95)["ppv"] is None
    wilson = share(8, 10)
    assert wilson is not None and (wilson["low"], wilson["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    curve = decision_curve(p, truth)
    at = curve["threshold"].index(0.4)
    assert curve["head"][at] == pytest.approx(1 / 5 - 2 / 5 * 0.4 / 0.6)
    assert curve["all"][at] == pytest.approx(2 / 5 - 3 / 5 * 0.4 / 0.6)


# survival


def followed(seed: int, effect: float, count: int = 150) -> tuple[Followed, np.ndarray]:
    rng = np.random.default_rng(seed)
    risk, age = rng.normal(size=count), rng.normal(size=count)
    time, censored = rng.exponential(np.exp(-effect * risk - 0.5 * age)), rng.exponential(2.0, count)
    return Followed(risk, np.minimum(time, censored), time <= censored), age


def test_survival_measures_find_what_was_planted() -> None:
    pytest.importorskip("lifelines", reason="needs the extra [survival]")
    pytest.importorskip("sksurv", reason="needs the extra [survival]")
    (training, _), (new, age) = followed(0, 1.0), followed(1, 1.0)
    models = cox(new, {"age": age})
    assert models is not None and models["adjusted"]["risk"]["hazard_ratio"] == pytest.approx(np.e, rel=0.3)
    assert models["adjusted"]["age"]["low"] > 1 and models["added_p"] < 1e-6
    groups = risk_groups(new, 0.0)
    assert groups is not None and groups["logrank_p"] < 1e-3
    assert groups["groups"]["low"]["median"] > groups["groups"]["high"]["median"]
    assert sum(g["slides"] for g in groups["groups"].values()) == 150
    found = over_time(training, new)
    assert found is not None and found["integrated_brier"] < found["brier_without"] - 0.01 and found["uno_c"] > 0.65
    noise, _ = followed(2, 0.0)
    nothing = over_time(noise, noise)
    assert nothing is not None and nothing["integrated_brier"] > nothing["brier_without"] - 0.01
    assert missing_libraries() == []


def test_without_the_survival_libraries_their_part_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.training.heads.evaluation import survival

    monkeypatch.setattr(survival, "find_spec", lambda name: None)
    new, age = followed(1, 1.0)
    assert survival.cox(new, {"age": age}) is None and survival.risk_groups(new, 0.0) is None
    assert survival.over_time(new, new) is None
    assert all("stamp-deploy[survival]" in line for line in survival.missing_libraries())


# the verbs


def inputs(place: Path) -> list[str]:
    """Heads, features and labels of the new cohort."""
    return [str(place / "run"), str(place / "new" / "features"), str(place / "new" / "labels.csv")]


def test_the_verb_judges_classes_with_thresholds_of_the_training(place: Path, tmp_path: Path) -> None:
    arguments = [*inputs(place), "--label", "msi", "--head", "msi", "--draws", "50"]
    done = CliRunner().invoke(evaluate_verb, [*arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "AUROC" in done.output and "tests saved" in done.output and "slope" in done.output
    document = json.loads((tmp_path / "out" / "head-evaluation.json").read_text())
    assert document["auroc"]["value"] > 0.85 and document["cohort"]["patients"] == 40
    head = read_head(place / "run", "msi")
    from stamp_deploy.training.heads.metrics import softmax

    trained = softmax(head.held_out["raw"], head.entry["temperature"])[:, 1]
    for point in document["operating_points"]:
        cut = locked_threshold(trained, head.held_out["label"] == 1, point["wanted_sensitivity"])
        assert point["external"]["threshold"] == point["training"]["threshold"] == pytest.approx(cut)
        assert point["training"]["sensitivity"]["value"] >= point["wanted_sensitivity"]
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.count("data:image/svg+xml") == 4 and "http" not in page.split("</style>")[1].split("<img")[0]
    assert {p.name for p in (tmp_path / "out").glob("*.svg")} == {
        "roc.svg", "calibration.svg", "decision-curve.svg", "triage.svg"
    }  # fmt: skip
    assert "p2-1" not in page and "p2-1" not in json.dumps(document)
    again = CliRunner().invoke(evaluate_verb, [*arguments, "-o", str(tmp_path / "out")])
    assert again.exit_code != 0
    # turning the new cohort's labels over moves no threshold
    text = (place / "new" / "labels.csv").read_text()
    (tmp_path / "turned.csv").write_text(text.replace("MSS", "x").replace("MSI", "MSS").replace("x", "MSI"))
    arguments[2] = str(tmp_path / "turned.csv")
    assert CliRunner().invoke(evaluate_verb, [*arguments, "-o", str(tmp_path / "turned")]).exit_code == 0
    turned = json.loads((tmp_path / "turned" / "head-evaluation.json").read_text())
    assert turned["auroc"]["value"] == pytest.approx(1 - document["auroc"]["value"])
    cuts = [[p["external"]["threshold"] for p in d["operating_points"]] for d in (document, turned)]
    assert cuts[0] == cuts[1]


def test_the_verb_judges_survival(place: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        evaluate_verb, [*inputs(place), "--head", "survival", "--time", "months", "--event", "died", "--covariates",
                        "age", "--draws", "50", "-o", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out" / "head-evaluation.json").read_text())
    assert document["c_index"]["value"] > 0.55 and document["events"] > 10
    if not document["not_run"]:
        assert document["cox"]["adjusted"]["risk"]["hazard_ratio"] > 1
        assert (tmp_path / "out" / "kaplan-meier.svg").is_file()


def test_slides_of_a_patient_are_averaged_where_asked(place: Path, tmp_path: Path) -> None:
    features, labels = write_cohort(tmp_path / "twice", 40, 5, slides_each=2)
    table = read_labels(labels, find_bags(features), label="msi", classes=("MSS", "MSI"))
    head = read_head(place / "run", "msi")
    slides, patients = (evaluate_head(head, table, Options(draws=20, per_patient=b)) for b in (False, True))
    assert any("several slides" in note for note in slides["notes"]) and not patients["notes"]
    count = patients["shipped_threshold"]
    assert sum(count[k] for k in ("true_positive", "false_positive", "false_negative", "true_negative")) == 20


def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--head msi or survival"):
        read_head(place / "run")
    with pytest.raises(UsageError, match="no head x"):
        read_head(place / "run", "x")
    with pytest.raises(UsageError, match="holds no heads"):
        read_head(tmp_path)
    bags = find_bags(place / "new" / "features")
    table = read_labels(place / "new" / "labels.csv", bags, label="msi", classes=("MSS", "MSI"))
    head = read_head(place / "run", "msi")
    few = type(table)(tuple(s for s in table.slides if s.label == 0), "binary", table.classes, 0, 0)
    with pytest.raises(DataError, match="fewer than 2 slides are MSI"):
        evaluate_head(head, few, Options(draws=5))
    (tmp_path / "f").mkdir()
    for name in ("s0", "s1"):
        with h5py.File(tmp_path / "f" / f"{name}.h5", "w") as file:
            file["features"] = np.zeros((2, 3), np.float32)
    other = read_labels(place / "new" / "labels.csv", find_bags(tmp_path / "f"), label="msi", classes=("MSS", "MSI"))
    with pytest.raises(DataError, match="embeddings of 3 values, and the head wants 6"):
        evaluate_head(head, other, Options(draws=5))


def test_encoders_are_compared_in_pairs(tmp_path: Path) -> None:
    """Features with the signal against features of noise, and against themselves."""
    good, labels = write_cohort(tmp_path / "a", 36, 1)
    write_cohort(tmp_path / "b", 35, 1, gap=0.0)  # one slide is missing
    noise = tmp_path / "b" / "features"
    arguments = [str(labels), "--label", "msi", "--classes", "MSS,MSI", "--folds", "3", "--epochs", "15", "--seeds",
                 "2", "--lr", "3e-3", "--draws", "100"]  # fmt: skip
    encoders = [f"--encoder=good={good}", f"--encoder=noise={noise}"]
    done = CliRunner().invoke(compare_verb, [*arguments, *encoders, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out" / "encoder-comparison.json").read_text())
    assert document["reference"] == "noise" and document["slides"] == 35
    found = document["differences"]["good"]["auroc"]
    assert found["word"] == "shown" and found["value"] > 0.2 and found["delong"]["low"] > 0
    assert "good minus noise" in done.output and (tmp_path / "out" / "comparison.html").is_file()
    encoders = [f"--encoder=good={good}", f"--encoder=same={good}"]
    short = ["--epochs", "2", "--seeds", "1"]  # nothing has to be learned here
    done = CliRunner().invoke(compare_verb, [*arguments, *short, *encoders, "-o", str(tmp_path / "same")])
    assert done.exit_code == 0, done.output
    same = json.loads((tmp_path / "same" / "encoder-comparison.json").read_text())["differences"]["good"]["auroc"]
    assert same["value"] == 0 and same["word"] == "not shown"  # the same folds, weights and draws
    assert CliRunner().invoke(compare_verb, [*arguments, encoders[0], "-o", str(tmp_path / "x")]).exit_code == 2
