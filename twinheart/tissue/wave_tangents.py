r"""Derivatives of the ECG of a front in many directions at once, compiled for CPUs.

`twinheart.tissue.wave_ecg.WaveEcg.front` adds elements to a histogram over arrival. With P
directions :math:`d\tau`, every point of every element adds P rows instead of one; in compiled loops
that costs a fraction of what P passes of the scatter would.

This module needs numba and is imported only where it is used.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numba import njit

from twinheart.tissue.eikonal_fixed_point import cores
from twinheart.tissue.wave_ecg import WaveEcg
from twinheart.types import Array

_compiled = njit(nogil=True, fastmath=True, cache=True)


def front_tangents(
    wave: WaveEcg, lat: Float[np.ndarray, "node"], directions: Float[np.ndarray, "node direction"]
) -> Float[Array, "time electrode direction"]:
    """Derivative of ``wave.front`` by the arrival times, along directions.

    Parameters
    ----------
    wave : WaveEcg
        ECG of a wave.
    lat : (node,) array
        Arrival [ms]; not finite where the wave does not come.
    directions : (node, direction) array
        Changes of the arrival; ignored where it does not come.

    Returns
    -------
    (time, electrode, direction) array
        Changes of the potentials [mV].

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> from twinheart.ecg import Electrodes, lead_shares
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.template import templates_of
    >>> from twinheart.tissue.wave_ecg import wave_ecg
    >>> from twinheart.tissue.wave_tangents import front_tangents
    >>> mesh = th.mesh.generate.slab((8.0, 2.0, 2.0), 2.0)
    >>> site = Electrodes(("far",), np.array([[40.0, 1.0, 1.0]]))
    >>> shares = lead_shares(mesh, site, np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1)))
    >>> templates = templates_of(th.Heart(mesh), get_model("mitchell-schaeffer"))
    >>> t = np.arange(0.0, 30.0)
    >>> ecg = wave_ecg(mesh.tets, shares, templates, t, crossing=4.0, lowpass=1.0)
    >>> later = np.ones((mesh.n_nodes, 1))
    >>> front_tangents(ecg, mesh.points[:, 0] / 0.6, later).shape
    (30, 1, 1)
    """
    lat = np.asarray(lat, np.float64)
    reached = np.isfinite(lat)
    directions = np.where(reached[:, None], np.asarray(directions), 0.0).astype(np.float32)
    tau = np.where(reached, lat, 0.0)
    tets = np.asarray(wave.tets).reshape(-1, 4)
    shares = np.asarray(wave.shares, np.float32).reshape(-1, 3, wave.shares.shape[-1])
    used = reached[tets].all(axis=1) & (shares != 0).any(axis=(1, 2))
    places = np.asarray(wave.places, np.float32)
    n_bins, n_electrodes, n_directions = wave.n_bins, shares.shape[2], directions.shape[1]
    pieces = np.array_split(np.flatnonzero(used), cores())

    def work(own):
        found = np.zeros((n_bins, n_electrodes, n_directions), np.float32)
        _add(tets, shares, own, tau, directions, places, wave.begin, wave.step, found)
        return found

    with ThreadPoolExecutor(len(pieces)) as pool:
        histogram = sum(pool.map(work, pieces))
    return _convolved(wave, jnp.asarray(histogram))


@eqx.filter_jit
def _convolved(wave: WaveEcg, histogram):
    flat = wave.convolved(histogram.reshape(histogram.shape[0], -1))
    return flat.reshape(-1, *histogram.shape[1:])


@no_type_check
@_compiled
def _add(tets, shares, own, tau, directions, places, begin, step, found):
    n_points, n_electrodes, n_directions = places.shape[0], found.shape[1], found.shape[2]
    strength = np.empty(n_electrodes, np.float32)
    change = np.empty((n_electrodes, n_directions), np.float32)
    corner = np.empty((4, n_directions), np.float32)
    moved = np.empty(n_directions, np.float32)
    share = np.float32(1.0 / n_points)
    for element in own:
        first = tau[tets[element, 0]]
        for k in range(4):
            for p in range(n_directions):
                corner[k, p] = directions[tets[element, k], p]
        for e in range(n_electrodes):
            total = np.float32(0.0)
            for p in range(n_directions):
                change[e, p] = 0.0
            for k in range(3):
                s = shares[element, k, e] * share
                total += s * np.float32(tau[tets[element, k + 1]] - first)
                for p in range(n_directions):
                    change[e, p] += s * (corner[k + 1, p] - corner[0, p])
            strength[e] = total
        for q in range(n_points):
            arrival = 0.0
            for k in range(4):
                arrival += places[q, k] * tau[tets[element, k]]
            place = (arrival - begin) / step
            near = round(place)
            if near < 1 or near >= found.shape[0] - 1:
                continue
            x = np.float32(place - near)
            for p in range(n_directions):
                moved[p] = 0.0
                for k in range(4):
                    moved[p] += places[q, k] * corner[k, p]
                moved[p] /= np.float32(step)
            low, high = np.float32(0.5) - x, np.float32(0.5) + x
            for shift in range(3):
                if shift == 0:
                    weight, slope = np.float32(0.5) * low * low, -low
                elif shift == 1:
                    weight, slope = np.float32(0.75) - x * x, np.float32(-2.0) * x
                else:
                    weight, slope = np.float32(0.5) * high * high, high
                row = found[near + shift - 1]
                for e in range(n_electrodes):
                    by = slope * strength[e]
                    for p in range(n_directions):
                        row[e, p] += weight * change[e, p] + by * moved[p]
