r"""The forward model of a calibration: from named values to activation, repolarisation and ECG.

Excitation starts at sites on the endocardia (or at the roots of a Purkinje tree), runs by the
anisotropic eikonal equation, and every node passes through the action potential of its cell:

.. math:: V(x, t) = U(t - \tau(x); APD(x)), \qquad
          y_l(t) = g\, g_l \sum_e w_{le}\, B_e V(\cdot, t - t_0).

All of it is one differentiable function of the values that `KNOWN` lists.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.anatomy.chart import Chart
from twinheart.calibration.observation import Observation
from twinheart.calibration.repolarisation import Repolarisation
from twinheart.ecg.movable_field import MovableField
from twinheart.tissue import Eikonal, Sites, arrival
from twinheart.tissue.wave_ecg import WaveEcg
from twinheart.types import Array

# Name, unit and meaning of what can be free.
KNOWN: dict[str, tuple[str, str]] = {
    "cv_l": ("m/s", "velocity along the fibres"),
    "cv_t": ("m/s", "velocity across the fibres"),
    "cv_n": ("m/s", "velocity across the sheets; moves with cv_t where it is not free itself"),
    "cv_endo": ("m/s", "velocity of the fast endocardial layer"),
    "cv_scale": ("", "factor on the velocities of a region"),
    "cv_field": ("", "logarithm of a factor on the velocities of the muscle, around places"),
    "purkinje_cv": ("m/s", "velocity of the Purkinje tree"),
    "site.ab": ("", "height of a site of early activation, 0 at the apex to 1 at the base"),
    "site.rt": ("turns", "rotation of a site"),
    "site.onset": ("ms", "onset of a site after that of the QRS"),
    "lv_delay": ("ms", "delay of the left ventricle's sites; negative: of the right one's"),
    "offset": ("ms", "onset of the QRS against the one found in the ECG"),
    "apd": ("ms", "mean action potential duration (APD90)"),
    "apd.ab": ("ms", "APD at the base minus that at the apex"),
    "apd.tm": ("ms", "APD of the epicardium minus that of the endocardium"),
    "apd.ap": ("ms", "APD in front minus that behind"),
    "apd.rvlv": ("ms", "APD on the right minus that on the left"),
    "apd.field": ("ms", "what is added to the APD around places"),
    "apd.channel": ("", "factor on an ionic channel of the cells, by its effect on their APD"),
    "electrode.x": ("mm", "shift of an electrode along x of the mesh"),
    "electrode.y": ("mm", "shift of an electrode along y"),
    "electrode.z": ("mm", "shift of an electrode along z"),
    "pose.shift": ("mm", "shift of the heart in the torso along x, y, z"),
    "pose.turn": ("deg", "turn of the heart around its centre, about x, y, z"),
    "source_across": (
        "",
        "factor on the intracellular conductivity across the fibres, whose currents make the ECG; "
        "velocities stay",
    ),
    "gain": ("", "factor on all leads"),
    "gain.lead": ("", "factor on one lead"),
}
_SOFT = 3.0  # ms, over which the delay goes over from one ventricle to the other


class Prediction(eqx.Module):
    """What the forward model says.

    Attributes
    ----------
    lat : (node,) array
        Activation times after the measured onset of the QRS [ms]; inf where the wave does not come.
    apd : (node,) array
        APD90 [ms].
    signals : (time, lead) array
        Leads [mV] at the times of the model.
    """

    lat: Float[Array, "node"]
    apd: Float[Array, "node"]
    signals: Float[Array, "time lead"]


class Conduction(eqx.Module):
    """Velocities as functions of named values.

    Attributes
    ----------
    base : (tag, 3) array
        Velocities where nothing is free, one row for each region tag [m/s].
    usual : (3,) array
        Those of the largest region of the muscle: other regions keep their ratio to it.
    fast : (tag,) array of bool
        Which rows are the fast endocardial layer.
    scaled : (entry,) int array
        Row of every entry of ``cv_scale``.
    row : (tet,) int array or None
        Row of every tetrahedron that conducts, where velocities vary from one to the next.
    basis : (tet, place) array or None
        Of the smooth field.
    tree : (3,) array or None
        Velocity of the Purkinje tree.
    """

    base: Float[Array, "tag 3"]
    usual: Float[Array, "3"]
    fast: Bool[np.ndarray, "tag"]
    scaled: Int[np.ndarray, "entry"]
    row: Int[np.ndarray, "tet"] | None
    basis: Float[Array, "tet place"] | None
    tree: Float[Array, "3"] | None

    def __call__(self, values: Mapping[str, Array]) -> Float[Array, "row 3"]:
        """Rows of velocities as `Eikonal.velocity` has them."""
        across = values["cv_t"][0] / self.usual[1] if "cv_t" in values else 1.0
        along = values["cv_l"][0] / self.usual[0] if "cv_l" in values else 1.0
        normal = values["cv_n"][0] / self.usual[2] if "cv_n" in values else across
        factor = jnp.stack([jnp.asarray(x, float) for x in (along, across, normal)])
        rows = self.base * jnp.where(self.fast[:, None], 1.0, factor)
        if "cv_endo" in values:
            rows = jnp.where(self.fast[:, None], values["cv_endo"][0], rows)
        if "cv_scale" in values:
            rows = (
                jnp.asarray(rows)
                .at[self.scaled]
                .multiply(values["cv_scale"][:, None], unique_indices=True)
            )
        if self.row is not None and self.basis is not None:
            field = self.basis @ values["cv_field"].astype(self.basis.dtype)
            rows = jnp.concatenate([rows[self.row] * jnp.exp(field)[:, None], rows])
        if self.tree is None:
            return rows
        tree = self.tree
        if "purkinje_cv" in values:
            tree = jnp.full(3, values["purkinje_cv"][0])
        return jnp.concatenate([rows, tree[None]])


class Excitation(eqx.Module):
    """Where and when waves start, as functions of named values.

    Attributes
    ----------
    names : tuple of str
        Of the sites.
    right : (site,) array of bool
        Which of them lie in the right ventricle.
    ab, rt, onset : (site,) arrays
        Where and when, if not free [ms].
    charts : tuple of Chart
        Of the left and the right endocardium, or of the left alone.
    radius : float
        Of the ball in which arrival is exact [mm].
    roots : (root,) int array
        Nodes of the Purkinje tree where excitation starts instead, at `onset`.
    over_scar : bool
        Whether sites may come to lie where nothing conducts.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    right: Bool[np.ndarray, "site"]
    ab: Float[Array, "site"]
    rt: Float[Array, "site"]
    onset: Float[Array, "site"]
    charts: tuple[Chart, ...]
    radius: float = eqx.field(static=True)
    roots: Int[np.ndarray, "site"] | None = None
    over_scar: bool = eqx.field(static=True, default=False)

    def onsets(self, values: Mapping[str, Array]) -> Float[Array, "site"]:
        """Onsets [ms]. The ventricle that is not delayed starts with the QRS, whichever it is."""
        onset = values.get("site.onset", self.onset)
        if "lv_delay" in values:
            delay = jnp.asarray(values["lv_delay"])[0]
            onset = onset + jnp.where(self.right, _late(-delay), _late(delay))
        return onset + values["offset"][0] if "offset" in values else onset

    def positions(self, values: Mapping[str, Array]) -> Float[Array, "site 3"]:
        """Places of the sites [mm]."""
        ab, rt = values.get("site.ab", self.ab), values.get("site.rt", self.rt)
        places = [chart(ab, rt) for chart in self.charts]
        return jnp.where(self.right[:, None], places[-1], places[0])

    def lat(self, problem: Eikonal, values: Mapping[str, Array]) -> Float[Array, "every_node"]:
        """Arrival at the nodes of mesh and tree [ms]."""
        if self.roots is not None:
            at_nodes = jnp.full(problem.n_nodes, jnp.inf).at[self.roots].min(self.onsets(values))
            return arrival(problem, at_nodes=at_nodes)
        sites = Sites(self.positions(values), self.onsets(values), self.radius)
        # where the core of a scar lies under a site, it excites nothing
        return arrival(problem, sites, silent=self.over_scar)


def _late(delay: Array) -> Array:
    """The delay where it is positive, smoothly; of both signs, the difference is the delay."""
    return _SOFT * (jax.nn.softplus(delay / _SOFT) - np.log(2.0))


class Body(eqx.Module):
    """Electrodes and leads as functions of named values.

    Attributes
    ----------
    leads : tuple of str
        Names of the leads.
    weights : (lead, electrode) array
        Of the electrodes in the leads.
    positions : (electrode, 3) array
        Where they are if not free [mm].
    centre : (3,) array
        Around which the heart turns [mm].
    gained : (entry,) int array
        Lead of each entry of ``gain.lead``.
    moved : (entry,) int array
        Electrode of each entry of ``electrode.x``, ``y``, ``z``.
    field : MovableField or None
        Lead field of electrodes that move; None where nothing moves.
    across : tuple of arrays or None
        Share of the conductivity across the fibres in ``field.flux``, or where nothing moves in
        ``shares`` and ``lead_field`` of the wave; None where it is not free.
    """

    leads: tuple[str, ...] = eqx.field(static=True)
    weights: Float[Array, "lead electrode"]
    positions: Float[Array, "electrode 3"]
    centre: Float[Array, "3"]
    gained: Int[np.ndarray, "gained"]
    moved: Int[np.ndarray, "entry"]
    field: MovableField | None
    across: tuple[Array, ...] | None = None

    def placed(self, values: Mapping[str, Array]) -> Float[Array, "electrode 3"]:
        """Electrodes in the coordinates of the heart's mesh [mm]."""
        positions = self.positions
        for k, axis in enumerate("xyz"):
            name = f"electrode.{axis}"
            if name in values:
                positions = jnp.asarray(positions).at[self.moved, k].add(values[name])
        if "pose.shift" in values:
            positions = positions - values["pose.shift"]
        if "pose.turn" in values:
            turn = rotation(jnp.deg2rad(values["pose.turn"]))
            positions = (positions - self.centre) @ turn + self.centre
        return positions

    def gains(self, values: Mapping[str, Array]) -> Array:
        """Factor on every lead."""
        gain = values["gain"][0] if "gain" in values else 1.0
        if "gain.lead" not in values:
            return gain * jnp.ones(len(self.leads))
        return gain * jnp.ones(len(self.leads)).at[self.gained].set(values["gain.lead"])


def rotation(vector: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Matrix that turns by the length of a vector [rad] about its direction (Rodrigues).

    Parameters
    ----------
    vector : (3,) array
        Direction times angle.

    Returns
    -------
    (3, 3) array
        Differentiable, at zero too.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.calibration.model import rotation
    >>> (rotation(jnp.array([0.0, 0.0, jnp.pi / 2])) @ jnp.array([1.0, 0, 0])).round(3).tolist()
    [0.0, 1.0, 0.0]
    """
    x, y, z = vector
    cross = jnp.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return jax.scipy.linalg.expm(cross)


class Model(eqx.Module):
    """The forward model; made by `twinheart.calibration.build_model`.

    Attributes
    ----------
    problem : Eikonal
        Geometry.
    conduction, excitation, repolarisation, body
        What named values act on.
    wave : WaveEcg
        Templates, and the lead field of the leads (in place of the electrodes).
    """

    problem: Eikonal
    conduction: Conduction
    excitation: Excitation
    repolarisation: Repolarisation
    body: Body
    wave: WaveEcg

    @property
    def t(self) -> Float[np.ndarray, "time"]:
        """Times of the predicted leads [ms]."""
        return self.wave.t

    def at(self, data: Observation) -> "Model":
        """The same model with the times and the filter of other data; its leads must be these."""
        return eqx.tree_at(lambda m: m.wave, self, self.wave.at(data.t, data.lowpass))

    def settled(self, values: Mapping[str, Array]) -> "Model":
        """The same model with electrodes and pose that stay as these values have them."""
        wave = self.wave_of({name: jnp.asarray(value) for name, value in values.items()})
        return eqx.tree_at(
            lambda m: (m.wave, m.body.field, m.body.across), self, (wave, None, None),
            is_leaf=lambda x: x is None,
        )  # fmt: skip

    def lat(self, values: Mapping[str, Array]) -> Float[Array, "every_node"]:
        """Arrival at the nodes of the mesh, then of the Purkinje tree [ms]."""
        velocity = self.conduction(values)
        problem = eqx.tree_at(lambda p: p.velocity, self.problem, velocity)
        return self.excitation.lat(problem, values)

    def __call__(
        self, values: Mapping[str, Array], lat: Float[Array, "every_node"] | None = None
    ) -> Prediction:
        """Predict activation, APD and leads.

        Parameters
        ----------
        values : dict of str to array
            By the names of `KNOWN`, as of `Parameters.physical`; what is not there keeps the
            value that the twin has.
        lat : (every_node,) array, optional
            Arrival, where it is known already [ms].
        """
        lat = self.lat(values) if lat is None else lat
        n_mesh = self.problem.n_mesh
        return Prediction(lat[:n_mesh], self.repolarisation.apd(values), self.signals(values, lat))

    def signals(
        self,
        values: Mapping[str, Array],
        lat: Float[Array, "every_node"],
        still: Float[Array, "every_node"] | None = None,
    ) -> Float[Array, "time lead"]:
        """Leads [mV] of a given arrival; the front may take another one, `still`."""
        n_mesh = self.problem.n_mesh
        wave = self.wave_of(values)
        found = wave.front((lat if still is None else still)[:n_mesh])
        varies = any(name == "apd" or name.startswith("apd.") for name in values)
        if varies or wave.templates.varies:
            usual = self.repolarisation.usual
            factor = self.repolarisation.apd(values) / usual if varies else None
            found = found + wave.difference(lat[:n_mesh], factor)
        return found * self.body.gains(values)

    def wave_of(self, values: Mapping[str, Array]) -> WaveEcg:
        """Lead field of the electrodes where they are now."""
        field, wave = self.body.field, self.wave
        if self.body.across is not None:
            more = jnp.asarray(values["source_across"])[0] - 1.0
            parts = (wave.shares, wave.lead_field) if field is None else (field.flux,)
            pairs = zip(parts, self.body.across, strict=True)
            parts = tuple(part + more.astype(part.dtype) * own for part, own in pairs)
            if field is None:
                return eqx.tree_at(lambda w: (w.shares, w.lead_field), wave, parts)
            field = eqx.tree_at(lambda f: f.flux, field, parts[0])
        if field is None:
            return wave
        shares = field(self.body.placed(values))
        shares = jnp.einsum("le,etk->tkl", self.body.weights.astype(shares.dtype), shares)
        blocks = self.wave.shares.shape
        absent = blocks[0] * blocks[1] - shares.shape[0]
        tets = self.wave.tets.reshape(-1, 4)[: shares.shape[0]]
        first = -shares.sum(axis=1, keepdims=True)
        corners = jnp.concatenate([first, shares], axis=1)
        by_node = jnp.zeros((self.problem.n_mesh, shares.shape[2]), shares.dtype)
        by_node = by_node.at[tets].add(corners).T
        padded = jnp.pad(shares, ((0, absent), (0, 0), (0, 0))).reshape(blocks)
        return eqx.tree_at(lambda w: (w.shares, w.lead_field), self.wave, (padded, by_node))
