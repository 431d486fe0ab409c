"""Which samples train, which stop the training, and which are never read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra [train]")

from support.cohort_factory import make_cohort

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.cohort import Cohort, load_cohort
from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.split import Split, split_cohort

SECTIONS = {f"{patient}{i}": patient for patient in "abcdefgh" for i in (1, 2)}


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    """Eight patients with two sections each."""
    with tempfile.TemporaryDirectory() as folder:
        yield load_cohort(make_cohort(Path(folder), SECTIONS, spots=8))


def ids(split: Split) -> tuple[set[str], set[str]]:
    """Names of the samples that train, and of those that stop the training."""
    return {s.id for s in split.train}, {s.id for s in split.validation}


def test_validation_draws_whole_patients_by_their_share(cohort: Cohort) -> None:
    drawn = set()
    for seed in range(6):
        split = split_cohort(cohort, TrainConfig(val_fraction=0.25, seed=seed, held_out=("h1", "h2")))
        patients = {s.patient for s in split.validation}
        assert len(patients) == 2 and len(split.validation) == 4  # a quarter of 7 patients, both their sections
        assert not patients & {s.patient for s in split.train} and len(split.train) == 10
        assert "h" not in patients
        drawn.add(frozenset(patients))
    assert len(drawn) > 1
    assert not split_cohort(cohort, TrainConfig(val_fraction=0.0)).validation
    assert len({s.patient for s in split_cohort(cohort, TrainConfig(val_fraction=0.01)).validation}) == 1


def test_a_draw_is_the_same_for_a_seed_and_leaves_one_patient_to_learn_from(cohort: Cohort) -> None:
    config = TrainConfig(val_fraction=0.5, seed=3)
    assert ids(split_cohort(cohort, config)) == ids(split_cohort(cohort, config))
    assert len(split_cohort(cohort, config).validation) == 8
    most = split_cohort(cohort, TrainConfig(val_fraction=1.0))
    assert len({s.patient for s in most.train}) == 1 and len({s.patient for s in most.validation}) == 7


def test_named_validation_takes_the_place_of_the_draw(cohort: Cohort) -> None:
    split = split_cohort(cohort, TrainConfig(val_fraction=0.9, validation=("a1", "b2")))
    assert ids(split) == (set(SECTIONS) - {"a1", "b2"}, {"a1", "b2"})
    assert split.note == "validation sections share a patient with training"
    whole = split_cohort(cohort, TrainConfig(validation=("a1", "a2")))
    assert ids(whole)[1] == {"a1", "a2"} and whole.note == ""


def test_only_the_named_samples_train(cohort: Cohort) -> None:
    split = split_cohort(cohort, TrainConfig(samples=("a1", "c1"), validation=("b1",), held_out=("d1",)))
    assert ids(split) == ({"a1", "c1"}, {"b1"})
    drawn = split_cohort(cohort, TrainConfig(samples=("a1", "c1"), val_fraction=0.5))
    assert set.union(*ids(drawn)) == {"a1", "c1"} and all(ids(drawn))


def test_held_out_samples_are_in_neither(cohort: Cohort) -> None:
    split = split_cohort(cohort, TrainConfig(val_fraction=0.0, held_out=("a1",)))
    assert ids(split) == (set(SECTIONS) - {"a1"}, set())
    assert split.note == ("no validation: every epoch is run; held-out sections share a patient with training")
    apart = split_cohort(cohort, TrainConfig(val_fraction=0.0, held_out=("a1", "a2")))
    assert apart.note == "no validation: every epoch is run"


def test_one_patient_has_nobody_to_stop_on(cohort: Cohort) -> None:
    split = split_cohort(cohort, TrainConfig(samples=("a1", "a2"), val_fraction=0.5))
    assert ids(split) == ({"a1", "a2"}, set())
    two = split_cohort(cohort, TrainConfig(samples=("a1", "b1"), val_fraction=0.1))
    assert [len(part) for part in ids(two)] == [1, 1]


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"samples": ("a1",), "held_out": ("a1",)}, "a1 is in samples and in held_out"),
        ({"validation": ("b1",), "held_out": ("c1", "b1")}, "b1 is in held_out and in validation"),
        ({"samples": ("a1", "b1"), "validation": ("b1",)}, "b1 is in samples and in validation"),
    ],
)
def test_one_sample_has_one_use(cohort: Cohort, config: dict[str, tuple[str, ...]], cause: str) -> None:
    with pytest.raises(UsageError, match=cause) as refused:
        split_cohort(cohort, TrainConfig(**config))  # type: ignore[arg-type]
    assert refused.value.remedy == "name it once"


@pytest.mark.parametrize("use", ["samples", "held_out", "validation"])
def test_a_sample_that_does_not_exist_is_named(cohort: Cohort, use: str) -> None:
    with pytest.raises(DataError, match="there is no sample zz"):
        split_cohort(cohort, TrainConfig(**{use: ("zz",)}))  # type: ignore[arg-type]


def test_with_all_held_out_nothing_is_left(cohort: Cohort) -> None:
    with pytest.raises(DataError, match="no sample is left to learn from") as refused:
        split_cohort(cohort, TrainConfig(held_out=tuple(SECTIONS)))
    assert refused.value.path == cohort.path
