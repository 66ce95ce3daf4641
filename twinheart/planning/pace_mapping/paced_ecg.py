"""ECGs of beats paced from many places of a heart, by the eikonal equation and one template.

The QRS of a paced beat is that of its front: what cells repolarise differently shows later. So the
action potential of one cell serves all, and a beat takes one solution of the eikonal equation and a
sum over the elements (see `twinheart.tissue.wave_ecg`).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.frame import heart_frame
from twinheart.calibration.observation import INDEPENDENT
from twinheart.ecg import Electrodes, lead_shares
from twinheart.ecg.leads import lead_weights
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import mean_edge
from twinheart.planning.pace_mapping.pace_match import EARLIEST, LOWPASS, SAMPLES, STEP, PacedBeats
from twinheart.planning.pacing_sites import conducting_nodes
from twinheart.tissue import Eikonal, Sites, arrival, build_eikonal
from twinheart.tissue.template import templates_of
from twinheart.tissue.wave_ecg import WaveEcg, wave_ecg
from twinheart.twin import Twin, intracellular_tensor

SURFACES = {
    "endo": (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM),
    "epi": (SurfaceClass.EPICARDIUM,),
    "both": (SurfaceClass.EPICARDIUM, SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM),
}
_LEAST_LEADS = 3
_AT_ONCE = 16  # beats in one compiled call
_NUDGE = 1.0  # mm, by which electrodes are moved for the derivative of their potentials


class ModelSpread(NamedTuple):
    """How far a model may be from the heart it stands for: standard deviations, our choice.

    Attributes
    ----------
    speed : float
        Of the logarithm of all velocities together.
    region, axis : float
        Of the logarithms of the velocities of each region, and of each axis of the fibres.
    electrode_mm, shift_mm, turn_deg : float
        Of each electrode in every direction, and of the heart between them. Not with a stored lead
        field, in which electrodes stay.
    gain : float
        Of the logarithm of the amplitude of each lead.
    """

    speed: float = 0.15
    region: float = 0.1
    axis: float = 0.1
    electrode_mm: float = 7.0
    shift_mm: float = 7.0
    turn_deg: float = 5.0
    gain: float = 0.1


class PacedEcg(eqx.Module):
    """From places to the leads of beats paced there; made by `paced_ecg`.

    Attributes
    ----------
    problem : Eikonal
        Geometry and velocities.
    ecg : WaveEcg
        Leads, then by how much a millimetre of each electrode along x, y and z changes its
        potential.
    names : tuple of str
        Leads.
    weights : (lead, electrode) array
        Of the electrodes in the leads.
    offsets : (electrode, 3) array
        Of the electrodes from the heart's centre [mm]; none in a stored lead field.
    """

    problem: Eikonal
    ecg: WaveEcg
    names: tuple[str, ...] = eqx.field(static=True)
    weights: Float[np.ndarray, "lead electrode"]
    offsets: Float[np.ndarray, "electrode 3"]

    def beats(
        self,
        positions: Float[np.ndarray, "site 3"],
        progress: Callable[[int, int], None] | None = None,
    ) -> PacedBeats:
        """Beats paced at some places.

        Parameters
        ----------
        positions : (site, 3) array
            In the muscle [mm].
        progress : callable, optional
            Called with the number of beats that are done, and of all.

        Returns
        -------
        PacedBeats
            Ready to be compared.
        """
        base = np.asarray(self.problem.velocity)
        plain = self._only_leads()
        velocity = np.broadcast_to(base, (len(positions), *base.shape))
        return PacedBeats(_in_batches(plain, positions, velocity, progress))

    def disturbed(
        self, positions: Float[np.ndarray, "site 3"], error: ModelSpread, rng: np.random.Generator
    ) -> Float[np.ndarray, "site time lead"]:
        """Leads [mV] of beats of hearts that differ from this one, each in its own way.

        Parameters
        ----------
        positions : (site, 3) array
            Where they are paced [mm].
        error : ModelSpread
            How much they differ.
        rng : Generator
            Draws the differences.

        Returns
        -------
        (site, time, lead) array
            Every `STEP` ms from `EARLIEST` on.
        """
        base = np.asarray(self.problem.velocity)
        n, n_leads = len(positions), len(self.names)
        factor = error.speed * rng.standard_normal((n, 1, 1))
        factor = factor + error.region * rng.standard_normal((n, len(base), 1))
        factor = factor + error.axis * rng.standard_normal((n, 1, 3))
        found = _in_batches(self, positions, base * np.exp(factor), None)
        leads = found[:, :, :n_leads]
        if len(self.offsets):
            turn = np.radians(error.turn_deg) * rng.standard_normal((n, 1, 3))
            moved = np.cross(turn, self.offsets)
            moved = moved + error.shift_mm * rng.standard_normal((n, 1, 3))
            moved = moved + error.electrode_mm * rng.standard_normal((n, *self.offsets.shape))
            slopes = found[:, :, n_leads:].reshape(n, SAMPLES, -1, 3)
            leads = leads + np.einsum("sted,sed->ste", slopes, moved) @ self.weights.T
        return leads * np.exp(error.gain * rng.standard_normal((n, 1, n_leads)))

    def _only_leads(self) -> "PacedEcg":
        n = len(self.names)
        cut = (self.ecg.shares[..., :n], self.ecg.lead_field[:n])
        return eqx.tree_at(lambda p: (p.ecg.shares, p.ecg.lead_field), self, cut)


def paced_ecg(twin: Twin, leads: tuple[str, ...]) -> PacedEcg:
    """Prepare paced beats of a twin.

    Parameters
    ----------
    twin : Twin
        Heart, tissue, electrodes; its lead field, if it has one.
    leads : tuple of str
        Leads of the recording. Those are taken that the electrodes can form and that do not follow
        from others.

    Returns
    -------
    PacedEcg
        Call its `beats`.

    Raises
    ------
    InputError
        If the twin has no electrodes, or fewer than three leads are left.

    Examples
    --------
    >>> import twinheart as th
    >>> from twinheart.planning.pace_mapping.paced_ecg import paced_ecg
    >>> heart = th.demo_heart()
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer", electrodes=th.standard_12_lead(heart))
    >>> paced_ecg(twin, ("I", "II", "III", "V1", "V5")).names
    ('I', 'II', 'V1', 'V5')
    """
    if twin.electrodes is None:
        raise InputError("there are no electrodes: without them a paced beat has no ECG.")
    formed, weights = lead_weights(twin.electrodes.names)
    common = [name for name in formed if name in leads]
    names = tuple(name for name in common if name in INDEPENDENT) or tuple(common)
    if len(names) < _LEAST_LEADS:
        raise InputError(
            f"recording and electrodes have {len(names)} independent leads in common "
            f"({', '.join(names) or 'none'}), expected at least {_LEAST_LEADS} of "
            f"{', '.join(INDEPENDENT)}: give the twelve leads of the recording."
        )
    weights = weights[[formed.index(name) for name in names]]
    mesh, sigma_i = twin.heart.mesh, intracellular_tensor(twin)
    if twin.lead_field is None:
        shares = _with_slopes(mesh, twin.electrodes, sigma_i, weights)
        offsets = twin.electrodes.positions - heart_frame(mesh).centre
    else:
        twin.lead_field.check(twin.heart, sigma_i=sigma_i)
        shares = np.einsum("le,etk->ltk", weights, np.asarray(twin.lead_field.shares))
        offsets = np.zeros((0, 3))
    problem = build_eikonal(twin.heart, twin.conductivity, purkinje=twin.purkinje)
    ecg = wave_ecg(
        mesh.tets,
        shares,
        templates_of(twin.heart, twin.cell),
        EARLIEST + STEP * np.arange(SAMPLES),
        crossing=mean_edge(mesh) / float(problem.velocity.min()),
        lowpass=LOWPASS,
    )
    return PacedEcg(problem, ecg, names, weights, offsets)


def _with_slopes(mesh: TetMesh, electrodes: Electrodes, sigma_i, weights) -> np.ndarray:
    """Shares of leads, then slopes of potentials by the coordinates of their electrodes."""
    still = lead_shares(mesh, electrodes, sigma_i)
    slopes = np.empty((len(still), 3, *still.shape[1:]), np.float32)
    for axis in range(3):
        nudged = electrodes.positions + _NUDGE * np.eye(3)[axis]
        moved = lead_shares(mesh, Electrodes(electrodes.names, nudged), sigma_i)
        slopes[:, axis] = (moved - still) / _NUDGE
    leads = np.einsum("le,etk->ltk", weights, still)
    return np.concatenate([leads, slopes.reshape(-1, *still.shape[1:])]).astype(np.float32)


def _in_batches(paced: PacedEcg, positions, velocity, progress) -> np.ndarray:
    """Leads of beats, always as many at once: compiled once."""
    parts = []
    for start in range(0, len(positions), _AT_ONCE):
        rows = np.arange(start, start + _AT_ONCE) % len(positions)
        batch = _paced(paced, jnp.asarray(positions[rows]), jnp.asarray(velocity[rows]))
        parts.append(np.asarray(batch)[: len(positions) - start])
        if progress is not None:
            progress(min(start + _AT_ONCE, len(positions)), len(positions))
    return np.concatenate(parts)


@eqx.filter_jit
def _paced(paced: PacedEcg, positions, velocity):
    def lat(position, speed):
        own = eqx.tree_at(lambda p: p.velocity, paced.problem, speed)
        return arrival(own, Sites(position[None]))[: own.n_mesh]

    return jax.lax.map(paced.ecg.front, jax.vmap(lat)(positions, velocity))


class Candidates(NamedTuple):
    """Nodes from which a beat may be paced.

    Attributes
    ----------
    nodes : (candidate,) int array
        Of the mesh.
    surface : (candidate,) int array
        `SurfaceClass` of each.
    """

    nodes: Int[np.ndarray, "candidate"]
    surface: Int[np.ndarray, "candidate"]


def candidates(mesh: TetMesh, problem: Eikonal, surfaces: str = "both") -> Candidates:
    """Nodes of the surfaces that conduct.

    Parameters
    ----------
    mesh : TetMesh
        With tagged surfaces (``surf_class``).
    problem : Eikonal
        Says what conducts.
    surfaces : {"endo", "epi", "both"}
        Which surfaces.

    Returns
    -------
    Candidates
        All of them; `thinned` takes some.

    Raises
    ------
    InputError
        If there is no such surface that conducts.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning.pace_mapping.paced_ecg import candidates
    >>> from twinheart.tissue import build_eikonal
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> found = candidates(mesh, build_eikonal(Heart(mesh)), "epi")
    >>> set(found.surface.tolist())
    {2}
    """
    if surfaces not in SURFACES:
        raise InputError(f"unknown surfaces '{surfaces}', expected {', '.join(SURFACES)}.")
    label = mesh.point_fields["surf_class"]
    nodes = conducting_nodes(problem)
    nodes = nodes[nodes < mesh.n_nodes]
    nodes = nodes[np.isin(label[nodes], SURFACES[surfaces])]
    if not nodes.size:
        raise InputError(f"no node of the surfaces '{surfaces}' conducts: nothing can be paced.")
    return Candidates(nodes, label[nodes].astype(int))


def thinned(
    points: Float[np.ndarray, "point 3"],
    surface: Int[np.ndarray, "point"],
    spacing: float,
    order: Int[np.ndarray, "point"] | None = None,
    taken: Float[np.ndarray, "taken 3"] | None = None,
) -> Bool[np.ndarray, "point"]:
    """Points no two of which on one surface are nearer than `spacing`, and no more fits between.

    Parameters
    ----------
    points : (point, 3) array
        Places [mm].
    surface : (point,) int array
        The surface of each.
    spacing : float
        Least distance [mm].
    order : (point,) int array, optional
        Who is asked first; default as they come.
    taken : (taken, 3) array, optional
        Places that are there already; the same distance is kept from them.

    Returns
    -------
    (point,) bool array
        Which are kept.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning.pace_mapping.paced_ecg import thinned
    >>> thinned(np.eye(3)[[0, 0, 0]] * [[0], [1], [2]], np.zeros(3, int), 1.5)
    array([ True, False,  True])
    """
    free = np.ones(len(points), dtype=bool)
    if taken is not None and len(taken):
        free = KDTree(taken).query(points)[0] >= spacing
    kept = np.zeros(len(points), dtype=bool)
    near = KDTree(points).query_ball_point(points, spacing * (1 - 1e-9))
    for k in range(len(points)) if order is None else order:
        if free[k]:
            kept[k] = True
            close = np.asarray(near[k])
            free[close[surface[close] == surface[k]]] = False
    return kept
