"""What a person read off enlarged plots of the real ECGs, before any detector had run on them.

R peaks were counted on the whole record (II, V2 and V5 over 10 s a row). Two beats of each record,
named by the time of the R peak, were drawn twice with all leads on one time axis and a line every
10 ms: 180 to 260 ms around the QRS at +-0.35 mV (5 to 7 pixels a ms), and 820 ms for P and T at
+-0.4 to +-0.8 mV. Nothing was filtered; the level just before the QRS was put to zero.

* QRS onset, offset: first lead that leaves, last lead that comes to the line before or after,
  among the leads where that is a corner; slow drifts of one lead (V1 in `dicom`) left aside.
* T end: tangent at the steepest descent, met with the level right after the T wave (before U);
  the latest among leads with a clear, single T wave (II and aVL in `aecg`, V2 and V3 in `ptbdb`).
* P onset, offset: by eye in II, aVF and V4 ... V6; +-10 ms.

Uncertain by about 4 ms (QRS) and 8 ms (T end). `subject1_0.xml` holds the same samples as
`Example_aECG.xml`.
"""

from typing import NamedTuple


class Beat(NamedTuple):
    """Times [ms] against the R peak at `r` [ms] from the start of the record."""

    r: float
    p_onset: float
    p_offset: float
    qrs_onset: float
    qrs_offset: float
    t_end: float


class Reading(NamedTuple):
    """One record: its file, the R peaks counted on it, the beats that were measured."""

    file: str
    r_peaks: int
    beats: tuple[Beat, ...]

    @property
    def qrs_duration(self) -> float:
        """Mean over the beats that were read [ms]."""
        return sum(beat.qrs_offset - beat.qrs_onset for beat in self.beats) / len(self.beats)

    @property
    def qt(self) -> float:
        """Mean over the beats that were read [ms]."""
        return sum(beat.t_end - beat.qrs_onset for beat in self.beats) / len(self.beats)

    @property
    def pr(self) -> float:
        """Mean over the beats that were read [ms]."""
        return sum(beat.qrs_onset - beat.p_onset for beat in self.beats) / len(self.beats)


READINGS = {
    "ptbdb": Reading(
        "ecg/ptbdb/s0010_re",
        52,
        (Beat(5055, -195, -95, -45, 92, 384), Beat(21830, -205, -90, -41, 90, 386)),
    ),
    "dicom": Reading(
        "ecg/dicom/waveform_ecg.dcm",
        10,
        (Beat(5465, -186, -96, -36, 36, 322), Beat(7440, -188, -98, -36, 38, 322)),
    ),
    "aecg": Reading(
        "ecg/aecg/Example_aECG.xml",
        12,
        (Beat(5355, -195, -100, -46, 62, 355), Beat(8765, -205, -105, -50, 61, 353)),
    ),
}
