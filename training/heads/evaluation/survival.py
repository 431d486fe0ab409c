"""A risk score on another cohort: concordance, risk groups, Cox models with covariates, Brier score over time.

Cox models and Kaplan-Meier curves are lifelines', Uno's C and the integrated Brier score scikit-survival's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Floats

REMEDY = 'pip install "stamp-deploy[survival]"'
TIMES = 50
"""Times at which the Brier score is taken."""


@dataclass(frozen=True, eq=False)
class Followed:
    """Risks [N] with what happened: time [N] and event [N]."""

    risk: Floats
    time: Floats
    event: NDArray[np.bool_]


def missing_libraries() -> list[str]:
    """What the survival part cannot compute here, and how to have it."""
    wanted = {"lifelines": "risk groups and Cox models", "sksurv": "Uno's C and the Brier score"}
    return [f"{what}: not installed ({REMEDY})" for name, what in wanted.items() if find_spec(name) is None]


def risk_groups(new: Followed, cut: float) -> dict[str, Any] | None:
    """Kaplan-Meier curves of the slides below and from the locked cut, and the log-rank test, as JSON values."""
    if find_spec("lifelines") is None:
        return None
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test

    high = new.risk >= cut
    groups = {}
    for name, rows in (("low", ~high), ("high", high)):
        if not rows.any():
            groups[name] = {"slides": 0, "events": 0, "time": [], "survival": [], "median": None}
            continue
        fitter = KaplanMeierFitter().fit(new.time[rows], new.event[rows])
        curve, median = fitter.survival_function_, float(fitter.median_survival_time_)
        groups[name] = {
            "slides": int(rows.sum()),
            "events": int(new.event[rows].sum()),
            "time": [float(t) for t in curve.index],
            "survival": [float(s) for s in curve.iloc[:, 0]],
            "median": median if np.isfinite(median) else None,
        }
    p = None
    if high.any() and not high.all():
        p = float(logrank_test(new.time[high], new.time[~high], new.event[high], new.event[~high]).p_value)
    return {"cut": cut, "groups": groups, "logrank_p": p}


def cox(new: Followed, covariates: dict[str, Floats]) -> dict[str, Any] | None:
    """Hazard ratio of the risk per standard deviation, alone and beside covariates, as JSON values.

    `added_p` is the likelihood-ratio test of the model with risk and covariates against covariates alone.
    """
    if find_spec("lifelines") is None:
        return None
    alone = _cox_fit({"risk": new.risk}, new)
    if not covariates:
        return {"alone": alone and alone["table"], "adjusted": None, "added_p": None}
    both, without = _cox_fit({"risk": new.risk, **covariates}, new), _cox_fit(covariates, new)
    added = None
    if both is not None and without is not None:
        from scipy.stats import chi2

        added = float(chi2.sf(2 * (both["likelihood"] - without["likelihood"]), 1))
    return {"alone": alone and alone["table"], "adjusted": both and both["table"], "added_p": added}


def _cox_fit(columns: dict[str, Floats], new: Followed) -> dict[str, Any] | None:
    """Coefficients per standard deviation; None where the fit does not converge."""
    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    scaled = {name: (x - x.mean()) / (x.std() or 1.0) for name, x in columns.items()}
    frame = pd.DataFrame({**scaled, "time": np.maximum(new.time, 1e-9), "event": new.event.astype(int)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = CoxPHFitter().fit(frame, "time", "event")
        except (ConvergenceError, ValueError):
            return None
    rows = {
        name: {
            "hazard_ratio": float(row["exp(coef)"]),
            "low": float(row["exp(coef) lower 95%"]),
            "high": float(row["exp(coef) upper 95%"]),
            "p": float(row["p"]),
        }
        for name, row in fit.summary.iterrows()
    }
    return {"table": rows, "likelihood": float(fit.log_likelihood_)}


def over_time(training: Followed, new: Followed) -> dict[str, Any] | None:
    """Uno's C, and the integrated Brier score of survival curves that the training side fixed, as JSON values.

    The curves are of a Cox model of the risk alone, fitted to the held-out predictions of the training slides; the new
    cohort fits nothing. `brier_without` is that of the training side's Kaplan-Meier curve, which knows no risk.
    """
    if find_spec("sksurv") is None or find_spec("lifelines") is None:
        return None
    import pandas as pd
    from lifelines import CoxPHFitter, KaplanMeierFitter
    from sksurv.metrics import concordance_index_ipcw, integrated_brier_score
    from sksurv.util import Surv

    known, seen = (Surv.from_arrays(f.event, np.maximum(f.time, 1e-9)) for f in (training, new))
    # censoring weights are the training side's: they exist up to its last time, and are above 0 before it
    inside = new.time < training.time.max()
    events = new.time[inside & new.event]
    first = float(new.time[inside].min(initial=np.inf))
    last = float(events.max(initial=-np.inf))
    if not first < last:
        return None
    times = np.linspace(first, last, TIMES + 2)[1:-1]
    columns = {"risk": training.risk, "time": np.maximum(training.time, 1e-9), "event": training.event.astype(int)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CoxPHFitter(penalizer=1e-4).fit(pd.DataFrame(columns), "time", "event")
    curves = model.predict_survival_function(pd.DataFrame({"risk": new.risk}), times=times).to_numpy().T
    flat = KaplanMeierFitter().fit(training.time, training.event).survival_function_at_times(times).to_numpy()
    try:
        uno = float(concordance_index_ipcw(known, seen[inside], new.risk[inside], tau=last)[0])
        score = float(integrated_brier_score(known, seen[inside], curves[inside], times))
        without = float(integrated_brier_score(known, seen[inside], np.tile(flat, (int(inside.sum()), 1)), times))
    except ValueError:
        return None
    return {"uno_c": uno, "integrated_brier": score, "brier_without": without, "from": first, "to": float(last)}
