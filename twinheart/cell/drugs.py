"""Drugs: block of currents by concentration, and the twelve training drugs of CiPA."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from twinheart.cell.model import AbstractCellModel
from twinheart.cell.modify import (
    LeftOutWarning,
    Model,
    check_not_negative,
    core,
    parameter_of,
    scale_channels,
    with_parameters,
)
from twinheart.cell.registry import nearest, parameter_names
from twinheart.errors import ModelError


class Hill(NamedTuple):
    """Block of a current: half of it at `ic50` [nM], steepness `h`."""

    ic50: float
    h: float


class Binding(NamedTuple):
    """Dynamic binding to the hERG channel (Li et al. 2017, doi:10.1161/CIRCEP.116.004628).

    Attributes
    ----------
    k_max : float
        Largest binding rate, relative to the unbinding rate, dimensionless.
    k_u : float
        Unbinding rate [1/ms].
    n : float
        Hill coefficient of the concentration.
    half_max : float
        ``EC50**n`` [nM^n].
    v_half : float
        Voltage of half trapping [mV].
    """

    k_max: float
    k_u: float
    n: float
    half_max: float
    v_half: float


@dataclass(frozen=True)
class Drug:
    """A drug of the CiPA training set.

    Attributes
    ----------
    risk : str
        Class of its proarrhythmic risk: ``"high"``, ``"intermediate"`` or ``"low"``.
    cmax : float
        Free therapeutic peak concentration [nM].
    block : dict of str to Hill
        Static block by channel.
    binding : Binding
        Dynamic block of I_Kr.
    """

    risk: str
    cmax: float
    block: dict[str, Hill]
    binding: Binding


# Facts from the data of FDA/CiPA (github.com/FDA/CiPA): optimal fits, concentrations in nM. Li et
# al. 2017, doi:10.1161/CIRCEP.116.004628; Dutta et al. 2017, doi:10.3389/fphys.2017.00616.
DRUGS: dict[str, Drug] = {
    "quinidine": Drug("high", 3237.0, {
        "i_kr": Hill(986.3, 0.840), "i_cal": Hill(51590.0, 0.589), "i_nal": Hill(9417.0, 1.337),
        "i_na": Hill(12330.0, 1.494), "i_to": Hill(3487.0, 1.282), "i_ks": Hill(4899.0, 1.363),
    }, Binding(275.7, 0.004103, 0.8488, 53830.0, -61.35)),
    "bepridil": Drug("high", 33.0, {
        "i_kr": Hill(51.34, 0.929), "i_cal": Hill(2808.0, 0.649), "i_nal": Hill(1814.0, 1.416),
    }, Binding(5.594e6, 1.719e-4, 0.9374, 1.472e8, -61.34)),
    "dofetilide": Drug("high", 2.0, {
        "i_kr": Hill(6.125, 1.079), "i_cal": Hill(260.3, 1.163), "i_na": Hill(380.5, 0.892),
        "i_to": Hill(18.82, 0.771), "i_k1": Hill(394.4, 0.765),
    }, Binding(35.1, 1.816e-5, 1.08, 216.6, -1.0)),
    "sotalol": Drug("high", 14690.0, {
        "i_kr": Hill(107100.0, 0.785),
    }, Binding(96190.0, 0.02225, 0.7513, 3.856e8, -51.5)),
    "chlorpromazine": Drug("intermediate", 38.0, {
        "i_kr": Hill(975.2, 0.828), "i_cal": Hill(8192.0, 0.844),
    }, Binding(157900.0, 0.04671, 0.8871, 4.351e7, -14.45)),
    "cisapride": Drug("intermediate", 2.6, {
        "i_kr": Hill(11.27, 0.621),
    }, Binding(10.22, 4.161e-4, 0.9615, 42.32, -167.4)),
    "terfenadine": Drug("intermediate", 4.0, {
        "i_kr": Hill(20.4, 0.612), "i_cal": Hill(700.4, 0.66),
    }, Binding(102200.0, 7.788e-5, 0.6502, 409500.0, -81.63)),
    "ondansetron": Drug("intermediate", 139.0, {
        "i_kr": Hill(1325.0, 0.921), "i_cal": Hill(22550.0, 0.753),
    }, Binding(172000.0, 0.02324, 0.891, 5.224e7, -82.2)),
    "diltiazem": Drug("low", 122.0, {
        "i_kr": Hill(13140.0, 0.912), "i_cal": Hill(112.1, 0.714),
    }, Binding(182500.0, 0.282, 0.9382, 6.677e8, -90.65)),
    "mexiletine": Drug("low", 4129.0, {
        "i_kr": Hill(29070.0, 0.893), "i_nal": Hill(8957.0, 1.409),
    }, Binding(15.0, 0.07114, 1.139, 723000.0, -87.51)),
    "ranolazine": Drug("low", 1948.2, {
        "i_kr": Hill(8208.0, 0.858), "i_nal": Hill(7884.0, 0.945), "i_na": Hill(68770.0, 1.425),
    }, Binding(52.84, 0.02035, 0.9532, 143000.0, -94.99)),
    "verapamil": Drug("low", 81.0, {
        "i_kr": Hill(295.6, 0.938), "i_cal": Hill(201.8, 1.097), "i_nal": Hill(7028.0, 1.031),
    }, Binding(1.694e6, 8.165e-4, 1.043, 3.356e8, -97.08)),
}  # fmt: skip

# Parameters of a model with dynamic binding: the concentration [nM], then those of `Binding`.
_CONCENTRATION = "concentration"
_BINDING = ("k_max", "k_u", "hill", "half_max", "v_half")


def drug_names() -> tuple[str, ...]:
    """Names that `apply_drug` understands."""
    return tuple(DRUGS)


def hill_factor(concentration: Any, ic50: Any, h: Any = 1.0) -> jax.Array:
    r"""What a drug leaves of a current.

    .. math:: \frac{1}{1 + (C / IC_{50})^h}

    Parameters
    ----------
    concentration : float or (node,) array
        C [nM], not negative.
    ic50 : float
        Concentration of half block [nM].
    h : float
        Hill coefficient.

    Returns
    -------
    array
        Between 0 and 1; value and derivative are finite at zero concentration.

    Examples
    --------
    >>> from twinheart.cell import hill_factor
    >>> hill_factor(50.0, 50.0, 1.3).item()
    0.5
    """
    check_not_negative("concentration", concentration)
    concentration = jnp.asarray(concentration, float)
    present = concentration > 0
    # the power of zero has no finite derivative where h < 1
    ratio = jnp.where(present, concentration, ic50) / ic50
    return jnp.where(present, 1 / (1 + ratio**h), 1.0)


def block_channels(
    model: Model, concentration: Any, block: Mapping[str, tuple[float, float]]
) -> Model:
    """Cell under any drug given by its IC50 and Hill coefficients.

    Parameters
    ----------
    model : AbstractCellModel
        Cell.
    concentration : float or (node,) array
        Free concentration [nM].
    block : mapping of str to (float, float)
        Half-blocking concentration [nM] and Hill coefficient by channel.

    Returns
    -------
    AbstractCellModel
        Of the same class.

    Warns
    -----
    LeftOutWarning
        If the model lacks some of the channels.

    Raises
    ------
    ModelError
        If the concentration is negative or an IC50 or Hill coefficient is not positive.

    Examples
    --------
    >>> from twinheart.cell import block_channels, get_model
    >>> cell = block_channels(get_model("tentusscher2006-epi"), 10.0, {"i_kr": (10.0, 1.0)})
    >>> round(cell.g_kr.item(), 4)
    0.0765
    """
    for name, pair in block.items():
        if not all(math.isfinite(x) and x > 0 for x in pair):
            raise ModelError(f"IC50 and Hill coefficient of {name} are {pair}, expected positive.")
    check_not_negative("concentration", concentration)
    known = {name: pair for name, pair in block.items() if parameter_of(model, name)}
    if missing := [name for name in block if name not in known]:
        warnings.warn(
            f"the drug also blocks {', '.join(missing)}, which {model.name} does not have: left "
            "out.",
            LeftOutWarning,
            stacklevel=3,
        )
    return scale_channels(
        model, {name: hill_factor(concentration, *pair) for name, pair in known.items()}
    )


def apply_drug(
    model: Model,
    name: str,
    *,
    concentration_nm: Any = None,
    cmax: Any = None,
    dynamic: bool | None = None,
) -> Model:
    """Cell under a drug of the CiPA training set.

    Several drugs are applied one after the other; their factors on a channel multiply, as if they
    acted independently.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; several drugs or conditions may have been applied to it.
    name : str
        One of `drug_names`.
    concentration_nm : float or (node,) array, optional
        Free concentration [nM].
    cmax : float or (node,) array, optional
        The same as a multiple of the therapeutic peak; give one of the two.
    dynamic : bool, optional
        Block I_Kr by binding kinetics instead of its IC50. By default where the model has the
        binding states (``ord-cipa``) and they are not taken by an earlier drug.

    Returns
    -------
    AbstractCellModel
        Of the same class.

    Warns
    -----
    LeftOutWarning
        If the model lacks some of the channels that the drug blocks.

    Raises
    ------
    ModelError
        If the drug is unknown (the message names the nearest), the dose is negative or not given,
        or dynamic binding is asked of a model that cannot do it.

    Examples
    --------
    >>> from twinheart.cell import apply_drug, get_model
    >>> cell = apply_drug(get_model("tentusscher2006-epi"), "sotalol", cmax=1.0)
    >>> round(cell.g_kr.item() / 0.153, 2)
    0.83
    """
    if name not in DRUGS:
        raise ModelError(f"unknown drug {name!r}; {nearest(name, DRUGS)}")
    if (concentration_nm is None) == (cmax is None):
        raise ModelError(f"drug {name!r} needs a dose: give either concentration_nm or cmax.")
    drug = DRUGS[name]
    check_not_negative(f"dose of {name}", concentration_nm if cmax is None else cmax)
    concentration = concentration_nm if cmax is None else jnp.asarray(cmax, float) * drug.cmax
    block = dict(drug.block)
    if _binds(model, name, dynamic):
        del block["i_kr"]
        values = dict(zip(_BINDING, drug.binding, strict=True))
        model = with_parameters(model, {_CONCENTRATION: concentration, **values})
    return block_channels(model, concentration, block)


def _binds(model: AbstractCellModel, name: str, dynamic: bool | None) -> bool:
    """Whether the block of I_Kr goes through the binding states of the model."""
    if dynamic is False:
        return False
    able = set(parameter_names(core(model))) >= {_CONCENTRATION, *_BINDING}
    free = able and _is_zero(getattr(core(model), _CONCENTRATION))
    if dynamic and not free:
        reason = "another drug occupies them" if able else "it has none"
        raise ModelError(f"{name} cannot bind to hERG states of {model.name}: {reason}.")
    return free


def _is_zero(value: Any) -> bool:
    try:
        return not np.any(np.asarray(value))
    except jax.errors.TracerArrayConversionError:
        return False
