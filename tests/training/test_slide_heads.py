"""Slide-level heads: attention finds the region that makes the label, folds keep patients whole, numbers are right."""

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

from stamp_deploy.bundle.schema import _head as validate_head
from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.export.demo.synthetic import PROGRAMS, Section
from stamp_deploy.training.heads.abmil import GatedABMIL
from stamp_deploy.training.heads.bag_model import hazard_loss, risk_score
from stamp_deploy.training.heads.bags import Bag, find_bags, read_labels
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.folds import patient_folds
from stamp_deploy.training.heads.train import load_heads, train_head

FAST = HeadConfig(name="immune", folds=3, epochs=12, hidden=48, attention=24, lr=2e-3, draws=100)
DIM = 24
IMMUNE = PROGRAMS.index("IMMUNE")


def write_bag(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = values.astype(np.float32)
        file["coords"] = np.zeros((len(values), 2), np.int64)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """36 slides of 18 patients: the programs of synthetic sections, seen through a fixed random map with noise. The
    immune program is high somewhere in positive slides only; that region is known."""
    folder = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(len(PROGRAMS), DIM))
    regions: dict[str, np.ndarray] = {}
    rows = []
    for i in range(36):
        section = Section(1000 + i, width=1920, height=1920)
        spots = section.spots()
        programs = section.programs(spots).astype(float)
        order = np.argsort(-programs[:, IMMUNE])
        hot = np.zeros(len(spots), bool)
        programs[:, IMMUNE] = np.minimum(programs[:, IMMUNE], 0.3)
        positive = i % 2
        if positive:
            hot[order[: len(spots) // 6]] = True
            programs[hot, IMMUNE] = 1.5
        features = np.tanh(programs @ mix) + 0.3 * rng.normal(size=(len(spots), DIM))
        name = f"slide-{i:02d}"
        write_bag(folder / "features" / name / "tiles.h5", features)
        regions[name] = hot
        time = rng.exponential(1.0 if positive else 6.0)
        censor = rng.exponential(8.0)
        rows.append(
            {"slide_id": name, "patient_id": f"p{i // 2}", "label": ["absent", "present"][positive],
             "time": min(time, censor), "event": int(time <= censor)}
        )  # fmt: skip
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "features", table, regions


def test_attention_finds_the_region_that_makes_the_label(cohort, tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    features, labels, regions = cohort
    bags = find_bags(features)
    table = read_labels(labels, bags)
    entry = train_head(table, tmp_path, FAST)
    assert entry["kind"] == "binary" and entry["classes"] == ["absent", "present"]
    assert entry["details"]["auroc"] > 0.9
    low, high = entry["details"]["auroc_interval"]
    assert low <= entry["details"]["auroc"] <= high
    ((module, loaded),) = load_heads(tmp_path)
    scores = []
    for slide in table.slides:
        if slide.label:
            with torch.inference_mode():
                logits, attention = module(torch.from_numpy(slide.bag.embeddings()))
            assert logits.shape == (2,) and attention.shape == (len(regions[slide.bag.name]),)
            assert float(attention.sum()) == pytest.approx(1, abs=1e-4)
            scores.append(roc_auc_score(regions[slide.bag.name], attention.numpy()))
    assert np.mean(scores) > 0.85
    validate_head({**loaded, "file": "heads/immune.onnx"}, {"heads/immune.onnx": {}})
    json.dumps(loaded, allow_nan=False)


def test_labels_that_mean_nothing_are_not_learned(cohort, tmp_path: Path) -> None:
    features, labels, _ = cohort
    rows = list(csv.DictReader(labels.open()))
    names = np.random.default_rng(11).permutation([r["label"] for r in rows])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["slide_id", "patient_id", "label"])
        writer.writeheader()
        for row, name in zip(rows, names, strict=True):
            writer.writerow({"slide_id": row["slide_id"], "patient_id": row["patient_id"], "label": name})
    quick = FAST.with_(inner_folds=0)  # they choose thresholds, which move no AUROC
    entry = train_head(read_labels(tmp_path / "labels.csv", find_bags(features)), tmp_path, quick)
    assert 0.2 < entry["details"]["auroc"] < 0.8


def test_survival_head_orders_the_risks(cohort, tmp_path: Path) -> None:
    features, labels, _ = cohort
    result = CliRunner().invoke(
        _verb(), [str(features), str(labels), "-o", str(tmp_path), "--time", "time", "--event", "event",
                  "--folds", "3", "--epochs", "8", "--lr", "1e-3"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    ((module, entry),) = load_heads(tmp_path)
    assert entry["kind"] == "survival" and entry["details"]["c_index"] > 0.6
    assert len(entry["classes"]) == len(entry["thresholds"]) + 1
    logits, _ = module(torch.randn(7, DIM))
    assert logits.shape == (1,)
    validate_head({**entry, "file": "f"}, {"f": {}})


def _verb():
    from stamp_deploy.training.verbs_train import train_head as verb

    return verb


def test_heads_of_one_folder_are_kept_beside_each_other(cohort, tmp_path: Path) -> None:
    features, labels, _ = cohort
    table = read_labels(labels, find_bags(features))
    quick = FAST.with_(epochs=1, inner_folds=0, draws=10)
    for name in ("a", "b", "a"):
        train_head(table, tmp_path, quick.with_(name=name))
    assert [entry["name"] for _, entry in load_heads(tmp_path)] == ["b", "a"]
    (tmp_path / "heads" / "a.safetensors").unlink()
    with pytest.raises(UsageError, match="head a cannot be read"):
        load_heads(tmp_path)


def test_patients_are_never_split(cohort) -> None:
    features, labels, _ = cohort
    slides = read_labels(labels, find_bags(features)).slides
    folds = patient_folds(slides, "binary", 5, 0)
    assert sorted(np.concatenate(folds)) == list(range(len(slides)))
    for test in folds:
        inside = {slides[i].patient for i in test}
        outside = {s.patient for i, s in enumerate(slides) if i not in set(test)}
        assert not inside & outside


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,label\nslide-00,a\n", "no column names the patients"),
        ("slide_id,patient_id,label\nslide-00,p,a\nslide-01,p,a\n", "holds the classes"),
        ("slide_id,patient_id,label\nslide-00,,a\nslide-01,p,b\n", "has no patient"),
        ("slide_id,patient_id,label\nslide-00,p,a\nslide-00,p,b\n", "comes twice"),
        ("slide_id,patient_id,label\nother,p,a\nother2,q,b\n", "no slide of the table has features"),
        ("slide_id,patient_id,grade\nslide-00,p,a\n", "has no column 'label'"),
        ("slide_id,patient_id,label\n", "holds no lines"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(cohort, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(path, find_bags(cohort[0]))


def small_bags(folder: Path, names: list[str]) -> dict[str, Bag]:
    for i, name in enumerate(names):
        write_bag(folder / f"{name}.h5", np.random.default_rng(i).normal(i % 2, 1, (4, 3)))
    return find_bags(folder)


NUMBERED = [str(1001 + i) for i in range(8)]


@pytest.mark.parametrize(
    ("change", "classes", "slides"),
    [
        ({}, ("MSI-H", "MSS"), 8),
        *(
            ({"label": {1: missing, 2: missing}}, ("MSI-H", "MSS"), 6)
            for missing in ("#N/A", "N/A", "<NA>", "-", "nan")
        ),
        ({"id": "{}.0"}, ("MSI-H", "MSS"), 8),
        ({"id": "{}.h5"}, ("MSI-H", "MSS"), 8),
        ({"id": "/data/slides/{}.svs"}, ("MSI-H", "MSS"), 8),
        ({"separator": ";"}, ("MSI-H", "MSS"), 8),
        ({"encoding": "utf-16"}, ("MSI-H", "MSS"), 8),
        ({"encoding": "cp1252"}, ("MSI-H", "MSS"), 8),
        ({"label": {0: "1", 1: "0", 2: "1.0", 3: "0.0", 4: "1", 5: "0", 6: "1.00", 7: "0"}}, ("0", "1"), 8),
        ({"label": {0: " mss", 1: "msi-h", 3: "MSI-H\u00a0"}}, ("MSI-H", "MSS"), 8),
    ],
)
def test_labels_as_excel_and_pandas_write_them(tmp_path: Path, change: dict, classes: tuple, slides: int) -> None:
    sep = change.get("separator", ",")
    lines = [sep.join(("slide_id", "patient_id", "label", "remark"))]
    for i, name in enumerate(NUMBERED):
        label = change.get("label", {}).get(i, ["MSS", "MSI-H"][i % 2])
        lines.append(sep.join((change.get("id", "{}").format(name), f"Pätient{i}", label, "extra")))
    (tmp_path / "labels.csv").write_bytes("\r\n".join(lines).encode(change.get("encoding", "utf-8")))
    table = read_labels(tmp_path / "labels.csv", small_bags(tmp_path / "features", NUMBERED))
    assert table.classes == classes and len(table.slides) == slides and table.without_label == 8 - slides
    assert sum(c["slides"] for c in table.counts().values()) == slides
    assert bool(table.warnings) == any("mss" in str(v) for v in change.get("label", {}).values())
    for slide in table.slides:
        positive = NUMBERED.index(slide.bag.name) % 2 == 0 if classes == ("0", "1") else None
        assert slide.label == (int(positive) if positive is not None else 1 - NUMBERED.index(slide.bag.name) % 2)


def test_a_slide_named_in_two_spellings_comes_twice(tmp_path: Path) -> None:
    bags = small_bags(tmp_path / "features", NUMBERED)
    (tmp_path / "labels.csv").write_text("slide,patient,label\n1001,a,x\n1001.svs,a,y\n1002,b,y\n")
    with pytest.raises(DataError, match=r"1001 comes twice, as 1001 and 1001\.svs"):
        read_labels(tmp_path / "labels.csv", bags)


def test_labels_join_results_of_batch_by_the_slides_name(tmp_path: Path) -> None:
    for i in range(4):
        path = tmp_path / "results" / f"case{i}-{i:012x}" / "tiles.h5"
        write_bag(path, np.zeros((3, 2)))
        with h5py.File(path, "a") as file:
            file["coords"].attrs["name"] = f"case{i}"
    bags = find_bags(tmp_path / "results")
    for ending in ("", ".svs"):
        rows = [f"case{i}{ending},P{i},{'AB'[i % 2]}" for i in range(4)]
        (tmp_path / "labels.csv").write_text("slide,patient_id,label\n" + "\n".join(rows) + "\n")
        found = read_labels(tmp_path / "labels.csv", bags)
        assert [(s.bag.slide, s.patient) for s in found.slides] == [(f"case{i}", f"P{i}") for i in range(4)]
    # the name of the folder still joins, and decides where two results are of slides of one name
    with h5py.File(bags["case3-000000000003"].path, "a") as file:
        file["coords"].attrs["name"] = "case2"
    bags = find_bags(tmp_path / "results")
    with pytest.raises(DataError, match="2 results are of a slide called case2"):
        read_labels(tmp_path / "labels.csv", bags)
    rows = ["case2-000000000002,P2,A", "case3-000000000003,P3,B"]
    (tmp_path / "labels.csv").write_text("slide,patient_id,label\n" + "\n".join(rows) + "\n")
    assert len(read_labels(tmp_path / "labels.csv", bags).slides) == 2


def test_classes_with_counts_are_shown_before_training_and_kept(tmp_path: Path) -> None:
    small_bags(tmp_path / "features", NUMBERED)
    rows = [f"{name},P{i // 2},{'ab'[i % 4 // 2]}" for i, name in enumerate(NUMBERED)]
    (tmp_path / "labels.csv").write_text("slide;patient;label\n" + "\n".join(rows).replace(",", ";") + "\n")
    out = tmp_path / "run"
    result = CliRunner().invoke(
        _verb(), [str(tmp_path / "features"), str(tmp_path / "labels.csv"), "-o", str(out), "--folds", "2",
                  "--epochs", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shown = result.output
    assert "class    a: 4 slides of 2 patients" in shown and shown.index("class    a") < shown.index("fold 1")
    ((_, entry),) = load_heads(out)
    assert entry["details"]["class_counts"] == {k: {"slides": 4, "patients": 2} for k in "ab"}


def test_features_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.h5"):
        find_bags(tmp_path)
    write_bag(tmp_path / "a.h5", np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="NaN"):
        find_bags(tmp_path)["a"].embeddings()
    write_bag(tmp_path / "b.h5", np.zeros((0, 2)))
    with pytest.raises(DataError, match="not \\[N, D\\]"):
        find_bags(tmp_path)["b"].embeddings()
    write_bag(tmp_path / "c.h5", np.zeros((1, 4, 2)))  # older CLAM files hold a leading axis
    assert find_bags(tmp_path)["c"].embeddings().shape == (4, 2)


def test_hazard_loss_is_the_likelihood() -> None:
    logits = torch.tensor([[0.3, -0.2, 0.5], [0.1, 0.4, -1.0]])
    h = torch.sigmoid(logits)
    expected = -(torch.log((1 - h[0, 0]) * h[0, 1]) + torch.log((1 - h[1, 0]) * (1 - h[1, 1]))) / 2
    found = hazard_loss(logits, torch.tensor([1, 2]), torch.tensor([True, False]))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(risk_score(torch.tensor([2.0, 2.0]))) > float(risk_score(torch.tensor([-2.0, -2.0])))


def test_head_is_exportable_in_shape() -> None:
    head = GatedABMIL(8, 3, hidden=16, attention=4).eval()
    x = torch.randn(5, 8)
    one, attention = head(x)
    order = torch.randperm(5)
    two, moved = head(x[order])
    assert torch.allclose(one, two, atol=1e-6) and torch.allclose(attention[order], moved, atol=1e-6)


def test_sites_are_counted_where_the_table_states_them(cohort, tmp_path: Path) -> None:
    """From the table to the entry of the head, which export puts into the bundle and every result repeats."""
    features, labels, _ = cohort
    bags = find_bags(features)
    assert read_labels(labels, bags).sites() is None
    rows = list(csv.DictReader(labels.open()))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "Hospital"])
        writer.writeheader()
        for place, row in enumerate(rows):
            writer.writerow(row | {"Hospital": ("North", "South", "")[place % 3]})
    table = read_labels(tmp_path / "labels.csv", bags)
    sites = table.sites()
    assert sites is not None and set(sites) == {"North", "South", "not stated"}
    assert sum(site["slides"] for site in sites.values()) == len(table.slides)
    north = [s for s in table.slides if s.site == "North"]
    assert sites["North"] == {"slides": len(north), "patients": len({s.patient for s in north})}
    entry = train_head(table, tmp_path / "head", FAST.with_(epochs=1, inner_folds=0, draws=10))
    assert entry["details"]["sites"] == sites and entry["details"]["class_counts"] == table.counts()
