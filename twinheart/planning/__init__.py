"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.evaluation import Evaluation, evaluate
from twinheart.planning.patient_table import PatientTable, read_patient_table
from twinheart.planning.scores import HcmRiskScd, hcm_risk_scd

__all__ = [
    "Evaluation",
    "HcmRiskScd",
    "PatientTable",
    "evaluate",
    "hcm_risk_scd",
    "read_patient_table",
]
