"""Planning: the risk of arrhythmia, and what ablation would change."""

from twinheart.planning.scores import HcmRiskScd, hcm_risk_scd

__all__ = [
    "HcmRiskScd",
    "hcm_risk_scd",
]
