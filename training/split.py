"""Which samples are learned from, which stop the training, and which are never read. Whole patients at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stamp_deploy.errors import DataError, UsageError

from .cohort import Cohort, Sample
from .config import TrainConfig


@dataclass(frozen=True)
class Split:
    """Samples by use. `note` says what a reader of the numbers must know about the split."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    note: str = ""


def split_cohort(cohort: Cohort, config: TrainConfig) -> Split:
    """Apply `samples`, `held_out`, `validation` and `val_fraction`.

    Raises
    ------
    UsageError
        A sample in two places.
    DataError
        A sample that does not exist, or nothing is left to learn from.
    """
    for name in (*config.samples, *config.held_out, *config.validation):
        cohort[name]  # raises where there is none
    for first, second in (("samples", "held_out"), ("held_out", "validation"), ("samples", "validation")):
        both = sorted(set(getattr(config, first)) & set(getattr(config, second)))
        if both:
            raise UsageError(f"the sample {both[0]} is in {first} and in {second}", remedy="name it once")
    left = [s for s in cohort if s.id not in config.held_out]
    if config.samples:
        wanted = {*config.samples, *config.validation}
        left = [s for s in left if s.id in wanted]
    if config.validation:
        validation = [s for s in left if s.id in config.validation]
    else:
        drawn = _draw(left, config.val_fraction, config.seed)
        validation = [s for s in left if s.patient in drawn]
    train = [s for s in left if s not in validation]
    if not train:
        raise DataError("no sample is left to learn from", path=cohort.path, remedy="hold fewer samples out")
    return Split(tuple(train), tuple(validation), _note(train, validation, [cohort[n] for n in config.held_out]))


def _draw(samples: Sequence[Sample], fraction: float, seed: int) -> set[str]:
    """Patients for validation; none where only one is left."""
    patients = sorted({s.patient for s in samples})
    if fraction <= 0 or len(patients) < 2:
        return set()
    count = min(len(patients) - 1, max(1, round(fraction * len(patients))))
    return set(np.random.default_rng([seed, 5]).permutation(patients)[:count].tolist())


def _note(train: Sequence[Sample], validation: Sequence[Sample], held_out: Sequence[Sample]) -> str:
    patients = {s.patient for s in train}
    notes = []
    if not validation:
        notes.append("no validation: every epoch is run")
    elif any(s.patient in patients for s in validation):
        notes.append("validation sections share a patient with training")
    if any(s.patient in patients for s in held_out):
        notes.append("held-out sections share a patient with training")
    return "; ".join(notes)
