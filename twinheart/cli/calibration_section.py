"""The table [calibration] of the case file, and the settings it stands for."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from twinheart.cli.section import Section, key
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.calibration import Settings

USUAL = "usual"  # in a list of free parameters: those that are free by default
# Parameters of which there are several, none of them by default; an example of their labels.
_LABELLED = {"cv_scale": "[1]", "apd.channel": '["i_kr"]'} | {
    f"electrode.{axis}": '["V1"]' for axis in "xyz"
}
_MOST_PLACES = 200  # of a smooth field: what an ECG tells of is far less


class CalibrationSection(Section):
    """What `twinheart calibrate` fits, to which ECG; `simulate` does not heed it."""

    ecg: str | None = key(None, text="ECG to fit: WFDB, DICOM, HL7 aECG, SCP-ECG, EDF, CSV or NPZ.")
    ecg_rate: float | None = key(
        None, text="Sampling rate, where the file states none.", unit="Hz", gt=0
    )
    ecg_unit: Literal["V", "mV", "uV", "nV", "arbitrary"] | None = key(
        None,
        text="Unit of the voltages, where the file states none; 'arbitrary': amplitude and sign "
        "mean nothing.",
    )
    free: list[str] | None = key(
        None,
        text="Free parameters; 'usual' stands for those that are free by default. Names that "
        "begin with 'apd' belong to the T wave, the others to the QRS.",
    )
    t_wave: bool = key(True, text="Whether repolarisation is fitted to the T wave.")
    sites: int = key(16, text="Sites of early activation.", ge=1, le=200)
    bandwidth: float = key(100.0, text="Of model and data in the QRS.", unit="Hz", ge=1, le=500)
    noise_uv: float | None = key(
        None, text="Standard deviation of the noise; as measured if absent.", unit="uV", gt=0
    )
    discrepancy: float = key(
        0.02, text="What no parameter explains, over the largest amplitude.", ge=0, le=1
    )
    starts: int = key(40, text="Starts that are screened on a coarse heart.", ge=1, le=10_000)
    keep: int = key(3, text="Starts that are fitted from.", ge=1, le=1000)
    coarse_nodes: int = key(4000, text="Nodes of the coarse heart.", ge=100)
    iterations: int = key(25, text="Of the last fit, on the heart itself.", ge=1, le=10_000)
    fast_endocardium: bool = key(
        True, text="Whether the endocardium conducts fast, where there is no Purkinje tree."
    )
    seed: int = key(0, text="Of the starts: same seed, same fit.", ge=0)
    parameters: dict[str, dict[str, Any]] = key(
        {},
        text="Priors and labels of parameters by name, such as [calibration.parameters.cv_l]: "
        "prior = 'normal' with mean and sd, 'lognormal' with median and factor, or 'uniform' with "
        "low and high; labels: regions of cv_scale, channels of apd.channel such as 'i_kr', "
        "electrodes or leads that are free, or one number of places of a field.",
    )


def settings_of(section: CalibrationSection) -> "Settings":
    """Settings that a table stands for.

    Parameters
    ----------
    section : CalibrationSection
        Checked keys.

    Returns
    -------
    Settings
        For `twinheart.calibration.calibrate`.

    Raises
    ------
    InputError
        If a parameter is unknown, a prior makes no sense, or what is described is not free.

    Examples
    --------
    >>> from twinheart.cli.calibration_section import CalibrationSection, settings_of
    >>> table = {"cv_l": {"prior": "normal", "mean": 0.6, "sd": 0.1}}
    >>> settings_of(CalibrationSection(parameters=table, noise_uv=10.0)).priors["cv_l"]
    Normal(mean=0.6, sd=0.1)
    """
    from twinheart.calibration import Settings
    from twinheart.calibration.priors import prior_of

    usual = Settings()
    names = _names(section, (*usual.free, *usual.t_wave))
    free = tuple(name for name in names if not _of_t_wave(name))
    if not free:
        raise InputError("no parameter of the QRS is free: name one, or 'usual'.")
    own = tuple(name for name in names if _of_t_wave(name))
    t_wave = (own or usual.t_wave) if section.t_wave else ()
    if not section.t_wave and (idle := [n for n in section.free or () if _of_t_wave(n)]):
        raise InputError(
            f"{', '.join(idle)} is free, but the T wave, which it belongs to, is not fitted: "
            "remove it from calibration.free, or fit the T wave."
        )
    priors, labels = {}, {}
    for name, table in _by_name(section.parameters):
        _check_known(name)
        if name not in (*free, *t_wave):
            raise InputError(
                f"[calibration.parameters] describes {name}, which is not free: add it to "
                "calibration.free, or remove it."
            )
        rest = {k: v for k, v in table.items() if k != "labels"}
        if "labels" in table:
            labels[name] = _labels(name, table["labels"])
        if rest:
            priors[name] = prior_of(rest, name)
    for name in (*free, *t_wave):
        if name in _LABELLED and name not in labels:
            raise InputError(
                f"{name} is free, but of what is not said: add labels = {_LABELLED[name]} to "
                f"[calibration.parameters.{name}] in a case file."
            )
    return usual._replace(
        sites=section.sites,
        free=free,
        t_wave=t_wave,
        labels=labels,
        priors=priors,
        bandwidth=section.bandwidth,
        noise=None if section.noise_uv is None else section.noise_uv / 1000.0,
        discrepancy=section.discrepancy,
        starts=section.starts,
        keep=section.keep,
        coarse_nodes=section.coarse_nodes,
        iterations=section.iterations,
        fast_endocardium=section.fast_endocardium,
        seed=section.seed,
    )


def _of_t_wave(name: str) -> bool:
    return name == "apd" or name.startswith("apd.")


def _names(section: CalibrationSection, usual: tuple[str, ...]) -> list[str]:
    """Names of free parameters, each once."""
    given = [USUAL] if section.free is None else section.free
    names = [n for name in given for n in (usual if name == USUAL else (name,))]
    for name in names:
        _check_known(name)
    return list(dict.fromkeys(names))


def _check_known(name: str) -> None:
    from twinheart.calibration import KNOWN
    from twinheart.calibration.parameters import unknown_parameter

    if name not in KNOWN:
        raise InputError(unknown_parameter(name, list(KNOWN)))


def _by_name(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Tables by full name: TOML takes the dot in site.onset for a table within a table."""
    for name, table in tables.items():
        full = f"{prefix}{name}"
        own = {k: v for k, v in table.items() if not isinstance(v, dict)}
        inner = {k: v for k, v in table.items() if isinstance(v, dict)}
        if own or not inner:
            yield full, own
        yield from _by_name(inner, f"{full}.")


def _labels(name: str, value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str | int) for item in items):
        raise InputError(
            f"labels of parameter {name} are {value!r}, expected a list of names or numbers."
        )
    found = tuple(str(item) for item in items)
    if name.endswith("field"):
        if len(found) != 1 or not found[0].isdecimal() or not 0 < int(found[0]) <= _MOST_PLACES:
            raise InputError(
                f"labels of parameter {name} are {value!r}, expected one number of places, 1 to "
                f"{_MOST_PLACES}."
            )
    elif name not in _LABELLED and name != "gain.lead":
        raise InputError(f"parameter {name} takes no labels, got {', '.join(found)}: remove them.")
    return found
