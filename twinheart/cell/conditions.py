"""Diseased cells: named sets of factors on channels and parameters, each with its source.

What is *verified* was read in the paper or program that `Condition.source` names. What is
*unverified* is a changeable starting point, not an established value: scale the channels to the
patient's or the mutation's own numbers with `twinheart.cell.scale_channels`.
"""

import warnings
from dataclasses import dataclass

from twinheart.cell.model import AbstractCellModel
from twinheart.cell.modify import LeftOutWarning, Model, parameter_of, scale_channels
from twinheart.cell.registry import nearest
from twinheart.errors import ModelError


@dataclass(frozen=True)
class Condition:
    """A disease as factors on a healthy cell.

    Attributes
    ----------
    description : str
        What it is, and for which model it was published.
    source : str
        Where the numbers come from.
    verified : bool
        Whether they were read in `source`; if not, they are changeable defaults.
    factors : dict of str to float
        By channel, or by a quantity in `QUANTITIES`.
    """

    description: str
    source: str
    verified: bool
    factors: dict[str, float]

    @property
    def status(self) -> str:
        """``"verified"`` or ``"unverified"``."""
        return "verified" if self.verified else "unverified"


# Quantities that are no channel, and the parameters, by any of the names that models give them,
# that are proportional to them: rate of phosphorylation by CaMK (taken as that of its own
# activation), time constant of calcium release, of inactivation of I_NaL, active fraction of CaMK.
QUANTITIES: dict[str, tuple[str, ...]] = {
    "camk_rate": ("a_camk",),
    "tau_rel": ("tau_rel_factor",),
    "tau_hl": ("tau_hl",),
    "camk_active": (),
}

_ZHOU = (
    "Zhou et al. 2024, doi:10.7554/eLife.93002; factors as in main.m of the published program "
    "jennyhelyanwe/post_MI_postprocessing"
)
_BZ2 = {"i_na": 0.38, "i_cal": 0.31, "i_kr": 0.30, "i_ks": 0.20}
_CHANGEABLE = "a changeable default; scale it to the mutation's own number"

CONDITIONS: dict[str, Condition] = {
    "chronic-af": Condition(
        "Remodelling of the atria by chronic atrial fibrillation, for courtemanche1998.",
        "OPTIMA, Boyle et al. 2019, doi:10.1038/s41551-019-0437-9; numbers from memory",
        False,
        {"i_cal": 0.30, "i_to": 0.50, "i_kur": 0.50},
    ),
    "chronic-af-fibrotic": Condition(
        "Fibrotic atrial tissue, for courtemanche1998: its factors alone, without 'chronic-af'.",
        "OPTIMA, Boyle et al. 2019, doi:10.1038/s41551-019-0437-9; numbers from memory",
        False,
        {"i_k1": 0.50, "i_cal": 0.50, "i_na": 0.60},
    ),
    "border-zone": Condition(
        "Border zone of an infarct in the virtual-heart arrhythmia risk predictor, for ten "
        "Tusscher: the factors of 'acute-bz2'.",
        "numbers as 'acute-bz2'; that Arevalo et al. 2016, doi:10.1038/ncomms11437, use them is "
        "from memory",
        False,
        _BZ2,
    ),
    "acute-bz1": Condition(
        "Border zone of an acute infarct, first set, for ToR-ORd.",
        _ZHOU,
        True,
        {"i_na": 0.40, "i_to": 0.10, "i_cal": 0.64, "i_kr": 0.70, "i_ks": 0.20, "i_k1": 0.30},
    ),
    "acute-bz2": Condition(
        "Border zone of an acute infarct, second set, for ToR-ORd.", _ZHOU, True, _BZ2
    ),
    "acute-bz3": Condition(
        "Border zone of an acute infarct, third set, for ToR-ORd.",
        _ZHOU,
        True,
        {"i_na": 0.40, "i_to": 0.0, "i_cal": 0.64, "i_k1": 0.60, "camk_rate": 1.5,
         "tau_rel": 6.0, "i_bca": 1.33},
    ),
    "chronic-bz": Condition(
        "Border zone of a chronic infarct, for ToR-ORd.",
        _ZHOU,
        True,
        {"i_na": 0.43, "i_nal": 1.275, "i_cal": 0.70, "i_kr": 0.89, "i_k1": 0.76, "j_up": 0.40,
         "i_kca": 2.0, "i_cl_ca": 1.25, "camk_rate": 1.5, "tau_rel": 6.0},
    ),
    "chronic-rz1": Condition(
        "Remote zone of a chronic infarct, first set, for ToR-ORd.",
        _ZHOU,
        True,
        {"i_na": 0.43, "i_nal": 1.413, "i_kr": 0.87, "j_up": 0.40, "i_kca": 2.0, "i_cl_ca": 1.25,
         "camk_rate": 1.5, "tau_rel": 6.0},
    ),
    "chronic-rz2": Condition(
        "Remote zone of a chronic infarct, second set, for ToR-ORd.",
        _ZHOU,
        True,
        {"i_na": 0.43, "i_nal": 2.0, "i_to": 0.60, "i_kr": 0.60, "i_ks": 0.40, "i_k1": 0.60,
         "i_nak": 0.60, "j_up": 0.30, "i_kca": 3.75, "i_cl_ca": 1.25, "camk_rate": 1.5,
         "tau_rel": 6.0},
    ),
    "heart-failure": Condition(
        "Failing ventricle, for O'Hara-Rudy.",
        "Gomez et al. 2014, doi:10.1371/journal.pone.0103273; factors as in a published Myokit "
        "script that names the paper, its own table was not at hand",
        True,
        {"i_nal": 1.80, "tau_hl": 1.80, "i_to": 0.40, "i_k1": 0.68, "i_nak": 0.70, "i_naca": 1.75,
         "j_up": 0.50, "j_leak": 1.30, "camk_active": 1.50, "j_rel": 0.80},
    ),
    "lqt1": Condition(
        "Long QT syndrome 1: one allele of KCNQ1 lost, half of I_Ks.",
        f"loss of one allele of two without dominance; {_CHANGEABLE}",
        False,
        {"i_ks": 0.50},
    ),
    "lqt2": Condition(
        "Long QT syndrome 2: one allele of KCNH2 lost, half of I_Kr.",
        f"loss of one allele of two without dominance; {_CHANGEABLE}",
        False,
        {"i_kr": 0.50},
    ),
    "lqt3": Condition(
        "Long QT syndrome 3: gain of function of SCN5A, late sodium current fourfold.",
        f"no source at hand; {_CHANGEABLE}",
        False,
        {"i_nal": 4.0},
    ),
    "brugada": Condition(
        "Brugada syndrome: one allele of SCN5A lost, half of I_Na, beside a strong I_to of the "
        "right ventricular epicardium.",
        f"half of I_Na: loss of one allele of two; the factor of I_to has no source at hand; "
        f"{_CHANGEABLE}",
        False,
        {"i_na": 0.50, "i_to": 2.0},
    ),
}  # fmt: skip


def condition_names() -> tuple[str, ...]:
    """Names that `apply_condition` understands."""
    return tuple(CONDITIONS)


def apply_condition(model: Model, name: str) -> Model:
    """Diseased cell; what the model does not have is left out, with a warning that names it.

    Parameters
    ----------
    model : AbstractCellModel
        Healthy cell, or one with another condition, whose factors multiply.
    name : str
        One of `condition_names`.

    Returns
    -------
    AbstractCellModel
        Of the same class.

    Warns
    -----
    LeftOutWarning
        If the model lacks some of what the condition changes; see `left_out`.

    Raises
    ------
    ModelError
        If the condition is unknown (the message names the nearest), or the model has nothing that
        it changes.

    Examples
    --------
    >>> from twinheart.cell import apply_condition, get_model
    >>> cell = apply_condition(get_model("tentusscher2006-epi"), "border-zone")
    >>> round(cell.g_ks.item(), 4)
    0.0784
    """
    if name not in CONDITIONS:
        raise ModelError(f"unknown condition {name!r}; {nearest(name, CONDITIONS)}")
    condition = CONDITIONS[name]
    missing = left_out(model, name)
    if len(missing) == len(condition.factors):
        raise ModelError(
            f"{model.name} has nothing that condition {name!r} changes ({', '.join(missing)})."
        )
    if missing:
        warnings.warn(
            f"condition {name!r} also changes {', '.join(missing)}, which {model.name} does not "
            "have: left out.",
            LeftOutWarning,
            stacklevel=2,
        )
    found = {_target(model, key): factor for key, factor in condition.factors.items()}
    return scale_channels(model, {key: factor for key, factor in found.items() if key})


def left_out(model: AbstractCellModel, name: str) -> tuple[str, ...]:
    """What a condition changes and a model does not have.

    Parameters
    ----------
    model : AbstractCellModel
        Cell.
    name : str
        One of `condition_names`.

    Returns
    -------
    tuple of str
        Names of channels and quantities.
    """
    return tuple(key for key in CONDITIONS[name].factors if _target(model, key) is None)


def _target(model: AbstractCellModel, key: str) -> str | None:
    """Channel or parameter of a model that a key of a condition means; None if it has neither."""
    names = QUANTITIES.get(key, (key,))
    return next((name for name in names if parameter_of(model, name)), None)
