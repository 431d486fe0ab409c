"""The losses of training, each against values worked out by hand or by another library."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from stamp_deploy.training.losses import (
    AuxiliaryHeads,
    anchor_loss,
    contrastive_loss,
    correlation_loss,
    pearson_columns,
    regression_loss,
)


def test_regression_leaves_masked_pathways_out() -> None:
    predicted, target = torch.tensor([[0.5, 9.0], [3.0, 9.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[True, False], [True, False]])
    assert float(regression_loss(predicted, target, mask)) == pytest.approx((0.5 * 0.25 + 2.5) / 2)
    assert float(regression_loss(predicted, target, torch.zeros(2, 2, dtype=torch.bool))) == 0


def test_correlation_is_within_slides() -> None:
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.normal(size=(40, 3)).astype(np.float32))
    slide, mask = torch.arange(40) // 20, torch.ones(40, 3, dtype=torch.bool)
    shifted = target * 2 + 5 * slide[:, None]  # a slide's own level and scale cost nothing
    assert float(correlation_loss(shifted, target, mask, slide)) == pytest.approx(0, abs=1e-4)
    assert float(correlation_loss(-target, target, mask, slide)) == pytest.approx(4, abs=1e-3)
    r = np.corrcoef(rng.normal(size=20), target[:20, 0].numpy())[0, 1]
    assert -1 < r < 1
    noise = torch.from_numpy(rng.normal(size=(40, 3)).astype(np.float32))
    expected = np.mean(
        [(1 - np.corrcoef(noise[s, p], target[s, p])[0, 1]) ** 2 for s in (slice(20), slice(20, 40)) for p in range(3)]
    )
    assert float(correlation_loss(noise, target, mask, slide)) == pytest.approx(expected, rel=1e-4)
    assert float(correlation_loss(noise[:3], target[:3], mask[:3], slide[:3])) == 0  # too few rows


def test_correlation_needs_four_rows_and_a_pathway_that_all_of_them_measured() -> None:
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0], [3.0, 1.0]])
    predicted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 5.0]])
    mask, slide = torch.ones(4, 2, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    r = [np.corrcoef(predicted[:, p], target[:, p])[0, 1] for p in range(2)]
    both = sum((1 - value) ** 2 for value in r) / 2
    assert float(correlation_loss(predicted, target, mask, slide)) == pytest.approx(both, rel=1e-5)
    assert float(correlation_loss(predicted[:3], target[:3], mask[:3], slide[:3])) == 0
    mask[1, 1] = False  # one spot does not measure the second pathway
    assert float(correlation_loss(predicted, target, mask, slide)) == pytest.approx((1 - r[0]) ** 2, rel=1e-5)
    mask[2, 0] = False
    assert float(correlation_loss(predicted, target, mask, slide)) == 0
    # a slide of three rows beside one of four takes no part
    more = [torch.cat([x, x[:3]]) for x in (predicted, target, torch.ones(4, 2, dtype=torch.bool))]
    slides = torch.tensor([0] * 4 + [1] * 3)
    assert float(correlation_loss(*more, slides)) == pytest.approx(both, rel=1e-5)


def test_a_constant_column_has_no_correlation() -> None:
    a = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert pearson_columns(a, a).tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


def one_slide_info_nce(image: Any, molecular: Any, target: Any, temperature: float) -> Any:
    """Both directions over one slide, written out row by row."""
    n = len(image)
    profile = target - target.mean(1, keepdim=True)
    profile = profile / profile.norm(dim=1, keepdim=True)
    cosine = (image / image.norm(dim=1, keepdim=True)) @ (molecular / molecular.norm(dim=1, keepdim=True)).T
    alike = torch.softmax(profile @ profile.T / 0.1, dim=1)
    total = torch.zeros(())
    for i in range(n):
        for j in range(n):
            wanted = 0.5 * float(alike[i, j]) + 0.5 * (i == j)
            from_image = torch.log_softmax(cosine[i] / temperature, 0)[j]
            from_profile = torch.log_softmax(cosine[:, j] / temperature, 0)[i]
            total = total - wanted * (from_image + from_profile) / (2 * n)
    return total


def test_the_contrastive_loss_by_hand() -> None:
    """Its temperature, both directions, and negatives of the own slide only."""
    torch.manual_seed(0)
    image, molecular, target = torch.randn(9, 5), torch.randn(9, 5), torch.randn(9, 4)
    slide = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 1])
    for temperature in (0.07, 0.5):
        parts = [
            one_slide_info_nce(image[slide == s], molecular[slide == s], target[slide == s], temperature)
            for s in (0, 1)
        ]
        found = contrastive_loss(image, molecular, target, slide, torch.tensor(math.log(temperature)))
        assert float(found) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)


def test_tiles_of_one_slide_learn_nothing_from_profiles_of_another() -> None:
    torch.manual_seed(0)
    image, molecular, target = torch.randn(8, 5, requires_grad=True), torch.randn(8, 5), torch.randn(8, 4)
    slide = torch.tensor([0] * 4 + [1] * 4)
    gradients = []
    for moved in (molecular, torch.cat([molecular[:4], torch.randn(4, 5)])):
        image.grad = None
        contrastive_loss(image, moved, target, slide, torch.tensor(-2.0)).backward()
        gradients.append(image.grad[:4].clone())
    assert torch.equal(gradients[0], gradients[1]) and gradients[0].abs().sum() > 0


def test_the_temperature_of_the_contrast_stops_at_a_hundredth() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(6, 4) for _ in range(3)]
    slide = torch.zeros(6, dtype=torch.int64)
    at = {t: float(contrastive_loss(*parts, slide, torch.tensor(t))) for t in (-4.6, -5.0, -9.0, -4.0)}
    assert at[-5.0] == at[-4.6] == at[-9.0] != at[-4.0]


def test_a_slide_of_one_spot_has_no_contrast() -> None:
    torch.manual_seed(2)
    image, molecular, target = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4), torch.randn(5, 4)
    cold = torch.tensor(-2.0)
    pair = contrastive_loss(image[:2], molecular[:2], target[:2], torch.tensor([0, 0]), cold)
    assert float(pair.detach()) > 0
    beside = contrastive_loss(image[:3], molecular[:3], target[:3], torch.tensor([0, 0, 1]), cold)
    assert float(beside.detach()) == pytest.approx(float(pair.detach()))
    alone = contrastive_loss(image[:2], molecular[:2], target[:2], torch.tensor([0, 1]), cold)
    alone.backward()
    assert float(alone.detach()) == 0 and float(image.grad.abs().sum()) == 0


def test_anchor_and_adversary() -> None:
    z = torch.randn(5, 4)
    assert float(anchor_loss(z, 3 * z)) == pytest.approx(0, abs=1e-6)
    assert float(anchor_loss(z, -z)) == pytest.approx(2, abs=1e-6)
    of_its_own_length = torch.arange(1.0, 6.0)[:, None]  # each tile is held to itself, whatever its length
    assert float(anchor_loss(z, of_its_own_length * z)) == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    heads = AuxiliaryHeads(4, genes=3, batches=2)
    x = torch.randn(6, 4, requires_grad=True)
    slide = torch.tensor([0, 0, 0, 1, 1, 1])
    heads.batch_loss(x, slide).backward()
    reversed_gradient = x.grad.clone()
    x.grad = None
    torch.nn.functional.cross_entropy(heads.batch(torch.nn.functional.normalize(x, dim=1)), slide).backward()
    assert torch.allclose(reversed_gradient, -x.grad)
    assert float(heads.gene_loss(x, torch.zeros(6, 3)).detach()) > 0


def test_genes_are_reconstructed_in_squares() -> None:
    heads = AuxiliaryHeads(2, genes=3)
    assert heads.batch is None and float(heads.batch_loss(torch.ones(2, 2), torch.zeros(2))) == 0
    with torch.no_grad():
        heads.genes.weight.zero_()
        heads.genes.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    found = heads.gene_loss(torch.ones(2, 2), torch.zeros(2, 3))
    assert float(found.detach()) == pytest.approx((1 + 0 + 9) / 3)


def test_heads_that_nobody_asked_for_cost_nothing() -> None:
    heads = AuxiliaryHeads(4)
    z = torch.randn(3, 4, requires_grad=True)
    for loss in (heads.gene_loss(z, torch.zeros(3, 0)), heads.batch_loss(z, torch.zeros(3))):
        loss.backward()
        assert float(loss.detach()) == 0 and float(z.grad.abs().sum()) == 0
    assert not list(heads.parameters())


def test_the_adversary_guesses_the_sample_in_logits_of_each() -> None:
    torch.manual_seed(3)
    heads, z, slide = AuxiliaryHeads(4, batches=3), torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    assert heads.genes is None
    guess = heads.batch(z / z.norm(dim=1, keepdim=True)).detach()
    assert guess.shape == (5, 3)
    expected = -np.mean([float(torch.log_softmax(row, 0)[i]) for row, i in zip(guess, slide, strict=True)])
    assert float(heads.batch_loss(z, slide)) == pytest.approx(expected, rel=1e-5)
