"""The body-surface ECG: electrodes, lead field, the twelve leads, features and files."""

from twinheart.ecg.beats import AverageBeat, Beats, average_beat, find_beats, qrs_bounds
from twinheart.ecg.body_map import against_wilson, body_map, torso_lead_field
from twinheart.ecg.compare import Comparison, compare_beats, lead_correlations
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
from twinheart.ecg.electrograms import bipolar, surface_sites, unipolar_weights
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
from twinheart.ecg.stored_field import (
    LeadField,
    make_lead_field,
    read_lead_field,
    write_lead_field,
)
from twinheart.ecg.torso_field import (
    VolumeConductor,
    heart_tensors,
    torso_conductor,
    torso_field,
)
from twinheart.ecg.torso_source import torso_source
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
    "LeadField",
    "QrsShape",
    "RWaveProgression",
    "RateVariation",
    "Recording",
    "VolumeConductor",
    "Wave",
    "against_wilson",
    "average_beat",
    "bipolar",
    "body_map",
    "clean_ecg",
    "compare_beats",
    "delineate",
    "ecg_features",
    "find_beats",
    "fragmented_qrs",
    "frontal_axis",
    "heart_tensors",
    "lbbb_aha",
    "lbbb_strauss",
    "lead_correlations",
    "lead_field",
    "lead_shares",
    "make_lead_field",
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
    "read_lead_field",
    "same_person",
    "smooth_axis",
    "smooth_qrs_bounds",
    "smooth_qrs_duration",
    "smooth_qtc",
    "smooth_t_end",
    "smooth_t_peak",
    "standard_12_lead",
    "surface_sites",
    "torso_conductor",
    "torso_field",
    "torso_lead_field",
    "torso_source",
    "twelve_lead",
    "unipolar_weights",
    "vectorcardiogram",
    "write_ecg",
    "write_lead_field",
]
