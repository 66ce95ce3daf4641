r"""Simulation-based calibration: whether intervals hold what they promise.

Synthetic patients are drawn from the prior, their ECGs from the model with its noise, and each is
fitted as a patient would be. If the posterior is right, the truth lies in a 90 % interval nine
times out of ten, and its rank within the posterior is uniform (Talts et al. 2018,
arXiv:1804.06788). The posterior is a mixture of widened Gaussians around the distinct optima.
"""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy import stats

from twinheart.anatomy import Heart, add_fibres
from twinheart.calibration.build import build_model, prepared_heart, start_sites
from twinheart.calibration.defaults import parameter
from twinheart.calibration.fit import Fit, fit
from twinheart.calibration.linearisation import ensemble_search
from twinheart.calibration.mixture import mixture
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import INDEPENDENT, observe
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.posterior import misfit_test, nuts
from twinheart.calibration.priors import LogNormal, Normal, Prior
from twinheart.ecg import Ecg, standard_12_lead
from twinheart.errors import InputError, OutputError
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.tissue import Velocities, fast_endocardium
from twinheart.twin import Twin

# Parameters that the test is about: those that an ECG tells of.
GATED = ("cv_l", "cv_t", "cv_endo", "lv_delay", "offset", "gain")
_WINDOW = (-60.0, 220.0)  # ms: whatever is drawn from the prior lies within
_NOISE, _BANDWIDTH = 0.025, 40.0  # mV, Hz
_DISCREPANCY = 0.1  # over the largest amplitude: what fits to waves of the full equations leave
# Sinus rhythm of an adult: with a whole ventricle late the ECG only says that it is later than
# something, and what is smaller than the noise it does not show.
_PRIORS: dict[str, Prior] = {"lv_delay": Normal(0.0, 10.0), "gain": LogNormal(1.0, 1.3)}
_SHAPE = BiventricularShape(lv_wall=13.0, apex_wall=9.5, rv_wall=9.5)
_EDGE, _SITES = 6.3, 6  # mm
_FAMILY = 0.01  # familywise level of the tests
_SEARCHES, _ENSEMBLE = 2, 100  # of each case, and their draws
_WARMUP, _DRAWS = 80, 160  # of NUTS


def sbc_objective(
    heart: Heart | None = None,
    *,
    edge: float = _EDGE,
    sites: int = _SITES,
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
    data = observe(blank, window=_WINDOW, noise=_NOISE, bandwidth=_BANDWIDTH)
    model = build_model(twin, data, free, sites=places)
    usual = Objective(model, data, free).predict(jnp.zeros(len(free))).signals
    missed = _DISCREPANCY * float(np.abs(np.asarray(usual)).max())
    data = observe(blank, window=_WINDOW, noise=_NOISE, bandwidth=_BANDWIDTH, discrepancy=missed)
    return Objective(model, data, free)


def sbc_case(
    objective: Objective, case: int, *, seed: int = 0, sampled: bool = False
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
    sampled : bool
        Sample the posterior by NUTS, too.

    Returns
    -------
    dict
        ``case``; ``truth``, ``mean``, ``sd`` in standard numbers; ``rank`` of the truth, 0 to 1, in
        the posterior; ``optima``, the distinct ones; ``p_value`` of the misfit; with NUTS its
        ``nuts_mean`` and ``nuts_sd``.
    """
    rng = np.random.default_rng([seed, case])
    count = len(objective.free)
    truth = rng.normal(size=count)
    signals = np.asarray(objective.predict(jnp.asarray(truth)).signals)
    noise = objective.data.noise(rng.normal(size=signals.shape))
    data = eqx.tree_at(lambda d: d.signals, objective.data, jnp.asarray(signals + noise))
    own = eqx.tree_at(lambda o: o.data, objective, data)
    fits = _fits(own)
    found = mixture(own, fits, inflate=False, seed=case)
    result = {
        "case": case,
        "truth": truth.tolist(),
        "rank": found.rank(truth).tolist(),
        "mean": found.mean.tolist(),
        "sd": found.sd.tolist(),
        "optima": len(found.weights),
        "p_value": misfit_test(fits[0]).p_value,
    }
    if sampled:
        draws = nuts(found.parts[0], warmup=_WARMUP, draws=_DRAWS, seed=case)
        result["nuts_mean"] = draws.mean(axis=0).tolist()
        result["nuts_sd"] = draws.std(axis=0).tolist()
    return result


def _fits(objective: Objective) -> list[Fit]:
    """Fits from where searches of the whole prior end, best first."""
    starts = [ensemble_search(objective, draws=_ENSEMBLE, seed=k).u for k in range(_SEARCHES)]
    fits = [fit(objective, start, iterations=20, tolerance=1e-5) for start in starts]
    return sorted(fits, key=lambda one: one.loss)


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
    >>> cases = [{"rank": rng.uniform(size=1), "sd": np.full(1, 0.3)} for _ in range(200)]
    >>> sbc_summary(cases, ["cv_l"], ["cv_l"])["consistent"]
    True
    """
    rank, sd = (np.array([case[key] for case in results]) for key in ("rank", "sd"))
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
        np.array([case[key] for case in both]) for key in ("nuts_mean", "nuts_sd", "mean", "sd")
    )
    return {
        "nuts_cases": len(both),
        "nuts_shift_in_sd": float(np.median(np.abs(mean - own_mean) / sd)),
        "nuts_sd_ratio": float(np.median(sd / own_sd)),
    }


class Trial(NamedTuple):
    """What is tested; its results can be gone on with by the same test only.

    Attributes
    ----------
    seed : int
        Of all that is random.
    edge : float
        Edge length of the heart [mm].
    sites : int
        Of early activation.
    """

    seed: int = 0
    edge: float = _EDGE
    sites: int = _SITES

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the parameters."""
        objective = sbc_objective(edge=self.edge, sites=self.sites)
        return objective.free.names


def run_cases(
    test: Trial,
    cases: int,
    file: Path,
    *,
    sampled: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the cases that a file has not, some at once, and add each to it as it ends.

    Parameters
    ----------
    test : Trial
        What is tested.
    cases : int
        How many synthetic patients.
    file : Path
        One JSON object a line: the test, then its cases.
    sampled : int
        The first so many cases are sampled by NUTS, too: that takes ten times as long.
    workers : int
        Processes, each on one core.
    progress : callable, optional
        Called with the number of cases that are done, and of all.

    Returns
    -------
    list of dict
        Results of `sbc_case`, by their numbers.

    Raises
    ------
    InputError
        If the file belongs to another test or is damaged.
    OutputError
        If it cannot be written.
    """
    done = {case["case"]: case for case in stored(file, test)}
    both = [k for k in range(min(sampled, cases)) if "nuts_sd" not in done.get(k, {})]
    missing = [k for k in range(cases) if k not in done and k not in both] + both
    say = progress or (lambda *_: None)
    say(cases - len(missing), cases)
    if missing:
        for name in ("PJRT_NPROC", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = "1"  # read by the workers as they start: one core each
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _prepare, (test,)) as pool:
            waiting = [pool.submit(_one, k, k in both) for k in missing]
            try:
                for number, ended in enumerate(as_completed(waiting), 1):
                    case = ended.result()
                    done[case["case"]] = case
                    _add(file, case)
                    say(cases - len(missing) + number, cases)
            except BaseException:
                for worker in multiprocessing.active_children():  # not another minute of each
                    worker.terminate()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [done[k] for k in range(cases)]


_OF_WORKER: dict[str, Any] = {}


def _prepare(test: Trial) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _OF_WORKER["objective"] = sbc_objective(edge=test.edge, sites=test.sites)
    _OF_WORKER["seed"] = test.seed


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers: they would go on through their queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(case: int, sampled: bool) -> dict[str, Any]:
    return sbc_case(_OF_WORKER["objective"], case, seed=_OF_WORKER["seed"], sampled=sampled)


def _add(file: Path, entry: dict[str, Any]) -> None:
    try:
        with file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}.") from None


def stored(file: Path, test: Trial) -> list[dict[str, Any]]:
    """Cases that an interrupted test has written already; the file is begun if it is not there.

    Raises
    ------
    InputError
        If the file belongs to another test, or a line is no case.
    """
    if not file.exists():
        _add(file, {"test": test._asdict()})
        return []
    text = file.read_text()
    if not text.endswith("\n"):  # the program was stopped as it wrote
        with file.open("a") as end:
            end.write("\n")
    first, *lines = text.split("\n")
    try:
        known = json.loads(first)["test"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} holds no results of this command: name another --out.") from None
    if known != test._asdict():
        raise InputError(
            f"{file} belongs to a test with {known}, asked for is {test._asdict()}: remove it to "
            "start anew, or name another --out."
        )
    found = []
    for number, line in enumerate(lines, 2):
        if not line.endswith("}"):
            continue  # empty, or cut off: the case is run again
        try:
            case = json.loads(line)
            found.append({**case, "case": int(case["case"])})
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{file}: line {number} is no result of a case; remove it to run that case again."
            ) from None
    return found
