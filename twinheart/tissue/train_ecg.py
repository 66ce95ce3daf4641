r"""ECG of a train of activations: many waves, each node fired as often as it was.

The beats of one node superpose from rest,

.. math:: V_n(t) = V_0 + \sum_k \big[U(t - \tau_{nk};\, APD_{nk}) - V_0\big],

with the durations that restitution gave. What waves cross a tetrahedron is not told by the number
of a node's activation: nodes beside a line of block have fired a different number of times. So the
activations of its corners are put together where each is the nearest to the others in time and no
later than a wave needs across it, and such a front is integrated within the element (see
`twinheart.tissue.wave_ecg`). What is left over, at lines of block, counts by the nodes: there the
voltage is linear in the element.
"""

import dataclasses
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.signal import fftconvolve

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.tissue.build import cells_of_nodes
from twinheart.tissue.eikonal_trains import Train
from twinheart.tissue.template import ActionPotential, Templates, action_potential
from twinheart.tissue.wave import FOOT, STEP
from twinheart.tissue.wave_ecg import WaveEcg, wave_ecg

_MEMORY = 1000.0  # ms after which an action potential leaves no trace
_AT_ONCE = 32_768  # tetrahedra whose activations are compared at once
_LEAST, _MOST = 0.51, 1.98  # of the APD of a template


def train_templates(
    heart: Heart, cell: AbstractCellModel | dict[int, AbstractCellModel]
) -> Templates:
    """Templates for beats that follow each other: each ends where it began.

    Parameters
    ----------
    heart : Heart
        Its regions say which cell a node has.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cell model, or one for each region tag; of parameters with one value for each node the
        mean counts, as the durations come from the train.

    Returns
    -------
    Templates
        One table for each cell model.

    Raises
    ------
    ModelError
        If a model has no template.
    """
    models, _, table = cells_of_nodes(heart, cell)
    tables = tuple(_settled(action_potential(model)) for model in models)
    return Templates(tables, jnp.asarray(table), jnp.ones(heart.mesh.n_nodes), len(tables) > 1)


def _settled(ap: ActionPotential) -> ActionPotential:
    """The table without what a first beat leaves of the resting voltage (some 0.5 mV)."""
    s = STEP * np.arange(len(ap.vm)) - FOOT
    share = np.clip((s - float(ap.crest)) / float(ap.apd90 - ap.crest), 0.0, 1.0)
    vm = np.asarray(ap.vm)
    return eqx.tree_at(lambda a: a.vm, ap, jnp.asarray(vm - (vm[-1] - vm[0]) * share))


def train_ecg(
    tets: Int[np.ndarray, "tet 4"],
    shares: Float[np.ndarray, "electrode tet 4"],
    train: Train,
    templates: Templates,
    t: Float[np.ndarray, "time"],
    *,
    longest: Float[np.ndarray, "tet"],
    crossing: float,
    lowpass: float = 0.0,
) -> Float[np.ndarray, "time electrode"]:
    """Potentials of a train of activations.

    Parameters
    ----------
    tets : (tet, 4) int array
        Tetrahedra of the mesh.
    shares : (electrode, tet, 4) array
        Lead field by element, see `twinheart.ecg.lead_shares`.
    train : Train
        Activations of the nodes of the mesh until at least 12 ms and four `lowpass` after the last
        time.
    templates : Templates
        From `train_templates`.
    t : (time,) array
        Equally spaced times [ms], a multiple of 1/8 ms apart, on the clock of the train.
    longest : (tet,) array
        Time that a wave may need across each tetrahedron [ms]; NaN where nothing conducts.
    crossing : float
        Time that a front takes across most tetrahedra [ms], see `twinheart.tissue.wave_ecg`.
    lowpass : float
        Filter the result by a Gaussian of this standard deviation [ms].

    Returns
    -------
    (time, electrode) array
        Potentials [mV].

    Examples
    --------
    See `twinheart.planning.vt_ecg`.
    """
    t = np.asarray(t, dtype=float)
    margin = math.ceil(4.0 * lowpass / (t[1] - t[0])) if lowpass else 0
    t = t[0] + (t[1] - t[0]) * np.arange(-margin, len(t) + margin)
    n = len(templates.table)
    origin = t[0] - _MEMORY
    lat, apd = _within(train.lat[:n], train.apd[:n], origin, t[-1] + FOOT)
    wave = wave_ecg(tets, shares, templates, t - origin, crossing=crossing)
    crossings, alone = _passages(np.asarray(tets), lat - origin, np.asarray(longest))
    fronts = sum((wave.crossings(jnp.asarray(tau)) for tau in crossings), start=0.0)
    phi = np.zeros((len(t), len(shares)))
    if len(crossings):
        phi += np.asarray(wave.convolved(jnp.asarray(fronts)))
    phi += _left_over(wave, np.asarray(tets), np.asarray(shares), lat - origin, alone)
    phi += _other_shapes(wave, lat - origin, apd)
    if lowpass:
        phi = gaussian_filter1d(phi, lowpass / wave.sampling, axis=0)
    return phi[margin : len(phi) - margin]


def _within(lat, apd, first: float, last: float):
    """Activations between two times, those of each node from the first column on."""
    kept = (lat >= first) & (lat <= last)
    order = np.argsort(~kept, axis=1, kind="stable")
    width = max(int(kept.sum(axis=1).max(initial=0)), 1)
    lat, apd = (
        np.take_along_axis(np.where(kept, x, np.nan), order, axis=1)[:, :width] for x in (lat, apd)
    )
    return lat, apd


def _passages(tets, lat, longest) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals of fronts at corners, and which activations are of no front.

    Returns
    -------
    (passage, tet, 4) array, (tet, 4, beat) bool array
        NaN where a tetrahedron has no more fronts; True where an activation is left over.
    """
    width = lat.shape[1]
    tau = np.full((width, len(tets), 4), np.nan, np.float32)
    alone = np.zeros((len(tets), 4, width), dtype=bool)
    for start in range(0, len(tets), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        at = lat[tets[rows]]
        partner = np.stack([_mutual(at[:, 0], at[:, j], longest[rows]) for j in (1, 2, 3)], axis=1)
        whole = np.logical_and.reduce(partner >= 0, axis=1)
        place = np.maximum(partner, 0)
        others = np.take_along_axis(at[:, 1:], place, axis=2)
        fronts = np.concatenate([at[:, :1], others], axis=1)
        tau[:, rows] = np.where(whole[:, None], fronts, np.nan).transpose(2, 0, 1)
        used = np.zeros(at.shape, dtype=bool)
        used[:, 0] = whole
        tet, k = np.nonzero(whole)
        for j in (1, 2, 3):
            used[tet, j, place[tet, j - 1, k]] = True
        alone[rows] = np.isfinite(at) & ~used
    crossed = np.asarray(np.isfinite(tau).any(axis=(1, 2)))
    return tau[crossed], alone


def _mutual(one, other, longest) -> np.ndarray:
    """For every activation of a corner that of another whose nearest it is, too; -1 without."""
    gap = np.abs(one[:, :, None] - other[:, None, :])
    gap[~np.isfinite(gap)] = np.inf
    near, back = gap.argmin(axis=2), gap.argmin(axis=1)
    least = np.take_along_axis(gap, near[:, :, None], axis=2)[:, :, 0]
    same = np.take_along_axis(back, near, axis=1) == np.arange(one.shape[1])
    return np.where(same & (least <= longest[:, None]), near, -1)


def _left_over(wave: WaveEcg, tets, shares, lat, alone) -> np.ndarray:
    """Potentials of activations that belong to no front, as voltages of nodes."""
    tet, corner, beat = np.nonzero(alone)
    phi = np.zeros((wave.n_times, len(shares)))
    if not tet.size:
        return phi
    n_foot = round(FOOT / wave.sampling)
    place = (lat[tets[tet, corner], beat] / wave.sampling).clip(0.0)
    first = np.floor(place).astype(int)
    before = round(wave.start / wave.sampling)
    total = before + wave.n_times + n_foot + 1
    rise = wave.templates.tables[0]
    kernel = np.asarray(rise(jnp.asarray(wave.sampling * np.arange(-n_foot, total)))) - float(
        rise.rest
    )
    for e, own in enumerate(shares[:, tet, corner]):
        signal = np.zeros(total)
        for shift, weight in ((0, 1.0 - (place - first)), (1, place - first)):
            np.add.at(signal, np.minimum(first + shift, total - 1), weight * own)
        phi[:, e] = fftconvolve(signal, kernel)[n_foot + before :][: wave.n_times]
    return phi


def _other_shapes(wave: WaveEcg, lat, apd) -> np.ndarray:
    """What durations and cells add that are not those of the first table: activations as nodes."""
    node, beat = np.nonzero(np.isfinite(lat))
    templates = wave.templates
    table = np.asarray(templates.table)[node]
    own = np.array([float(ap.apd90) for ap in templates.tables])[table]
    factor = np.clip(apd[node, beat] / own, _LEAST, _MOST)
    many = Templates(templates.tables, jnp.asarray(table), jnp.asarray(factor), True)
    activations = dataclasses.replace(
        wave, templates=many, lead_field=jnp.asarray(np.asarray(wave.lead_field)[:, node])
    )
    return np.asarray(activations.difference(jnp.asarray(lat[node, beat])))
