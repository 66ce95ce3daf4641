r"""Published clinical scores of the risk of sudden cardiac death, for comparison with a twin.

Only scores of which every coefficient is known exactly are here: HCM Risk-SCD. Others (MADIT-ICD
benefit, 1-2-3-LQTS, PREDETERMINE) are absent until their points or baseline are taken from the
primary source.
"""

import math
from typing import NamedTuple

from twinheart.errors import InputError

# Where the score holds, as its calculators enforce it: name, least, largest, unit. The ranges are
# those of the derivation cohort (O'Mahony et al. 2014, doi:10.1093/eurheartj/eht439).
RANGES = {
    "age": ("age", 16.0, 115.0, "years"),
    "mwt": ("maximal wall thickness", 10.0, 35.0, "mm"),
    "la": ("diameter of the left atrium", 28.0, 67.0, "mm"),
    "lvot": ("maximal gradient of the outflow tract", 2.0, 154.0, "mmHg"),
}
_SURVIVAL = 0.998  # of five years at a prognostic index of 0
# Class from a probability on, and the words of the 2014 guideline (doi:10.1093/eurheartj/ehu284).
_CLASSES = (
    (0.06, ">= 6 %", "ICD should be considered"),
    (0.04, "4-6 %", "ICD may be considered"),
    (0.0, "< 4 %", "ICD generally not indicated"),
)
NOT_FOR = (
    "patients under 16, elite athletes, hypertrophy of metabolic or syndromic cause, earlier "
    "cardiac arrest or sustained ventricular arrhythmia; not validated around myectomy or alcohol "
    "ablation, nor for gradients under exercise"
)


class HcmRiskScd(NamedTuple):
    """What HCM Risk-SCD says of one patient.

    Attributes
    ----------
    prognostic_index : float
        The linear predictor.
    probability : float
        Of sudden cardiac death within five years, 0 to 1.
    risk_class : str
        ``"< 4 %"``, ``"4-6 %"`` or ``">= 6 %"``.
    guideline : str
        What the 2014 guideline says of this class.
    """

    prognostic_index: float
    probability: float
    risk_class: str
    guideline: str


def hcm_risk_scd(
    *,
    age: float,
    mwt: float,
    la: float,
    lvot: float,
    family_history: bool = False,
    nsvt: bool = False,
    syncope: bool = False,
) -> HcmRiskScd:
    r"""Five-year probability of sudden cardiac death in hypertrophic cardiomyopathy.

    .. math:: P = 1 - 0.998^{\exp(\mathrm{PI})}

    with the prognostic index PI linear in all predictors and quadratic in the wall thickness
    (O'Mahony et al. 2014, doi:10.1093/eurheartj/eht439). The classes are those of the 2014
    guideline of the European Society of Cardiology (doi:10.1093/eurheartj/ehu284).

    Parameters
    ----------
    age : float
        Years, 16 to 115.
    mwt : float
        Maximal wall thickness of the left ventricle [mm], 10 to 35.
    la : float
        Diameter of the left atrium, parasternal [mm], 28 to 67.
    lvot : float
        Maximal gradient of the outflow tract at rest or with Valsalva [mmHg], 2 to 154.
    family_history : bool
        Sudden death in a first-degree relative below 40, or at any age with confirmed disease.
    nsvt : bool
        Non-sustained ventricular tachycardia on a Holter.
    syncope : bool
        Unexplained syncope.

    Returns
    -------
    HcmRiskScd
        Index, probability and class.

    Raises
    ------
    InputError
        If a predictor lies outside the range in which the score holds.

    Examples
    --------
    >>> from twinheart.planning import hcm_risk_scd
    >>> found = hcm_risk_scd(age=50.0, mwt=24.0, la=46.0, lvot=40.0)
    >>> round(found.probability, 8), found.risk_class
    (0.02661613, '< 4 %')
    """
    for key, value in (("age", age), ("mwt", mwt), ("la", la), ("lvot", lvot)):
        _check_range(key, value)
    index = (
        0.15939858 * mwt
        - 0.00294271 * mwt**2
        + 0.0259082 * la
        + 0.00446131 * lvot
        + 0.4583082 * family_history
        + 0.82639195 * nsvt
        + 0.71650361 * syncope
        - 0.01799934 * age
    )
    probability = -math.expm1(math.exp(index) * math.log(_SURVIVAL))
    name, words = next((name, words) for least, name, words in _CLASSES if probability >= least)
    return HcmRiskScd(index, probability, name, words)


def _check_range(key: str, value: float) -> None:
    words, low, high, unit = RANGES[key]
    if not low <= value <= high:
        raise InputError(
            f"the {words} is {value:g} {unit}, HCM Risk-SCD holds from {low:g} to {high:g} {unit}: "
            "the score says nothing about this patient."
        )
