"""Heads beside gated attention, pathway scores as input, survival, and thresholds that are judged by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
pytest.importorskip("sklearn", reason="training needs the extra [train]")

from stamp_deploy.errors import UsageError
from stamp_deploy.training.heads import nested, train
from stamp_deploy.training.heads.bag_model import Readout
from stamp_deploy.training.heads.bags import Bag, LabelledSlide, LabelTable
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.heads.fitting import KINDS, Problem, build_model
from stamp_deploy.training.heads.metrics import concordance
from stamp_deploy.training.heads.train import load_heads, train_head

DIM = 8
QUICK = HeadConfig(
    folds=3, epochs=20, patience=20, hidden=16, attention=8, lr=6e-3, dropout=0.0, draws=20, inner_folds=2
)


def test_tiles_come_in_with_mean_0_and_deviation_1_each_slide_counting_the_same() -> None:
    """Both ways in: embeddings, and pathway scores of them."""
    rng = np.random.default_rng(3)
    level, size = torch.tensor([5.0, -2.0, 0.1]), torch.tensor([10.0, 0.1, 1.0])
    slides = [torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32)) * size + level for n in (400, 40)]
    readout = Readout(torch.tensor([[0.5, 3.0, 0.0]]), torch.tensor([7.0]))
    head = Problem("binary", 3, 2, readout).model(QUICK.with_(inputs="both"))
    head.standardise(slides)
    seen = [head.standardised(slide) for slide in slides]
    assert seen[0].shape == (400, 4)
    mean = torch.stack([part.mean(0) for part in seen]).mean(0)
    square = torch.stack([(part**2).mean(0) for part in seen]).mean(0)
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(square, torch.ones(4), atol=1e-3, rtol=0)


class MemoryBag(Bag):
    """Embeddings that lie in memory."""

    values: np.ndarray

    def embeddings(self) -> np.ndarray:
        return self.values

    @property
    def encoder(self) -> str:
        return "test"


def bag(name: str, values: np.ndarray) -> Bag:
    made = MemoryBag(name, Path(f"{name}.h5"))
    object.__setattr__(made, "values", values.astype(np.float32))
    return made


def labelled(count: int = 36, seed: int = 0, task: str = "binary", gap: float = 4.0) -> LabelTable:
    """A third of the tiles of positive slides lie elsewhere; their patients also die sooner."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        positive = i % 2
        x = rng.normal(size=(12 + i % 5, DIM))
        x[:5, 0] += gap * positive
        time, censored = rng.exponential(1.0 if positive else 8.0), rng.exponential(12.0)
        rows.append(LabelledSlide(bag(f"s{i}", x), f"p{i // 2}", positive, min(time, censored), bool(time <= censored)))
    classes = ("absent", "present") if task == "binary" else ()
    return LabelTable(tuple(rows), task, classes, 0, 0)  # type: ignore[arg-type]


def facts(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "dim": DIM, "outputs": 2, "hidden": 16, "survival": False, "inputs": "embeddings",
            "scores": 0, **({"attention": 8} if kind == "abmil" else {}), **more}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(KINDS))
@torch.no_grad()
def test_a_batch_of_slides_gives_what_each_gives_alone(kind: str) -> None:
    torch.manual_seed(0)
    head = build_model(facts(kind)).eval()
    a, b = torch.randn(5, DIM), torch.randn(9, DIM)
    batch, mask = torch.full((2, 9, DIM), 7.0), torch.ones(2, 9, dtype=torch.bool)
    batch[0, :5], batch[1], mask[0, 5:] = a, b, False
    raw, attention = head.bags(batch, mask)
    for i, alone in enumerate((a, b)):
        logits, own = head(alone)
        torch.testing.assert_close(raw[i], logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(attention[i, : len(alone)], own, rtol=1e-4, atol=1e-6)
        assert float(own.sum()) == pytest.approx(1, abs=1e-5)
        order = torch.randperm(len(alone))
        torch.testing.assert_close(head(alone[order])[0], logits, rtol=1e-4, atol=1e-5)
    assert float(attention[0, 5:].abs().max()) == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_head_learns_is_kept_and_runs_in_onnx(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="export needs the extra [export]")
    import onnxruntime

    from stamp_deploy.export.graph.to_onnx import write_head

    config = QUICK.with_(model=kind, name=kind, inner_folds=0)
    entry = train_head(labelled(), tmp_path, config)
    assert entry["details"]["auroc"] > 0.8 and entry["details"]["model"] == kind
    ((head, _),) = load_heads(tmp_path)
    write_head(head, tmp_path / "head.onnx", DIM)
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    for count in (1, 31):
        x = torch.randn(count, DIM)
        logits, attention = session.run(None, {"embeddings": x.numpy()})
        with torch.inference_mode():
            want = head(x)
        np.testing.assert_allclose(logits, want[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(attention, want[1].numpy(), atol=1e-5)


@pytest.mark.parametrize("inputs", ["both", "pathways"])
def test_pathway_scores_are_an_input_that_the_head_computes_itself(inputs: str, tmp_path: Path) -> None:
    weight = torch.zeros(3, DIM)
    weight[1, 0] = 2.0
    readout = Readout(weight, torch.tensor([0.0, 0.5, 1.0]))
    entry = train_head(labelled(), tmp_path, QUICK.with_(inputs=inputs, inner_folds=0), readout=readout)
    assert entry["details"]["auroc"] > 0.8 and entry["details"]["inputs"] == inputs
    ((head, _),) = load_heads(tmp_path)
    x = torch.randn(6, DIM)
    seen = head.standardised(x)  # type: ignore[operator]
    assert seen.shape == (6, 3 + (DIM if inputs == "both" else 0))
    score = seen[:, -2]  # of the second pathway; it follows the first value of the embedding alone
    assert abs(np.corrcoef(score.numpy(), x[:, 0].numpy())[0, 1]) == pytest.approx(1, abs=1e-4)
    if inputs == "pathways":
        moved = x.clone()
        moved[:, 1:] += 100
        torch.testing.assert_close(head(x)[0], head(moved)[0])


def test_pathway_scores_need_a_run_that_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pathways"):
        train_head(labelled(), tmp_path, QUICK.with_(inputs="both"))
    with pytest.raises(UsageError, match="embeddings of 5 values, and these have 8"):
        train_head(labelled(), tmp_path, QUICK.with_(inputs="both"), readout=Readout(torch.ones(2, 5), torch.ones(2)))
    assert not (tmp_path / "heads.json").exists()


def test_survival_finds_a_planted_signal(tmp_path: Path) -> None:
    """Slides of one kind die sooner; what the class itself gives is the most that can be found."""
    table = labelled(48, 3, "survival")
    time = np.array([s.time for s in table.slides])
    event = np.array([s.event for s in table.slides])
    ceiling = concordance(time, event, np.array([float(s.label) for s in table.slides]))
    details = train_head(table, tmp_path, QUICK.with_(epochs=12))["details"]
    assert details["c_index"] > 0.9 * ceiling > 0.6
    shuffled = np.random.default_rng(1).permutation(48)
    rows = tuple(
        LabelledSlide(s.bag, s.patient, s.label, time[j], bool(event[j]))
        for s, j in zip(table.slides, shuffled, strict=True)
    )
    other = train_head(LabelTable(rows, "survival", (), 0, 0), tmp_path, QUICK.with_(epochs=12))["details"]
    assert other["c_index"] < details["c_index"] - 0.1


def test_no_prediction_is_judged_by_a_threshold_that_it_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label of a slide is turned over: the rule that judges its fold stays what it was."""
    for inner in (0, 2):
        config = QUICK.with_(inner_folds=inner, epochs=2)
        table = labelled()
        slides = train.load_slides(table, config)
        problem = train.problem_of(table, slides, config, None)
        held = train.held_out(table, slides, problem, config, lambda text: None)
        rules, how = nested.judged_folds(table, slides, held.folds, held.raw, problem, config, lambda text: None)
        assert ("inside" in how) == (inner == 2)
        test = held.folds[0]
        slides.label[test] = 1 - slides.label[test]
        held.raw[test] += np.random.default_rng(0).normal(size=(len(test), 2)) * 5
        again, _ = nested.judged_folds(table, slides, held.folds, held.raw, problem, config, lambda text: None)
        assert again[0][1] == rules[0][1] or vars(again[0][1]) == vars(rules[0][1])
        assert any(vars(a[1]) != vars(b[1]) for a, b in zip(again[1:], rules[1:], strict=True))


def test_held_out_predictions_are_kept_without_names(tmp_path: Path) -> None:
    entry = train_head(labelled(), tmp_path, QUICK)
    tensors, _ = train.read_tensors(tmp_path / "heads" / "head.heldout.safetensors")
    assert set(tensors) == {"raw", "label", "time", "event", "fold"} and len(tensors["raw"]) == 36
    assert sorted(set(tensors["fold"].tolist())) == [0, 1, 2]
    assert "2 patient folds inside" in entry["details"]["judged_by"]
    assert '"p1"' not in json.dumps(entry)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_what_the_cpu_learns(tmp_path: Path) -> None:
    found = [
        train_head(labelled(), tmp_path, QUICK.with_(inner_folds=0, device=d))["details"]["auroc"]
        for d in ("cpu", "cuda")
    ]
    assert found[0] == pytest.approx(found[1], abs=0.1) and min(found) > 0.8
