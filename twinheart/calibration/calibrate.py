"""Fit a heart to an ECG: activation by the QRS, repolarisation by the T wave, with uncertainty."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.calibration.build import (
    StartSite,
    build_model,
    prepared_heart,
    start_sites,
    with_repolarisation,
)
from twinheart.calibration.coarse import coarse_heart
from twinheart.calibration.defaults import QRS, T_WAVE, parameter
from twinheart.calibration.fit import Fit, fit
from twinheart.calibration.linearisation import widened
from twinheart.calibration.measured import MeasuredBeat
from twinheart.calibration.model import Prediction
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import INDEPENDENT, Observation, observe
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.posterior import Posterior, laplace
from twinheart.calibration.priors import Prior
from twinheart.calibration.search import search
from twinheart.calibration.smooth_field import field_places
from twinheart.ecg import Electrodes, LeadField, lead_correlations
from twinheart.errors import InputError
from twinheart.tissue import Velocities, fast_endocardium
from twinheart.tissue.conductivity import Conduction
from twinheart.tissue.purkinje import ConductionSystem
from twinheart.twin import Twin

_BEFORE, _AFTER = 20.0, 25.0  # ms of the QRS stage beyond the QRS
_T_GAP, _T_AFTER = 15.0, 40.0  # ms between QRS and T stage, and beyond the end of the T wave
_T_HALF = 50.0  # ms from the middle of repolarisation to the end of the T wave
_T_BANDWIDTH = 30.0  # Hz: the T wave has nothing above
_T_STARTS = 31  # besides the centre of the prior
_LBBB, _RBBB = 65.0, -38.0  # ms: delay of the left ventricle in starts with a bundle branch block
_OF_BODY = ("pose.", "electrode.")
_FAR_OFF = 2.0  # times the noise, root mean square, from which on the user is told
_LARGEST = 0.2  # discrepancy that is recommended
Progress = Callable[[dict[str, Any]], None]


class Settings(NamedTuple):
    """How to calibrate.

    Attributes
    ----------
    sites : int
        Sites of early activation.
    free : tuple of str
        Parameters of the QRS stage, see `twinheart.calibration.KNOWN`.
    t_wave : tuple of str
        Parameters of the T stage; empty to leave it out.
    labels : dict of str to sequence of str
        Of parameters that need some; fields take a number of places as ``("12",)``.
    priors : dict of str to Prior
        Instead of the usual ones.
    bandwidth : float
        Of model and data in the QRS stage [Hz].
    noise : float or None
        Standard deviation of the noise [mV]; None: as measured.
    discrepancy : float
        What no parameter explains, over the largest amplitude.
    starts, keep : int
        Starts that are screened, and fitted from, on the coarse heart.
    coarse_nodes : int
        Nodes of the coarse heart.
    iterations : int
        Of the last fit, on the heart itself.
    fast_endocardium : bool
        Let the endocardium conduct fast; not with a Purkinje tree.
    seed : int
        Of the starts.
    """

    sites: int = 16
    free: tuple[str, ...] = QRS
    t_wave: tuple[str, ...] = T_WAVE
    labels: Mapping[str, Sequence[str]] = MappingProxyType({})
    priors: Mapping[str, Prior] = MappingProxyType({})
    bandwidth: float = 100.0
    noise: float | None = None
    discrepancy: float = 0.02
    starts: int = 40
    keep: int = 3
    coarse_nodes: int = 12_000
    iterations: int = 25
    fast_endocardium: bool = True
    seed: int = 0


class Stage(eqx.Module):
    """One stage of a calibration.

    Attributes
    ----------
    objective : Objective
        Model and data.
    fit : Fit
        Best fit.
    posterior : Posterior
        Around it.
    others : list of Fit
        Fits on the coarse heart, best first; heart and electrodes do not move there.
    """

    objective: Objective
    fit: Fit
    posterior: Posterior
    others: list[Fit]

    @property
    def prediction(self) -> Prediction:
        """The model at the best fit."""
        return self.objective.predict(jnp.asarray(self.fit.u))

    @property
    def correlation(self) -> dict[str, float]:
        """Correlation of every lead with the data of this stage."""
        data = self.objective.data
        signals = np.asarray(self.prediction.signals), np.asarray(data.signals)
        return lead_correlations(data.names, *signals)


class Calibration(eqx.Module):
    """A calibrated twin.

    Attributes
    ----------
    twin : Twin
        Heart, cells, velocities before the fit, electrodes.
    sites : tuple of StartSite
        Where excitation started before the fit.
    beat : MeasuredBeat
        What was fitted, turned over if that was found.
    qrs : Stage
        Activation.
    t_wave : Stage or None
        Repolarisation, given the activation.
    places : (place, 3) array or None
        Of smooth fields [mm].
    remarks : tuple of str
        What was assumed and found, in sentences.
    """

    twin: Twin
    sites: tuple[StartSite, ...]
    beat: MeasuredBeat
    qrs: Stage
    t_wave: Stage | None
    places: Float[np.ndarray, "place 3"] | None
    remarks: tuple[str, ...]

    @property
    def stages(self) -> dict[str, Stage]:
        """``qrs``, and ``t_wave`` where it was fitted."""
        return {"qrs": self.qrs} | ({} if self.t_wave is None else {"t_wave": self.t_wave})

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Fitted values of all parameters."""
        return dict((self.t_wave or self.qrs).fit.values)

    @property
    def lat(self) -> Float[np.ndarray, "node"]:
        """Activation after the measured onset of the QRS [ms]."""
        return np.asarray(self.qrs.prediction.lat)

    @property
    def repol(self) -> Float[np.ndarray, "node"]:
        """Repolarisation after the measured onset of the QRS [ms]."""
        found = (self.t_wave or self.qrs).prediction
        return np.asarray(found.lat + found.apd)


def calibrate(
    heart: Heart,
    beat: MeasuredBeat,
    electrodes: Electrodes | None = None,
    *,
    cell: Any = "tentusscher2006-epi",
    conduction: Conduction | dict[int, Conduction] | None = None,
    purkinje: ConductionSystem | None = None,
    lead_field: LeadField | None = None,
    settings: Settings | None = None,
    either_polarity: bool = False,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit a heart to a beat.

    Parameters
    ----------
    heart : Heart
        Ventricles with fibres; surfaces and coordinates are found where they are missing.
    beat : MeasuredBeat
        From `measured_beat`.
    electrodes : Electrodes, optional
        Where the ECG was taken; not with a lead field, which has its own.

    Other Parameters
    ----------------
    cell, conduction, purkinje, lead_field
        Of the twin, see `twinheart.Twin`.
    settings : Settings, optional
        How to calibrate.
    either_polarity : bool
        The sign of the ECG is not known: fit it turned over, too, and keep the better one.
    checkpoint : path, optional
        Where the last fit of the QRS stage is kept, to go on after an interruption.
    progress : callable, optional
        Called with stage, iteration, loss, and an estimate of the seconds left.

    Returns
    -------
    Calibration
        Fits, posterior, predictions.

    Raises
    ------
    InputError, ModelError, MeshError, SolverError
        If parameters, heart, electrodes or ECG do not fit together.

    Examples
    --------
    See ``notebooks/05_calibrate``.
    """
    chosen = Settings() if settings is None else settings
    say = _quiet if progress is None else progress
    say({"stage": "model"})
    problem = _problem(heart, beat, chosen, (cell, conduction, electrodes, purkinje, lead_field))
    beats = [beat, beat.turned()] if either_polarity else [beat]
    beat, objective, others, start = _searched(problem, beats, chosen, say)
    remarks = list(beat.remarks)
    if beat is not beats[0]:
        remarks.append("the ECG has the opposite sign of the usual one and was turned over")
    say({"stage": "fit"})
    best = fit(
        objective,
        start,
        iterations=chosen.iterations,
        checkpoint=checkpoint,
        progress=_named("fit", say),
    )
    say({"stage": "posterior"})
    qrs = Stage(objective, best, _posterior(problem, objective, best, chosen.seed), others)
    remarks += _on_misfit(qrs, chosen)
    t_wave = None
    if chosen.t_wave and np.isfinite(beat.t_end):
        t_wave = _t_stage(qrs, problem, beat, chosen, say)
    elif chosen.t_wave:
        remarks.append("the ECG shows no complete T wave: repolarisation was not fitted")
    return Calibration(
        problem.twin, tuple(problem.sites), beat, qrs, t_wave, problem.places, tuple(remarks)
    )


class _Problem(NamedTuple):
    """The heart as it is fitted, and a coarser one on which the search finds its way."""

    heart: Heart
    twin: Twin
    sites: Sequence[StartSite]
    places: Float[np.ndarray, "place 3"] | None
    objective: Objective
    rough: Objective


def _problem(heart: Heart, beat: MeasuredBeat, chosen: Settings, parts: tuple) -> _Problem:
    cell, conduction, electrodes, purkinje, lead_field = parts
    heart = prepared_heart(heart)
    sites = () if purkinje is not None else start_sites(heart, chosen.sites)
    tissue = Velocities() if conduction is None else conduction

    def twin_of(heart: Heart) -> Twin:
        made, cells, tissues = heart, Twin(heart, cell=cell).cell, tissue
        if chosen.fast_endocardium and purkinje is None:
            made, cells, tissues = fast_endocardium(heart, cells, tissue)
        return Twin(made, cells, tissues, electrodes, purkinje, lead_field)

    twin = twin_of(heart)
    leads = _leads(beat, twin.electrodes)
    free, places = _free(chosen.free, chosen, sites, purkinje is not None, heart, leads)
    data = _qrs_data(beat, chosen, twin.electrodes)

    def objective_of(twin: Twin) -> Objective:
        return Objective(build_model(twin, data, free, sites=sites, places=places), data, free)

    objective = rough = objective_of(twin)
    if lead_field is None and purkinje is None:
        small = coarse_heart(heart, chosen.coarse_nodes)
        if small is not heart:
            rough = objective_of(twin_of(small))
    return _Problem(heart, twin, sites, places, objective, rough)


def _searched(
    problem: _Problem, beats: Sequence[MeasuredBeat], chosen: Settings, say: Progress
) -> tuple[MeasuredBeat, Objective, list[Fit], Float[np.ndarray, "parameter"]]:
    """The beat that the rough heart explains best, its data and fits, and where to go on."""
    starts = _starts(problem.objective.free, chosen)
    found = []
    # With a body that moves from the beginning, it is turned where excitation is wrong.
    moves = np.array([n.startswith(_OF_BODY) for n in problem.objective.free.names])
    moves &= not moves.all()
    for beat, stage in zip(beats, ("search", "search, turned over"), strict=False):
        say({"stage": stage})
        data = _qrs_data(beat, chosen, problem.twin.electrodes)
        rough = _with_data(problem.rough, data)
        rough = _at_rest(rough) if moves.any() else rough
        fits = search(rough, starts[:, ~moves], keep=chosen.keep, progress=_named("search", say))
        found.append((beat, _with_data(problem.objective, data), fits))
    beat, objective, fits = min(found, key=lambda one: one[2][0].loss)
    start = np.zeros(len(moves))
    start[~moves] = fits[0].u
    return beat, objective, fits, start


def _posterior(problem: _Problem, objective: Objective, best: Fit, seed: int) -> Posterior:
    """The Gaussian around the fit, widened; on a large heart by as much as on the rough one."""
    narrow = laplace(objective, best)
    if problem.rough is problem.objective:
        return widened(narrow, seed=seed)
    rough = _with_data(problem.rough, objective.data)
    near = fit(rough, best.u)
    wide = widened(laplace(rough, near), seed=seed)
    return dataclasses.replace(
        narrow, u=best.u + wide.u - near.u, covariance=wide.covariance, evidence=wide.evidence
    )


def _at_rest(objective: Objective) -> Objective:
    """Heart and electrodes stay where they are."""
    free = objective.free
    body = [entry.name for entry in free.entries if entry.name.startswith(_OF_BODY)]
    return Objective(objective.model.settled({}), objective.data, free.without(body))


def _on_misfit(qrs: Stage, chosen: Settings) -> list[str]:
    """What to do where the fit is far from what noise and discrepancy allow."""
    off = float(np.sqrt(qrs.posterior.scale))
    if off < _FAR_OFF:
        return []
    return [
        f"the QRS differs from the ECG by {off:.1f} times what noise and discrepancy allow: "
        "intervals were widened by as much, but values may lie far from their priors to explain "
        "what the heart cannot. If it is not the patient's own, take a larger discrepancy: "
        f"{min(_LARGEST, chosen.discrepancy * off):.2g} instead of {chosen.discrepancy:g}"
    ]


def _quiet(_: dict[str, Any]) -> None:
    pass


def _named(stage: str, say: Progress) -> Progress:
    return lambda done: say({"stage": stage, **done})


def _with_data(objective: Objective, data: Observation) -> Objective:
    return eqx.tree_at(lambda o: o.data, objective, data)


def _free(names: Sequence[str], chosen: Settings, sites, with_tree: bool, heart: Heart, leads):
    """Parameters that make sense with what there is, and the places of smooth fields."""
    if with_tree:
        names = [n for n in names if not n.startswith("site.") or n == "site.onset"]
        names = [n for n in names if n not in ("cv_endo", "site.onset")]
        names += [n for n in ("purkinje_cv",) if n not in names]
    if not chosen.fast_endocardium:
        names = [n for n in names if n != "cv_endo"]
    entries, places = [], None
    for name in names:
        labels = tuple(chosen.labels.get(name, ()))
        if name.endswith("field"):
            count = int(labels[0]) if len(labels) == 1 and labels[0].isdigit() else 12
            places = field_places(heart, count)
            labels = tuple(str(k + 1) for k in range(count))
        elif name == "gain.lead" and not labels:
            labels = leads
        entries.append(parameter(name, labels=labels, prior=chosen.priors.get(name), sites=sites))
    return Parameters(entries), places


def _leads(beat: MeasuredBeat, electrodes: Electrodes | None) -> tuple[str, ...]:
    if electrodes is None:
        raise InputError("no electrodes: give their places, or a lead field.")
    from twinheart.ecg.leads import lead_weights

    formed, _ = lead_weights(electrodes.names)
    names = tuple(n for n in INDEPENDENT if n in beat.ecg.names and n in formed)
    if not names:
        raise InputError(
            f"the ECG has the leads {', '.join(beat.ecg.names)} and the electrodes form "
            f"{', '.join(formed)}: they have none of {', '.join(INDEPENDENT)} in common."
        )
    return names


def _qrs_data(beat: MeasuredBeat, chosen: Settings, electrodes) -> Observation:
    t = np.asarray(beat.ecg.t, float) - beat.onset
    window = (max(-_BEFORE, float(t[0])), min(beat.offset - beat.onset + _AFTER, float(t[-1])))
    return _observed(beat, chosen, electrodes, window, chosen.bandwidth)


def _observed(beat, chosen: Settings, electrodes, window, bandwidth) -> Observation:
    leads = _leads(beat, electrodes)
    noise, time = beat.noise if chosen.noise is None else chosen.noise, 0.0
    if chosen.noise is None and beat.rest is not None:
        noise, time = beat.rest.of(leads), beat.rest.time
    size = float(np.nanmax(np.abs(np.asarray(beat.ecg.signals))))
    return observe(
        beat.ecg,
        onset=beat.onset,
        window=window,
        bandwidth=bandwidth,
        noise=noise,
        noise_time=time,
        discrepancy=chosen.discrepancy * size,
        leads=leads,
    )


def _starts(free: Parameters, chosen: Settings) -> Float[np.ndarray, "start parameter"]:
    """The centre of the prior, either bundle branch block, and draws."""
    rng = np.random.default_rng(chosen.seed)
    zero = np.zeros(len(free))
    fixed = [zero]
    if "lv_delay" in free:
        k = free.names.index("lv_delay")
        for delay in (_LBBB, _RBBB):
            block = zero.copy()
            try:
                block[k] = free.standard({"lv_delay": delay})[k]
            except InputError:  # beyond the bounds of a prior that was given
                continue
            fixed.append(block)
    count = max(chosen.starts - len(fixed), 0)
    # sites stay near where a beat is known to begin: a dozen of them at random start nowhere
    spread = np.where([name.startswith("site.") for name in free.names], 0.3, 1.0)
    return np.concatenate([np.stack(fixed), rng.normal(size=(count, len(free))) * spread])


def _t_stage(qrs: Stage, problem: _Problem, beat, chosen: Settings, say: Progress) -> Stage:
    """Repolarisation; activation and body stay as the QRS stage found them."""
    heart = problem.heart
    free, places = _free(chosen.t_wave, chosen, (), False, heart, ())
    begin = beat.offset - beat.onset + _T_GAP
    end = min(beat.t_end - beat.onset + _T_AFTER, float(beat.ecg.t[-1]) - beat.onset)
    data = _observed(beat, chosen, problem.twin.electrodes, (begin, end), _T_BANDWIDTH)
    say({"stage": "T wave"})
    model = with_repolarisation(qrs.objective.model.at(data), problem.twin, free, places)
    objective = Objective(model.settled(qrs.fit.values), data, free, fixed=qrs.fit.values)
    starts = _starts_of_t(free, objective, beat, chosen)
    fits = search(objective, starts, keep=2, progress=_named("T wave", say))
    return Stage(objective, fits[0], laplace(objective, fits[0]), fits[1:])


def _starts_of_t(free: Parameters, objective: Objective, beat: MeasuredBeat, chosen: Settings):
    """Draws that repolarise during the T wave: later ones would have none, and stay there."""
    rng = np.random.default_rng(chosen.seed + 1)
    starts = np.concatenate([np.zeros((1, len(free))), rng.normal(size=(_T_STARTS, len(free)))])
    if "apd" in free:
        lat = np.asarray(objective.lat)[: objective.model.problem.n_mesh]
        apd = beat.t_end - beat.onset - _T_HALF - lat[np.isfinite(lat)].mean()
        try:
            own = free.standard({"apd": apd})[free.names.index("apd")]
        except InputError:  # beyond the bounds of the prior
            return starts
        starts[:, free.names.index("apd")] = np.clip(own, -2.0, 2.0)
    return starts
