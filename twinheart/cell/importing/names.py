"""Names of an imported model: those of the library where recognisable, else the file's own."""

import keyword
import re
from collections.abc import Callable, Iterable

# Currents by their names in files, lower case without underscores, after a leading "i".
_CURRENTS = {
    "na": "i_na",
    "nafast": "i_na",
    "nal": "i_nal",
    "nalate": "i_nal",
    "to": "i_to",
    "to1": "i_to",
    "t": "i_to",
    "cal": "i_cal",
    "ca": "i_cal",
    "si": "i_cal",
    "s": "i_cal",
    "kr": "i_kr",
    "ks": "i_ks",
    "k1": "i_k1",
    "kur": "i_kur",
    "kb": "i_kb",
    "bk": "i_kb",
    "naca": "i_naca",
    "ncx": "i_naca",
    "nak": "i_nak",
    "nab": "i_bna",
    "bna": "i_bna",
    "cab": "i_bca",
    "bca": "i_bca",
    "pca": "i_pca",
    "cap": "i_pca",
    "pk": "i_pk",
    "kp": "i_pk",
    "f": "i_f",
    "sus": "i_sus",
    "clca": "i_cl_ca",
    "clb": "i_cl_b",
    "kca": "i_kca",
}
# Names that mean a current only in a component that says so.
_ONLY_IN = {
    "t": "outward",
    "ca": "l_?type|ical?$",
    "si": "",
    "s": "slow",
    "cap": "pump",
    "to1": "",
}
_FLUXES = {"up": "j_up", "rel": "j_rel", "leak": "j_leak"}
# Oxford metadata terms of states and constants.
_TERMS = {
    "cytosolic_calcium_concentration": "ca_i",
    "cytosolic_sodium_concentration": "na_i",
    "cytosolic_potassium_concentration": "k_i",
    "cytosolic_chloride_concentration": "cl_i",
    "extracellular_calcium_concentration": "ca_o",
    "extracellular_sodium_concentration": "na_o",
    "extracellular_potassium_concentration": "k_o",
    "extracellular_chloride_concentration": "cl_o",
    "SR_calcium_concentration": "ca_sr",
    "JSR_calcium_concentration": "ca_jsr",
    "NSR_calcium_concentration": "ca_nsr",
    "dyadic_space_calcium_concentration": "ca_ss",
    "membrane_capacitance": "capacitance",
    "membrane_fast_sodium_current_conductance": "g_na",
    "membrane_L_type_calcium_current_conductance": "g_cal",
    "membrane_rapid_delayed_rectifier_potassium_current_conductance": "g_kr",
    "membrane_slow_delayed_rectifier_potassium_current_conductance": "g_ks",
    "membrane_inward_rectifier_potassium_current_conductance": "g_k1",
    "membrane_transient_outward_current_conductance": "g_to",
}
_ION = re.compile(r"^(na|ca|k|cl)_?(i|o|ss|sr|jsr|nsr|d|c)$")
# Names of constants that say nothing without their component.
GENERIC = re.compile(r"^([a-z]\d*|[gip]?_?(bar|max)|alpha|beta|gamma|delta|eta|scale)$")
# Constants of nature: name, value, relative tolerance, scales of the units in use.
_CONSTANTS = {
    "f": ("faraday", 96485.0, 1e-3, (1.0, 1e-3)),
    "r": ("gas_constant", 8.314, 1e-3, (1.0, 1e3)),
    "t": ("temperature", 305.0, 0.08, (1.0,)),
}


def current_name(name: str) -> str:
    """Name of a current: ``"i_na"`` for ``fast_sodium_current.i_Na`` or ``ina.INa``."""
    component, short = _parts(name)
    bare = short.lower().replace("_", "")
    symbol = bare[1:] if bare[:1] == "i" and len(bare) > 1 else bare
    if symbol in _CURRENTS and re.search(_ONLY_IN.get(symbol, ""), component, re.I):
        return _CURRENTS[symbol]
    own = snake(short)
    if own.startswith("i_"):
        return own
    return "i_" + (own[1:].lstrip("_") if bare[:1] == "i" and len(own) > 1 else own)


def is_standard(name: str) -> bool:
    """Whether a current of the file has a name of the library."""
    return current_name(name) in _CURRENTS.values()


def flux_name(name: str) -> str | None:
    """Name of a flux of the sarcoplasmic reticulum, None for any other variable."""
    bare = _parts(name)[1].lower().replace("_", "")
    return _FLUXES.get(bare[1:]) if bare[:1] in ("i", "j") else None


def conductance_rank(name: str, terms: tuple[str, ...]) -> int:
    """How much a constant looks like the strength of a current; smaller is more."""
    short = _parts(name)[1]
    if any(t.endswith("conductance") for t in terms):
        return 0
    for rank, pattern in enumerate((r"^g", r"^p", r"(max|bar)", r"^[kv]"), start=1):
        if re.search(pattern, short, re.I):
            return rank
    return 9


def field_name(name: str, terms: tuple[str, ...], value: float | None = None) -> str:
    """Wanted name of a state, or of a constant of this value."""
    for term in terms:
        if term in _TERMS:
            return _TERMS[term]
    short = snake(_parts(name)[1])
    if value is not None and short in _CONSTANTS:
        word, typical, tolerance, scales = _CONSTANTS[short]
        if any(abs(value / (typical * scale) - 1) < tolerance for scale in scales):
            return word
    ion = _ION.match(short)
    return f"{ion[1]}_{ion[2]}" if ion else short


def snake(name: str) -> str:
    """An identifier in lower case: ASCII letters, digits and single underscores."""
    text = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return re.sub(r"_+", "_", text).strip("_").lower() or "x"


def _parts(name: str) -> tuple[str, str]:
    component, _, short = name.partition(".")
    return component, name.rpartition(".")[2] if short else name


def identifier(name: str) -> str:
    """An identifier that keeps its case: of ``component.variable.nested`` the last two joined."""
    parts = name.split(".")[1:] or [name]
    text = "_".join(reversed(parts))
    return re.sub(r"_+", "_", re.sub(r"[^0-9A-Za-z_]", "_", text)).strip("_") or "x"


def unique(
    names: Iterable[str],
    short: Callable[[str], str],
    taken: Iterable[str] = (),
    generic: re.Pattern = re.compile("(?!)"),
) -> dict[str, str]:
    """A name for each variable: short where no two want it, else with its component before it.

    Parameters
    ----------
    names : iterable of str
        Full names, ``component.variable``.
    short : callable
        Short name of a variable; an identifier.
    taken : iterable of str
        Names that cannot be used.
    generic : re.Pattern
        Short names that say too little.

    Returns
    -------
    dict
        Name of each.
    """
    names = list(names)
    used = {*taken, *keyword.kwlist, *keyword.softkwlist}
    wanted = {n: short(n) for n in names}
    found = {}
    for n in names:
        candidate = wanted[n]
        unclear = candidate in used or not candidate[:1].isalpha() or generic.match(candidate)
        if unclear or _shared(candidate, wanted, n):
            component = re.sub(r"[^0-9A-Za-z_]", "_", n.split(".")[0]).strip("_") or "x"
            component = component if component[0].isalpha() else f"x{component}"
            lower = candidate == candidate.lower()
            candidate = f"{component.lower() if lower else component}_{candidate}"
        base, k = candidate, 2
        while candidate in used:
            candidate, k = f"{base}_{k}", k + 1
        used.add(candidate)
        found[n] = candidate
    return found


def _shared(candidate: str, wanted: dict[str, str], n: str) -> bool:
    return any(w == candidate and m != n for m, w in wanted.items())
