"""The body-surface ECG: electrodes, lead field, the twelve leads, features and files."""

from twinheart.ecg.beats import AverageBeat, Beats, average_beat, find_beats, qrs_bounds
from twinheart.ecg.compare import Comparison, compare_beats
from twinheart.ecg.conduction import (
    Judgement,
    fragmented_qrs,
    lbbb_aha,
    lbbb_strauss,
    rbbb_aha,
)
from twinheart.ecg.delineation import Delineation, delineate, qrs_duration, qt_interval
from twinheart.ecg.electrodes import (
    Electrodes,
    move_electrodes,
    on_skin,
    place_electrodes,
    read_electrodes,
    standard_12_lead,
)
from twinheart.ecg.features import DEFINITIONS, EcgFeatures, ecg_features
from twinheart.ecg.filters import CleanEcg, clean_ecg
from twinheart.ecg.intervals import RateVariation, qtc_bazett, qtc_fridericia, rate_variation
from twinheart.ecg.io import Recording, read_ecg, same_person, write_ecg
from twinheart.ecg.lead_field import lead_field, lead_shares
from twinheart.ecg.leads import Ecg, twelve_lead
from twinheart.ecg.morphology import (
    QrsShape,
    RWaveProgression,
    Wave,
    frontal_axis,
    qrs_shapes,
    r_wave_progression,
)
from twinheart.ecg.smooth_features import (
    smooth_axis,
    smooth_qrs_bounds,
    smooth_qrs_duration,
    smooth_qtc,
    smooth_t_end,
    smooth_t_peak,
)
from twinheart.ecg.vcg import qrs_t_angle, vectorcardiogram

__all__ = [
    "DEFINITIONS",
    "AverageBeat",
    "Beats",
    "CleanEcg",
    "Comparison",
    "Delineation",
    "Ecg",
    "EcgFeatures",
    "Electrodes",
    "Judgement",
    "QrsShape",
    "RWaveProgression",
    "RateVariation",
    "Recording",
    "Wave",
    "average_beat",
    "clean_ecg",
    "compare_beats",
    "delineate",
    "ecg_features",
    "find_beats",
    "fragmented_qrs",
    "frontal_axis",
    "lbbb_aha",
    "lbbb_strauss",
    "lead_field",
    "lead_shares",
    "move_electrodes",
    "on_skin",
    "place_electrodes",
    "qrs_bounds",
    "qrs_duration",
    "qrs_shapes",
    "qrs_t_angle",
    "qt_interval",
    "qtc_bazett",
    "qtc_fridericia",
    "r_wave_progression",
    "rate_variation",
    "rbbb_aha",
    "read_ecg",
    "read_electrodes",
    "same_person",
    "smooth_axis",
    "smooth_qrs_bounds",
    "smooth_qrs_duration",
    "smooth_qtc",
    "smooth_t_end",
    "smooth_t_peak",
    "standard_12_lead",
    "twelve_lead",
    "vectorcardiogram",
    "write_ecg",
]
