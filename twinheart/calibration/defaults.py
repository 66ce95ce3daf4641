"""Priors that a calibration begins with, each with its source.

None of them is an established fact about a patient: all can be changed in the case file.
"""

from collections.abc import Sequence

from twinheart.calibration.build import StartSite
from twinheart.calibration.model import KNOWN
from twinheart.calibration.parameters import Parameter, Parameters, unknown_parameter
from twinheart.calibration.priors import LogNormal, Normal, Prior, Uniform
from twinheart.errors import InputError

_CAMPS = "range of Camps et al. 2024, arXiv:2401.10029"
_OURS = "our choice"
_PRIORS: dict[str, tuple[Prior, str]] = {
    "cv_l": (Uniform(0.4, 1.2), "0.5-1.0 in use for calibration, widened"),
    "cv_t": (Uniform(0.2, 0.6), f"{_CAMPS}: 0.25-0.6, widened"),
    "cv_n": (Uniform(0.15, 0.6), "0.48 in Camps et al. 2024, arXiv:2401.10029, widened"),
    "cv_endo": (Uniform(0.7, 1.9), f"{_CAMPS}, dense and sparse"),
    "cv_scale": (LogNormal(1.0, 1.5), _OURS),
    "cv_field": (Normal(0.0, 0.15), _OURS),
    "purkinje_cv": (Uniform(1.3, 3.5), "around Maguy et al. 2009, 10.1161/CIRCRESAHA.108.191809"),
    "lv_delay": (
        Normal(0.0, 30.0),
        "none in most hearts; interventricular delay in LBBB 77 +- 38 ms, Gold et al. 2018",
    ),
    "offset": (Normal(0.0, 4.0), "readers of an ECG differ by some milliseconds; our choice"),
    "apd": (Uniform(200.0, 400.0), _CAMPS),
    "apd.ab": (Normal(0.0, 30.0), f"{_CAMPS}: up to 80 ms in all"),
    "apd.tm": (Normal(0.0, 30.0), f"{_CAMPS}: up to 80 ms in all"),
    "apd.ap": (Normal(0.0, 30.0), f"{_CAMPS}: up to 80 ms in all"),
    "apd.rvlv": (Normal(0.0, 30.0), f"{_CAMPS}: up to 80 ms in all"),
    "apd.field": (Normal(0.0, 15.0), _OURS),
    "apd.channel": (LogNormal(1.0, 1.5), "spread of conductances in populations; our choice"),
    "electrode.x": (Normal(0.0, 10.0), _OURS),
    "electrode.y": (Normal(0.0, 10.0), _OURS),
    "electrode.z": (Normal(0.0, 10.0), _OURS),
    "pose.shift": (Normal(0.0, 10.0), _OURS),
    "pose.turn": (Normal(0.0, 10.0), _OURS),
    "source_across": (
        LogNormal(1.0, 2.0),
        "measured sigma_il is 4 to 11 times sigma_it (Clerc 1976, Roberts et al. 1979 and 1982)",
    ),
    "gain": (LogNormal(1.0, 3.0), "an unbounded medium gives no amplitude"),
    "gain.lead": (LogNormal(1.0, 1.25), _OURS),
}
# Around the place and time of each site of early activation.
_AB_SD, _RT_SD, _ONSET_SD = 0.15, 0.08, 8.0
_AB_LOW, _AB_HIGH = 0.02, 0.95
_AXES = ("x", "y", "z")
_SEVERAL = ("cv_scale", "cv_field", "apd.field", "apd.channel", "gain.lead")
QRS = ("cv_l", "cv_t", "cv_endo", "site.ab", "site.rt", "site.onset", "lv_delay", "offset", "gain")
T_WAVE = ("apd", "apd.ab", "apd.tm", "apd.ap", "apd.rvlv")


def parameter(
    name: str,
    *,
    labels: Sequence[str] = (),
    prior: Prior | None = None,
    sites: Sequence[StartSite] = (),
) -> Parameter:
    """A free parameter with its usual prior.

    Parameters
    ----------
    name : str
        One of `twinheart.calibration.KNOWN`.
    labels : sequence of str
        One for each number: region tags of ``cv_scale``, names of channels, electrodes or leads,
        places of fields. Not for sites.
    prior : Prior, optional
        Instead of the usual one.
    sites : sequence of StartSite
        Around which ``site.ab``, ``site.rt``, ``site.onset`` lie.

    Returns
    -------
    Parameter
        With unit and source.

    Raises
    ------
    InputError
        If the name is unknown, or it needs labels or sites that are not given.

    Examples
    --------
    >>> from twinheart.calibration import parameter
    >>> parameter("cv_endo").priors
    (Uniform(low=0.7, high=1.9),)
    """
    if name not in KNOWN:
        raise InputError(unknown_parameter(name, list(KNOWN)))
    unit = KNOWN[name][0]
    if name.startswith("site."):
        if not sites:
            raise InputError(f"{name} needs sites where excitation starts.")
        own = tuple(_of_site(name, site) if prior is None else prior for site in sites)
        source = "around Durrer et al. 1970, 10.1161/01.CIR.41.6.899; widths: our choice"
        return Parameter(name, own, tuple(site.name for site in sites), unit, source)
    usual, source = _PRIORS[name]
    if name.startswith("pose."):
        labels = _AXES
    several = name in _SEVERAL or name.startswith("electrode.")
    if several and not labels:
        raise InputError(f"{name} needs labels: which of them are free.")
    if labels and not several and not name.startswith("pose."):
        raise InputError(f"{name} is one number and takes no labels, got {', '.join(labels)}.")
    chosen = usual if prior is None else prior
    source = source if prior is None else "as given"
    return Parameter(name, (chosen,) * max(len(labels), 1), tuple(labels), unit, source)


def _of_site(name: str, site: StartSite) -> Prior:
    if name == "site.onset":
        return Normal(float(site.onset), _ONSET_SD)
    if name == "site.rt":
        return Normal(float(site.rt), _RT_SD)
    low = max(_AB_LOW, float(site.ab) - 2 * _AB_SD)
    return Uniform(low, min(_AB_HIGH, float(site.ab) + 2 * _AB_SD))


def standard_parameters(
    sites: Sequence[StartSite],
    names: Sequence[str] = QRS,
    *,
    labels: dict[str, Sequence[str]] | None = None,
) -> Parameters:
    """Parameters with their usual priors.

    Parameters
    ----------
    sites : sequence of StartSite
        Where excitation starts; empty with a Purkinje tree.
    names : sequence of str
        Which; default those that shape the QRS.
    labels : dict of str to sequence of str, optional
        Of those that need some.

    Returns
    -------
    parameters : Parameters
        In the order of `names`.

    Raises
    ------
    InputError
        As `parameter`.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.calibration import standard_parameters, start_sites
    >>> len(standard_parameters(start_sites(demo_heart())))
    36
    """
    labels = labels or {}
    return Parameters(parameter(n, labels=labels.get(n, ()), sites=sites) for n in names)
