"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.ablation.isolation import Isolation, isolation
from twinheart.planning.ablation.lesions import Ablation, Lesion, ablate_tissue, ablated
from twinheart.planning.circuits.isthmuses import Isthmus, Merge, find_isthmuses, merge_events
from twinheart.planning.circuits.search import Circuit, screen_circuits
from twinheart.planning.circuits.vulnerability import (
    RepolarisationGradient,
    VulnerabilitySweep,
    repolarisation_gradient,
    vulnerability_index,
    vulnerability_sweep,
)
from twinheart.planning.induction.confirmation import Confirmation, confirm, induce_monodomain
from twinheart.planning.induction.many_sites import induce_sites
from twinheart.planning.induction.monodomain_trains import PacedTissue, prepare_pacing
from twinheart.planning.induction.morphology import Morphology, classify
from twinheart.planning.induction.one_site import (
    Reentry,
    SiteResult,
    StageResult,
    activation_train,
    induce,
    reentry,
)
from twinheart.planning.induction.protocols import (
    PROTOCOLS,
    Protocol,
    Stage,
    Statement,
    named_protocol,
)
from twinheart.planning.pace_mapping.pace_map import PaceMap, locate_exit
from twinheart.planning.pace_mapping.paced_ecg import ModelSpread, PacedEcg, paced_ecg
from twinheart.planning.pace_mapping.vt_beat import VtBeat, vt_beat
from twinheart.planning.pacing_sites import AHA_PLACES, PacingSite, aha_sites, place_sites
from twinheart.planning.painting import Area, Channel, ScarPlan, paint_scar
from twinheart.planning.reentry_maps.circuit import (
    ReentryCircuit,
    WaveBreaks,
    activation_circuit,
    dominant_frequency,
    wave_breaks,
)
from twinheart.planning.reentry_maps.phase import PhaseMap, phase_map
from twinheart.planning.reentry_maps.singularities import (
    Filament,
    Singularities,
    Track,
    filaments,
    singular_points,
    track_filaments,
    track_points,
)
from twinheart.planning.risk.evaluation import Evaluation, evaluate
from twinheart.planning.risk.patient_table import PatientTable, read_patient_table
from twinheart.planning.risk.scores import HcmRiskScd, hcm_risk_scd

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
