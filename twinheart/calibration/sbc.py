r"""Simulation-based calibration: whether intervals hold what they promise.

Synthetic patients are drawn from the prior, their ECGs from the model with its noise, and each is
fitted as a patient would be. If the posterior is right, the truth lies in a 90 % interval nine
times out of ten, and its rank within the posterior is uniform (Talts et al. 2018,
arXiv:1804.06788). With
a Gaussian posterior in standard numbers the rank is :math:`\Phi((u - \hat u) / \sigma)`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy import stats

from twinheart.anatomy import Heart, add_fibres
from twinheart.calibration.build import build_model, prepared_heart, start_sites
from twinheart.calibration.defaults import parameter
from twinheart.calibration.fit import Fit, best_starts, fit
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import INDEPENDENT, observe
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.posterior import laplace, misfit_test, nuts
from twinheart.calibration.priors import LogNormal, Normal, Prior
from twinheart.calibration.search import annealed_fit
from twinheart.ecg import Ecg, standard_12_lead
from twinheart.errors import InputError
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.tissue import Velocities, fast_endocardium
from twinheart.twin import Twin

# Parameters that the test is about: those that an ECG tells of.
GATED = ("cv_l", "cv_t", "cv_endo", "lv_delay", "offset", "gain")
_WINDOW = (-60.0, 220.0)  # ms: whatever is drawn from the prior lies within
_NOISE, _DISCREPANCY = 0.025, 0.05  # mV
# Sinus rhythm of an adult: with a whole ventricle late the ECG only says that it is later than
# something, and what is smaller than the noise it does not show.
_PRIORS: dict[str, Prior] = {"lv_delay": Normal(0.0, 10.0), "gain": LogNormal(1.0, 1.3)}
_SHAPE = BiventricularShape(lv_wall=13.0, apex_wall=9.5, rv_wall=9.5)
_FAMILY = 0.01  # familywise level of the tests
# Starts to fit from, until the data are explained: a fit less likely than this is a local optimum.
_TRIES, _IMPLAUSIBLE = 6, 1e-3


def sbc_objective(
    heart: Heart | None = None,
    *,
    edge: float = 6.3,
    sites: int = 6,
    names: Sequence[str] = (*GATED, "site.onset"),
) -> Objective:
    """Model and parameters of the synthetic patients; its data are empty.

    Parameters
    ----------
    heart : Heart, optional
        Anatomy; default: two ventricles with walls so thick that a coarse mesh has no holes.
    edge : float
        Their edge length [mm].
    sites : int
        Of early activation.
    names : sequence of str
        Free parameters.

    Returns
    -------
    Objective
        For `sbc_case`.

    Examples
    --------
    See ``twinheart calibrate sbc``.
    """
    heart = prepared_heart(add_fibres(Heart(biventricle(edge, _SHAPE))) if heart is None else heart)
    made, cells, tissue = fast_endocardium(heart, Twin(heart).cell, Velocities())
    twin = Twin(made, cells, tissue, standard_12_lead(heart))
    places = start_sites(heart, sites)
    free = Parameters(parameter(n, sites=places, prior=_PRIORS.get(n)) for n in names)
    t = np.arange(_WINDOW[0] - 20.0, _WINDOW[1] + 21.0)
    blank = Ecg(t, np.zeros((len(t), len(INDEPENDENT))), INDEPENDENT)
    data = observe(blank, window=_WINDOW, noise=_NOISE, discrepancy=_DISCREPANCY)
    return Objective(build_model(twin, data, free, sites=places), data, free)


def sbc_case(
    objective: Objective, case: int, *, seed: int = 0, starts: int = 24, sampled: bool = False
) -> dict[str, Any]:
    """Draw a patient, fit it, and say where the truth lies in its posterior.

    Parameters
    ----------
    objective : Objective
        From `sbc_objective`.
    case : int
        Its number; with `seed` it decides all that is random.
    seed : int
        Of the whole test.
    starts : int
        Of the fit.
    sampled : bool
        Sample the posterior by NUTS, too.

    Returns
    -------
    dict
        ``case``, ``truth``, ``estimate``, ``sd`` (standard numbers), ``p_value`` of the misfit;
        with NUTS its ``nuts_mean`` and ``nuts_sd``.
    """
    rng = np.random.default_rng([seed, case])
    count = len(objective.free)
    truth = rng.normal(size=count)
    signals = np.asarray(objective.predict(jnp.asarray(truth)).signals)
    noise = rng.normal(size=signals.shape)
    time, lead = (np.linalg.inv(np.asarray(x, float)) for x in
                  (objective.data.whiten_time, objective.data.whiten_lead))  # fmt: skip
    data = eqx.tree_at(
        lambda d: d.signals, objective.data, jnp.asarray(signals + time @ noise @ lead.T)
    )
    own = eqx.tree_at(lambda o: o.data, objective, data)
    best = _fitted(own, np.concatenate([np.zeros((1, count)), rng.normal(size=(starts, count))]))
    posterior = laplace(own, best, inflate=False)
    found = {
        "case": case,
        "truth": truth.tolist(),
        "estimate": best.u.tolist(),
        "sd": posterior.contraction.tolist(),
        "p_value": misfit_test(best).p_value,
        "iterations": best.iterations,
    }
    if sampled:
        draws = nuts(posterior, warmup=150, draws=250, seed=case)
        found["nuts_mean"] = draws.mean(axis=0).tolist()
        found["nuts_sd"] = draws.std(axis=0).tolist()
    return found


def _fitted(objective: Objective, starts: np.ndarray) -> Fit:
    """The first fit that explains the data, from the most promising starts; else the best one."""
    found: list[Fit] = []
    for start in best_starts(objective, starts, _TRIES):
        rough = annealed_fit(objective, start, iterations=6)
        found.append(fit(objective, rough.u, iterations=20, tolerance=1e-5))
        if misfit_test(found[-1]).p_value > _IMPLAUSIBLE:
            break
    return min(found, key=lambda one: one.loss)


def sbc_summary(
    results: Sequence[dict[str, Any]], names: Sequence[str], gated: Iterable[str] = GATED
) -> dict[str, Any]:
    """Coverage and uniformity of ranks over all patients, and the verdict.

    Parameters
    ----------
    results : sequence of dict
        From `sbc_case`.
    names : sequence of str
        Full names of the parameters.
    gated : names
        Those whose tests decide, by Holm's procedure at a familywise level of 1 %.

    Returns
    -------
    dict
        ``coverage90``, ``coverage_p`` (binomial), ``rank_p`` (Kolmogorov-Smirnov), ``contraction``
        by name; ``rejected``, names of gated parameters that fail; ``consistent``.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration.sbc import sbc_summary
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(200, 1))
    >>> cases = [{"truth": t, "estimate": t + 0.3 * rng.normal(size=1), "sd": np.full(1, 0.3)}
    ...          for t in truth]
    >>> sbc_summary(cases, ["cv_l"], ["cv_l"])["consistent"]
    True
    """
    truth, estimate, sd = (
        np.array([case[key] for case in results]) for key in ("truth", "estimate", "sd")
    )
    rank = stats.norm.cdf((truth - estimate) / sd)
    inside = (rank > 0.05) & (rank < 0.95)
    count = len(results)
    coverage_p = [stats.binomtest(int(k), count, 0.9).pvalue for k in inside.sum(axis=0)]
    rank_p = [stats.kstest(own, "uniform").pvalue for own in rank.T]
    decisive = [k for k, name in enumerate(names) if name in set(gated)]
    tests = sorted([(float(p[k]), names[k]) for p in (coverage_p, rank_p) for k in decisive])
    rejected = []
    for k, (p, name) in enumerate(tests):
        if p > _FAMILY / (len(tests) - k):
            break
        rejected.append(name)
    return {
        "cases": count,
        "coverage90": dict(zip(names, inside.mean(axis=0).tolist(), strict=True)),
        "coverage_p": dict(zip(names, map(float, coverage_p), strict=True)),
        "rank_p": dict(zip(names, map(float, rank_p), strict=True)),
        "contraction": dict(zip(names, np.median(sd, axis=0).tolist(), strict=True)),
        "gated": [names[k] for k in decisive],
        "rejected": sorted(set(rejected)),
        "consistent": not rejected,
        **_against_nuts(results),
    }


def _against_nuts(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the Gaussian approximation is from the sampler, over cases that have both."""
    both = [case for case in results if "nuts_sd" in case]
    if not both:
        return {}
    mean, sd, own_mean, own_sd = (
        np.array([case[key] for case in both]) for key in ("nuts_mean", "nuts_sd", "estimate", "sd")
    )
    return {
        "nuts_cases": len(both),
        "nuts_shift_in_sd": float(np.median(np.abs(mean - own_mean) / sd)),
        "nuts_sd_ratio": float(np.median(sd / own_sd)),
    }


def stored(path: Path) -> list[dict[str, Any]]:
    """Cases that an interrupted test has written already, one JSON object a line.

    Raises
    ------
    InputError
        If a line is no case.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            case = json.loads(line)
            found.append({**case, "case": int(case["case"])})
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}: line {number} is no result of a case; remove the file to start anew."
            ) from None
    return found
