"""The parts of a slide-level head, by hand: what is standardised, filled up, drawn and centred."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from stamp_deploy.training.heads.abmil import GatedABMIL, MeanPool
from stamp_deploy.training.heads.bag_model import Readout, masked_softmax, risk_score
from stamp_deploy.training.heads.fitting import _centre_risk, _draw, _padded, _start_from_marginal_hazards, predict
from stamp_deploy.training.heads.slides import Slides
from stamp_deploy.training.validation import mean_cosine

CPU = torch.device("cpu")


def slides(bags: list[Any], bins: list[int] | None = None, event: list[bool] | None = None) -> Slides:
    n = len(bags)
    return Slides(
        bags, np.zeros(n, np.int64), np.ones(n), np.array(event or [True] * n), [str(i) for i in range(n)],
        np.array(bins or [0] * n), np.zeros(0),
    )  # fmt: skip


def bags_of(*sizes: int, dim: int = 3) -> list[Any]:
    torch.manual_seed(0)
    return [torch.randn(size, dim) + i for i, size in enumerate(sizes)]


def test_each_slide_counts_the_same_in_what_is_standardised_however_many_tiles_it_has() -> None:
    bags = bags_of(2, 50, 7)
    head = MeanPool(3, 2, hidden=4)
    head.standardise(bags)
    mean = np.mean([b.numpy().mean(0) for b in bags], axis=0)
    square = np.mean([((b.numpy() - mean) ** 2).mean(0) for b in bags], axis=0)
    np.testing.assert_allclose(head.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(head.scale.numpy(), 1 / np.sqrt(square), rtol=1e-5)
    found = head.standardised(bags[1]).numpy()
    np.testing.assert_allclose(found, (bags[1].numpy() - mean) / np.sqrt(square), rtol=1e-4, atol=1e-5)


def test_a_number_that_does_not_vary_is_left_as_it_is() -> None:
    bags = [torch.cat([b, torch.full((len(b), 1), 7.0)], dim=1) for b in bags_of(4, 5)]
    head = MeanPool(4, 2, hidden=4)
    head.standardise(bags)
    assert float(head.scale[3]) == 1.0 and torch.equal(head.standardised(bags[0])[:, 3], torch.zeros(4))


@pytest.mark.parametrize("inputs", ["pathways", "both"])
def test_pathway_scores_are_standardised_by_themselves_and_stand_behind_the_embedding(inputs: Any) -> None:
    bags = bags_of(6, 9)
    head = MeanPool(3, 2, hidden=4, scores=2, inputs=inputs)
    weight, bias = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 5.0]]), torch.tensor([3.0, -4.0])
    head.set_readout(Readout(weight, bias))
    head.standardise(bags)
    scores = [(b @ weight.T + bias).numpy() for b in bags]
    mean = np.mean([s.mean(0) for s in scores], axis=0)
    scale = np.sqrt(np.mean([((s - mean) ** 2).mean(0) for s in scores], axis=0))
    found = head.standardised(bags[0]).numpy()
    np.testing.assert_allclose(found[:, -2:], (scores[0] - mean) / scale, rtol=1e-4, atol=1e-5)
    assert found.shape == (6, 2 if inputs == "pathways" else 5)


@pytest.mark.parametrize("kind", [GatedABMIL, MeanPool])
def test_what_fills_up_a_batch_changes_no_slide(kind: Any) -> None:
    torch.manual_seed(1)
    head = kind(3, 2, hidden=8).eval()
    bags = bags_of(2, 7, 4)
    batch, mask = _padded(bags, CPU)
    assert batch.shape == (3, 7, 3) and mask is not None and mask.sum(1).tolist() == [2, 7, 4]
    raw, attention = head.bags(batch, mask)
    for i, bag in enumerate(bags):
        alone, weights = head.bag(bag)
        torch.testing.assert_close(raw[i], alone)
        torch.testing.assert_close(attention[i, : len(bag)], weights)
        assert float(attention[i, len(bag) :].abs().sum()) == 0 and float(weights.sum()) == pytest.approx(1)
    same, nothing = _padded(bags_of(4, 4), CPU)
    assert nothing is None and same.shape == (2, 4, 3)


def test_masked_out_is_out() -> None:
    found = masked_softmax(torch.tensor([[1.0, 9.0, 2.0]]), torch.tensor([[True, False, True]]))
    assert found[0].tolist() == pytest.approx([1 / (1 + np.e), 0, np.e / (1 + np.e)])


def test_tiles_are_drawn_without_replacement_and_only_where_they_are_too_many() -> None:
    bag = torch.arange(20.0)[:, None]
    rng = np.random.default_rng(0)
    assert _draw(bag, 20, rng) is bag
    first, second = (_draw(bag, 8, rng)[:, 0].tolist() for _ in range(2))
    assert len(set(first)) == len(set(second)) == 8 and first != second


def test_the_risk_is_the_log_of_the_cumulative_hazard() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0], [-5.0, -5.0, -5.0]])
    hazard = torch.sigmoid(logits)
    expected = (-(1 - hazard).log().sum(1)).log()
    torch.testing.assert_close(risk_score(logits), expected)
    assert risk_score(logits)[0] > risk_score(logits)[1]


def test_the_baseline_starts_at_the_hazard_of_each_bin_among_those_still_at_risk() -> None:
    """Six slides learn; a censored one of a bin is at risk in the bins before its own only."""
    torch.manual_seed(2)
    head = MeanPool(3, 3, hidden=4, survival=True)
    known = slides(bags_of(*[3] * 7), bins=[0, 0, 1, 1, 2, 2, 0], event=[True, False, True, True, True, False, True])
    _start_from_marginal_hazards(head, known, np.arange(6))
    died, at_risk = np.array([1, 2, 1]), np.array([5, 4, 1])
    hazard = (died + 0.5) / (at_risk + 1)
    np.testing.assert_allclose(head.baseline.detach().numpy(), np.log(hazard / (1 - hazard)), rtol=1e-5)
    assert float(head.classify.bias) == 0.0


def test_the_average_slide_that_was_learned_from_has_the_risk_0_and_predictions_stay() -> None:
    torch.manual_seed(3)
    head = MeanPool(3, 3, hidden=4, survival=True).eval()
    known = slides(bags_of(3, 4, 5, 6))
    rows = np.array([0, 2, 3])
    before = predict(head, known, np.arange(4))
    _centre_risk(head, known, rows)
    np.testing.assert_allclose(predict(head, known, np.arange(4)), before, atol=1e-5)
    away = before[rows] - head.baseline.detach().numpy()
    assert away.mean() == pytest.approx(0, abs=1e-5)


def test_predictions_stand_in_the_order_of_the_rows() -> None:
    head = GatedABMIL(3, 2, hidden=4).train()
    known = slides(bags_of(3, 4, 5, 6))
    every = predict(head, known, np.arange(4))
    np.testing.assert_array_equal(predict(head, known, np.array([2, 0])), every[[2, 0]])
    assert not head.training  # nothing is dropped out


def test_the_distance_that_embeddings_have_moved_is_a_mean_over_all_tiles() -> None:
    a = [np.array([[1, 0], [0, 2]], np.float32), np.array([[3, 0]], np.float32)]
    b = [np.array([[2, 0, 9], [5, 0, 9]], np.float32), np.array([[-1, 0, 9]], np.float32)]
    assert mean_cosine(a, b) == pytest.approx((1 + 0 - 1) / 3)
    assert mean_cosine(a, a) == pytest.approx(1)
    assert mean_cosine([np.zeros((2, 3), np.float32)], [np.ones((2, 3), np.float32)]) == 0
