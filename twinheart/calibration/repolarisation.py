"""Action potential durations as a function of named values."""

import contextlib
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator

from twinheart.anatomy import Heart
from twinheart.anatomy.coordinates import coordinates_of
from twinheart.anatomy.frame import heart_frame
from twinheart.calibration.parameters import Parameters
from twinheart.calibration.smooth_field import field_basis
from twinheart.cell import AbstractCellModel, scale_channels
from twinheart.cell.modify import core, parameter_of
from twinheart.errors import InputError, ModelError
from twinheart.tissue.build import cells_of_nodes
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.template import action_potential
from twinheart.types import Array

# Factors on a channel for which the APD is measured; between them it is interpolated.
CHANNEL_FACTORS = 10.0 ** (np.arange(-8, 6) / 8)  # 0.1 to 4.2
_LEAST_APD_FACTOR, _MOST_APD_FACTOR = 0.52, 1.95


class ChannelEffect(eqx.Module):
    """What factors on channels do to the APD: a cubic spline for each cell and channel.

    Attributes
    ----------
    kind : (node,) int array
        Cell of each node.
    knots : (knot,) array
        Logarithms of the factors that were measured.
    pieces : (power, piece, cell, channel) array
        Coefficients of the logarithm of APD over usual APD, highest power first.
    """

    kind: Int[np.ndarray, "node"]
    knots: Float[Array, "knot"]
    pieces: Float[Array, "power piece cell channel"]

    def __call__(self, factors: Float[Array, "channel"]) -> Float[Array, "node"]:
        """Factor on the APD of every node; constant beyond the factors that were measured."""
        x = jnp.clip(jnp.log(factors), self.knots[0], self.knots[-1])
        piece = jnp.clip(jnp.searchsorted(self.knots, x, side="right") - 1, 0, len(self.knots) - 2)
        along = x - self.knots[piece]
        channel = jnp.arange(len(factors))
        value = jnp.zeros(self.pieces.shape[2:])
        for coefficients in self.pieces:
            value = value * along + coefficients[piece, :, channel].T
        return jnp.exp(value.sum(axis=1))[self.kind]


class Repolarisation(eqx.Module):
    """APD of every node as a function of named values.

    Attributes
    ----------
    usual : (node,) array
        APD90 of the cells [ms].
    gradients : dict of str to (node,) array
        Places between -1/2 and 1/2 along the directions of the gradients, of mean 0.
    basis : (node, place) array or None
        Of the smooth field.
    channels : ChannelEffect or None
        Of factors on channels.
    """

    usual: Float[Array, "node"]
    gradients: dict[str, Float[Array, "node"]]
    basis: Float[Array, "node place"] | None
    channels: ChannelEffect | None = None

    def apd(self, values: Mapping[str, Array]) -> Float[Array, "node"]:
        """APD90 of every node [ms]."""
        apd = self.usual
        if "apd" in values:
            apd = apd + (values["apd"][0] - self.usual.mean())
        if self.channels is not None:
            apd = apd * self.channels(values["apd.channel"])
        for name, place in self.gradients.items():
            if name in values:
                apd = apd + values[name][0] * place
        if self.basis is not None:
            apd = apd + self.basis @ values["apd.field"].astype(self.basis.dtype)
        return jnp.clip(apd, _LEAST_APD_FACTOR * self.usual, _MOST_APD_FACTOR * self.usual)


def build_repolarisation(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    usual: Float[np.ndarray, "node"],
    free: Parameters,
    places: Float[np.ndarray, "place 3"] | None = None,
) -> Repolarisation:
    """Prepare what free parameters of repolarisation act on.

    Parameters
    ----------
    heart : Heart
        With coordinates, see `twinheart.calibration.prepared_heart`.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Its cells, whose channels may be free.
    usual : (node,) array
        APD90 where nothing is free [ms].
    free : Parameters
        What is going to change.
    places : (place, 3) array, optional
        Of the smooth field [mm].

    Returns
    -------
    Repolarisation
        Gradients along the axes of the heart, the smooth field, and the effect of channels.

    Raises
    ------
    InputError
        If a field has not as many places as numbers, or no cell has a channel.
    ModelError
        If the heart has no coordinates.
    """
    at = coordinates_of(heart.mesh)
    if at is None:
        raise ModelError("the heart has no coordinates: see prepared_heart.")
    frame = heart_frame(heart.mesh)
    along = {
        "apd.ab": at.ab,
        "apd.tm": at.tm,
        "apd.ap": heart.mesh.points @ frame.anterior,
        "apd.rvlv": heart.mesh.points @ frame.rv,
    }
    gradients = {}
    for name, place in along.items():
        scaled = place / np.ptp(place)
        gradients[name] = jnp.asarray(scaled - scaled.mean())
    count = len(free.labels("apd.field"))
    basis = field_basis(heart.mesh.points, places, count) if count else None
    names = free.labels("apd.channel")
    channels = channel_effect(heart, cell, names) if names else None
    return Repolarisation(jnp.asarray(usual), gradients, basis, channels)


def channel_effect(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    names: Sequence[str],
) -> ChannelEffect:
    """Measure what factors on channels do to the APD of a travelling wave.

    Parameters
    ----------
    heart : Heart
        Its regions say which cell a node has.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cells. One without a channel keeps its APD.
    names : sequence of str
        Channels or parameters, such as ``i_kr``.

    Returns
    -------
    ChannelEffect
        Effects of several channels multiply.

    Raises
    ------
    InputError
        If no cell has a channel.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import twinheart as th
    >>> from twinheart.calibration.repolarisation import channel_effect
    >>> cell = th.cell.get_model("mitchell-schaeffer")
    >>> effect = channel_effect(th.demo_heart(), cell, ["tau_close"])
    >>> bool(effect(jnp.array([1.4]))[0] > 1.1)
    True
    """
    models, _, kind = cells_of_nodes(heart, cell)
    for name in names:
        if all(parameter_of(model, name) is None for model in models):
            known = sorted({c for model in models for c in core(model).channels})
            raise InputError(
                f"apd.channel[{name}]: no cell has this channel; there are {', '.join(known)}."
            )
    knots = np.log(CHANNEL_FACTORS)
    pieces = np.zeros((4, len(knots) - 1, len(models), len(names)))
    for k, model in enumerate(models):
        for c, name in enumerate(names):
            if parameter_of(model, name) is None:
                continue
            apd = np.log(apd_table(model, name))
            usual = apd[np.flatnonzero(CHANNEL_FACTORS == 1.0)[0]]
            pieces[:, :, k, c] = PchipInterpolator(knots, apd - usual).c
    return ChannelEffect(kind, jnp.asarray(knots), jnp.asarray(pieces))


def apd_table(model: AbstractCellModel, name: str) -> Float[np.ndarray, "factor"]:
    """APD90 of a travelling wave for `CHANNEL_FACTORS` on a channel or parameter [ms].

    Parameters
    ----------
    model : AbstractCellModel
        Cell; of one that varies over the nodes, the mean.
    name : str
        Channel or parameter.

    Returns
    -------
    (factor,) array
        In the order of the factors; beyond those with which the cell repolarises, that of the last.
    """
    usual, found = scalar_parameters(model), np.full(len(CHANNEL_FACTORS), np.nan)
    found[CHANNEL_FACTORS == 1.0] = float(action_potential(usual).apd90)
    for k in np.flatnonzero(CHANNEL_FACTORS != 1.0):
        varied = scale_channels(usual, {name: float(CHANNEL_FACTORS[k])})
        with contextlib.suppress(ModelError):  # it does not conduct or not repolarise
            found[k] = float(action_potential(varied).apd90)
    known = np.flatnonzero(np.isfinite(found))
    return np.interp(np.arange(len(found)), known, found[known])
