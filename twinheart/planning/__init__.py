"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.evaluation import Evaluation, evaluate
from twinheart.planning.painting import Area, Channel, ScarPlan, paint_scar
from twinheart.planning.patient_table import PatientTable, read_patient_table
from twinheart.planning.scores import HcmRiskScd, hcm_risk_scd

__all__ = [
    "Area",
    "Channel",
    "Evaluation",
    "HcmRiskScd",
    "PatientTable",
    "ScarPlan",
    "evaluate",
    "hcm_risk_scd",
    "paint_scar",
    "read_patient_table",
]
