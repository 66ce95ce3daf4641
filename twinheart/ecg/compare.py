"""A simulated ECG beside a measured one: the same beat on the same time axis."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.ecg.features import EcgFeatures
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

PARTS = {"qrs": "QRS", "t_wave": "T wave"}  # of a beat
POOR_FIT = 0.5  # a lead whose correlation is less has another shape
_MOST_POOR = 4  # leads that are named


class Comparison(NamedTuple):
    """Two beats with time zero at the onset of the QRS.

    Attributes
    ----------
    measured, simulated : Ecg
        The leads both have, on one time axis, against the level before the QRS [mV].
    correlation : dict
        Lead -> Pearson correlation over the common time.
    gain : float
        The one factor that gives the simulated ECG the RMS of the measured one.
    """

    measured: Ecg
    simulated: Ecg
    correlation: dict[str, float]
    gain: float


def compare_beats(measured: EcgFeatures, simulated: EcgFeatures) -> Comparison:
    r"""Lay the measured and the simulated beat over each other at their QRS onsets.

    The gain is :math:`\sqrt{\sum m^2 / \sum s^2}` over all leads and times: the amplitude of a
    simulated ECG depends on the conductor around the heart more than its shape does. (The factor of
    least squares would flatten an ECG of another shape instead of showing it.)

    Parameters
    ----------
    measured, simulated : EcgFeatures
        As `ecg_features` gives them.

    Returns
    -------
    Comparison
        Correlations are NaN in leads that are flat.

    Raises
    ------
    InputError
        If they have no lead in common.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, compare_beats, ecg_features
    >>> t = np.arange(0.0, 400.0)
    >>> def beat(at): return np.where(abs(t - at) < 50, 1 + np.cos(np.pi * (t - at) / 50), 0.0)
    >>> one = ecg_features(Ecg(t, beat(150)[:, None], ("II",)))
    >>> other = ecg_features(Ecg(t, 0.5 * beat(190)[:, None], ("II",)))
    >>> both = compare_beats(one, other)
    >>> round(both.correlation["II"], 3), round(both.gain, 3)
    (1.0, 2.0)
    """
    names = [n for n in measured.average.ecg.names if n in simulated.average.ecg.names]
    if not names:
        raise InputError(
            f"the two ECGs have no lead in common: {', '.join(measured.average.ecg.names)} and "
            f"{', '.join(simulated.average.ecg.names)}."
        )
    axes = [np.asarray(f.average.ecg.t) - f.waves.qrs_onset for f in (measured, simulated)]
    start, stop = max(axis[0] for axis in axes), min(axis[-1] for axis in axes)
    step = min(float(axis[1] - axis[0]) for axis in axes)
    t = np.arange(np.ceil(start / step), np.floor(stop / step) + 1) * step
    laid = []
    for found, axis in zip((measured, simulated), axes, strict=True):
        columns = [np.interp(t, axis, np.asarray(found.average.ecg[name])) for name in names]
        level = [np.interp(0.0, axis, np.asarray(found.average.ecg[name])) for name in names]
        laid.append(np.stack(columns, axis=1) - level)
    one, other = laid
    good = np.isfinite(one) & np.isfinite(other)
    power = float((other[good] ** 2).sum())
    gain = float(np.sqrt((one[good] ** 2).sum() / power)) if power > 0 else float("nan")
    both = Ecg(t, one, names), Ecg(t, other, names)
    return Comparison(*both, lead_correlations(names, one, other), gain)


def lead_correlations(
    names: Sequence[str], one: Float[np.ndarray, "time lead"], other: Float[np.ndarray, "time lead"]
) -> dict[str, float]:
    """Pearson's correlation of each lead of two ECGs on one time axis.

    Parameters
    ----------
    names : sequence of str
        Of the leads.
    one, other : (time, lead) arrays
        Signals [mV]; samples that one of them lacks (NaN) are left out.

    Returns
    -------
    dict of str to float
        By lead; NaN where one is flat, or fewer than three samples are in common.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import lead_correlations
    >>> t = np.arange(4.0)[:, None]
    >>> lead_correlations(("I", "II"), np.hstack([t, t]), np.hstack([2 * t + 1, -t]))
    {'I': 1.0, 'II': -1.0}
    """
    found = {}
    for name, a, b in zip(names, one.T, other.T, strict=True):
        use = np.isfinite(a) & np.isfinite(b)
        shaped = use.sum() >= 3 and np.ptp(a[use]) > 0 and np.ptp(b[use]) > 0
        found[name] = float(np.corrcoef(a[use], b[use])[0, 1]) if shaped else float("nan")
    return found


def poor_leads(fit: Mapping[str, Mapping[str, float]]) -> str:
    """Leads of another shape than what was measured, in words, the worst first.

    Parameters
    ----------
    fit : mapping
        Correlation of every lead by part of the beat (`PARTS`), see `lead_correlations`.

    Returns
    -------
    str
        Those whose correlation is below `POOR_FIT`; empty where there are none.

    Examples
    --------
    >>> from twinheart.ecg.compare import poor_leads
    >>> poor_leads({"qrs": {"I": 0.9, "V1": 0.31}, "t_wave": {"I": -0.2, "V1": 0.8}})
    'leads I (T wave -0.20), V1 (QRS 0.31)'
    """
    poor = sorted(
        (r, f"{lead} ({PARTS[part]} {r:.2f})")
        for part, leads in fit.items()
        for lead, r in leads.items()
        if r < POOR_FIT
    )
    named = [text for _, text in poor[:_MOST_POOR]]
    if len(poor) > len(named):
        named.append(f"{len(poor) - len(named)} more")
    return f"{'lead' if len(poor) == 1 else 'leads'} {', '.join(named)}" if named else ""
