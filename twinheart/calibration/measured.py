"""From a record to the one beat that a twin is fitted to."""

from typing import NamedTuple

import numpy as np

from twinheart.calibration.noise import RestingNoise, resting_noise
from twinheart.ecg import Ecg, average_beat, clean_ecg, delineate, find_beats
from twinheart.errors import InputError

# Peak-to-peak of the largest lead [mV]: adult QRS complexes lie well within.
_SMALLEST, _LARGEST = 0.05, 20.0
_LEAST_NOISE = 0.005  # mV: digitisation, and what filters leave
_USUAL_NOISE = 0.025  # mV, of a single beat, where nothing can be averaged
_SHORTEST = 150.0  # ms: no QRS complex and what surrounds it is shorter
_OTHERS = 0.05  # share of beats of another shape from which on the user is told


class MeasuredBeat(NamedTuple):
    """One beat, and when its waves begin and end.

    Attributes
    ----------
    ecg : Ecg
        Beat [mV].
    onset, offset : float
        Of the QRS, on its clock [ms].
    t_end : float
        End of the T wave; NaN where there is none.
    noise : float
        Standard deviation of the noise left [mV].
    rest : RestingNoise or None
        The same from the rest between T and P wave, by lead; None where there is not enough of it.
    zero : float
        When its clock is zero, on the clock of the record; of the first of the averaged beats [ms].
    polarity : int
        -1 where the leads were turned over, else 1.
    remarks : tuple of str
        What was assumed and done, in sentences.
    """

    ecg: Ecg
    onset: float
    offset: float
    t_end: float
    noise: float
    rest: RestingNoise | None
    zero: float
    polarity: int
    remarks: tuple[str, ...]

    def turned(self) -> "MeasuredBeat":
        """All leads turned over."""
        signals = -np.asarray(self.ecg.signals)
        return self._replace(ecg=Ecg(self.ecg.t, signals, self.ecg.names), polarity=-self.polarity)


def measured_beat(ecg: Ecg, *, arbitrary: bool = False) -> MeasuredBeat:
    """Find the beat of a record: cleaned, the usual beats averaged, its waves delineated.

    Parameters
    ----------
    ecg : Ecg
        A record of one or more beats [mV], or of any unit if `arbitrary`.
    arbitrary : bool
        Amplitudes mean nothing: they are scaled so that the largest lead has 2 mV.

    Returns
    -------
    MeasuredBeat
        For `twinheart.calibration.calibrate`.

    Raises
    ------
    InputError
        If the record is too short, no complete QRS complex is there, or the amplitude shows another
        unit.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.calibration import measured_beat
    >>> t = np.arange(0.0, 600.0)
    >>> beat = np.exp(-(((t - 200) / 12) ** 2)) + 0.3 * np.exp(-(((t - 450) / 40) ** 2))
    >>> found = measured_beat(Ecg(t, beat[:, None], ("V2",)))
    >>> bool(-60 < found.onset < -10), found.noise  # the R peak is at 0
    (True, 0.025)
    """
    length = float(np.ptp(np.asarray(ecg.t, float)))
    if not length >= _SHORTEST:
        raise InputError(
            f"the recording lasts {length:.3g} ms, expected one whole heart beat at least "
            f"({_SHORTEST:g} ms or more): record more."
        )
    remarks: list[str] = []
    size = float(np.nanmax(np.ptp(np.nan_to_num(np.asarray(ecg.signals)), axis=0), initial=0.0))
    if not size > 0:
        raise InputError("the ECG is flat: there is nothing to fit.")
    if arbitrary:
        ecg = Ecg(ecg.t, np.asarray(ecg.signals) * (2.0 / size), ecg.names)
    elif not _SMALLEST <= size <= _LARGEST:
        unit = "uV" if size > _LARGEST else "V"
        raise InputError(
            f"the largest lead has {size:.3g} mV from peak to peak, expected {_SMALLEST:g} to "
            f"{_LARGEST:g}: its unit seems to be {unit}; say so (--ecg-unit), or 'arbitrary'."
        )
    ecg, missing = _cleaned(ecg, remarks)
    beats = find_beats(ecg)
    if not len(beats.r):
        raise InputError("the ECG shows no complete QRS complex: record at least one whole beat.")
    average = average_beat(ecg, beats, missing)
    left_out = len(beats.r) - int(average.used.sum())
    if left_out > _OTHERS * len(beats.r):
        remarks.append(
            f"{left_out} of {len(beats.r)} beats have another shape (ectopic or paced) and were "
            "left out: the twin is fitted to the usual beat"
        )
    found = delineate(average.ecg, noise=0.0 if np.isnan(average.noise) else average.noise)
    if not np.isfinite([found.qrs_onset, found.qrs_offset]).all():
        raise InputError("the QRS of the beat begins or ends outside the record: record more.")
    t, step = np.asarray(average.ecg.t), average.ecg.step
    if found.qrs_onset <= t[0] + step or found.qrs_offset >= t[-1] - step:
        raise InputError(
            "the QRS complex begins or ends with the recording, so part of it may be missing: "
            "record more of the beat."
        )
    return MeasuredBeat(
        ecg=average.ecg,
        onset=found.qrs_onset,
        offset=found.qrs_offset,
        t_end=found.t_offset,
        noise=_USUAL_NOISE if np.isnan(average.noise) else max(average.noise, _LEAST_NOISE),
        rest=resting_noise(average.ecg, found),
        zero=float(beats.r[np.flatnonzero(average.used)[0]]),
        polarity=1,
        remarks=tuple(remarks),
    )


def _cleaned(ecg: Ecg, remarks: list[str]):
    """Filtered, unless the record is one bare beat, which a filter would bend."""
    t = np.asarray(ecg.t, float)
    signals = np.asarray(ecg.signals, float)
    whole = np.isfinite(signals).all()
    if t[-1] - t[0] < 1500.0 and whole:
        return ecg, None
    clean = clean_ecg(ecg)
    remarks += clean.notes
    remarks += [f"lead {name} is left out: {why}" for name, why in clean.dropped.items()]
    return clean.ecg, clean.missing
