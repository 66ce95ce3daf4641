r"""ECG of a wave of template action potentials, the front integrated inside the elements.

The front of a wave is thinner than an element of a clinical mesh. With arrival times that are
linear in every tetrahedron, :math:`V = U(t - \tau(x))` has the gradient
:math:`-U'(t - \tau) \nabla \tau`, and an electrode with the lead field :math:`s_{eTk}` of the
corners k (`twinheart.ecg.lead_shares`) sees

.. math:: \phi_e(t) = \int h_e(\tau)\, U'(t - \tau)\, d\tau, \qquad
          h_e(\tau) = -\sum_T \Big(\sum_k s_{eTk} \tau_{Tk}\Big)\, p_T(\tau),

with :math:`p_T` the density of arrival times within the tetrahedron. So the whole beat is one
function :math:`h_e` of time for each electrode, the ECG of an infinitely thin front, and its
convolution with the template. The density is sampled at points within the tetrahedron and spread by
quadratic B-splines, so :math:`\phi` is smooth in the arrival times, whatever the mesh.

Where action potentials differ from the first table's, what they differ by is smooth at the front,
and is added from the nodes: as a histogram over arrival and APD factor, convolved with the
difference of each class.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import ModelError
from twinheart.tissue.template import ActionPotential, Templates
from twinheart.tissue.wave import FOOT
from twinheart.types import Array

_STEP = 0.125  # ms, of the histogram of the front, and of the tables of what is filtered
_EARLY = 50.0  # ms before time zero that arrivals may lie
_FINE = 4.0  # ms that the front may take across a piece of a tetrahedron with four points
_POINTS = 65_536  # handled at once
# With a filter: time that a front may take across a piece, and step of the histogram, over its sd.
_PER_SD, _SHARE = 8.0, 0.5
# Classes of APD factors, a geometric series.
_LEAST, _RATIO, _CLASSES = 0.5, 1.0125, 113
_NEAR, _FAR = (5 - 5**0.5) / 20, (5 + 3 * 5**0.5) / 20  # four-point rule, exact for quadratics


class WaveEcg(eqx.Module):
    """From arrival times to potentials at electrodes; differentiable in every number.

    Made by `wave_ecg`.

    Attributes
    ----------
    templates : Templates
        Action potentials of the nodes.
    lead_field : (electrode, node) array
        Operator from nodal voltages to potentials.
    shares : (block, tet, 3, electrode) array
        Its parts of all corners but the first of every tetrahedron.
    tets : (block, tet, 4) int array
        Their corners.
    places : (point, 4) array
        Barycentric coordinates of the points of a tetrahedron.
    start, sampling, n_times
        First time of the result [ms], interval [ms] and number of times.
    step : float
        Of the histogram of the front [ms].
    lowpass : float
        Standard deviation of the Gaussian that filters the result [ms]; 0: none.
    crossing : float
        Time that a front takes across a tetrahedron [ms].
    """

    templates: Templates
    lead_field: Float[Array, "electrode node"]
    shares: Float[Array, "block tet 3 electrode"]
    tets: Int[Array, "block tet 4"]
    places: Float[Array, "point 4"]
    start: float = eqx.field(static=True)
    sampling: float = eqx.field(static=True)
    n_times: int = eqx.field(static=True)
    step: float = eqx.field(static=True, default=_STEP)
    lowpass: float = eqx.field(static=True, default=0.0)
    crossing: float = eqx.field(static=True, default=0.0)

    def at(self, t: Float[np.ndarray, "time"], lowpass: float = 0.0) -> "WaveEcg":
        """The same at other times and with another filter, see `wave_ecg`."""
        places, timing = _sampling(t, self.crossing, lowpass)
        blocks = _blocks(self.tets.reshape(-1, 4), len(places))
        shares = _blocks(self.shares.reshape(-1, *self.shares.shape[2:]), len(places))
        return dataclasses.replace(self, tets=blocks, shares=shares, places=places, **timing)

    @property
    def t(self) -> Float[np.ndarray, "time"]:
        """Times of the result [ms]."""
        return self.start + self.sampling * np.arange(self.n_times)

    def __call__(
        self, lat: Float[Array, "node"], apd_factor: Float[Array, "node"] | None = None
    ) -> Float[Array, "time electrode"]:
        """Potentials of a beat.

        Parameters
        ----------
        lat : (node,) array
            Arrival [ms]; inf or NaN where the wave does not come.
        apd_factor : (node,) array, optional
            Factor on the APD of every node, 0.5 to 2.

        Returns
        -------
        (time, electrode) array
            Potentials [mV] at the times `t`.
        """
        result = self.front(lat)
        if apd_factor is not None or self.templates.varies:
            result = result + self.difference(lat, apd_factor)
        return result

    def _steps(self, step: float) -> tuple[int, int, int]:
        """Steps that a histogram begins before the first time, its length, and those of a foot."""
        before = math.ceil((max(self.start, 0.0) + _EARLY) / step)
        foot = math.ceil(FOOT / step)
        return before, before + round(self.sampling * (self.n_times - 1) / step) + foot + 1, foot

    def front(self, lat: Float[Array, "node"]) -> Float[Array, "time electrode"]:
        """Potentials as if all nodes had the first table [mV]."""
        lat, reached = self._arrived(lat)

        @jax.checkpoint
        def add(h, block):
            tets, shares = block
            return self._with_front(h, lat[tets], reached[tets].all(axis=1), shares), None

        h, _ = jax.lax.scan(add, self._no_front(lat.dtype), (self.tets, self.shares))
        return self.convolved(h)

    def crossings(self, tau: Float[Array, "tet 4"]) -> Float[Array, "bin electrode"]:
        """Strength of a front at every bin of arrival, for `convolved`.

        Parameters
        ----------
        tau : (tet, 4) array
            Arrival at the corners of every tetrahedron [ms]; NaN where the front does not cross it.

        Returns
        -------
        (bin, electrode) array
            Those of several fronts add up.
        """
        n_blocks, block = self.tets.shape[:2]
        absent = n_blocks * block - len(tau)
        tau = jnp.pad(tau, ((0, absent), (0, 0)), constant_values=jnp.nan)
        tau = tau.reshape(n_blocks, block, 4).astype(self.lead_field.dtype)

        def add(h, part):
            own, shares = part
            crossed = jnp.isfinite(own).all(axis=1)
            return self._with_front(h, jnp.where(crossed[:, None], own, 0.0), crossed, shares), None

        return jax.lax.scan(add, self._no_front(tau.dtype), (tau, self.shares))[0]

    def _no_front(self, dtype) -> Array:
        return jnp.zeros((self.n_bins, self.shares.shape[-1]), dtype)

    def _with_front(self, h, tau, crossed, shares):
        """The histogram `h` with a front that arrives at corners of tetrahedra at times `tau`."""
        n_points, begin = len(self.places), self.begin
        strength = jnp.einsum("tk,tke->te", tau[:, 1:] - tau[:, :1], shares)
        strength = jnp.where(crossed[:, None], strength, 0.0) / n_points
        place = ((tau @ self.places.astype(tau.dtype).T - begin) / self.step).ravel()
        return _spread(h, place, jnp.repeat(strength, n_points, axis=0))

    def convolved(self, histogram: Float[Array, "bin electrode"]) -> Array:
        """Potentials of a front whose strength at every bin of arrival is given [mV]."""
        before, n, foot = self._steps(self.step)
        first, ratio = before + foot, round(self.sampling / self.step)
        kernel = self._kernel(self.step * np.arange(-foot, n)).astype(histogram.dtype)
        phi = _convolved(histogram, kernel)
        return -phi[first : first + ratio * (self.n_times - 1) + 1 : ratio]

    @property
    def begin(self) -> float:
        """Time of the first bin of the histogram of the front [ms]."""
        return self.start - self._steps(self.step)[0] * self.step

    @property
    def n_bins(self) -> int:
        """Bins of the histogram of the front."""
        return self._steps(self.step)[1]

    def _kernel(self, s: Float[np.ndarray, "sample"]) -> Float[Array, "sample"]:
        """Slope of the first table at times since arrival [mV/ms]."""
        table = self.templates.tables[0]
        if not self.lowpass:
            half = self.step / 2
            return (table(s + half) - table(s - half)) / self.step
        fine, smooth = _filter(s, self.lowpass)
        rise = (table(fine + _STEP / 2) - table(fine - _STEP / 2)) / _STEP
        # Coefficients of the quadratic B-splines that pass through the filtered slope.
        return jnp.asarray(_spline(len(s)) @ smooth) @ rise

    def _arrived(self, lat):
        reached = jnp.isfinite(lat)
        return jnp.where(reached, lat, 0.0).astype(self.lead_field.dtype), reached

    def difference(
        self, lat: Float[Array, "node"], apd_factor: Float[Array, "node"] | None = None
    ) -> Float[Array, "time electrode"]:
        """What is added where action potentials are not those of the first table [mV]."""
        lat, reached = self._arrived(lat)
        factor = self.templates.apd_factor * (1.0 if apd_factor is None else apd_factor)
        factor = factor.astype(lat.dtype)
        sampling, tables = self.sampling, self.templates.tables
        before, n, foot = self._steps(sampling)
        rows = jnp.where(reached, self.lead_field, 0.0).T
        place = (lat - self.start) / sampling + before
        of_class = jnp.log(factor / _LEAST) / math.log(_RATIO)
        of_class = jnp.clip(of_class, 1.0, _CLASSES - 2.0)
        k, weights = _taps(of_class)
        histogram = jnp.zeros((len(tables) * _CLASSES * n, rows.shape[1]), lat.dtype)
        for shift in range(3):
            start = (self.templates.table * _CLASSES + k + shift - 1) * n
            histogram = _spread(
                histogram, place, rows * weights[shift][:, None], start=start, length=n
            )
        histogram = histogram.reshape(len(tables) * _CLASSES, n, -1)
        s = sampling * np.arange(-foot, n)
        change = jnp.concatenate([self._changes(table, s) for table in tables])
        phi = jax.vmap(_convolved)(histogram, change.astype(lat.dtype)).sum(axis=0)
        return phi[before + foot : before + foot + self.n_times]

    def _changes(self, table: ActionPotential, s) -> Float[Array, "class sample"]:
        """By how much the voltage of each class of APD factors departs from the first table's."""
        first = self.templates.tables[0]
        if not self.lowpass:
            return _changes(table, first, s)
        fine, smooth = _filter(s, self.lowpass)
        return _changes(table, first, fine) @ jnp.asarray(smooth).T


def _filter(s: np.ndarray, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Times at which a function is to be known, and the matrix that filters it at times `s`."""
    margin = 4.0 * sd
    fine = np.arange(s[0] - margin, s[-1] + margin + _STEP / 2, _STEP)
    smooth = np.exp(-0.5 * ((s[:, None] - fine) / sd) ** 2)
    return fine, smooth / smooth.sum(axis=1, keepdims=True)


def _spline(n: int) -> Float[np.ndarray, "coefficient sample"]:
    """From values at grid points to coefficients of the quadratic B-splines through them."""
    return np.linalg.inv(sum(w * np.eye(n, k=k) for k, w in ((-1, 0.125), (0, 0.75), (1, 0.125))))


def _changes(table: ActionPotential, first: ActionPotential, s) -> Float[Array, "class sample"]:
    """By how much the voltage of each class of APD factors departs from the first table's."""
    factors = _LEAST * _RATIO ** np.arange(_CLASSES)
    vm = jax.vmap(lambda factor: table(jnp.asarray(s), factor))(jnp.asarray(factors))
    return jnp.asarray(_spline(_CLASSES)) @ (vm - first(jnp.asarray(s)))


def _taps(place):
    """Nearest grid point, and weights of the quadratic B-spline at it and its neighbours."""
    k = jnp.round(jax.lax.stop_gradient(place)).astype(jnp.int32)
    x = place - k
    return k, (0.5 * (0.5 - x) ** 2, 0.75 - x**2, 0.5 * (0.5 + x) ** 2)


def _spread(grid, place, rows, *, start: Array | int = 0, length: int | None = None):
    """Add rows to a grid at places between its points; what lies outside is left out."""
    length = grid.shape[0] if length is None else length
    k, weights = _taps(place)
    inside = (k >= 1) & (k < length - 1)
    rows = jnp.where(inside[:, None], rows, 0.0)
    k = jnp.where(inside, k, 1) + start
    for shift, weight in zip((-1, 0, 1), weights, strict=True):
        grid = grid.at[k + shift].add(rows * weight[:, None], mode="promise_in_bounds")
    return grid


def _convolved(signals: Float[Array, "time electrode"], kernel: Float[Array, "sample"]):
    """Convolution along time."""
    n = signals.shape[0] + kernel.shape[0] - 1
    size = 1 << (n - 1).bit_length()
    product = jnp.fft.rfft(signals, size, axis=0) * jnp.fft.rfft(kernel, size)[:, None]
    return jnp.fft.irfft(product, size, axis=0)[:n]


def wave_ecg(
    tets: Int[np.ndarray, "tet 4"],
    shares: Float[np.ndarray, "electrode tet 4"],
    templates: Templates,
    t: Float[np.ndarray, "time"],
    *,
    crossing: float,
    lowpass: float = 0.0,
    dtype=np.float32,
) -> WaveEcg:
    """Prepare the ECG of waves of a heart.

    Parameters
    ----------
    tets : (tet, 4) int array
        Tetrahedra of the mesh.
    shares : (electrode, tet, 4) array
        Lead field by element, see `twinheart.ecg.lead_shares`.
    templates : Templates
        Action potentials of the nodes.
    t : (time,) array
        Equally spaced times [ms], a multiple of 1/8 ms apart.
    crossing : float
        Time that a front takes across a tetrahedron [ms]: its edge over the slowest velocity. It
        decides how many points of each tetrahedron are sampled.
    lowpass : float
        Filter the result by a Gaussian of this standard deviation [ms], the less work the wider.
    dtype : dtype
        Precision of the result.

    Returns
    -------
    WaveEcg
        Call it with arrival times.

    Raises
    ------
    ModelError
        If the times are not equally spaced by a multiple of 1/8 ms.

    Examples
    --------
    >>> import numpy as np
    >>> import twinheart as th
    >>> from twinheart.ecg import Electrodes, lead_shares
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.template import templates_of
    >>> from twinheart.tissue.wave_ecg import wave_ecg
    >>> mesh = th.mesh.generate.slab((8.0, 2.0, 2.0), 2.0)
    >>> heart = th.Heart(mesh)
    >>> site = Electrodes(("far",), np.array([[40.0, 1.0, 1.0]]))
    >>> shares = lead_shares(mesh, site, np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1)))
    >>> templates = templates_of(heart, get_model("mitchell-schaeffer"))
    >>> ecg = wave_ecg(mesh.tets, shares, templates, np.arange(0.0, 30.0), crossing=4.0)
    >>> phi = ecg(mesh.points[:, 0] / 0.6)  # a plane wave that comes nearer
    >>> bool(phi[7, 0] > 0)
    True
    """
    places, timing = _sampling(t, crossing, lowpass)
    own = np.asarray(shares, dtype)[:, :, 1:].transpose(1, 2, 0)
    lead_field = np.stack(
        [np.bincount(tets.ravel(), row.ravel(), len(templates.table)) for row in shares]
    ) if len(shares) else np.zeros((0, len(templates.table)))  # fmt: skip
    return WaveEcg(
        templates=templates,
        lead_field=jnp.asarray(lead_field, dtype),
        shares=_blocks(jnp.asarray(own), len(places)),
        tets=_blocks(jnp.asarray(tets, jnp.int32), len(places)),
        places=places,
        crossing=float(crossing),
        **timing,
    )


def _sampling(t, crossing: float, lowpass: float) -> tuple[Array, dict[str, Any]]:
    """Places within a tetrahedron, times and step of the histogram."""
    t = np.asarray(t, dtype=float)
    steps = np.diff(t)
    ratio = steps[0] / _STEP if t.size > 1 else 0.0
    if not (ratio > 0.5 and abs(ratio - round(ratio)) < 1e-6 and np.ptp(steps) < 1e-6):
        raise ModelError(
            f"the ECG of a wave needs at least two times, equally spaced by a multiple of {_STEP} "
            f"ms; got {t.size} from {t[:2].tolist()} on."
        )
    step = _STEP
    if lowpass > 0:
        crossing *= min(1.0, _FINE / (_PER_SD * lowpass))
        while step < _SHARE * lowpass and (ratio / (2.0 * step / _STEP)) % 1 < 1e-6:
            step *= 2.0
    timing = {
        "start": float(t[0]),
        "sampling": float(steps[0]),
        "n_times": len(t),
        "step": step,
        "lowpass": float(lowpass),
    }
    return jnp.asarray(sample_places(crossing)), timing


def _blocks(rows: Array, n_places: int) -> Array:
    """Rows of tetrahedra in blocks that are handled at once, the last one filled with zeros."""
    block = max(1, _POINTS // n_places)
    n_blocks = -(-len(rows) // block)
    absent = n_blocks * block - len(rows)
    padded = jnp.pad(rows, ((0, absent), *((0, 0),) * (rows.ndim - 1)))
    return padded.reshape(n_blocks, block, *rows.shape[1:])


def sample_places(crossing: float) -> Float[np.ndarray, "point 4"]:
    """Barycentric coordinates of equally weighted points of a tetrahedron.

    It is halved along its edges until the front takes at most 4 ms across a piece; each piece has
    four points.

    Examples
    --------
    >>> from twinheart.tissue.wave_ecg import sample_places
    >>> [len(sample_places(crossing)) for crossing in (2.0, 3.0, 6.0)]
    [1, 4, 32]
    """
    if crossing <= 2.5:
        return np.full((1, 4), 0.25)
    pieces = np.eye(4)[None]
    while crossing > _FINE and len(pieces) < 512:
        pieces, crossing = _halved(pieces), crossing / 2.0
    rule = np.full((4, 4), _NEAR) + (_FAR - _NEAR) * np.eye(4)
    return np.einsum("qk,pkj->pqj", rule, pieces).reshape(-1, 4)


def _halved(pieces: np.ndarray) -> np.ndarray:
    """Each tetrahedron in eight of the same volume."""
    a, b, c, d = pieces.swapaxes(0, 1)
    ab, ac, ad, bc, bd, cd = (
        0.5 * (x + y) for x, y in ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d))
    )
    parts = (
        *((a, ab, ac, ad), (ab, b, bc, bd), (ac, bc, c, cd), (ad, bd, cd, d)),
        *((ab, ac, ad, bd), (ab, ac, bc, bd), (ac, ad, bd, cd), (ac, bc, bd, cd)),
    )
    return np.concatenate([np.stack(part, axis=1) for part in parts])
