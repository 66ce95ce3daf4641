"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.evaluation import Evaluation, evaluate
from twinheart.planning.isolation import Isolation, isolation
from twinheart.planning.lesions import Ablation, Lesion, ablate_tissue, ablated
from twinheart.planning.painting import Area, Channel, ScarPlan, paint_scar
from twinheart.planning.patient_table import PatientTable, read_patient_table
from twinheart.planning.scores import HcmRiskScd, hcm_risk_scd

__all__ = [
    "Ablation",
    "Area",
    "Channel",
    "Evaluation",
    "HcmRiskScd",
    "Isolation",
    "Lesion",
    "PatientTable",
    "ScarPlan",
    "ablate_tissue",
    "ablated",
    "evaluate",
    "hcm_risk_scd",
    "isolation",
    "paint_scar",
    "read_patient_table",
]
