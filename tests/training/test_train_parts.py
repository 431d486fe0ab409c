"""The pieces of training: losses by hand, batches, augmentation, targets, checkpoints, ridge heads."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")

from stamp_deploy.errors import UsageError
from stamp_deploy.training.augment import (
    crop_centre,
    crop_shifted,
    jitter_stain,
    stain_statistics,
    to_unit,
    turn,
    turn_each,
)
from stamp_deploy.training.cohort.config import CohortConfig
from stamp_deploy.training.cohort.config import load_config as load_cohort_config
from stamp_deploy.training.cohort.readers.keys import KEYS_OF_FORMAT
from stamp_deploy.training.config import TrainConfig, load_config
from stamp_deploy.training.epoch_plan import plan_epoch
from stamp_deploy.training.heads.config import HeadConfig
from stamp_deploy.training.model.checkpoint import Checkpoint, read_tensors, write_tensors
from stamp_deploy.training.schedule import rate_factor
from stamp_deploy.training.schemas import schemas
from stamp_deploy.training.targets import keep_components, smooth
from stamp_deploy.training.verbs_train import parse_settings
from stamp_deploy.training.warm_up import vicreg


def test_vicreg_rewards_spread_and_agreement() -> None:
    torch.manual_seed(0)
    spread = torch.randn(256, 8)
    assert vicreg(spread, spread) < 0.2
    assert vicreg(torch.zeros(256, 8), torch.zeros(256, 8)) > 1.9  # collapsed: the variance term
    same = spread[:, :1].repeat(1, 8)
    assert vicreg(same, same) > vicreg(spread, spread) + 0.1  # correlated dimensions
    assert vicreg(spread, torch.randn(256, 8)) > vicreg(spread, spread) + 1


@pytest.mark.parametrize("sizes", [[100], [5, 130, 48], [200, 190, 180, 10]])
def test_an_epoch_sees_every_spot_once(sizes: list[int]) -> None:
    batches = plan_epoch(sizes, 2, 48, np.random.default_rng(0))
    seen = [np.concatenate([r for b in batches for s, r in b if s == i]) for i in range(len(sizes))]
    for size, rows in zip(sizes, seen, strict=True):
        assert sorted(rows) == list(range(size))
    assert all(len(b) <= 2 and len({s for s, _ in b}) == len(b) for b in batches)
    assert all(len(r) >= min(8, min(sizes)) for b in batches for _, r in b)


def test_every_section_comes_up_in_the_first_fifth_of_an_epoch() -> None:
    """1,000 sections of 50 to 4,000 spots, 8 a batch."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 4000, 1000).tolist()
    batches = plan_epoch(sizes, 8, 48, rng)
    early = {i for batch in batches[: len(batches) // 5] for i, _ in batch}
    assert early == set(range(1000))
    thirds = [sum(len(r) for b in part for _, r in b) for part in np.array_split(np.array(batches, object), 3)]
    assert min(thirds) > 0.9 * max(thirds)
    assert sum(thirds) == sum(sizes) and len(batches) == pytest.approx(sum(-(-s // 48) for s in sizes) / 8, rel=0.03)


def test_groups_are_balanced_at_the_cost_of_the_large_one() -> None:
    sizes = [960] * 10 + [960] * 2
    groups = ["big"] * 10 + ["small"] * 2
    batches = plan_epoch(sizes, 4, 48, np.random.default_rng(0), groups)
    count = {g: sum(groups[i] == g for b in batches for i, _ in b) for g in ("big", "small")}
    assert abs(count["big"] - count["small"]) <= 12 and sum(count.values()) == pytest.approx(240, abs=12)
    assert {i for b in batches for i, _ in b} == set(range(12))
    assert all(len({i for i, _ in b}) == len(b) <= 4 for b in batches)
    small = np.concatenate([r for b in batches for i, r in b if i == 10])
    assert set(small.tolist()) == set(range(960)) and len(small) > 2 * 960


def test_smoothing_is_half_the_spot_and_half_its_neighbourhood() -> None:
    xy = np.array([[0, 0], [100, 0], [5000, 0]], float)
    values = np.array([[1.0], [0.0], [7.0]])
    out = smooth(values, xy, 150.0)
    weight = np.exp(-0.5 * (100 / 75) ** 2)
    assert out[0, 0] == pytest.approx(0.5 + 0.5 / (1 + weight))
    assert out[1, 0] == pytest.approx(0.5 * weight / (1 + weight))
    assert out[2, 0] == pytest.approx(7.0)
    assert np.allclose(smooth(np.ones((3, 1)), xy, 150.0), 1)


def test_components_keep_what_varies_together() -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 12))
    noisy = (factors + 0.5 * rng.normal(size=factors.shape)).astype(np.float32)
    kept = np.concatenate(keep_components([noisy[:90], noisy[90:]], 2))
    assert ((kept - factors) ** 2).mean() < 0.5 * ((noisy - factors) ** 2).mean()
    assert np.linalg.matrix_rank(kept - kept.mean(0), tol=1e-3) == 2


def test_crops_and_turns() -> None:
    tiles = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)
    assert np.array_equal(crop_centre(tiles, 4), tiles[:, 1:5, 1:5])
    with pytest.raises(UsageError, match="6 px and the model wants 8"):
        crop_centre(tiles, 8)
    moved = crop_shifted(tiles, np.array([1, 0]), 4, 99, np.random.default_rng(0))
    places = [tiles[i, y : y + 4, x : x + 4] for i in (1, 0) for y in range(3) for x in range(3)]
    assert all(any(np.array_equal(m, p) for p in places) for m in moved)
    assert np.array_equal(crop_shifted(tiles, np.array([0]), 4, 0, np.random.default_rng(0))[0], tiles[0, 1:5, 1:5])
    x = to_unit(tiles)
    assert x.shape == (2, 3, 6, 6) and float(x.max()) <= 1
    assert len({tuple(turn(x, k).flatten().tolist()) for k in range(8)}) == 8
    each = turn_each(x, np.random.default_rng(3))
    assert all(any(torch.equal(each[i], turn(x[i : i + 1], k)[0]) for k in range(8)) for i in range(2))


def test_stain_jitter_is_small_and_repeatable() -> None:
    x = torch.rand(4, 3, 16, 16) * 0.8 + 0.1
    assert torch.allclose(jitter_stain(x, 0.0, np.random.default_rng(0)), x, atol=1e-5)
    a, b = (jitter_stain(x, 0.03, np.random.default_rng(0)) for _ in range(2))
    assert torch.equal(a, b) and 0 < float((a - x).abs().mean()) < 0.05


def test_statistics_do_not_depend_on_the_turn() -> None:
    x = torch.rand(3, 3, 32, 32)
    for k in (1, 2, 3):
        means = stain_statistics(x)[:, :12], stain_statistics(turn(x, k))[:, :12]
        assert torch.allclose(*means, atol=1e-5)
    assert stain_statistics(x).shape == (3, 58) and torch.isfinite(stain_statistics(x)).all()


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_factor(s, 100, 0.05) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 1.0 and rates.index(1.0) in (4, 5)
    assert rates[-1] < 0.001 and all(a >= b for a, b in pairwise(rates[5:]))
    assert rate_factor(0, 1, 0.05) == 1.0


def test_a_checkpoint_puts_everything_back(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        net[0].bias.requires_grad_(False)
        return net, torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 0.1)

    def go(net: torch.nn.Module, optimiser: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            net(torch.ones(8, 3)).square().sum().backward()
            optimiser.step()

    whole = make()
    go(*whole, 6)
    first = make()
    go(*first, 3)
    store = Checkpoint(tmp_path, "key", 0.0)
    store.save("training", *first, {"step": 3})
    tensors, _ = read_tensors(tmp_path / "training.safetensors")
    assert "model/0.bias" not in tensors and "optimiser/0/exp_avg_sq" in tensors
    second = make()
    torch.manual_seed(99)
    assert store.load("training", *second) == {"step": 3}
    go(*second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True))
    assert store.load("nothing", *second) is None
    with pytest.raises(UsageError, match="other settings"):
        Checkpoint(tmp_path, "another", 0.0).load("training", *second)
    assert not Checkpoint(tmp_path, "key", 60.0).save_if_due("training", *second, {})
    reader = Checkpoint(tmp_path / "reader", "key", 0.0, enabled=False)
    reader.save("training", *second, {})
    assert not (tmp_path / "reader").exists()


def test_a_checkpoint_holds_what_a_layer_has_counted(tmp_path: Path) -> None:
    """Running means are no parameters: without them a run that goes on normalises by others."""
    first, second = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    first(torch.randn(16, 3) * 2 + 5)
    store = Checkpoint(tmp_path, "key", 0.0)
    store.save("best", first, torch.optim.SGD(first.parameters(), lr=0.0), {})
    store.load("best", second, torch.optim.SGD(second.parameters(), lr=0.0))
    assert torch.equal(first.running_mean, second.running_mean) and float(second.running_mean.abs().min()) > 0.1
    assert int(second.num_batches_tracked) == 1


def test_tensors_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {"note": "one"})
    write_tensors(path, {"a": torch.zeros(2)})
    assert torch.equal(read_tensors(path)[0]["a"], torch.zeros(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_settings_are_checked() -> None:
    for values, message in (
        ({"epoch": 3}, "unknown setting epoch"),
        ({"epochs": "3"}, "not a int"),
        ({"adapt": "all"}, "does not exist"),
        ({"lr": -1.0}, "must not be negative"),
        ({"batch_spots": 0}, "1 or more"),
        ({"epoch": 3}, "did you mean epochs"),
        ({"Lora_R": 3}, "did you mean lora_r"),
        ({"zzz": 3}, "settings: cohort, gmt"),
        ({"precision": "bf-16"}, "did you mean bf16"),
        ({"flips": 1}, "not a bool"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"samples": [1]}, "samples holds 1"),
    ):
        with pytest.raises(UsageError, match=message):
            TrainConfig.from_dict(values)
    assert TrainConfig.from_dict({"lr": 1, "samples": "a"}).samples == ("a",)
    assert parse_settings(("lr=1e-3", "adapt=full", 'samples=["a","b"]')) == {
        "lr": 1e-3, "adapt": "full", "samples": ["a", "b"],
    }  # fmt: skip
    with pytest.raises(UsageError, match="lacks a value"):
        parse_settings(("lr",))


def test_files_of_settings_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("lr = [")
    (tmp_path / "latin.toml").write_bytes("gmt = 'M\xfcnchen'".encode("latin-1"))
    for load in (load_config, load_cohort_config):
        for name, cause in (("gone.toml", "does not exist"), ("", "is a folder"), ("broken.toml", "TOML"),
                            ("latin.toml", "not UTF-8")):  # fmt: skip
            with pytest.raises(UsageError, match=cause) as caught:
                load(tmp_path / name)
            assert caught.value.remedy


def test_every_setting_has_its_reason() -> None:
    for model in (TrainConfig, CohortConfig, HeadConfig, *KEYS_OF_FORMAT.values()):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
    shown = TrainConfig().to_toml(reasons=True)
    assert "adapters and backbone" in shown and TrainConfig.checked(tomllib.loads(shown)) == TrainConfig()


@pytest.mark.parametrize(
    ("values", "cause", "remedy"),
    [
        ({"fold": 3}, "unknown setting fold", "did you mean folds?"),
        ({"folds": 1}, "folds = 1 must be 2 or more", ""),
        ({"max_error": 1.5}, "max_error = 1.5 is not possible: it must be less than or equal to 1", ""),
        ({"lr": "fast"}, "lr = 'fast' is of the wrong type: not a float", "such as 0.0002"),
    ],
)
def test_a_heads_settings_are_checked(values: dict, cause: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        HeadConfig.checked(values)
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)


def test_the_published_schemas_are_those_of_the_code() -> None:
    folder = Path(__file__).parents[2] / "docs" / "schema"
    for name, schema in schemas().items():
        published = json.loads((folder / name).read_text(encoding="utf-8"))
        assert published == json.loads(json.dumps(schema)), "python -m stamp_deploy.training.schemas docs/schema"
    properties = schemas()["train.schema.json"]["properties"]
    assert properties["lr"]["description"] == "adapters and backbone" and properties["lora_r"]["minimum"] == 1
    infer = schemas()["infer.schema.json"]["properties"]
    assert all(option["description"] for option in infer.values()) and infer["batch"]["maximum"] == 4096
    kinds = schemas()["cohort.schema.json"]["properties"]["samples"]["items"]["oneOf"]
    assert {k["properties"]["format"]["const"] for k in kinds} == set(KEYS_OF_FORMAT)


def test_paths_are_relative_to_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "cohort").mkdir(parents=True)
    path = tmp_path / "configs" / "run.toml"
    path.write_text('cohort = "cohort"\ngmt = "sets.gmt"\nweights = "/somewhere/w.safetensors"\n')
    (tmp_path / "sets.gmt").touch()
    monkeypatch.chdir(tmp_path)
    found = load_config(path)
    assert found.cohort == str(tmp_path / "configs" / "cohort") and found.weights == "/somewhere/w.safetensors"
    assert found.gmt == "sets.gmt"  # an older run states it from the working folder, and there alone it is
    monkeypatch.chdir("/")
    assert load_config(path).gmt == str(tmp_path / "configs" / "sets.gmt")


def test_the_command_of_a_missing_row_reuses_the_warm_up() -> None:
    from stamp_deploy.training.evaluate.rows import KINDS, command_for

    plain = command_for(KINDS["shuffled"], "runs/a", TrainConfig())
    assert plain == "stamp-deploy train runs/a/config.toml --ablations --rows shuffled -o ABLATIONS"
    warmed = command_for(KINDS["shuffled"], "runs/a", TrainConfig.from_dict({"warm_up": "vicreg"}))
    assert warmed == plain + " --set warm_up=none --set weights=runs/a/backbone.safetensors"
