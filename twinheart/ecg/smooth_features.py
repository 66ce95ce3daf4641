r"""Features of a simulated beat that can be differentiated, for losses.

The hard features of `twinheart.ecg.features` are found by thresholds and maxima; here each is an
integral over time with a smooth weight, so that its derivative with respect to every sample exists.
A beat is a (time, lead) array: one QRS and, where needed, one T wave, equally spaced, with a level
before the QRS. Windows (where the QRS is, where the T wave is) are found on the values and held
constant under differentiation; the features do not depend on them beyond the weights' tails.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from twinheart.types import Array

_EDGE_LEVEL = 0.05  # of the largest spatial velocity, as in `find_beats`
_SOFTNESS = 0.1  # of the edge level: width of the threshold
_SUBSTEPS = 8
_BLOCK = 64
_HALF_FIT = 3.5  # ms on either side of a sample, for its slope
_HALF_T_FIT = 15.5  # ms
_MOST_SAMPLES = 32  # on either side: 0.5 ms apart for the T wave
_FLAT = 0.2  # of the steepest descent
_QUIET = 20.0  # ms; a quieter stretch inside the QRS
_T_SHARPNESS = 30.0  # weight exp(30 (s / s_max - 1)): half at 2.3 % below the top
_T_FROM = 60.0  # ms after the QRS
_TANGENT_SHARPNESS = 30.0


@jax.jit
def smooth_qrs_bounds(
    t: Float[Array, "time"], signals: Float[Array, "time lead"]
) -> Float[Array, "2"]:
    r"""Onset and offset of the QRS [ms], differentiable.

    With the spatial velocity :math:`s(t)` over the leads, `find_beats` takes the last time before
    the peak and the first after it where :math:`s` stays below 5 % of its peak. Here passing the
    level has the rate :math:`h = \mathrm{softplus}((s - 0.05\, s_\mathrm{max}) / 0.005\,
    s_\mathrm{max})` per ms, and the onset is the expected first passage,
    :math:`t_0 + \int \exp(-\int_{t_0}^t h\, d\tau)\, dt`; the offset is that of time reversed.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        One beat [mV]; any scale. The independent leads I, II, V1 ... V6 are meant.

    Returns
    -------
    (2,) array
        Onset and offset [ms]; within about 3 ms of the hard ones. Of a flat ECG they mean nothing.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from twinheart.ecg import smooth_qrs_bounds
    >>> t = jnp.arange(0.0, 400.0)
    >>> spike = jnp.where(abs(t - 150) < 50, 1 + jnp.cos(jnp.pi * (t - 150) / 50), 0.0)
    >>> onset, offset = smooth_qrs_bounds(t, spike[:, None])
    >>> bool(abs(onset - 100) < 4), bool(abs(offset - 200) < 4)
    (True, True)
    """
    step = (t[-1] - t[0]) / (t.shape[0] - 1)
    velocity = _spatial_velocity(signals, step)
    largest = jnp.max(velocity)
    level = _EDGE_LEVEL * largest
    inside = jax.lax.stop_gradient(_around_peak(velocity, level, step))
    softness = _SOFTNESS * level + 1e-30
    # outside the complex nothing is above, whatever T waves do there
    excess = jnp.where(inside, (velocity - level) / softness, -1e3)
    # the passage takes less than a millisecond: between samples the velocity is a straight line
    part = jnp.arange(_SUBSTEPS) / _SUBSTEPS
    between = excess[:-1, None] * (1.0 - part) + excess[1:, None] * part
    rate = jax.nn.log_sigmoid(-between.ravel()) * step / _SUBSTEPS
    onset = t[0] + step / _SUBSTEPS * jnp.exp(_running_sum(rate)).sum()
    offset = t[-1] - step / _SUBSTEPS * jnp.exp(_running_sum(rate[::-1])).sum()
    return jnp.stack([onset, offset])


@jax.jit
def smooth_qrs_duration(
    t: Float[Array, "time"], signals: Float[Array, "time lead"]
) -> Float[Array, ""]:
    """Duration of the QRS [ms], differentiable.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        One beat [mV].

    Returns
    -------
    scalar
        `smooth_qrs_bounds`, offset minus onset.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from twinheart.ecg import smooth_qrs_duration
    >>> t = jnp.arange(0.0, 400.0)
    >>> def width(w):
    ...     spike = jnp.where(abs(t - 150) < w, 1 + jnp.cos(jnp.pi * (t - 150) / w), 0.0)
    ...     return smooth_qrs_duration(t, spike[:, None])
    >>> bool(abs(jax.grad(width)(50.0) - 2.0) < 0.1)  # both sides move with the half-width
    True
    """
    bounds = smooth_qrs_bounds(t, signals)
    return bounds[1] - bounds[0]


@jax.jit
def smooth_t_peak(t: Float[Array, "time"], signals: Float[Array, "time lead"]) -> Float[Array, ""]:
    r"""Time of the T peak [ms], differentiable.

    :math:`\int t\, w\, dt / \int w\, dt` with :math:`w = \exp(30 (s / s_\mathrm{max} - 1))`, where
    `s` is the RMS over the leads against the line from the ST segment to the end of the record.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        One beat with its T wave [mV].

    Returns
    -------
    scalar
        Within about 3 ms of the maximum where the T wave has a single one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.ecg import smooth_t_peak
    >>> t = jnp.arange(0.0, 700.0)
    >>> spike = jnp.where(abs(t - 150) < 50, 1 + jnp.cos(jnp.pi * (t - 150) / 50), 0.0)
    >>> wave = 0.3 * jnp.exp(-(((t - 400) / 30) ** 2) / 2)
    >>> bool(abs(smooth_t_peak(t, (spike + wave)[:, None]) - 400) < 2)
    True
    """
    wave, window = _t_wave(t, signals)
    weight = _sharp(wave, window, _T_SHARPNESS)
    return (weight * t).sum() / weight.sum()


@jax.jit
def smooth_t_end(t: Float[Array, "time"], signals: Float[Array, "time lead"]) -> Float[Array, ""]:
    r"""End of the T wave [ms], differentiable: the tangent at the steepest descent.

    The tangent of the RMS wave `s` (as in `smooth_t_peak`, smoothed over 31 ms) meets the level
    behind it, `s` where its slope has fallen to a fifth, at :math:`t - (s - s_0) / \dot s`; this is
    averaged with weights :math:`\exp(30 (\dot s / \dot s_\mathrm{min} - 1))` after the peak.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        One beat whose T wave has ended before the record does [mV].

    Returns
    -------
    scalar
        End of the T wave over all leads: of their RMS, where `delineate` takes the latest leads.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.ecg import smooth_t_end
    >>> t = jnp.arange(0.0, 700.0)
    >>> spike = jnp.where(abs(t - 150) < 50, 1 + jnp.cos(jnp.pi * (t - 150) / 50), 0.0)
    >>> wave = 0.3 * jnp.exp(-(((t - 400) / 30) ** 2) / 2)  # its tangent ends 2 x 30 ms later
    >>> bool(abs(smooth_t_end(t, (spike + wave)[:, None]) - 460) < 4)
    True
    """
    step = (t[-1] - t[0]) / (t.shape[0] - 1)
    wave, window = _t_wave(t, signals)
    peak = jax.lax.stop_gradient(jnp.argmax(jnp.where(window, wave, -jnp.inf)))
    index = jnp.arange(t.shape[0])
    after = window & (index > peak)
    descent = -jnp.asarray(jnp.gradient(wave, step))
    level = _level_behind(wave, descent, after)
    weight = _sharp(descent, after, _TANGENT_SHARPNESS)
    used = weight > 1e-12
    meets = t + (wave - level) / jnp.where(used, descent, 1.0)
    return jnp.where(used, weight * meets, 0.0).sum() / weight.sum()


@jax.jit
def smooth_qtc(
    t: Float[Array, "time"], signals: Float[Array, "time lead"], rr: float | Array
) -> Float[Array, ""]:
    r"""QT interval corrected after Fridericia [ms], differentiable.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        One beat [mV].
    rr : float
        RR interval [ms].

    Returns
    -------
    scalar
        :math:`(t_\mathrm{end} - t_\mathrm{onset}) / (RR / 1 s)^{1/3}`.

    References
    ----------
    Fridericia 1920, doi:10.1111/j.0954-6820.1920.tb18266.x.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.ecg import smooth_qtc
    >>> t = jnp.arange(0.0, 700.0)
    >>> spike = jnp.where(abs(t - 150) < 50, 1 + jnp.cos(jnp.pi * (t - 150) / 50), 0.0)
    >>> wave = 0.3 * jnp.exp(-(((t - 400) / 30) ** 2) / 2)
    >>> bool(abs(smooth_qtc(t, (spike + wave)[:, None], 1000.0) - 360) < 8)
    True
    """
    qt = smooth_t_end(t, signals) - smooth_qrs_bounds(t, signals)[0]
    return qt / (jnp.asarray(rr) / 1000.0) ** (1.0 / 3.0)


@jax.jit
def smooth_axis(
    t: Float[Array, "time"],
    signals: Float[Array, "time lead"],
    lead_i: Float[Array, "time"],
    lead_avf: Float[Array, "time"],
) -> Float[Array, ""]:
    r"""Frontal axis of the QRS area [degrees], differentiable.

    As `frontal_axis`: :math:`\mathrm{atan2}(2 A_{aVF} / \sqrt 3, A_I)`. The areas are weighted with
    a window that falls from one to zero within a few milliseconds at `smooth_qrs_bounds`.

    Parameters
    ----------
    t : (time,) array
        Equally spaced times [ms].
    signals : (time, lead) array
        Leads from which the bounds are taken [mV].
    lead_i, lead_avf : (time,) array
        The two limb leads [mV], against the level before the QRS.

    Returns
    -------
    scalar
        From -180 to 180. Compare angles by their cosine in a loss: the value jumps at 180.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.ecg import smooth_axis
    >>> t = jnp.arange(0.0, 400.0)
    >>> spike = jnp.where(abs(t - 150) < 50, 1 + jnp.cos(jnp.pi * (t - 150) / 50), 0.0)
    >>> i, avf = spike, 0.5 * 3**0.5 * spike  # equal parts to the left and to the feet
    >>> bool(abs(smooth_axis(t, i[:, None], i, avf) - 45) < 0.01)
    True
    """
    onset, offset = smooth_qrs_bounds(t, signals)
    width = 2.0  # ms
    weight = jax.nn.sigmoid((t - onset) / width) * jax.nn.sigmoid((offset - t) / width)
    x, y = (weight * lead_i).sum(), 2.0 / math.sqrt(3.0) * (weight * lead_avf).sum()
    return jnp.degrees(jnp.arctan2(y, x))


def _spatial_velocity(
    signals: Float[Array, "time lead"], step: Float[Array, ""]
) -> Float[Array, "time"]:
    """RMS slope over the leads; each slope is that of a quadratic fit over 7 ms, as in beats."""
    slope = _convolved(signals, _fit_kernels(_HALF_FIT, step, signals.dtype)[1])
    power = (slope**2).mean(axis=1)
    return jnp.sqrt(power + 1e-12 * jax.lax.stop_gradient(power.max()) + 1e-30)


def _fit_kernels(
    half: float, step: Float[Array, ""], dtype
) -> tuple[Float[Array, "samples"], Float[Array, "samples"]]:
    """Kernels for value and slope of a quadratic fit to `half` ms on either side."""
    offsets = jnp.arange(-_MOST_SAMPLES, _MOST_SAMPLES + 1, dtype=dtype)
    # at least the two neighbours; the number of samples is not known when this is compiled
    near = jnp.abs(offsets) * step <= jnp.maximum(half, 1.01 * step)
    n = jnp.where(near, offsets, 0.0)
    count, square, fourth = near.sum(), (n**2).sum(), (n**4).sum()
    value = jnp.where(near, fourth - square * n**2, 0.0) / (count * fourth - square**2)
    return value, -n / square / step


def _convolved(
    signals: Float[Array, "time lead"], kernel: Float[Array, "samples"]
) -> Float[Array, "time lead"]:
    padded = jnp.pad(signals, ((_MOST_SAMPLES, _MOST_SAMPLES), (0, 0)), mode="edge")
    return jax.vmap(lambda s: jnp.convolve(s, kernel, "valid"), in_axes=1, out_axes=1)(padded)


def _level_behind(
    wave: Float[Array, "time"], descent: Float[Array, "time"], after: Bool[Array, "time"]
) -> Float[Array, ""]:
    """The wave where its descent has fallen to a fifth; its last value where it has not."""
    index = jnp.arange(wave.shape[0])
    least = _FLAT * jnp.max(jnp.where(after, descent, -jnp.inf))
    steepest = jnp.argmax(jnp.where(after, descent, -jnp.inf))
    flat = jnp.where((index > steepest) & (descent <= least), index, wave.shape[0] - 1)
    j = jax.lax.stop_gradient(jnp.min(flat))
    drop = descent[j - 1] - descent[j]
    # between the two samples, so that the level moves without jumps
    part = jnp.where(drop > 0, (descent[j - 1] - least) / jnp.where(drop > 0, drop, 1.0), 1.0)
    return wave[j - 1] + jnp.clip(part, 0.0, 1.0) * (wave[j] - wave[j - 1])


def _around_peak(
    velocity: Float[Array, "time"], level: Float[Array, ""], step: Float[Array, ""]
) -> Bool[Array, "time"]:
    """Samples from the last quiet stretch before the peak to the first one after it."""
    n = velocity.shape[0]
    peak = jnp.argmax(velocity)
    index = jnp.arange(n)
    count = _running_sum((velocity >= level).astype(velocity.dtype))
    width = jnp.round(_QUIET / step).astype(index.dtype)
    # nothing above the level in the stretch that ends (begins) with the sample
    until = count - jnp.where(index >= width, count[jnp.maximum(index - width, 0)], 0.0)
    since = count[jnp.minimum(index + width, n - 1)] - count
    start = jnp.max(jnp.where((until == 0) & (index < peak), index, -1))
    stop = jnp.min(jnp.where((since == 0) & (index > peak), index, n))
    # half of the quiet stretch belongs to the window, so that the bounds can move
    return (index >= start - width // 2) & (index <= stop + width // 2)


def _running_sum(values: Float[Array, "samples"]) -> Float[Array, "samples"]:
    """Cumulative sum as two products with triangles: compiles in a tenth of the time of a scan."""
    padded = jnp.pad(values, (0, -values.shape[0] % _BLOCK)).reshape(-1, _BLOCK)
    within = padded @ jnp.triu(jnp.ones((_BLOCK, _BLOCK), values.dtype))
    blocks = within.shape[0]
    before = jnp.tril(jnp.ones((blocks, blocks), values.dtype), -1) @ within[:, -1]
    return (within + before[:, None]).ravel()[: values.shape[0]]


def _t_wave(
    t: Float[Array, "time"], signals: Float[Array, "time lead"]
) -> tuple[Float[Array, "time"], Bool[Array, "time"]]:
    """RMS wave after the QRS, against the chord of each lead, and where to look for it."""
    offset = jax.lax.stop_gradient(smooth_qrs_bounds(t, signals)[1])
    begin = jnp.minimum(jnp.searchsorted(t, offset + _T_FROM), t.shape[0] - 2)
    along = jnp.clip((t - t[begin]) / (t[-1] - t[begin]), 0.0, 1.0)
    chord = signals[begin] + along[:, None] * (signals[-1] - signals[begin])
    value = _fit_kernels(_HALF_T_FIT, (t[-1] - t[0]) / (t.shape[0] - 1), signals.dtype)[0]
    power = (_convolved(signals - chord, value) ** 2).mean(axis=1)
    wave = jnp.sqrt(power + 1e-12 * jax.lax.stop_gradient(power.max()) + 1e-30)
    return wave, jnp.arange(t.shape[0]) >= begin


def _sharp(
    values: Float[Array, "time"], window: Bool[Array, "time"], sharpness: float
) -> Float[Array, "time"]:
    """Weights that are one at the largest value in the window and vanish away from it."""
    largest = jnp.max(jnp.where(window, values, -jnp.inf))
    # what lies outside the window may be larger: its exponential must not even be taken
    inside = jnp.where(window, values / largest - 1.0, -1.0)
    return jnp.where(window, jnp.exp(sharpness * inside), 0.0)
