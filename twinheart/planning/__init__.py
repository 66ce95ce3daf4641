"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.circuits import Circuit, screen_circuits
from twinheart.planning.confirmation import Confirmation, confirm, induce_monodomain
from twinheart.planning.evaluation import Evaluation, evaluate
from twinheart.planning.induction import (
    Reentry,
    SiteResult,
    StageResult,
    activation_train,
    induce,
    reentry,
)
from twinheart.planning.induction_sites import induce_sites
from twinheart.planning.isolation import Isolation, isolation
from twinheart.planning.isthmuses import Isthmus, Merge, find_isthmuses, merge_events
from twinheart.planning.lesions import Ablation, Lesion, ablate_tissue, ablated
from twinheart.planning.limiting_rate import at_limiting_rate
from twinheart.planning.monodomain_trains import PacedTissue, prepare_pacing
from twinheart.planning.morphology import Morphology, classify
from twinheart.planning.pace_map import PaceMap, locate_exit
from twinheart.planning.paced_ecg import ModelSpread, PacedEcg, paced_ecg
from twinheart.planning.pacing_sites import AHA_PLACES, PacingSite, aha_sites, place_sites
from twinheart.planning.painting import Area, Channel, ScarPlan, paint_scar
from twinheart.planning.patient_table import PatientTable, read_patient_table
from twinheart.planning.phase import PhaseMap, phase_map
from twinheart.planning.protocols import PROTOCOLS, Protocol, Stage, Statement, named_protocol
from twinheart.planning.reentry_maps import (
    ReentryCircuit,
    WaveBreaks,
    activation_circuit,
    dominant_frequency,
    wave_breaks,
)
from twinheart.planning.scores import HcmRiskScd, hcm_risk_scd
from twinheart.planning.singularities import (
    Filament,
    Singularities,
    Track,
    filaments,
    singular_points,
    track_filaments,
    track_points,
)
from twinheart.planning.vt_beat import VtBeat, vt_beat
from twinheart.planning.vulnerability import (
    RepolarisationGradient,
    VulnerabilitySweep,
    repolarisation_gradient,
    vulnerability_index,
    vulnerability_sweep,
)

__all__ = [
    "AHA_PLACES",
    "PROTOCOLS",
    "Ablation",
    "Area",
    "Channel",
    "Circuit",
    "Confirmation",
    "Evaluation",
    "Filament",
    "HcmRiskScd",
    "Isolation",
    "Isthmus",
    "Lesion",
    "Merge",
    "ModelSpread",
    "Morphology",
    "PaceMap",
    "PacedEcg",
    "PacedTissue",
    "PacingSite",
    "PatientTable",
    "PhaseMap",
    "Protocol",
    "Reentry",
    "ReentryCircuit",
    "RepolarisationGradient",
    "ScarPlan",
    "Singularities",
    "SiteResult",
    "Stage",
    "StageResult",
    "Statement",
    "Track",
    "VtBeat",
    "VulnerabilitySweep",
    "WaveBreaks",
    "ablate_tissue",
    "ablated",
    "activation_circuit",
    "activation_train",
    "aha_sites",
    "at_limiting_rate",
    "classify",
    "confirm",
    "dominant_frequency",
    "evaluate",
    "filaments",
    "find_isthmuses",
    "hcm_risk_scd",
    "induce",
    "induce_monodomain",
    "induce_sites",
    "isolation",
    "locate_exit",
    "merge_events",
    "named_protocol",
    "paced_ecg",
    "paint_scar",
    "phase_map",
    "place_sites",
    "prepare_pacing",
    "read_patient_table",
    "reentry",
    "repolarisation_gradient",
    "screen_circuits",
    "singular_points",
    "track_filaments",
    "track_points",
    "vt_beat",
    "vulnerability_index",
    "vulnerability_sweep",
    "wave_breaks",
]
