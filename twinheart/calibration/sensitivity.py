r"""What moves a lead, and what a misplaced electrode does to a fit.

Maps of sensitivity are gradients by the nodes of the heart: for each of them the derivative of one
number that is read from one lead, all of them by one reverse pass. An electrode that lies elsewhere
than assumed changes the data by :math:`\Delta y`; to first order a fit then moves by

.. math:: \delta u = -C J^T W \Delta y, \qquad C = (J^T J + I)^{-1},

with the whitening W of the data and the Jacobian J of the whitened residual (Gauss-Newton).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.calibration.build import by_element
from twinheart.calibration.model import Model
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import Observation
from twinheart.ecg.movable_field import MovableField
from twinheart.errors import InputError
from twinheart.tissue import Eikonal
from twinheart.types import Array

_OF_BODY = ("electrode.", "pose.", "gain")


class LeadSensitivity(eqx.Module):
    """How one number of one lead changes with the tissue around every node.

    Made by `lead_sensitivity`.

    Attributes
    ----------
    lead : str
        Which.
    value : float
        The number [mV].
    velocity : (node,) array
        Its derivative by the logarithm of the velocities around each node [mV]: times 0.1, what
        10 % more velocity there changes. The sum is that of all velocities at once.
    apd : (node,) array
        Its derivative by the APD of each node [mV/ms].
    """

    lead: str
    value: float
    velocity: Float[np.ndarray, "node"]
    apd: Float[np.ndarray, "node"]


def lead_sensitivity(
    objective: Objective,
    u: Float[Array, "parameter"],
    lead: str,
    *,
    at: float | None = None,
    window: tuple[float, float] | None = None,
) -> LeadSensitivity:
    r"""Which region moves a lead at a time, or within a window.

    The number is the lead at a time, or :math:`\sqrt{\langle y_l^2 \rangle}` over the samples of a
    window. A tetrahedron's velocities are multiplied by :math:`\exp` of the mean over its corners,
    so every node stands for the tissue around it: large elements count for more, and for a picture
    the derivative is divided by the volume of a node. Where neighbours have one velocity in all
    directions, as in a fast endocardial layer, they tie for the arrival along the edge between
    them: there the derivative is that of one of them, and only sums over some elements mean much.

    Parameters
    ----------
    objective : Objective
        Model.
    u : (parameter,) array
        Standard numbers at which it is linearised.
    lead : str
        One of the leads of the data.
    at : float
        Time [ms] after the onset of the QRS; between samples the lead is a straight line.
    window : pair of float
        First and last time [ms], instead of `at`.

    Returns
    -------
    LeadSensitivity
        Derivatives at every node of the heart.

    Raises
    ------
    InputError
        If the lead is not there, the times lie outside the data, or not just one of `at` and
        `window` is given.

    Examples
    --------
    Where does a faster or slower conduction change the end of the QRS in V1?::

        found = lead_sensitivity(objective, fit.u, "V1", window=(70.0, 100.0))
        write_mesh("v1.vtu", heart.mesh.with_point_fields(v1=found.velocity))
    """
    data = objective.data
    if lead not in data.names:
        raise InputError(f"there is no lead {lead}; there are {', '.join(data.names)}.")
    pick, root = _picked(np.asarray(data.t), at, window)
    value, (velocity, apd) = _lead_gradient(
        objective,
        by_element(objective.model.problem),
        jnp.asarray(u, float),
        jnp.asarray(data.names.index(lead)),
        jnp.asarray(pick),
        root,
    )
    return LeadSensitivity(lead, float(value), np.asarray(velocity), np.asarray(apd))


def _picked(t, at, window) -> tuple[np.ndarray, bool]:
    """Weights of the samples, and whether they are of a mean square."""
    if (at is None) == (window is None):
        raise InputError("give a time (at) or a window of the lead, and not both.")
    first, last = (at, at) if window is None else window
    if not t[0] <= first <= last <= t[-1]:
        raise InputError(
            f"the lead is asked for from {first:g} to {last:g} ms, expected times in this order "
            f"within the data, {t[0]:g} to {t[-1]:g} ms."
        )
    if window is None:
        return np.array([np.interp(at, t, row) for row in np.eye(len(t))]), False
    inside = (t >= first) & (t <= last)
    if not inside.any():
        raise InputError(f"no sample lies between {first:g} and {last:g} ms: widen the window.")
    return inside / inside.sum(), True


@eqx.filter_jit
def _lead_gradient(objective: Objective, by_element: Eikonal, u, lead, pick, root: bool):
    model, values = objective.model, objective.values(u)
    n_mesh, usual = model.problem.n_mesh, model.repolarisation.usual
    velocity, wave = model.conduction(values), model.wave_of(values)
    tets, own = model.problem.cells[0], velocity[model.problem.rows[0]]
    gain = jnp.broadcast_to(model.body.gains(values), (len(model.body.leads),))[lead]

    def number(by_node):
        log_velocity, longer = by_node
        local = own * jnp.exp(log_velocity[tets].mean(axis=1))[:, None]
        changed = jnp.concatenate([local, velocity])
        moved = eqx.tree_at(lambda p: p.velocity, by_element, changed)
        lat = model.excitation.lat(moved, values)[:n_mesh]
        apd = model.repolarisation.apd(values) + longer
        signal = gain * (wave.front(lat) + wave.difference(lat, apd / usual))[:, lead]
        if not root:
            return pick @ signal
        # the root has no derivative where the lead is still silent; nothing moves it there
        square = pick @ signal**2
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

    zero = jnp.zeros(n_mesh)
    return jax.value_and_grad(number)((zero, zero))


class ElectrodeStudy(eqx.Module):
    """What misplaced electrodes do to leads and fitted parameters.

    Made by `electrode_study`.

    Attributes
    ----------
    electrodes, leads, parameters : tuple of str
        Names.
    moved : (electrode, draw, 3) array
        Displacements, one electrode at a time [mm].
    lead_change : (electrode, lead) array
        Root mean square, over draws and time, of the change of every lead [mV].
    shift : (electrode, draw, parameter) array
        How far the fit moves, in standard numbers, to first order.
    sd : (parameter,) array
        Posterior standard deviation of the standard numbers.
    slope : (parameter,) array
        Physical unit per standard number.
    """

    electrodes: tuple[str, ...]
    leads: tuple[str, ...]
    parameters: tuple[str, ...]
    moved: Float[np.ndarray, "electrode draw 3"]
    lead_change: Float[np.ndarray, "electrode lead"]
    shift: Float[np.ndarray, "electrode draw parameter"]
    sd: Float[np.ndarray, "parameter"]
    slope: Float[np.ndarray, "parameter"]

    @property
    def bias(self) -> Float[np.ndarray, "electrode parameter"]:
        """Root mean square bias of each parameter by each electrode, in its physical unit."""
        return np.sqrt((self.shift**2).mean(axis=1)) * np.abs(self.slope)

    @property
    def relative_bias(self) -> Float[np.ndarray, "electrode parameter"]:
        """The same over the posterior standard deviation: above 1 the intervals do not hold."""
        return np.sqrt((self.shift**2).mean(axis=1)) / self.sd

    @property
    def together(self) -> Float[np.ndarray, "draw parameter"]:
        """Shift of the fit, in standard numbers, if all electrodes are misplaced at once.

        A lead is a sum over electrodes, so what they do adds up.
        """
        return self.shift.sum(axis=0)


def electrode_study(
    objective: Objective,
    u: Float[Array, "parameter"],
    *,
    sd_mm: float = 20.0,
    draws: int = 50,
    names: Sequence[str] | None = None,
    field: MovableField | None = None,
    seed: int = 0,
) -> ElectrodeStudy:
    """Move each electrode at random, and see by how much leads and fit move.

    Electrodes move in the plane at right angles to the line from the heart's centre, as they would
    on the skin, and the fit does not know of it. First order in the change of the data: as good as
    the posterior is Gaussian. Electrodes or a pose that are free take up part of it.

    Parameters
    ----------
    objective : Objective
        What was fitted, in an unbounded medium.
    u : (parameter,) array
        Best fit, standard numbers.
    sd_mm : float
        Standard deviation of the displacement in each of the two directions [mm]; the default of
        2 cm is our choice.
    draws : int
        Displacements of each electrode.
    names : sequence of str, optional
        Of the twin's electrodes, in their order; default: their numbers.
    field : MovableField, optional
        Lead field of the heart (`twinheart.ecg.movable_field`); default: the model's own, which it
        has if electrodes or the pose are free.
    seed : int
        Of the random numbers.

    Returns
    -------
    ElectrodeStudy
        Changes of leads and parameters for each electrode, in the order of the twin's electrodes.

    Raises
    ------
    InputError
        If there is no lead field of moving electrodes, or a number makes no sense.

    Examples
    --------
    Which electrode must be placed with care?::

        study = electrode_study(objective, fit.u, field=movable_field(heart.mesh, sigma_i))
        worst = study.relative_bias.max(axis=1)
    """
    body = objective.model.body
    field = body.field if field is None else field
    if field is None:
        raise InputError(
            "the model has no lead field of moving electrodes: give one, "
            "twinheart.ecg.movable_field.movable_field(mesh, intracellular_tensor(twin))."
        )
    if not (np.isfinite(sd_mm) and sd_mm > 0 and draws > 0):
        raise InputError(f"{draws} draws of {sd_mm:g} mm, expected positive numbers.")
    u = jnp.asarray(u, float)
    values = objective.values(u)
    places = np.asarray(body.placed(values), float)
    names = tuple(map(str, range(len(places)) if names is None else names))
    if len(names) != len(places):
        raise InputError(f"there are {len(places)} electrodes and {len(names)} names.")
    moved = _tangential(places - np.asarray(body.centre), draws, sd_mm, seed)
    _, jacobian = (np.asarray(x, np.float64) for x in objective.linearised(u))
    covariance = np.linalg.inv(jacobian.T @ jacobian + np.eye(jacobian.shape[1]))
    lat = objective.model.lat(values) if objective.lat is None else objective.lat
    gains = np.broadcast_to(np.asarray(body.gains(values)), (len(body.leads),))
    weights = np.asarray(body.weights) * gains[:, None]
    changes, shifts = [], []
    for place, own, column in zip(places, moved, weights.T, strict=True):
        at = np.concatenate([place[None], place + own])
        potential = np.asarray(_potentials(objective.model, field, values, lat, at), np.float64)
        change = (potential[:, 1:] - potential[:, :1]).T[:, :, None] * column
        whitened = np.asarray(_whitened(objective.data, jnp.asarray(change)), np.float64)
        changes.append(np.sqrt((change**2).mean(axis=(0, 1))))
        shifts.append(-whitened @ jacobian @ covariance)
    slope = np.diag(np.asarray(jax.jacfwd(objective.free.flat)(u)))
    return ElectrodeStudy(
        electrodes=names,
        leads=body.leads,
        parameters=objective.free.names,
        moved=moved,
        lead_change=np.stack(changes),
        shift=np.stack(shifts),
        sd=np.sqrt(np.diag(covariance)),
        slope=slope,
    )


@eqx.filter_jit
def _whitened(data: Observation, changes):
    return jax.vmap(data.whitened)(changes)


def _tangential(towards, draws: int, sd: float, seed: int) -> np.ndarray:
    """Random displacements at right angles to given directions."""
    normal = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    free = np.random.default_rng(seed).normal(0.0, sd, (len(towards), draws, 3))
    return free - np.einsum("edk,ek,ej->edj", free, normal, normal)


@eqx.filter_jit
def _potentials(model: Model, field: MovableField, values, lat, places):
    """Potentials at any places, (time, place) [mV], of a given arrival."""
    wave, n_mesh = model.wave, model.problem.n_mesh
    shares = field(places).transpose(1, 2, 0)
    corners = jnp.concatenate([-shares.sum(axis=1, keepdims=True), shares], axis=1)
    tets = wave.tets.reshape(-1, 4)
    by_node = jnp.zeros((n_mesh, shares.shape[2]), shares.dtype)
    by_node = by_node.at[tets[: len(shares)]].add(corners).T
    shares = jnp.pad(shares, ((0, len(tets) - len(shares)), (0, 0), (0, 0)))
    shares = shares.reshape(*wave.tets.shape[:2], 3, -1)
    wave = eqx.tree_at(lambda w: (w.shares, w.lead_field), wave, (shares, by_node))
    apd = model.repolarisation.apd(values) / model.repolarisation.usual
    return wave.front(lat[:n_mesh]) + wave.difference(lat[:n_mesh], apd)
