r"""How good a model of risk is: discrimination, calibration, accuracy, use, each with an interval.

* **C-index** (Harrell et al. 1982, doi:10.1001/jama.1982.03320430047030): of all pairs in which it
  is known who had the event first, the share in which that patient had the higher risk; equal risks
  count half. Without times it is the area under the receiver operating characteristic.
* **Calibration slope and intercept** (Cox 1958): logit of the outcome on the logit of the
  prediction. A slope below 1 is a model whose predictions are too extreme. *In the large* is the
  intercept where the slope is held at 1: above 0 the model predicts too little.
* **Brier score**: mean squared error of the probability; *skill* is what it gains over predicting
  the prevalence for everyone.
* **Decision curve** (Vickers and Elkin 2006, doi:10.1177/0272989X06295361): net benefit of
  treating those above a threshold p, :math:`TP/n - FP/n \cdot p/(1-p)`, beside treating all (and
  none, which is 0).

Where patients are lost before the horizon, all but the C-index weigh those who are known with the
inverse of the probability to be still observed (Graf et al. 1999,
doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5).

Intervals are percentiles over resampled patients. All measures are computed for many resamples at
once: column k of the weights says how often each patient was drawn in sample k.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError
from twinheart.planning.risk.patient_table import PatientTable

THRESHOLDS = tuple(k / 100 for k in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50))
_LEVEL = 0.95
_CELLS = 2_000_000  # numbers of one temporary array: bounds the memory
# Newton's method: ten steps are usual
_STEPS, _LONGEST, _CONVERGED = 60, 3.0, 1e-10

Weights = Float[np.ndarray, "patient sample"]
Measure = Float[np.ndarray, "sample"]


class Interval(NamedTuple):
    """An estimate with its 95 % interval; NaN where it is not defined.

    Attributes
    ----------
    value, low, high : float
        Estimate from all patients, and percentiles 2.5 and 97.5 over the resamples.
    """

    value: float
    low: float
    high: float


class DecisionCurve(NamedTuple):
    """Net benefit by threshold.

    Attributes
    ----------
    threshold : (threshold,) array
        Probabilities from which one treats.
    model, treat_all : tuple of Interval
        Net benefit of treating by the model, and of treating all; treating none has 0.
    """

    threshold: Float[np.ndarray, "threshold"]
    model: tuple[Interval, ...]
    treat_all: tuple[Interval, ...]


class Evaluation(NamedTuple):
    """What `evaluate` finds.

    Attributes
    ----------
    n_patients, n_events, n_unknown : int
        Patients, those with an event (by the horizon), those lost before the horizon.
    c_index, slope, intercept, in_the_large, brier, skill : Interval
        See the module.
    decision_curve : DecisionCurve
        See the module.
    n_resamples : int
        Resamples behind the intervals; those with events in all or in none are left out.
    """

    n_patients: int
    n_events: int
    n_unknown: int
    c_index: Interval
    slope: Interval
    intercept: Interval
    in_the_large: Interval
    brier: Interval
    skill: Interval
    decision_curve: DecisionCurve
    n_resamples: int


def evaluate(
    table: PatientTable,
    *,
    horizon: float | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Judge predicted probabilities against what happened.

    Parameters
    ----------
    table : PatientTable
        Predictions and outcomes.
    horizon : float, optional
        The time the probabilities refer to, in the unit of the table's times. Without it outcomes
        count as they stand, whenever they came.
    thresholds : sequence of float
        Of the decision curve, between 0 and 1.
    resamples : int
        Number of bootstrap samples.
    seed : int
        Same seed, same intervals.

    Returns
    -------
    Evaluation
        Measures with intervals.

    Raises
    ------
    InputError
        If a horizon is given without times or beyond them, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import PatientTable, evaluate
    >>> table = PatientTable(np.array([0.1, 0.4, 0.3, 0.8]), np.array([False, False, True, True]))
    >>> evaluate(table, resamples=50).c_index.value
    0.75
    """
    grid = np.asarray(thresholds, dtype=float)
    if not (grid.size and ((grid > 0) & (grid < 1)).all()):
        raise InputError("thresholds of the decision curve are between 0 and 1 (not per cent).")
    if not 1 <= resamples <= 100_000:
        raise InputError(f"{resamples} resamples, expected 1 to 100000.")
    event, known = _state_at(table, horizon)
    n = len(event)
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // n)
    parts = [_measures(table, event, known, np.ones((n, 1)), horizon, grid)]
    for start in range(0, resamples, block):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))
        weights = drawn.T.astype(float)
        share = (weights * (event & known)[:, None]).sum(axis=0)
        both = (share > 0) & ((weights * (~event & known)[:, None]).sum(axis=0) > 0)
        parts.append(_measures(table, event, known, weights[:, both], horizon, grid))
    found = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    curves = [tuple(_interval(row) for row in found.pop(name)) for name in ("model", "treat_all")]
    return Evaluation(
        n_patients=n,
        n_events=int((event & known).sum()),
        n_unknown=int((~known).sum()),
        **{name: _interval(values) for name, values in found.items()},
        decision_curve=DecisionCurve(grid, *curves),
        n_resamples=found["brier"].size - 1,
    )


def _state_at(table: PatientTable, horizon: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each patient has had the event by the horizon, and whether that is known."""
    if horizon is None:
        return table.outcome, np.ones(len(table.outcome), dtype=bool)
    if table.time is None:
        raise InputError("a horizon needs the column 'time'.")
    if not 0 < horizon <= table.time.max():
        raise InputError(
            f"the horizon is {horizon:g}, but the times end at {table.time.max():g}: nobody was "
            "observed until then."
        )
    event = table.outcome & (table.time <= horizon)
    known = event | (table.time >= horizon)
    if not (event.any() and (known & ~event).any()):
        raise InputError(f"all patients, or none, had an event by {horizon:g}: give another.")
    return event, known


def _measures(table, event, known, weights: Weights, horizon, grid) -> dict[str, np.ndarray]:
    p = table.probability
    by_time = _event_times(table)
    out = {"c_index": concordance(p, *by_time, weights)}
    if horizon is not None:
        weights = weights * known[:, None] / observed(table, horizon, weights)
    out["slope"], out["intercept"], out["in_the_large"] = recalibration(p, event, weights)
    total = weights.sum(axis=0)
    prevalence = (weights[event]).sum(axis=0) / total
    out["brier"] = ((p - event) ** 2) @ weights / total
    out["skill"] = 1 - out["brier"] / (prevalence * (1 - prevalence))
    treated = p >= grid[:, None]
    odds = (grid / (1 - grid))[:, None]
    out["model"] = (treated & event) @ weights / total - odds * (
        (treated & ~event) @ weights
    ) / total
    out["treat_all"] = prevalence - odds * (1 - prevalence)
    return out


def _event_times(table: PatientTable) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and times; without times, all events come before all that has none."""
    time = np.where(table.outcome, 0.0, 1.0) if table.time is None else table.time
    return table.outcome, time


def concordance(probability, outcome, time, weights: Weights) -> Measure:
    """Harrell's C of each resample.

    Parameters
    ----------
    probability, outcome, time : (patient,) arrays
        Risk, event, and time of event or of the end of observation. Of two patients with equal
        times one of whom had the event, that one came first; two events at one time do not count.
    weights : (patient, sample) array
        How often each patient is in each resample.

    Returns
    -------
    (sample,) array
        0.5 for a coin, 1 for a perfect order; NaN without a pair to compare.
    """
    right = np.zeros(weights.shape[1])
    pairs = np.zeros(weights.shape[1])
    rows = max(1, _CELLS // len(probability))
    events = np.flatnonzero(outcome)
    # numbers of pairs are whole and far below 2^53: the sums are exact
    for part in (events[i : i + rows] for i in range(0, len(events), rows)):
        later = time > time[part, None]
        later |= (time == time[part, None]) & ~outcome
        higher, p = probability[part, None], probability
        score = np.where(later, (higher > p) + 0.5 * (higher == p), 0.0)
        right += (weights[part] * (score @ weights)).sum(axis=0)
        pairs += (weights[part] * (later.astype(float) @ weights)).sum(axis=0)
    return np.where(pairs > 0, right / np.maximum(pairs, 1.0), np.nan)


def observed(table: PatientTable, horizon: float, weights: Weights) -> Weights:
    """Probability of each patient to be still observed when their state became known.

    Kaplan-Meier estimate of the censoring, just before the event or, for those without one, just
    before the horizon; a patient observed until exactly the horizon is known.

    Parameters
    ----------
    table : PatientTable
        With times.
    horizon : float
        In their unit.
    weights : (patient, sample) array
        How often each patient is in each resample.

    Returns
    -------
    (patient, sample) array
        Positive for patients whose state is known.
    """
    assert table.time is not None
    times, place = np.unique(table.time, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(times)))
    left = np.add.reduceat(weights[order], starts)
    lost = np.add.reduceat((weights * ~table.outcome[:, None])[order], starts)
    # events come before losses of the same time
    at_risk = np.cumsum(left[::-1], axis=0)[::-1] - (left - lost)
    stay = 1 - lost / np.maximum(at_risk, 1.0)
    before = np.cumprod(np.concatenate([np.ones_like(stay[:1]), stay[:-1]]), axis=0)
    when = np.minimum(np.searchsorted(times, horizon), place)
    return np.where((before > 0)[when], before[when], 1.0)


def recalibration(probability, event, weights: Weights) -> tuple[Measure, Measure, Measure]:
    """Slope, intercept, and intercept at slope 1, of logit(event) on logit(probability).

    Parameters
    ----------
    probability : (patient,) array
        Predictions.
    event : (patient,) bool array
        What happened.
    weights : (patient, sample) array
        Weight of each patient in each resample.

    Returns
    -------
    slope, intercept, in_the_large : (sample,) arrays
        NaN where a prediction is exactly 0 or 1, where all are alike, and where the predictions
        part those with and without an event perfectly: the slope has no limit then.
    """
    slope, intercept = np.full((2, weights.shape[1]), np.nan)
    if not ((probability > 0) & (probability < 1)).all():
        return slope, intercept, intercept.copy()
    x = np.log(probability / (1 - probability))
    large, _ = _newton(x, event, weights, slope=False)
    least, most = [], []
    for chosen in (event, ~event):
        present = weights[chosen] > 0
        least.append(np.where(present, x[chosen, None], np.inf).min(axis=0))
        most.append(np.where(present, x[chosen, None], -np.inf).max(axis=0))
    overlap = (most[1] > least[0]) & (most[0] > least[1])
    if overlap.any():
        intercept[overlap], slope[overlap] = _newton(x, event, weights[:, overlap], slope=True)
    return slope, intercept, large


def _newton(x, event, weights: Weights, *, slope: bool) -> tuple[Measure, Measure]:
    """Maximum likelihood of event ~ a + b x by Newton's method; b is 1 unless it is fitted."""
    x, y = x[:, None], event[:, None]
    total = weights.sum(axis=0)
    middle = (weights * x).sum(axis=0) / total
    share = (weights * y).sum(axis=0) / total
    a = np.log(share / (1 - share))  # at the middle of x
    b = np.full_like(a, 0.0 if slope else 1.0)
    moved = np.full_like(a, np.inf)
    for _ in range(_STEPS):
        offset = x - middle
        p = 1 / (1 + np.exp(-np.clip(a + b * offset, -500, 500)))
        residual, curve = weights * (y - p), weights * p * (1 - p)
        gradient, bend = residual.sum(axis=0), curve.sum(axis=0)
        turn = (residual * offset).sum(axis=0) if slope else np.zeros_like(gradient)
        mixed = (curve * offset).sum(axis=0) if slope else np.zeros_like(gradient)
        stiff = (curve * offset**2).sum(axis=0) if slope else np.ones_like(gradient)
        det = np.maximum(bend * stiff - mixed**2, 1e-300)
        step = np.stack([stiff * gradient - mixed * turn, bend * turn - mixed * gradient]) / det
        moved = np.abs(step).max(axis=0)
        step *= np.minimum(1.0, _LONGEST / np.maximum(moved, 1e-300))
        a, b = a + step[0], b + step[1]
        if moved.max() < _CONVERGED:
            break
    missing = np.where(moved < 1e-6, 0.0, np.nan)  # all but parted: no limit was reached
    return a - b * middle + missing, b + missing


def _interval(values: np.ndarray) -> Interval:
    """The first value is that of all patients; percentiles of the others."""
    rest = values[1:][np.isfinite(values[1:])]
    if not (rest.size and np.isfinite(values[0])):
        return Interval(float(values[0]), np.nan, np.nan)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(rest, (tail, 1 - tail))
    return Interval(float(values[0]), float(low), float(high))
