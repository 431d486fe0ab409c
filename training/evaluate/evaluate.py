"""`stamp-deploy evaluate`: a run beside its baselines and controls, on sections that it never saw.

Every row is scored by the same rule: Pearson r of each pathway within a section, the median over pathways, the mean
over sections; targets unsmoothed. Baselines are fitted on the run's own training sections and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stamp_deploy import __version__
from stamp_deploy.errors import StampError
from stamp_deploy.hashing import sha256_file
from stamp_deploy.system.memory import keep_memory

from ..cohort import Cohort, Sample
from ..metrics import SectionResult, headline, json_number
from ..sections import platform_statistics
from ..stain_features import features29
from ..torch_threads import set_torch_threads
from ..validation import mean_cosine
from .batch_effects import batch_effects
from .inputs import EvaluateOptions, gene_sets_of, runs_of, test_samples_of, training_cohort_of
from .pathway_facts import pathway_facts
from .retrieval import retrieval
from .rows import Row
from .runs import Progress, Run, Section, check_fits, open_run, score_sections, training_samples
from .single_genes import Fold, gene_targets, hest_r, patient_folds
from .table import Features, Table, add_baselines, add_frozen_head, add_missing, add_run
from .verdict import judge

SCHEMA = "stamp-deploy/evaluation/1"


@dataclass(eq=False)
class Evaluation:
    """All results.

    Attributes
    ----------
    rows : list of Row
    sections : dict of list of SectionResult
        Row key and how ("lora/head") -> truth and prediction per section, for pictures.
    names : tuple of str
        Pathways.
    document : dict
        evaluation.json.
    """

    rows: list[Row]
    sections: dict[str, list[SectionResult]]
    names: tuple[str, ...]
    tests: list[Section]
    document: dict[str, Any] = field(default_factory=dict)


def evaluate(options: EvaluateOptions, progress: Progress | None = None) -> Evaluation:
    """Compute the table.

    Raises
    ------
    UsageError
        The run is no run, or names no gene sets.
    DataError
        There is nothing to test on, or the cohort does not fit the model.
    """
    keep_memory()
    set_torch_threads()
    run = open_run(options.run, options.device, progress, options.cache)
    sets = gene_sets_of(run, options)
    train_cohort = training_cohort_of(run, options)
    train_samples = training_samples(train_cohort, run.config) if train_cohort is not None else []
    tests, test_cohort = test_samples_of(run, options, train_cohort, train_samples)
    check_fits(run, test_cohort)
    if train_cohort is not None:
        check_fits(run, train_cohort)
    method = run.info.score_method
    statistics = platform_statistics(train_samples) if method == "zmean" and train_samples else None
    seen = [s.patient for s in train_samples]
    test = score_sections(tests, sets, method, run.config.depth, statistics=statistics, seen_patients=seen)
    train = score_sections(train_samples, sets, method, run.config.depth, statistics=statistics)
    table = Table(sets.names, train, test, options.seed)
    add_baselines(table, run, train_cohort is not None)
    runs = runs_of(run, options, progress)
    for name, kind, other in runs:
        add_run(table, name, kind, other, sets)
    add_frozen_head(table, run, sets)
    add_missing(table, run)
    verdict = judge(table.sections, runs[0][1].key, options.seed)
    evaluation = Evaluation(table.rows, table.sections, sets.names, test)
    evaluation.document = {
        "schema": SCHEMA,
        "software": f"stamp-deploy {__version__}",
        "run": {
            "pfm": run.info.pfm_id,
            "adapt": run.info.adapt,
            "row": runs[0][1].key,
            "sha256": sha256_file(options.run / "run.json"),
        },
        "gene_sets": {"sets": len(sets), "sha256": sets.sha256, "method": method, "depth": run.config.depth},
        "trained_on": {"sections": [s.id for s in train_samples], "patients": len(set(seen))},
        "tested_on": [
            {"id": s.sample.id, "spots": s.sample.n_spots, "patient_seen_in_training": s.seen_patient} for s in test
        ],
        "rows": [row.to_dict() for row in table.rows],
        "verdict": verdict.to_dict() if verdict is not None else None,
        "validation": pathway_facts(run, test, table.sections, sets.names, seed=options.seed),
        "guard": _guard(run, test),
        "batch_effects": batch_effects(run, [*train, *test]),
        "retrieval": {name or kind.key: found for name, kind, other in runs if (found := retrieval(other, test))},
        "tier1": _tier1(run, train_samples, tests) if options.tier1 else None,
        "warnings": _warnings(table, train_cohort),
    }
    return evaluation


def _guard(run: Run, test: Sequence[Section]) -> dict[str, Any] | None:
    """Mean cosine between adapted and frozen embedding: below .8 the adapter has bent the model far."""
    if run.info.adapt == "frozen" or not run.has_frozen:
        return None
    mean = mean_cosine([run.embedding(s.sample) for s in test], [run.frozen(s.sample) for s in test])
    return {"mean_cosine": round(mean, 4), "limit": 0.8, "ok": bool(mean >= 0.8)}


def _tier1(run: Run, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, Any] | None:
    """Single genes: test patients from other test patients where there are several, else from the training sections."""
    several = len({s.patient for s in test}) > 1
    if several:
        samples, folds = list(test), patient_folds(test)
        split = "patients of the tested cohort, each held out in turn"
    elif train:
        samples = [*train, *test]
        n = len(train)
        folds = [Fold(s.id, tuple(range(n)), (n + i,)) for i, s in enumerate(test)]
        split = "fitted on the training sections, tested on the held-out ones"
    else:
        return None
    try:
        targets = gene_targets(samples)
    except (StampError, ValueError):
        return None
    if not targets.genes:
        return None
    features: Mapping[str, Features] = {
        "features_29": lambda s: features29(s.tiles(), run.info.mpp),
        "adapted": run.embedding,
    }
    if run.info.adapt != "frozen" and run.has_frozen:
        features = {**features, "frozen": run.frozen}
    result: dict[str, Any] = {"split": split, "genes": list(targets.genes), "mean_r": {}, "per_fold": {}}
    for name, make in features.items():
        r = hest_r([make(s) for s in samples], targets, folds)
        known = [v for v in r.values() if np.isfinite(v)]
        result["mean_r"][name] = round(float(np.mean(known)), 6) if known else None
        result["per_fold"][name] = {k: json_number(v) for k, v in r.items()}
    return result


SHUFFLED_LIMIT = 0.1
"""A head that learned from permuted targets has r near 0; beyond this the evaluation itself is in doubt."""


def _warnings(table: Table, train_cohort: Cohort | None) -> list[str]:
    out, test = [], table.test
    for key, results in table.sections.items():
        r = headline(results)
        if key.startswith("shuffled") and key.endswith("/head") and abs(r) > SHUFFLED_LIMIT:
            out.append(
                f"the head that learned from shuffled targets has r {r:.2f}, not near 0: some of every row's r comes "
                "from what all pathways share with the picture (cells, depth); trust differences to it, not r itself"
            )
    seen = [s.sample.id for s in test if s.seen_patient]
    if seen:
        out.append(f"{', '.join(seen)}: other sections of the same patient were trained on")
    if train_cohort is None:
        out.append("the training cohort is not here: baselines and probes cannot be computed")
    masked = [f"{s.sample.id}: {int((~s.mask).sum())}" for s in test if not s.mask.all()]
    if masked:
        out.append("gene sets left out, too few of their genes are measured (" + ", ".join(masked) + ")")
    return out


__all__ = ["EvaluateOptions", "Evaluation", "evaluate"]
