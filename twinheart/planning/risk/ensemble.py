"""Hearts that the data leave possible: velocities, durations and border zone drawn at random.

Of a calibrated twin they are drawn from its posterior. Without calibration they are population
values, from the priors that a calibration would begin with; waves are not faster across the fibres
than along them. No ECG speaks of the border zone, so its velocity and duration are always drawn
from priors of their own.

Each member has a stream of random numbers of its own: a larger ensemble begins with the smaller.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twinheart.calibration import LogNormal, parameter
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.repolarisation import build_repolarisation
from twinheart.calibration.stored_posterior import read_posterior
from twinheart.calibration.twin_file import StoredTwin, load_twin
from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER
from twinheart.planning.ablation.lesions import LESION_TAG
from twinheart.planning.substrate import Substrate
from twinheart.planning.substrate_file import twin_substrate
from twinheart.tissue import Velocities, WaveTable
from twinheart.tissue.purkinje import FAST_TAG
from twinheart.tissue.scar import SCAR_TAG

BORDER_SPEED, BORDER_APD = "border.speed", "border.apd"
# Factors; both widths are this project's own choice.
BORDER_PRIORS = {BORDER_SPEED: LogNormal(1.0, 1.25), BORDER_APD: LogNormal(1.0, 1.1)}
_POPULATION = ("cv_l", "cv_t", "apd")
_GRADIENTS = ("apd.ab", "apd.tm", "apd.ap", "apd.rvlv")
_CARRIED = ("cv_l", "cv_t", "cv_n", "cv_endo", "apd", *_GRADIENTS)
# What of a posterior has no part in circuits and trains: the sinus beat and the electrodes.
_IRRELEVANT = ("site.", "lv_delay", "offset", "gain", "electrode.", "pose.", "purkinje_cv")
_LEAST, _MOST = 0.5, 2.0  # factors on fitted durations
_TRIES = 1000


class Ensemble(NamedTuple):
    """Members of an ensemble, as values by name.

    Attributes
    ----------
    members : tuple of dict
        Physical values of each: ``cv_l`` [m/s], ``apd`` [ms], ``border.speed`` (a factor) ...
    centre : dict
        The same of the substrate that they vary.
    units : dict
        Of each name.
    source : str
        Where they were drawn from.
    seed : int
        With which.
    notes : tuple of str
        What is left as it is.
    stored : StoredTwin or None
        The twin that is varied, where one was calibrated.
    """

    members: tuple[dict[str, float], ...]
    centre: dict[str, float]
    units: dict[str, str]
    source: str
    seed: int
    notes: tuple[str, ...] = ()
    stored: StoredTwin | None = None

    def substrate(self, base: Substrate, k: int) -> Substrate:
        """Substrate of one member.

        Parameters
        ----------
        base : Substrate
            What the ensemble was made for.
        k : int
            Number of the member, from 0.

        Returns
        -------
        Substrate
            With its velocities, durations and refractory periods.
        """
        values = self.members[k]
        border = (values[BORDER_SPEED], values[BORDER_APD])
        if self.stored is not None:
            own = _varied_twin(self.stored, values, self.centre)
            found = twin_substrate(own, cycle=base.cycle)
            return vary_substrate(found, (1.0, 1.0), 1.0, border)
        ratio = {name: values[name] / self.centre[name] for name in _POPULATION}
        return vary_substrate(base, (ratio["cv_l"], ratio["cv_t"]), ratio["apd"], border)


def population_ensemble(substrate: Substrate, count: int, seed: int = 0) -> Ensemble:
    """Members from population values.

    Parameters
    ----------
    substrate : Substrate
        What they vary; its own velocities and durations are the centre.
    count : int
        Members.
    seed : int
        Same seed, same members.

    Returns
    -------
    Ensemble
        From the priors of `twinheart.calibration.parameter`.

    Raises
    ------
    InputError
        If there is not at least one member.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.risk.ensemble import population_ensemble
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import WaveTable
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])
    >>> base = build_substrate(Heart(slab((9.0, 3.0, 1.0), 1.0)), tables={0: table})
    >>> drawn = population_ensemble(base, 3, seed=1)
    >>> drawn.centre["cv_l"], all(m["cv_t"] <= m["cv_l"] for m in drawn.members)
    (0.6, True)
    """
    _check(count)
    free = [parameter(name) for name in _POPULATION]
    priors = {entry.name: entry.priors[0] for entry in free} | BORDER_PRIORS
    members = []
    for k in range(count):
        rng = _stream(seed, k)
        for _ in range(_TRIES):
            drawn = {n: float(p.from_standard(rng.normal())) for n, p in priors.items()}
            if drawn["cv_t"] <= drawn["cv_l"]:
                break
        members.append(drawn)
    sources = "; ".join(f"{entry.name}: {entry.priors[0]}, {entry.source}" for entry in free)
    return Ensemble(
        tuple(members),
        _centre(substrate) | {BORDER_SPEED: 1.0, BORDER_APD: 1.0},
        {entry.name: entry.unit for entry in free} | dict.fromkeys(BORDER_PRIORS, ""),
        "population values, not of this patient",
        seed,
        (f"drawn from priors: {sources}", _about_border()),
    )


def posterior_ensemble(
    path: str | Path, count: int, seed: int = 0, *, stored: StoredTwin | None = None
) -> Ensemble:
    """Members from the posterior of a calibrated twin.

    Parameters
    ----------
    path : path
        File of ``twinheart calibrate``.
    count : int
        Members.
    seed : int
        Same seed, same members.
    stored : StoredTwin, optional
        The twin to vary, such as that of the file with a scar; by default that of the file.

    Returns
    -------
    Ensemble
        Vary it with the substrate of `twinheart.planning.substrate_file.twin_substrate`.

    Raises
    ------
    InputError
        If the file is not usable, or there is not at least one member.
    """
    _check(count)
    stored, posteriors = stored or load_twin(path), read_posterior(path)
    centre = {n: x for p in posteriors for n, x in p.physical(p.centre).items()}
    units = {n: u for p in posteriors for n, u in zip(p.names, p.units, strict=True)}
    kept = [name for name in centre if _carried(name)]
    fixed = [name for name in centre if name not in kept and not name.startswith(_IRRELEVANT)]
    members = []
    for k in range(count):
        rng = _stream(seed, k)
        drawn = {n: x for p in posteriors for n, x in p.draw(rng).items()}
        border = {n: float(p.from_standard(rng.normal())) for n, p in BORDER_PRIORS.items()}
        members.append({name: drawn[name] for name in kept} | border)
    notes = [_about_border()]
    if fixed:
        notes.append(f"left as fitted in all members: {', '.join(fixed)}")
    return Ensemble(
        tuple(members),
        {name: centre[name] for name in kept} | {BORDER_SPEED: 1.0, BORDER_APD: 1.0},
        {name: units[name] for name in kept} | dict.fromkeys(BORDER_PRIORS, ""),
        "posterior of the calibration to an ECG",
        seed,
        tuple(notes),
        stored,
    )


def vary_substrate(
    substrate: Substrate,
    speed: tuple[float, float],
    duration: float,
    border: tuple[float, float] = (1.0, 1.0),
) -> Substrate:
    """The substrate with other velocities and durations.

    Parameters
    ----------
    substrate : Substrate
        What is varied; its geometry is shared.
    speed : (along, across)
        Factors on velocities along and across the fibres.
    duration : float
        Factor on durations.
    border : (speed, duration)
        More factors in the border zone.

    Returns
    -------
    Substrate
        Whose refractory periods follow.

    Raises
    ------
    InputError
        If a factor is not positive.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.risk.ensemble import vary_substrate
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import WaveTable
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])
    >>> base = build_substrate(Heart(slab((9.0, 3.0, 1.0), 1.0)), tables={0: table})
    >>> float(vary_substrate(base, (1.0, 1.0), 1.5).refractory[0])  # 20 + 1.5 x 180 ms
    290.0
    """
    factors = (*speed, duration, *border)
    if not all(np.isfinite(x) and x > 0 for x in factors):
        raise InputError(f"factors on a heart are {factors}, expected positive numbers.")
    problem = substrate.problem
    along = {tag: border[0] if _is_border(tag) else 1.0 for tag in problem.tags}
    axes = np.array([speed[0], speed[1], speed[1]])
    velocity = np.array(problem.velocity)
    for row, tag in enumerate(problem.tags):
        velocity[row] = velocity[row] * axes * along[tag]
    problem = eqx.tree_at(
        lambda p: p.velocity, problem, jnp.asarray(velocity, jnp.asarray(problem.velocity).dtype)
    )
    conduction = {
        tag: _faster(tissue, axes * along.get(tag, 1.0))
        for tag, tissue in substrate.conduction.items()
    }
    tables = {}
    for tag, table in substrate.tables.items():
        factor = duration * (border[1] if _is_border(tag) else 1.0)
        tables[tag] = WaveTable(table.di, table.speed, table.apd * factor)
    return substrate.changed(problem=problem, conduction=conduction, tables=tables)


def _faster(tissue, factor):
    if not isinstance(tissue, Velocities):
        return tissue
    return Velocities(*(np.asarray(tissue.cv) * factor).tolist(), physical=tissue.physical)


def _is_border(tag: int) -> bool:
    return tag % LESION_TAG // SCAR_TAG == BORDER


def _varied_twin(
    stored: StoredTwin, values: Mapping[str, float], centre: Mapping[str, float]
) -> StoredTwin:
    """The twin with other velocities and durations than those fitted."""

    def ratio(name: str) -> float:
        return values[name] / centre[name] if name in values else 1.0

    def change(name: str) -> float:
        return values[name] - centre[name] if name in values else 0.0

    twin, heart = stored.twin, stored.twin.heart
    across = ratio("cv_t")
    muscle = np.array([ratio("cv_l"), across, ratio("cv_n") if "cv_n" in values else across])
    given = twin.conductivity if isinstance(twin.conductivity, dict) else {0: twin.conductivity}
    conduction = {}
    for tag, tissue in given.items():
        factor = np.full(3, ratio("cv_endo")) if tag >= FAST_TAG else muscle
        conduction[tag] = _faster(tissue, factor * ratio(f"cv_scale[{tag}]"))
    apd = stored.apd90 + change("apd")
    if any(name in values for name in _GRADIENTS):
        shape = build_repolarisation(heart, twin.cell, stored.apd90, Parameters(()))
        for name in _GRADIENTS:
            apd = apd + change(name) * np.asarray(shape.gradients[name])
    apd = np.clip(apd, _LEAST * stored.apd90, _MOST * stored.apd90)
    return replace(stored, twin=replace(twin, conductivity=conduction), apd90=apd)


def _centre(substrate: Substrate) -> dict[str, float]:
    """Velocities and mean duration of the healthy region with most elements."""
    problem = substrate.problem
    count = np.bincount(np.asarray(problem.rows[0]), minlength=len(problem.tags))
    healthy = np.array([tag % LESION_TAG < SCAR_TAG for tag in problem.tags])
    if not (count[: len(healthy)] * healthy).any():
        raise InputError("no healthy tissue conducts: nothing to vary.")
    row = int((count[: len(healthy)] * healthy).argmax())
    along, across, _ = (round(float(x), 6) for x in np.asarray(problem.velocity)[row])
    apd = float(substrate.tables[problem.tags[row]].apd[-1])
    return {"cv_l": along, "cv_t": across, "apd": apd}


def _carried(name: str) -> bool:
    return name in _CARRIED or name.startswith("cv_scale[")


def _stream(seed: int, k: int) -> np.random.Generator:
    return np.random.default_rng([seed, k])


def _about_border() -> str:
    priors = ", ".join(f"{name}: {prior}" for name, prior in BORDER_PRIORS.items())
    return f"factors on the border zone, no data of a patient speak of them: {priors}, our choice"


def _check(count: int) -> None:
    if not 1 <= count <= 10_000:
        raise InputError(f"an ensemble has {count} members, expected 1 to 10000.")
