"""The twelve leads, formed from electrode potentials."""

from collections.abc import Iterable

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twinheart.ecg.electrodes import LIMB, PRECORDIAL, canonical_name
from twinheart.errors import InputError
from twinheart.types import Array

_THIRD = dict.fromkeys(LIMB, -1 / 3)  # Wilson's central terminal, subtracted

# Weight of each electrode in each lead: Einthoven, Goldberger, Wilson
LEADS: dict[str, dict[str, float]] = {
    "I": {"LA": 1.0, "RA": -1.0},
    "II": {"LL": 1.0, "RA": -1.0},
    "III": {"LL": 1.0, "LA": -1.0},
    "aVR": {"RA": 1.0, "LA": -0.5, "LL": -0.5},
    "aVL": {"LA": 1.0, "RA": -0.5, "LL": -0.5},
    "aVF": {"LL": 1.0, "RA": -0.5, "LA": -0.5},
    **{name: {name: 1.0, **_THIRD} for name in PRECORDIAL},
}

# Leads beyond the twelve that have one spelling: posterior, right-sided, Frank's orthogonal
FURTHER_LEADS = ("V7", "V8", "V9", "V2R", "V3R", "V4R", "V5R", "V6R", "V7R", "VX", "VY", "VZ")
_SPELLING = {lead.upper(): lead for lead in (*LEADS, *FURTHER_LEADS)}


class Ecg(eqx.Module):
    """Leads over time.

    Parameters
    ----------
    t : (time,) array
        Times [ms], increasing.
    signals : (time, lead) array
        Voltages [mV]; missing is NaN.
    names : tuple of str
        Lead names, one for each column, spelt I, II, III, aVR, aVL, aVF, V1 ... V6 where known.

    Raises
    ------
    InputError
        If the shapes disagree, a name repeats or the times do not increase.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> ecg = Ecg(np.arange(3.0), np.array([[0.0, 1.0], [0.2, 1.1], [0.1, 1.2]]), ("I", "v2"))
    >>> ecg["V2"]
    array([1. , 1.1, 1.2])
    """

    t: Float[Array, "time"]
    signals: Float[Array, "time lead"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, t: Array, signals: Array, names: Iterable[str]):
        self.t = t
        self.signals = signals
        self.names = tuple(lead_name(name) for name in names)

    def __check_init__(self):
        shape = (*np.shape(self.t), len(self.names))
        if np.ndim(self.t) != 1 or np.shape(self.signals) != shape:
            raise InputError(
                f"an ECG with times of shape {np.shape(self.t)} and {len(self.names)} lead names "
                f"has signals of shape {np.shape(self.signals)}; expected (time, lead)."
            )
        if len(set(self.names)) < len(self.names):
            raise InputError(f"lead names repeat: {', '.join(self.names)}.")

    def __getitem__(self, name: str) -> Float[Array, "time"]:
        """Voltage of one lead [mV]; names are case-insensitive."""
        key = lead_name(name)
        if key not in self.names:
            raise InputError(f"the ECG has no lead '{name}'; it has {', '.join(self.names)}.")
        return self.signals[:, self.names.index(key)]

    @property
    def step(self) -> float:
        """Sampling interval [ms].

        Raises
        ------
        InputError
            If there are fewer than two samples or they are not equally spaced.
        """
        steps = np.diff(np.asarray(self.t, dtype=np.float64))
        if steps.size == 0:
            raise InputError("the ECG has fewer than two samples.")
        step = float(steps.mean())
        # float32 times of a long record are rounded by several us
        if step <= 0 or np.abs(steps - step).max() > 1e-3 * step + 1e-6 * abs(float(self.t[-1])):
            raise InputError(
                f"the samples of the ECG are {steps.min():.6g} to {steps.max():.6g} ms apart; "
                "expected equal, positive steps: resample it first."
            )
        return step


def lead_name(name: str) -> str:
    """The project's spelling of a lead: I, aVR, V1 ... V9, V3R, VX; others unchanged.

    Examples
    --------
    >>> from twinheart.ecg.leads import lead_name
    >>> [lead_name(name) for name in ("ii", "AVR", "v3", "vx")]
    ['II', 'aVR', 'V3', 'VX']
    """
    name = str(name).strip()
    return _SPELLING.get(name.upper(), name)


def lead_weights(
    electrode_names: Iterable[str],
) -> tuple[tuple[str, ...], Float[np.ndarray, "lead electrode"]]:
    """Every lead these electrodes can form, and the electrodes' weights in it.

    Parameters
    ----------
    electrode_names : names
        Electrodes at hand, in the order of the columns wanted.

    Returns
    -------
    names : tuple of str
        Leads in the standard order.
    weights : (lead, electrode) array
        ``leads = weights @ potentials``; every row sums to zero.

    Raises
    ------
    InputError
        If not a single lead can be formed.

    Examples
    --------
    >>> from twinheart.ecg.leads import lead_weights
    >>> lead_weights(("RA", "LA"))
    (('I',), array([[-1.,  1.]]))
    """
    electrodes = [canonical_name(name) for name in electrode_names]
    formed = {lead: w for lead, w in LEADS.items() if set(w) <= set(electrodes)}
    if not formed:
        missing = [name for name in LIMB if name not in electrodes]
        raise InputError(
            f"no lead of the 12-lead ECG can be formed from {', '.join(electrodes) or 'nothing'}: "
            f"{', '.join(missing)} missing; every lead needs at least two of RA, LA and LL."
        )
    weights = [[w.get(name, 0.0) for name in electrodes] for w in formed.values()]
    return tuple(formed), np.array(weights)


def twelve_lead(
    t: Float[Array, "time"],
    potentials: Float[Array, "time electrode"],
    electrode_names: Iterable[str],
) -> Ecg:
    """Form the leads of the standard ECG from electrode potentials.

    Parameters
    ----------
    t : (time,) array
        Times [ms].
    potentials : (time, electrode) array
        Potentials [mV] against any common reference.
    electrode_names : names
        One for each column; ``RA, LA, LL, V1 ... V6`` (aliases as in `read_electrodes`) give all
        twelve leads, fewer give those that can be formed.

    Returns
    -------
    Ecg
        Leads in the order I, II, III, aVR, aVL, aVF, V1 ... V6; precordial leads against Wilson's
        terminal (RA + LA + LL) / 3.

    Raises
    ------
    InputError
        If no lead can be formed or the number of columns differs from the number of names.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import twelve_lead
    >>> ecg = twelve_lead(np.arange(2.0), np.array([[0.0, 1.0, 3.0]] * 2), ("RA", "LA", "LL"))
    >>> ecg.names
    ('I', 'II', 'III', 'aVR', 'aVL', 'aVF')
    >>> ecg["aVF"]
    array([2.5, 2.5])
    """
    electrode_names = tuple(electrode_names)
    if np.ndim(potentials) != 2 or np.shape(potentials)[1] != len(electrode_names):
        raise InputError(
            f"potentials have shape {np.shape(potentials)}; expected (time, electrode) with "
            f"{len(electrode_names)} electrodes."
        )
    names, weights = lead_weights(electrode_names)
    return Ecg(t, potentials @ weights.T.astype(potentials.dtype), names)
